/**
 * The block device port: the interface of every device (a file, memory, a simulated disk).
 *
 * Each operation is a method. It either completes at once and returns its {@linkcode IoResult}, or returns "pending"
 * and calls
 * `done` exactly once later, never before it returns. A file in the page cache completes at once; a flush or a simulated disk
 * does not. A buffer belongs to the device from the call until the result.
 */

/**
 * "ok", or why the operation failed, in words for the log. `noSpace` is ENOSPC of the host, and is ENOSPC for clients
 * too.
 */
export type IoResult =
  | { readonly kind: "ok" }
  | { readonly kind: "noSpace" }
  | {
    readonly kind: "ioError";
    readonly reason: string;
    /** Of a copy: whether reading its source failed. Absent if that is not known. */
    readonly isOfSource?: boolean;
  };

/** The result "ok". One object, so that an operation allocates none. */
export const ioOk: IoResult = { kind: "ok" };

/** Why an operation failed, as words to follow a colon. */
export function reasonOfIo(result: Exclude<IoResult, { readonly kind: "ok" }>): string {
  return result.kind === "noSpace" ? "no space is left on the host" : result.reason;
}

/**
 * A mapped segment: bytes of a device in the host's page cache, which can be sent without a copy.
 *
 * It is valid until the next turn of the event loop. Until then it may show a later write to the same block. That write
 * is concurrent with the read, which has not been answered yet. The block cannot be allocated for other data in this
 * time: a freed block is allocated again only after a commit is durable, and the flush of a commit is answered in a
 * later turn.
 */
export interface MappedSegment {
  readonly lengthBytes: number;
  /** The drain of the kernel in which it was made; set by the device's actor. */
  drain: number;
  /**
   * Where the bytes are in the process's memory; 0 if only `copyTo` reaches them. Only the system's calls may touch it.
   */
  readonly address: number;
  /** Copies the bytes from `beginBytes` on, as many as the buffer has. */
  copyTo(buffer: Uint8Array, beginBytes: number): IoResult;
}

/** Is called once with the result of a pending operation. */
export type IoDone = (result: IoResult) => void;

/** A block device: see the head of this file. */
export interface DevicePort {
  /** Bytes of the whole device now. It may grow while it is open, and never shrinks. */
  readonly sizeBytes: number;
  /** True if {@linkcode discard} frees space on the host, and discarded ranges read as zeroes. */
  readonly canDiscard: boolean;
  /** Fills the buffer from `offsetBytes`. A read past the end is an ioError. */
  read(buffer: Uint8Array, offsetBytes: number, done: IoDone): IoResult | "pending";
  /** The bytes at `offsetBytes` without reading them; undefined if they are not in memory, and have to be read. */
  mapSegment?(offsetBytes: number, lengthBytes: number): MappedSegment | undefined;
  /** Writes the whole buffer at `offsetBytes`. It is not durable before a flush. */
  write(buffer: Uint8Array, offsetBytes: number, done: IoDone): IoResult | "pending";
  /** Makes the range read as zeroes: discards it if {@linkcode canDiscard}, else writes zeroes. */
  zero(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending";
  /** Copies a range inside the device. */
  copy(fromBytes: number, toBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending";
  /** Frees the range on the host (punch hole). Only called if {@linkcode canDiscard}. */
  discard(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending";
  /** True if the range is known to read as zeroes because it is a hole on the host. */
  isHole(offsetBytes: number, lengthBytes: number): boolean;
  /**
   * Makes every write that was answered before this call durable. With `isAlone` only one client waits for it, so no
   * other flush could run at the same time, and the device may block the thread until it is done. If a write is lost,
   * each flush that began after that write fails, also when several run at the same time.
   */
  flush(done: IoDone, isAlone?: boolean): IoResult | "pending";
}
