/**
 * A file mapped into memory, so that what the host has of it in its page cache can be sent from there: no copy into a buffer
 * of ours and out again. Nothing here or in JavaScript touches the mapping: only the system's calls do, for which a page
 * that can not be read is an error and no signal.
 *
 * A page counts as the process's memory once it was sent from. So only slices that are used again are kept, and no more
 * than `residentBytesMax` of them; else reading a large volume would make the process look as large.
 */
import { assert } from "../../storage/assert.ts";
import { fromLibc, libraryName } from "./libc_symbols.ts";

/** Bytes of the slices in use, at most. */
const residentBytesMax = 1 << 30;
/** One slice: what one entry of the system's page table maps. */
const sliceBytes = 2 << 20;
const slicesMax = residentBytesMax / sliceBytes;
/** A slice is taken in when it is asked for again before so many others were. */
const missesRemembered = slicesMax;
const pageBytes = 4096;
/** Bytes of one question about residency. */
const questionBytesMax = 32 << 20;

// Constants of Linux, the same on x86-64 and arm64.
const protectRead = 1;
const mapShared = 1;
const adviceDontNeed = 4;

const calls = fromLibc(() =>
  Deno.dlopen(libraryName, {
    mmap: { parameters: ["usize", "usize", "i32", "i32", "i32", "i64"], result: "i64" },
    munmap: { parameters: ["usize", "usize"], result: "i32" },
    mincore: { parameters: ["u64", "u64", "buffer"], result: "i32" },
    madvise: { parameters: ["u64", "u64", "i32"], result: "i32" },
  }).symbols
);

/** By page: bit 0 is set if it is in memory. Only one question is asked at a time. */
const residency = new Uint8Array(questionBytesMax / pageBytes + 1);

export class PageWindow {
  readonly #base: number;
  readonly #sizeBytes: number;
  /** By slice: 1 if it is in use. */
  readonly #inUse: Uint8Array;
  /** By slice: the number of the miss that it was asked for with. */
  readonly #missedAt: Uint32Array;
  #misses = missesRemembered;
  /** The slices in use, in the order in which they were taken in. */
  readonly #queue: number[] = [];

  private constructor(base: number, sizeBytes: number) {
    this.#base = base;
    this.#sizeBytes = sizeBytes;
    const slices = Math.ceil(sizeBytes / sliceBytes);
    this.#inUse = new Uint8Array(slices);
    this.#missedAt = new Uint32Array(slices);
  }

  /** The file, whose descriptor may be closed after. Undefined where it can not be mapped; then it is read. */
  static map(fd: number, sizeBytes: number): PageWindow | undefined {
    if (calls === undefined || sizeBytes === 0) return undefined;
    const base = calls.mmap(0n, BigInt(sizeBytes), protectRead, mapShared, fd, 0n);
    return base <= 0n ? undefined : new PageWindow(Number(base), sizeBytes);
  }

  /** Where the bytes are in memory; undefined if the host does not have all of them there, or they are asked for seldom. */
  addressOf(offsetBytes: number, lengthBytes: number): number | undefined {
    if (lengthBytes > questionBytesMax - pageBytes) return undefined;
    if (!this.#takeIn(offsetBytes, lengthBytes)) return undefined;
    return this.#isResident(offsetBytes, lengthBytes) ? this.#base + offsetBytes : undefined;
  }

  close(): void {
    const status = calls?.munmap(BigInt(this.#base), BigInt(this.#sizeBytes));
    assert(status === 0, "what was mapped can be unmapped");
  }

  /** Whether all slices of the range are in use, which is tried. */
  #takeIn(offsetBytes: number, lengthBytes: number): boolean {
    const last = Math.floor((offsetBytes + lengthBytes - 1) / sliceBytes);
    for (let slice = Math.floor(offsetBytes / sliceBytes); slice <= last; slice += 1) {
      if (this.#inUse[slice] === 1) continue;
      const isAgain = this.#misses - this.#missedAt[slice]! < missesRemembered;
      this.#missedAt[slice] = this.#misses;
      // The number of the first miss comes after that of none.
      this.#misses += 1;
      if (!isAgain) return false;
      this.#inUse[slice] = 1;
      this.#queue.push(slice);
      if (this.#queue.length > slicesMax) this.#letGo(this.#queue.shift()!);
    }
    return true;
  }

  #letGo(slice: number): void {
    this.#inUse[slice] = 0;
    const beginBytes = slice * sliceBytes;
    const lengthBytes = Math.min(sliceBytes, this.#sizeBytes - beginBytes);
    // It is advice: a slice that stays is only counted as ours.
    calls?.madvise(BigInt(this.#base + beginBytes), BigInt(lengthBytes), adviceDontNeed);
  }

  #isResident(offsetBytes: number, lengthBytes: number): boolean {
    const beginBytes = offsetBytes - offsetBytes % pageBytes;
    const pages = Math.ceil((offsetBytes + lengthBytes - beginBytes) / pageBytes);
    const status = calls?.mincore(BigInt(this.#base + beginBytes), BigInt(pages * pageBytes), residency);
    if (status !== 0) return false;
    for (let page = 0; page < pages; page += 1) if ((residency[page]! & 1) === 0) return false;
    return true;
  }
}
