/**
 * The port of the intent journal's file: what the journal (actors/pool/intent_journal.ts) needs of the world. Every call is
 * synchronous. A file of this host has it, and so does a simulated one.
 *
 * What `write` has answered "ok" for is read after the process has died, by whichever process opens the pool next on the same
 * boot of the host. It is not durable: after a power cut any part of it may be there, and then the boot id differs.
 */
import type { IoResult } from "./port.ts";

/** See the head of this file. */
export interface IntentPort {
  /** Writes the whole buffer at once. */
  write(bytes: Uint8Array, offsetBytes: number): IoResult;
  /** Removes the file, so that no later process finds it. Called when it cannot be marked void. */
  remove(): IoResult;
  /** 64 random bits, not all zero: the generation of a segment. */
  newGeneration(): bigint;
}

/**
 * What a file of intents belongs to. Each is ASCII text, and two that are the same are equal texts; an empty one never fits.
 */
export interface IntentBinding {
  /** Of this boot of the host: another one means that the page cache was lost. At most 40 characters. */
  readonly bootId: string;
  /** Identities of the devices and of the file itself. At most 64 characters each. */
  readonly data: string;
  readonly metadata: string;
  readonly file: string;
}
