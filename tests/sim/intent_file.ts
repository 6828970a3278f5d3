/** The file of the intent journal in a simulated run: it outlives the process, and a power cut damages it. */
import type { IntentBinding, IntentPort } from "../../storage/device/intent_port.ts";
import { ioOk, type IoResult } from "../../storage/device/port.ts";
import { intentHeaderBytes } from "../../storage/intent_headers.ts";
import { intentFileBytes } from "../../storage/intent_read.ts";
import type { Random } from "../support/world.ts";
import type { DeviceWorld } from "./devices.ts";

/** What a life finds of the journal. */
export interface IntentsLeft {
  /** Empty if there is no file. */
  readonly bytes: Uint8Array;
  readonly bootId: string;
}

/** Devices and file of a run have one identity each; only the boot changes. */
export function bindingOf(bootId: string): IntentBinding {
  return { bootId, data: "1 2", metadata: "1 3", file: "1 4" };
}

/** The file of one life. Its bytes are its own. */
export class IntentFile implements IntentPort {
  /** Empty once it is removed. */
  bytes: Uint8Array;
  readonly #world: DeviceWorld;
  /** The schedule's, another one from action to action. */
  readonly #chances: { readonly random: Random };

  constructor(
    left: IntentsLeft,
    segmentBytes: number,
    world: DeviceWorld,
    chances: { readonly random: Random },
  ) {
    const sizeBytes = intentFileBytes(segmentBytes);
    this.bytes = left.bytes.length === sizeBytes ? left.bytes.slice() : new Uint8Array(sizeBytes);
    this.#world = world;
    this.#chances = chances;
  }

  write(bytes: Uint8Array, offsetBytes: number): IoResult {
    const { fuse, faults, host, note } = this.#world;
    if (fuse.isBlown) return ioOk;
    // No process is killed between a flush that failed and what makes the journal void: that may show what was lost.
    const isVoid = offsetBytes === 0 && faults.hasFailedFlush;
    if (!fuse.admit() && !isVoid) {
      this.#writePart(bytes, offsetBytes);
      return ioOk;
    }
    note("intents", "write");
    faults.kind = "write";
    const failure = host.refuses("intents") ? { kind: "noSpace" } as const : faults.next("intents");
    if (failure !== undefined) {
      this.#writePart(bytes, offsetBytes);
      return failure;
    }
    this.#set(bytes, offsetBytes);
    return ioOk;
  }

  remove(): IoResult {
    if (!this.#world.fuse.admit()) return ioOk;
    this.bytes = new Uint8Array(0);
    return ioOk;
  }

  newGeneration(): bigint {
    const { random } = this.#chances;
    return BigInt(1 + random.below(2 ** 31)) << 32n | BigInt(random.below(2 ** 32));
  }

  /** The process ends in the midst of a write, or the host is full: pages before some point are written, others not. */
  #writePart(bytes: Uint8Array, offsetBytes: number): void {
    const isHeader = bytes.length === intentHeaderBytes;
    const part = this.#chances.random.below(bytes.length + 1);
    this.#set(bytes.subarray(0, isHeader ? part % 2 * bytes.length : part), offsetBytes);
  }

  /** A removed file takes writes, and none of them is found again. */
  #set(bytes: Uint8Array, offsetBytes: number): void {
    if (this.bytes.length > 0) this.bytes.set(bytes, offsetBytes);
  }
}

/** What a power cut leaves of the file: all, nothing, or any pages of it. The host starts anew. */
export function cutIntents(bytes: Uint8Array, boots: number, random: Random): IntentsLeft {
  const left = bytes.slice();
  const style = random.below(3);
  if (style === 0) left.fill(0);
  for (let at = 0; style === 1 && at < left.length; at += 512) {
    if (random.below(2) === 0) left.fill(0, at, at + 512);
  }
  return { bytes: left, bootId: `boot ${boots}` };
}
