/**
 * A range of a file that is known to be a hole, so that a run of fresh blocks costs one call of the host. It is a hole until
 * this process writes there: the pool's lock keeps other programs out, and every write is told here.
 */
import { assert } from "../../storage/base/assert.ts";
import type { Handles } from "./file_handles.ts";
import type { Libc } from "./libc.ts";

export class KnownHole {
  readonly #fd: number;
  #sizeBytes: number;
  /** Undefined without the C library, and for a block device, which tells of no holes. */
  readonly #libc: Libc | undefined;
  #beginBytes = 0;
  #endBytes = 0;

  constructor({ fd, sizeBytes, isBlockDevice }: Handles, libc: Libc | undefined) {
    this.#fd = fd;
    this.#sizeBytes = sizeBytes;
    this.#libc = isBlockDevice ? undefined : libc;
  }

  /** Whether a range is known to be a hole; if `mayAsk`, the host is asked. False if it is not known. */
  has(offsetBytes: number, lengthBytes: number, mayAsk: boolean): boolean {
    const endBytes = offsetBytes + lengthBytes;
    if (offsetBytes >= this.#beginBytes && endBytes <= this.#endBytes) return true;
    if (this.#libc === undefined || !mayAsk) return false;
    const data = this.#libc.seekData(this.#fd, offsetBytes);
    this.#beginBytes = offsetBytes;
    this.#endBytes = data === -1 ? this.#sizeBytes : data;
    return endBytes <= this.#endBytes;
  }

  /** The file has become larger. What is known of it stays right. */
  grown(sizeBytes: number): void {
    assert(sizeBytes >= this.#sizeBytes, "a file that has grown is shorter");
    this.#sizeBytes = sizeBytes;
  }

  /** Whether the host says that nothing is stored in a range, and something after it. */
  isBeforeData(offsetBytes: number, lengthBytes: number): boolean {
    if (this.#libc === undefined) return false;
    return this.#libc.seekData(this.#fd, offsetBytes) >= offsetBytes + lengthBytes;
  }

  /** A range is written. What lies below it is forgotten too: blocks are used in ascending order. */
  forget(offsetBytes: number, lengthBytes: number): void {
    const endBytes = offsetBytes + lengthBytes;
    if (offsetBytes < this.#endBytes && endBytes > this.#beginBytes) this.#beginBytes = endBytes;
  }
}
