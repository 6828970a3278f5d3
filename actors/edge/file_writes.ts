/** The writes of one file: on this thread if they do not wait for the disk, else on another (disk_calm.ts decides). */
import fs from "node:fs";
import { type IoDone, ioOk, type IoResult } from "../../storage/device/port.ts";
import { assert, present } from "../../storage/base/assert.ts";
import { BoundedCalls } from "./bounded_calls.ts";
import type { CachedReads } from "./cached_reads.ts";
import type { DiskCalm } from "./disk_calm.ts";
import type { FileCalls, LaterCalls } from "./file_calls.ts";
import { codeOf, failureOf, failureOfErrno } from "./file_errors.ts";
import { fileWritePieceBytes, threadWaitMsMax } from "../limits.ts";
import { queues } from "../queues.ts";
import { errno } from "./libc.ts";
import { UnwaitingWrites } from "./unwaiting_writes.ts";

const pageBytes = 4096;

/** One write on its way. */
interface Write {
  buffer: Uint8Array;
  readonly offsetBytes: number;
  doneBytes: number;
  /** The caller uses the buffer for something else after the call. */
  isBorrowed: boolean;
  readonly done: IoDone;
}

/** What there is to know of a file before it is written. */
export interface FileWritesOptions {
  /** Every write is made on this thread, however long it takes. */
  readonly isHereAlways: boolean;
  /** Whether a write is a copy into the page cache, as a rule. */
  readonly isLocal: boolean;
  readonly calm: DiskCalm;
  readonly cachedReads: CachedReads | undefined;
  /** What makes the other writes; undefined: threads of the C library. */
  readonly calls?: FileCalls | undefined;
}

/** See the head of this file. */
export class FileWrites {
  readonly #fd: number;
  readonly #calm: DiskCalm;
  readonly #cachedReads: CachedReads | undefined;
  /** Undefined without the C library: then every write is made here, as long as it takes. */
  readonly #elsewhere?: LaterCalls | undefined;
  /** Undefined once the file system has refused one. */
  #unwaiting?: UnwaitingWrites | undefined;
  readonly #isLocal: boolean;
  /**
   * Writes for another thread, in order. Only the first is under way: if two that overlap ran at once, pieces of the earlier
   * could be written after the later, and the later write would be lost.
   */
  readonly #queue: Write[] = [];
  /** Until when this thread may wait in the present turn. */
  #waitEndMs = -Infinity;
  /** The last look at the clock, which takes as long as a twentieth of a small write. */
  #nowMs = -Infinity;

  constructor(fd: number, options: FileWritesOptions) {
    this.#fd = fd;
    this.#calm = options.calm;
    this.#cachedReads = options.cachedReads;
    this.#isLocal = options.isLocal;
    if (options.isHereAlways) return;
    this.#elsewhere = options.calls?.of(fd) ?? BoundedCalls.of(fd);
    this.#unwaiting = UnwaitingWrites.of(fd);
  }

  /**
   * Whether no write is under way on another thread. Such a write holds the file's lock in Linux while it waits for the
   * disk, and other calls for the file wait for that lock.
   */
  get isIdle(): boolean {
    return this.#queue.length === 0;
  }

  /** See DevicePort.write. `isBorrowed`: the buffer is used for something else after the call, whatever it answers. */
  write(buffer: Uint8Array, offsetBytes: number, done: IoDone, isBorrowed = false): IoResult | "pending" {
    const write = { buffer, offsetBytes, doneBytes: 0, isBorrowed, done };
    if (this.isIdle) {
      this.#nowMs = performance.now();
      this.#waitEndMs = this.#nowMs + threadWaitMsMax;
      const result = this.#goOn(write);
      if (result !== "pending") return result;
    } else this.#keep(write);
    assert(this.#queue.length < queues.deviceOperations, "more writes of a file wait than operations");
    assert(!write.isBorrowed, "a write waits with a buffer that its caller uses again");
    this.#queue.push(write);
    return "pending";
  }

  /** See DevicePort.writeAtOnce. Writes no more than a piece. */
  writeAtOnce(buffer: Uint8Array, offsetBytes: number): IoResult | undefined {
    if (!this.isIdle || buffer.length > fileWritePieceBytes) return undefined;
    const write = { buffer, offsetBytes, doneBytes: 0, isBorrowed: false, done: () => {} };
    this.#nowMs = performance.now();
    let result: IoResult | undefined = ioOk;
    while (result?.kind === "ok" && write.doneBytes < buffer.length) result = this.#writeHere(write);
    return result;
  }

  /** The write has to wait, so it takes a copy of a borrowed buffer. */
  #keep(write: Write): void {
    if (write.isBorrowed) write.buffer = write.buffer.slice();
    write.isBorrowed = false;
  }

