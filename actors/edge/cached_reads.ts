/**
 * Reads that do not wait for a disk on this thread: what the host has in its page cache is read at once, the rest on another
 * thread.
 *
 * A block that is not cached takes a disk 0.1 ms, and tens of milliseconds if the disk is busy (185 ms behind the write-back
 * of a commit). This thread serves all clients: all would wait.
 */
import fs from "node:fs";
import { codeOf } from "./file_errors.ts";
import type { FileCalls } from "./file_calls.ts";
import { callOutside } from "./outside.ts";
import { fromLibc, libraryName } from "./libc_symbols.ts";

interface ReadCalls {
  preadv2(fd: number, vectors: Uint8Array, count: number, offset: bigint, flags: number): bigint;
  pread(fd: number, buffer: Uint8Array, length: bigint, offset: bigint): Promise<bigint>;
}

/** From linux/fs.h: fail instead of waiting for a disk. */
const noWait = 0x08;

const calls = fromLibc<ReadCalls>(() =>
  Deno.dlopen(libraryName, {
    preadv2: { parameters: ["i32", "buffer", "i32", "i64", "i32"], result: "i64" },
    pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "i64", nonblocking: true },
  }).symbols as ReadCalls
);

/**
 * How a read on another thread ended: all was read, the file ends before, or it failed. The errno stays with that thread. It
 * is not read again on this one to get it: a disk may take seconds to fail a read.
 */
export type ReadEnd = "filled" | "past end" | "failed";

/** Reads one file. Its descriptor must stay open until the last read has been answered. */
export class CachedReads {
  readonly #fd: number;
  /** One struct iovec: where to, and how many bytes. */
  readonly #vector = new BigUint64Array(2);
  readonly #vectorBytes = new Uint8Array(this.#vector.buffer);

  /** Whether the file system offers reads that do not wait. */
  #canRefuse = true;

  readonly #calls: FileCalls | undefined;

  private constructor(fd: number, calls: FileCalls | undefined) {
    this.#fd = fd;
    this.#calls = calls;
  }

  /**
   * Undefined where the library does not offer it, or a local file system (tmpfs, which needs it least). On one that is not
   * (disk_calm.ts) everything is then read on another thread.
   */
  static of(fd: number, isLocal = true, later?: FileCalls): CachedReads | undefined {
    if (calls === undefined) return undefined;
    const reads = new CachedReads(fd, later);
    const byte = new Uint8Array(1);
    try {
      // The byte is in the page cache now. A file system that refuses to read it from there does not know what is cached.
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

  /** True if all of it was in the page cache: the buffer is filled. */
  readNow(buffer: Uint8Array, offsetBytes: number): boolean {
    if (!this.#canRefuse) return false;
    this.#vector[0] = Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer as Uint8Array<ArrayBuffer>));
    this.#vector[1] = BigInt(buffer.length);
    const count = calls!.preadv2(this.#fd, this.#vectorBytes, 1, BigInt(offsetBytes), noWait);
    return Number(count) === buffer.length;
  }

  /** Fills the buffer on another thread. `done` is called later. */
  readLater(buffer: Uint8Array, offsetBytes: number, done: (end: ReadEnd) => void, isAgain = false): void {
    const ended = (count: number) => {
      if (count === buffer.length) done("filled");
      else if (count === 0) done("past end");
      else if (count > 0) this.readLater(buffer.subarray(count), offsetBytes + count, done);
      // Once more: a signal may have interrupted it.
      else if (!isAgain) this.readLater(buffer, offsetBytes, done, true);
      else done("failed");
    };
    if (this.#calls !== undefined) return this.#calls.read(this.#fd, buffer, offsetBytes, ended);
    callOutside(
      () => calls!.pread(this.#fd, buffer, BigInt(buffer.length), BigInt(offsetBytes)),
      (count) => ended(Number(count)),
      () => ended(-1),
    );
  }
}
