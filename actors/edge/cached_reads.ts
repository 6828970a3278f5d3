/**
 * Reads that do not wait for a disk: at once what the host has in its page cache, and on another thread what it has not.
 *
 * One cold block takes a disk a tenth of a millisecond, and tens of them where it is busy (a read that waited behind the
 * write-back of a commit took 185 ms): on the thread that serves everybody nobody would be served meanwhile.
 */
import fs from "node:fs";
import { codeOf } from "./file_errors.ts";
import { callOutside } from "./outside.ts";
import { fromLibc, libraryName } from "./libc_symbols.ts";

interface Calls {
  preadv2(fd: number, vectors: Uint8Array, count: number, offset: bigint, flags: number): bigint;
  pread(fd: number, buffer: Uint8Array, length: bigint, offset: bigint): Promise<bigint>;
}

/** From linux/fs.h: fail instead of waiting for a disk. */
const noWait = 0x08;

const calls = fromLibc<Calls>(() =>
  Deno.dlopen(libraryName, {
    preadv2: { parameters: ["i32", "buffer", "i32", "i64", "i32"], result: "i64" },
    pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "i64", nonblocking: true },
  }).symbols as Calls
);

/**
 * How a read on another thread ended: all is there, the file ends before, or it failed. Why it failed was told to that thread
 * alone. It is not asked again on this one: a disk that fails a read may take seconds for it.
 */
export type ReadEnd = "filled" | "past end" | "failed";

/** Reads one file, whose descriptor stays open until the last of them has come back. */
export class CachedReads {
  readonly #fd: number;
  /** One struct iovec: where to, and how many bytes. */
  readonly #vector = new BigUint64Array(2);
  readonly #vectorBytes = new Uint8Array(this.#vector.buffer);

  /** Whether the file system offers reads that do not wait. */
  #canRefuse = true;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * Undefined where the library does not offer it, or a local file system (tmpfs, which needs it least). On one that is not
   * (disk_calm.ts) everything is then read on another thread.
   */
  static of(fd: number, isLocal = true): CachedReads | undefined {
    if (calls === undefined) return undefined;
    const reads = new CachedReads(fd);
    const byte = new Uint8Array(1);
    try {
      // Now it is in the page cache: whoever says that it is not cannot tell.
      fs.readSync(fd, byte, 0, 1, 0);
    } catch (error) {
      if (codeOf(error) === undefined) throw error;
      // A bad sector there. The rest of the file can be read, on another thread, since nothing is known of the file system.
      reads.#canRefuse = false;
      return reads;
    }
    if (reads.readNow(byte, 0)) return reads;
    reads.#canRefuse = false;
    return isLocal ? undefined : reads;
  }

  /** Whether all of it was there, and the buffer is filled. */
  readNow(buffer: Uint8Array, offsetBytes: number): boolean {
    if (!this.#canRefuse) return false;
    this.#vector[0] = Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer as Uint8Array<ArrayBuffer>));
    this.#vector[1] = BigInt(buffer.length);
    const count = calls!.preadv2(this.#fd, this.#vectorBytes, 1, BigInt(offsetBytes), noWait);
    return Number(count) === buffer.length;
  }

  /** Fills the buffer on another thread; `done` hears, later, how that ended. */
  readLater(buffer: Uint8Array, offsetBytes: number, done: (end: ReadEnd) => void, isAgain = false): void {
    const ended = (count: number) => {
      if (count === buffer.length) done("filled");
      else if (count === 0) done("past end");
      else if (count > 0) this.readLater(buffer.subarray(count), offsetBytes + count, done);
      // Once more: it may have been interrupted by a signal.
      else if (!isAgain) this.readLater(buffer, offsetBytes, done, true);
      else done("failed");
    };
    callOutside(
      () => calls!.pread(this.#fd, buffer, BigInt(buffer.length), BigInt(offsetBytes)),
      (count) => ended(Number(count)),
      () => ended(-1),
    );
  }
}