  #goOn(write: Write): IoResult | "pending" {
    while (write.doneBytes < write.buffer.length) {
      const failure = this.#writeHere(write) ?? this.#writeElsewhere(write);
      if (failure === "pending") return "pending";
      if (failure.kind !== "ok") return failure;
    }
    return ioOk;
  }

  /** Writes a piece on this thread; undefined if that might wait for the disk. */
  #writeHere(write: Write): IoResult | undefined {
    // No write overtakes an earlier one: on one block the later write would be lost.
    if (!this.isIdle) return undefined;
    const piece = pieceOf(write);
    const offsetBytes = write.offsetBytes + write.doneBytes;
    if (this.#unwaiting !== undefined) {
      const status = this.#unwaiting.write(piece, offsetBytes);
      if (status >= 0) return took(write, status);
      // The other thread writes the piece again. If that fails too, its error is the result.
      if (status !== -errno.notSupported) return undefined;
      this.#unwaiting = undefined;
    }
    const beginMs = this.#nowMs;
    if (this.#elsewhere !== undefined && !this.#isCopyOnly(piece, offsetBytes, beginMs)) return undefined;
    try {
      return took(write, fs.writeSync(this.#fd, piece, 0, piece.length, offsetBytes));
    } catch (error) {
      return codeOf(error) === "EINTR" ? ioOk : failureOf(error, "write");
    } finally {
      this.#nowMs = performance.now();
      this.#calm.wrote(this.#nowMs - beginMs);
    }
  }

  #isCopyOnly(piece: Uint8Array, offsetBytes: number, nowMs: number): boolean {
    return this.#isLocal && this.#isPageThere(offsetBytes) && this.#isPageThere(offsetBytes + piece.length) &&
      this.#calm.isCalm(nowMs);
  }

  /** Whether the page at an edge is in memory. The host reads a page from the disk before a part of it is written. */
  #isPageThere(edgeBytes: number): boolean {
    if (edgeBytes % pageBytes === 0 || this.#cachedReads === undefined) return true;
    return this.#cachedReads.readNow(oneByte, edgeBytes - edgeBytes % pageBytes);
  }

  #writeElsewhere(write: Write): IoResult | "pending" {
    const elsewhere = present(this.#elsewhere, "a write that is not made here is made elsewhere");
    this.#keep(write);
    const beginMs = performance.now();
    const waitMs = Math.min(this.#calm.waitMs(beginMs), this.#waitEndMs - beginMs);
    const status = elsewhere.write(
      pieceOf(write),
      write.offsetBytes + write.doneBytes,
      waitMs,
      (status) => this.#ended(status, beginMs),
    );
    this.#nowMs = performance.now();
    const tookMs = this.#nowMs - beginMs;
    if (waitMs > 0) this.#calm.waited(tookMs, this.#nowMs);
    if (status === "pending") return status;
    this.#calm.wrote(tookMs);
    return took(write, status);
  }

  /** A piece of the oldest has ended on another thread. */
  #ended(status: number, beginMs: number): void {
    this.#nowMs = performance.now();
    this.#calm.wrote(this.#nowMs - beginMs);
    this.#waitEndMs = this.#nowMs + threadWaitMsMax;
    const oldest = present(this.#queue[0], "a write is under way");
    assert(oldest.doneBytes < oldest.buffer.length, "a write goes on that has ended");
    const taken = took(oldest, status);
    let result = taken.kind === "ok" ? this.#goOn(oldest) : taken;
    const ended: { readonly done: IoDone; readonly result: IoResult }[] = [];
    while (result !== "pending") {
      ended.push({ done: present(this.#queue.shift(), "it is the oldest").done, result });
      const next = this.#queue[0];
      if (next === undefined) break;
      result = this.#goOn(next);
    }
    // Call it only now: the callback may ask for other writes, which come after all of these.
    for (const { done, result } of ended) done(result);
  }
}

const oneByte = new Uint8Array(1);

function pieceOf({ buffer, doneBytes }: Write): Uint8Array {
  return buffer.subarray(doneBytes, Math.min(buffer.length, doneBytes + fileWritePieceBytes));
}

/** So many bytes were written, or it failed. A full host writes what still fits, and refuses the rest at the next call. */
function took(write: Write, status: number): IoResult {
  if (status > 0) write.doneBytes += status;
  if (status > 0 || status === -errno.interrupted) return ioOk;
  return failureOfErrno(-status, "write");
}
