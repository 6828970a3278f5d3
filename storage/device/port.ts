/**
 * The block device port: the interface of every device (a file, memory, a simulated disk).
 *
 * One method per operation. It either finishes at once and returns its {@linkcode IoResult}, or returns
 * "pending" and calls `done` exactly once later, never from inside the call itself. A page-cached file answers
 * at once; a flush, or a simulated disk, does not.
 * A buffer belongs to the device from the call until the result.
 */

/** "ok", or what went wrong in words for the log (`noSpace` is the host's ENOSPC, which clients see as such). */
export type IoResult =
  | { readonly kind: "ok" }
  | { readonly kind: "noSpace" }
  | {
    readonly kind: "ioError";
    readonly reason: string;
    /** Of a copy: reading what was to be copied failed. Left out where that is not known. */
    readonly isOfSource?: boolean;
  };

/** The result "ok". One object, so that an operation allocates none. */
export const ioOk: IoResult = { kind: "ok" };

/** Why an operation did not end well, as words to follow a colon. */
export function reasonOfIo(result: Exclude<IoResult, { readonly kind: "ok" }>): string {
  return result.kind === "noSpace" ? "no space is left on the host" : result.reason;
}

/**
 * Bytes of a device where they lie in the memory of the host, to be sent without being copied first.
 *
 * A view is good until the event loop's next turn. Until then a later write to the same block may show in it, which is
 * concurrent with the read as that has not been answered; but the block cannot become another one's: it is used again
 * only after a commit that became durable, and the metadata device answers a flush in a later turn.
 */
export interface MappedSegment {
  readonly lengthBytes: number;
  /** The drain of the kernel in which it was made; set by the device's actor. */
  drain: number;
  /** Where the bytes are in the process's memory; 0 if only `copyTo` reaches them. Only the system's calls may touch it. */
  readonly address: number;
  /** Copies the bytes from `beginBytes` on, as many as the buffer has. */
  copyTo(buffer: Uint8Array, beginBytes: number): IoResult;
}

/** Called once with the result of a pending operation. */
export type IoDone = (result: IoResult) => void;

/** A block device. An operation answers at once, or returns "pending" and calls `done` later, never before it returns. */
export interface DevicePort {
  /** Whole device, bytes. */
  readonly sizeBytes: number;
  /** True if {@linkcode discard} gives space back and discarded ranges read as zeroes. */
  readonly canDiscard: boolean;
  /** Fills the buffer from `offsetBytes`; reading past the end is an ioError. */
  read(buffer: Uint8Array, offsetBytes: number, done: IoDone): IoResult | "pending";
  /** The bytes at `offsetBytes` without reading them; undefined if they are not in memory, and have to be read. */
  mapSegment?(offsetBytes: number, lengthBytes: number): MappedSegment | undefined;
  /** Writes the whole buffer at `offsetBytes`; not durable before a flush. */
  write(buffer: Uint8Array, offsetBytes: number, done: IoDone): IoResult | "pending";
  /** Makes the range read as zeroes, giving space back if {@linkcode canDiscard}, else by writing zeroes. */
  zero(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending";
  /** Copies a range inside the device. */
  copy(fromBytes: number, toBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending";
  /** Gives the range back to the host (punch hole). Only called if {@linkcode canDiscard}. */
  discard(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending";
  /** True if the range is known to read as zeroes because the host stores nothing there. */
  isHole(offsetBytes: number, lengthBytes: number): boolean;
  /**
   * Makes every write answered before this call durable. A device may wait for it where it is, if one client waits for it
   * alone: then there is no other flush under way that might run beside it. Flushes beside each other each fail if something
   * is lost that was written before them.
   */
  flush(done: IoDone, isAlone?: boolean): IoResult | "pending";
}
