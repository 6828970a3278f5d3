/**
 * A file mapped into memory, so that a socket can be sent bytes from the host's page cache without a copy. JavaScript never
 * touches the mapping, only system calls do: for them a page that cannot be read is an error, not a signal.
 *
 * A page counts as memory of the process once it was sent from. So only sections that are used again are kept, and no more
 * than `mappedBytesMax` of them; without that, reading a large volume would make the process seem as large.
 */
import { assert } from "../../storage/base/assert.ts";
import { fromLibc, libraryName } from "./libc_symbols.ts";
import { mappedBytesMax, mappedSectionBytes } from "../limits.ts";
import { absentPageMs, residentPageMs, windowReplaceDivisor } from "../knobs.ts";

const pageBytes = 4096;
const sectionPages = mappedSectionBytes / pageBytes;

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

/** What the host said last about the pages of a section in use: bit 0 is set if one is in memory. */
interface Residency {
  readonly pages: Uint8Array;
  askedMs: number;
}

export class PageWindow {
  readonly #base: number;
  readonly #sizeBytes: number;
  readonly #inUse = new Map<number, Residency>();
  /** By section: the number of its last miss. */
  readonly #missedAt: Uint32Array;
  /** Misses so far, modulo 2^32. So a miss of long ago may look recent; then its section is taken in early, which does no harm. */
  #misses: number;
  /** The sections in use, in the order in which they were taken in. */
  readonly #queue: number[] = [];
  /** Sections in use at most. A section is taken in when it is missed again before that many others were. */
  readonly #sectionsMax: number;
  /** While the window is full, one of so many wanted sections is taken in. The others are read. */
  readonly #replaceEvery: number;
  #wanted = 0;
  #isMapped = true;

  private constructor(base: number, sizeBytes: number, sectionsMax: number) {
    this.#base = base;
    this.#sizeBytes = sizeBytes;
    this.#sectionsMax = this.#misses = sectionsMax;
    this.#replaceEvery = Math.max(1, Math.floor(sectionsMax / windowReplaceDivisor));
    this.#missedAt = new Uint32Array(Math.ceil(sizeBytes / mappedSectionBytes));
  }

  /**
   * Maps a file; its descriptor may be closed afterwards. Undefined if it cannot be mapped: then it is read.
   *
   * @param residentMax bytes of the sections in use, at most
   */
  static map(fd: number, sizeBytes: number, residentMax = mappedBytesMax): PageWindow | undefined {
    if (calls === undefined || sizeBytes === 0) return undefined;
    const base = calls.mmap(0n, BigInt(sizeBytes), protectRead, mapShared, fd, 0n);
    return base <= 0n ? undefined : new PageWindow(Number(base), sizeBytes, residentMax / mappedSectionBytes);
  }

  /** The address of the bytes; undefined if not all are in the page cache, or they are asked for too rarely. */
  addressOf(offsetBytes: number, lengthBytes: number): number | undefined {
    // Behind the end there may be other memory of the process, which no client may get.
    assert(this.#isMapped && offsetBytes >= 0, "an address is asked for that is not mapped");
    assert(
      offsetBytes + lengthBytes <= this.#sizeBytes,
      "an address behind the end of the file is asked for",
    );
    const first = Math.floor(offsetBytes / pageBytes);
    const last = Math.floor((offsetBytes + lengthBytes - 1) / pageBytes);
    const lastSection = Math.floor(last / sectionPages);
    for (let section = Math.floor(first / sectionPages); section <= lastSection; section += 1) {
      const residency = this.#inUse.get(section) ?? this.#takeIn(section);
      if (residency === undefined) return undefined;
      const begin = section * sectionPages;
      const from = Math.max(first - begin, 0);
      const to = Math.min(last - begin, sectionPages - 1);
      if (!this.#areResident(section, residency, from, to)) return undefined;
    }
    return this.#base + offsetBytes;
  }

  close(): void {
    assert(this.#isMapped, "a file is unmapped twice");
    this.#isMapped = false;
    // If the host refuses, only the address range stays in use until the process ends.
    calls?.munmap(BigInt(this.#base), BigInt(this.#sizeBytes));
  }

  /** Puts a section in use if it was missed a short while ago. */
  #takeIn(section: number): Residency | undefined {
    const isAgain = ((this.#misses - this.#missedAt[section]!) >>> 0) < this.#sectionsMax;
    this.#missedAt[section] = this.#misses;
    this.#misses = (this.#misses + 1) >>> 0;
    if (!isAgain || !this.#isWorthIt()) return undefined;
    const residency = { pages: new Uint8Array(sectionPages), askedMs: -Infinity };
    this.#inUse.set(section, residency);
    this.#queue.push(section);
    if (this.#queue.length > this.#sectionsMax) this.#letGo(this.#queue.shift()!);
    assert(
      this.#inUse.size === this.#queue.length,
      "a section in use is not in the queue, or is in it twice",
    );
    assert(this.#queue.length <= this.#sectionsMax, "more sections are in use than may be");
    return residency;
  }

  /**
   * Asking the host about a section, and dropping another one for it, costs as much as some dozen reads. So if more sections are
   * used in turn than there is room for, only one of `#replaceEvery` replaces another one.
   */
  #isWorthIt(): boolean {
    if (this.#queue.length < this.#sectionsMax) return true;
    this.#wanted += 1;
    return this.#wanted % this.#replaceEvery === 0;
  }

  #letGo(section: number): void {
    this.#inUse.delete(section);
    // It is advice: pages that stay only count as memory of the process.
    calls?.madvise(
      BigInt(this.#base + section * mappedSectionBytes),
      BigInt(this.#bytesOf(section)),
      adviceDontNeed,
    );
  }

  #areResident(section: number, residency: Residency, from: number, to: number): boolean {
    // The wall clock may be set back.
    const ageMs = Math.abs(Date.now() - residency.askedMs);
    if (ageMs > residentPageMs) this.#askHost(section, residency);
    if (areSet(residency.pages, from, to)) return true;
    if (ageMs > residentPageMs || ageMs < absentPageMs) return false;
    this.#askHost(section, residency);
    return areSet(residency.pages, from, to);
  }

  #askHost(section: number, residency: Residency): void {
    const beginBytes = section * mappedSectionBytes;
    const status = calls?.mincore(
      BigInt(this.#base + beginBytes),
      BigInt(this.#bytesOf(section)),
      residency.pages,
    );
    if (status !== 0) residency.pages.fill(0);
    residency.askedMs = Date.now();
  }

  #bytesOf(section: number): number {
    return Math.min(mappedSectionBytes, this.#sizeBytes - section * mappedSectionBytes);
  }
}

function areSet(pages: Uint8Array, from: number, to: number): boolean {
  for (let page = from; page <= to; page += 1) if ((pages[page]! & 1) === 0) return false;
  return true;
}
