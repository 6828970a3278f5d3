/**
 * A file mapped into memory, so that what the host has of it in its page cache can be sent from there: no copy into a buffer
 * of ours and out again. Nothing here or in JavaScript touches the mapping: only the system's calls do, for which a page
 * that cannot be read is an error and no signal.
 *
 * A page counts as the process's memory once it was sent from. So only slices that are used again are kept, and no more
 * than `mappedBytesMax` of them; else reading a large volume would make the process look as large.
 */
import { fromLibc, libraryName } from "./libc_symbols.ts";
import { mappedBytesMax, mappedSliceBytes } from "../limits.ts";
import { absentPageMs, residentPageMs, windowReplaceDivisor } from "../knobs.ts";

const pageBytes = 4096;
const slicePages = mappedSliceBytes / pageBytes;

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

/** What the host said last about the pages of a slice in use: bit 0 is set if one is in memory. */
interface Residency {
  readonly pages: Uint8Array;
  askedMs: number;
}

export class PageWindow {
  readonly #base: number;
  readonly #sizeBytes: number;
  readonly #inUse = new Map<number, Residency>();
  /** By slice: the number of the miss that it was asked for with. */
  readonly #missedAt: Uint32Array;
  /** Their number, which begins again after 2^32: that only takes slices in that were missed long ago. */
  #misses: number;
  /** The slices in use, in the order in which they were taken in. */
  readonly #queue: number[] = [];
  /** So many at most. A slice is taken in when it is asked for again before as many others were. */
  readonly #slicesMax: number;
  /** Of the slices that are wanted when there is no room, so many are read before one comes in. */
  readonly #replaceEvery: number;
  #wanted = 0;

  private constructor(base: number, sizeBytes: number, slicesMax: number) {
    this.#base = base;
    this.#sizeBytes = sizeBytes;
    this.#slicesMax = this.#misses = slicesMax;
    this.#replaceEvery = Math.max(1, Math.floor(slicesMax / windowReplaceDivisor));
    this.#missedAt = new Uint32Array(Math.ceil(sizeBytes / mappedSliceBytes));
  }

  /**
   * The file, whose descriptor may be closed after. Undefined where it cannot be mapped; then it is read.
   *
   * @param residentMax bytes of the slices in use, at most
   */
  static map(fd: number, sizeBytes: number, residentMax = mappedBytesMax): PageWindow | undefined {
    if (calls === undefined || sizeBytes === 0) return undefined;
    const base = calls.mmap(0n, BigInt(sizeBytes), protectRead, mapShared, fd, 0n);
    return base <= 0n ? undefined : new PageWindow(Number(base), sizeBytes, residentMax / mappedSliceBytes);
  }

  /** Where the bytes are in memory; undefined if the host does not have all of them there, or they are asked for seldom. */
  addressOf(offsetBytes: number, lengthBytes: number): number | undefined {
    const first = Math.floor(offsetBytes / pageBytes);
    const last = Math.floor((offsetBytes + lengthBytes - 1) / pageBytes);
    const lastSlice = Math.floor(last / slicePages);
    for (let slice = Math.floor(first / slicePages); slice <= lastSlice; slice += 1) {
      const residency = this.#inUse.get(slice) ?? this.#takeIn(slice);
      if (residency === undefined) return undefined;
      const begin = slice * slicePages;
      const from = Math.max(first - begin, 0);
      const to = Math.min(last - begin, slicePages - 1);
      if (!this.#areResident(slice, residency, from, to)) return undefined;
    }
    return this.#base + offsetBytes;
  }

  close(): void {
    // If the host refuses, the addresses stay taken until the process ends, and nothing else comes of it.
    calls?.munmap(BigInt(this.#base), BigInt(this.#sizeBytes));
  }

  /** A slice that was asked for before and not long ago is in use from now on. */
  #takeIn(slice: number): Residency | undefined {
    const isAgain = ((this.#misses - this.#missedAt[slice]!) >>> 0) < this.#slicesMax;
    this.#missedAt[slice] = this.#misses;
    this.#misses = (this.#misses + 1) >>> 0;
    if (!isAgain || !this.#isWorthIt()) return undefined;
    const residency = { pages: new Uint8Array(slicePages), askedMs: -Infinity };
    this.#inUse.set(slice, residency);
    this.#queue.push(slice);
    if (this.#queue.length > this.#slicesMax) this.#letGo(this.#queue.shift()!);
    return residency;
  }

  /**
   * Asking the host about a slice, and letting one go for it, costs as much as some dozen reads. So where more are in use
   * by turns than there is room for, only every so many replaces another, and the others are read as before.
   */
  #isWorthIt(): boolean {
    if (this.#queue.length < this.#slicesMax) return true;
    this.#wanted += 1;
    return this.#wanted % this.#replaceEvery === 0;
  }

  #letGo(slice: number): void {
    this.#inUse.delete(slice);
    // It is advice: a slice that stays is only counted as ours.
    calls?.madvise(
      BigInt(this.#base + slice * mappedSliceBytes),
      BigInt(this.#bytesOf(slice)),
      adviceDontNeed,
    );
  }

  #areResident(slice: number, residency: Residency, from: number, to: number): boolean {
    // Somebody may set the clock.
    const ageMs = Math.abs(Date.now() - residency.askedMs);
    if (ageMs > residentPageMs) this.#askHost(slice, residency);
    if (areSet(residency.pages, from, to)) return true;
    if (ageMs > residentPageMs || ageMs < absentPageMs) return false;
    this.#askHost(slice, residency);
    return areSet(residency.pages, from, to);
  }

  #askHost(slice: number, residency: Residency): void {
    const beginBytes = slice * mappedSliceBytes;
    const status = calls?.mincore(
      BigInt(this.#base + beginBytes),
      BigInt(this.#bytesOf(slice)),
      residency.pages,
    );
    if (status !== 0) residency.pages.fill(0);
    residency.askedMs = Date.now();
  }

  #bytesOf(slice: number): number {
    return Math.min(mappedSliceBytes, this.#sizeBytes - slice * mappedSliceBytes);
  }
}

function areSet(pages: Uint8Array, from: number, to: number): boolean {
  for (let page = from; page <= to; page += 1) if ((pages[page]! & 1) === 0) return false;
  return true;
}
