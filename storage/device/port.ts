/**
 * The block device port: what a device must do for us, whoever it is (a file, memory, a simulated disk).
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
  | { readonly kind: "ioError"; readonly reason: string };

/** The one "ok", so that nobody allocates it per operation. */
export const ioOk: IoResult = { kind: "ok" };

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
  /** Makes every write answered before this call durable. */
  flush(done: IoDone): IoResult | "pending";
}
