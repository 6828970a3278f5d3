/**
 * The block device port: the interface of every device (a file, memory, a simulated disk).
 *
 * Each operation returns its result at once, or "pending" and then calls `done` exactly once, later. The result is an
 * {@linkcode IoResult}; that of a read may be a {@linkcode MappedSegment} instead, if it is returned at once and the target takes
 * one. A file in the page cache has its result at once, a simulated disk later. A buffer belongs to the device from the call
 * until the result.
 *
 * A range that lies past the end of the device, or a part of it, is an ioError, whatever the operation: nothing is done then,
 * and the device does not grow.
 */
import { assert } from "../base/assert.ts";

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
 * A mapped segment: what a read found, where it lies in the host's page cache. It can be sent without a copy.
 *
 * It is valid in the drain (of the actors' kernel) in which it was made (invariant I1 of actors/ARCHITECTURE.md). Until the end of that
 * drain it may show a later write to the same block. That write is concurrent with the read, which has not been answered yet.
 * The block cannot be allocated for other data in this drain: a freed block is allocated again only after a commit is durable,
 * and the metadata device answers the flush of a commit in a later turn of the event loop, hence in a later drain.
 */
export interface MappedSegment {
  readonly kind: "mapped";
  readonly lengthBytes: number;
  /** The drain of the actors' kernel in which it was made; set by the device's actor. */
  drain: number;
  /**
   * Where the bytes are in the process's memory; 0 if only `copyTo` reaches them. Only the system's calls may touch it.
   */
  readonly address: number;
  /** Copies the bytes from `beginBytes` on, as many as the buffer has. */
  copyTo(buffer: Uint8Array, beginBytes: number): IoResult;
  /**
   * Keeps it valid beyond the drain, until what this answers is called, which may be repeated. Before its bytes change, `copyNow`
   * is called: it copies them and gives up the hold. Undefined if the device keeps none, or too many already; absent if it never does.
   */
  hold?(copyNow: () => void): (() => void) | undefined;
}

/**
 * Where a read puts what it finds. It belongs to the device from the call of {@linkcode DevicePort.read} until the result,
 * and has one read at a time.
 */
export interface ReadTarget {
  /** Bytes to read. */
  readonly lengthBytes: number;
  /** Whether the reader can use a mapped segment in place of memory. */
  readonly takesMapped: boolean;
  /**
   * Memory of `lengthBytes` to read into, the same each time. Called before `read` returns, and only by a device that has to
   * read into memory: for a mapped segment the reader makes no memory at all.
   */
  memory(): Uint8Array;
}

/** Memory that is there already, as a target that takes no mapped segment. */
class MemoryTarget implements ReadTarget {
  readonly takesMapped = false;
  readonly #buffer: Uint8Array;

  constructor(buffer: Uint8Array) {
    this.#buffer = buffer;
  }

  get lengthBytes(): number {
    return this.#buffer.length;
  }

  memory(): Uint8Array {
    return this.#buffer;
  }
}

/** A target that fills the whole buffer. */
export function into(buffer: Uint8Array): ReadTarget {
  return new MemoryTarget(buffer);
}

/**
 * What a read found. "ok": the bytes are in the memory of its target. A mapped segment: the bytes are in the segment, and
 * the target was asked for no memory. Otherwise why it failed.
 */
export type ReadResult = IoResult | MappedSegment;

/** The result of a read whose target takes no mapped segment. */
export function filled(result: ReadResult): IoResult {
  assert(result.kind !== "mapped", "a segment was mapped for a reader that takes none");
  return result;
}

/** Fills a buffer from a device. */
export function readInto(
  device: Pick<DevicePort, "read">,
  buffer: Uint8Array,
  offsetBytes: number,
  done: IoDone,
): IoResult | "pending" {
  const result = device.read(into(buffer), offsetBytes, done);
  return result === "pending" ? result : filled(result);
}

/** Is called once with the result of a pending operation. */
export type IoDone = (result: IoResult) => void;

/**
 * Is called once with the result of a pending read, and its target. So a reader needs one such function for all its reads.
 * It gets no mapped segment: the drain in which that would be valid may end before the reader sees it.
 */
export type ReadDone = (result: IoResult, target: ReadTarget) => void;

/**
 * A block device: see the head of this file. It may be slow or remote, and may fail and come back: an operation that failed
 * may succeed when it is tried again.
 */
export interface DevicePort {
  /** Bytes of the whole device now. It may grow while it is open, and never shrinks. */
  readonly sizeBytes: number;
  /** What only a device can do whose bytes this host stores; undefined for any other device. */
  readonly local: LocalStorage | undefined;
  /** Reads as many bytes as the target has, from `offsetBytes` on. */
  read(target: ReadTarget, offsetBytes: number, done: ReadDone): ReadResult | "pending";
  /**
   * Reads if that need not wait, as where the host has the bytes in its page cache; a device that never reads on another thread
   * waits here too. Undefined if it would have to wait. Then nothing is under way, and the caller may ask {@linkcode read}, which
   * asks the target for its memory again. Absent where every read waits.
   */
  readAtOnce?(target: ReadTarget, offsetBytes: number): ReadResult | undefined;
  /** Writes in the same way. Where that answers undefined or fails, a part may have been written. */
  writeAtOnce?(buffer: Uint8Array, offsetBytes: number): IoResult | undefined;
  /** Writes the whole buffer at `offsetBytes`. It is not durable before a flush. */
  write(buffer: Uint8Array, offsetBytes: number, done: IoDone): IoResult | "pending";
  /** Makes the range read as zeroes, by whatever is fastest on this device. */
  zero(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending";
  /** Copies a range inside the device to another one that does not overlap it. */
  copy(fromBytes: number, toBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending";
  /**
   * Makes every write that was answered before this call durable. With `isAlone` only one client waits for it, so no
   * other flush could run at the same time, and the device may block the thread until it is done. If a write is lost,
   * each flush that began after that write fails, also when several run at the same time.
   */
  flush(done: IoDone, isAlone?: boolean): IoResult | "pending";
  /**
   * Makes the device at least so large, while it is in use, and makes that durable; with `isStored` so that no write to it
   * meets a full host. {@linkcode sizeBytes} then is what it has, which may be more. A refusal leaves the device as it was.
   * Absent if it cannot grow by itself: its owner makes it larger in another way.
   */
  grow?(sizeBytes: number, isStored: boolean, done: IoDone): IoResult | "pending";
}

/** The holes of a device that this host stores, as a file or on a disk of its own. */
export interface LocalStorage {
  /** True if {@linkcode discard} frees space on the host, and discarded ranges read as zeroes. It may become false. */
  readonly canDiscard: boolean;
  /** Frees the range on the host (punch hole). Only called if {@linkcode canDiscard} was true at the start. */
  discard(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending";
  /** True if the range is known to read as zeroes because it is a hole on the host. Answers at once. */
  isHole(offsetBytes: number, lengthBytes: number): boolean;
}
