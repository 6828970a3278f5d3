/**
 * The reference counts that the checker finds by walking, and those that the space maps record. All are typed arrays,
 * so the sizes of the two devices tell how much memory a check needs.
 */
import { assert } from "./base/assert.ts";
import { bitmapEntries } from "./format/bitmap.ts";

/** The use of a metadata block where it was first found. If it is found again with another use, that is damage. */
export const BlockUse = {
  none: 0,
  superblock: 1,
  spaceMapIndex: 2,
  bitmap: 3,
  metadataOverflow: 4,
  dataIndex: 5,
  dataOverflow: 6,
  details: 7,
  mappingTop: 8,
  mappingBottom: 9,
  metadataSnapshot: 10,
} as const;
export type BlockUse = (typeof BlockUse)[keyof typeof BlockUse];

/** The name of each use in a sentence, indexed by {@linkcode BlockUse}. */
export const blockUseNames: readonly string[] = [
  "nothing",
  "the superblock",
  "the metadata space map's index",
  "a space map bitmap",
  "the metadata space map's overflow tree",
  "the data space map's index tree",
  "the data space map's overflow tree",
  "the device details tree",
  "the top level of the mapping tree",
  "a device's mapping tree",
  "the metadata snapshot",
];

/** In place of a recorded count: the bitmap says "3 or more", and the overflow entry has not been read yet. */
export const countPending = 0xffff_ffff;
/** In place of a recorded count: its bitmap cannot be read. */
export const countUnknown = 0xffff_fffe;

/**
 * Reference counts of metadata blocks: as found by walking, and as recorded in the space map. 9 bytes for each block.
 */
export class MetadataCounts {
  readonly found: Uint32Array;
  readonly recorded: Uint32Array;
  readonly uses: Uint8Array;

  /** @param blocks number of blocks that the metadata space map counts */
  constructor(readonly blocks: number) {
    this.found = new Uint32Array(blocks);
    this.recorded = new Uint32Array(blocks);
    this.uses = new Uint8Array(blocks);
  }
}

type Page = Uint8Array | Uint32Array;

/**
 * Reference counts of data blocks found by walking. A page exists if one of its blocks is mapped. It has one byte for
 * each block, and four once a block in it has 255 references.
 */
export class DataCounts {
  readonly #pages: Map<number, Page> = new Map();
  #lastIndex = -1;
  #last: Page = new Uint8Array(0);

  constructor(readonly blocks: number) {}

  /** Adds one reference to `dblock`, which is less than {@linkcode DataCounts.blocks}. */
  add(dblock: number): void {
    assert(dblock < this.blocks, "a data block to count lies outside the data device");
    const index = Math.floor(dblock / bitmapEntries);
    if (index !== this.#lastIndex) this.#select(index);
    const entry = dblock - index * bitmapEntries;
    const count = (this.#last[entry] ?? 0) + 1;
    if (count === 0xff && this.#last instanceof Uint8Array) this.#widen(index);
    this.#last[entry] = count;
  }

  /** The references found to `dblock`. */
  get(dblock: number): number {
    const index = Math.floor(dblock / bitmapEntries);
    return this.#pages.get(index)?.[dblock - index * bitmapEntries] ?? 0;
  }

  /** The counts of the blocks of bitmap `index`, or undefined if none of them is mapped. */
  page(index: number): Page | undefined {
    return this.#pages.get(index);
  }

  /** A block with more than one reference, or undefined if there is none. */
  someShared(): number | undefined {
    for (const [index, page] of this.#pages) {
      const entry = page.findIndex((count) => count > 1);
      if (entry >= 0) return index * bitmapEntries + entry;
    }
    return undefined;
  }

  #select(index: number): void {
    let page = this.#pages.get(index);
    if (page === undefined) {
      page = new Uint8Array(bitmapEntries);
      this.#pages.set(index, page);
    }
    this.#last = page;
    this.#lastIndex = index;
  }

  #widen(index: number): void {
    const wide = Uint32Array.from(this.#last);
    this.#pages.set(index, wide);
    this.#last = wide;
  }
}

/** A set of data blocks, one bit for each, in pages as in {@linkcode DataCounts}. */
export class DataBlockSet {
  readonly #pages: Map<number, Uint8Array> = new Map();

  /** Adds `dblock`. */
  add(dblock: number): void {
    const index = Math.floor(dblock / bitmapEntries);
    let page = this.#pages.get(index);
    if (page === undefined) {
      page = new Uint8Array(bitmapEntries / 8);
      this.#pages.set(index, page);
    }
    const entry = dblock - index * bitmapEntries;
    page[entry >>> 3] = (page[entry >>> 3] ?? 0) | (1 << (entry & 7));
  }

  /** Whether `dblock` was added. */
  has(dblock: number): boolean {
    const index = Math.floor(dblock / bitmapEntries);
    const entry = dblock - index * bitmapEntries;
    return ((this.#pages.get(index)?.[entry >>> 3] ?? 0) & (1 << (entry & 7))) !== 0;
  }
}

/** The result of the walk of one subtree. */
export interface CountedSubtree {
  /** Levels: 1 for a leaf, 0 if the subtree's root could not be read. */
  readonly height: number;
  /** Entries in all leaves. */
  readonly entries: number;
  /** Smallest and largest key; undefined values if `entries` is 0. */
  readonly keyFirst: number;
  readonly keyLast: number;
  /** False if a part of it could not be read. */
  readonly sound: boolean;
  /** Whether the subtree's root has fewer entries than a node below a root must have. */
  readonly underfull: boolean;
}

const soundBit = 0x80;
const underfullBit = 0x40;
const walkedBit = 0x20;
const heightMask = 0x1f;

/**
 * The results for nodes that may have several parents, so that each is read once. They are kept only for nodes with a
 * recorded count above 1. A node that is found twice with a smaller count is damage, which the comparison of counts
 * reports.
 */
export class SharedSubtrees {
  readonly #blocks: Uint32Array;
  readonly #flags: Uint8Array;
  readonly #entries: Float64Array;
  readonly #keyFirst: Float64Array;
  readonly #keyLast: Float64Array;

  /** @param everyBlock allocates a place for every block, for the case that the recorded counts are not known */
  constructor(recorded: Uint32Array, everyBlock: boolean) {
    let size = 0;
    for (const count of recorded) if (everyBlock || count > 1) size++;
    this.#blocks = new Uint32Array(size);
    let slot = 0;
    for (let block = 0; block < recorded.length; block++) {
      if (everyBlock || (recorded[block] ?? 0) > 1) this.#blocks[slot++] = block;
    }
    this.#flags = new Uint8Array(size);
    this.#entries = new Float64Array(size);
    this.#keyFirst = new Float64Array(size);
    this.#keyLast = new Float64Array(size);
  }

  /** Stores the result for `block`, if its count says that it may be found again. */
  set(block: number, subtree: CountedSubtree): void {
    const slot = this.#slot(block);
    if (slot < 0) return;
    this.#flags[slot] = subtree.height | walkedBit | (subtree.sound ? soundBit : 0) |
      (subtree.underfull ? underfullBit : 0);
    this.#entries[slot] = subtree.entries;
    this.#keyFirst[slot] = subtree.keyFirst;
    this.#keyLast[slot] = subtree.keyLast;
  }

  /** The result for `block`, or undefined if none was stored. */
  get(block: number): CountedSubtree | undefined {
    const slot = this.#slot(block);
    const flags = slot < 0 ? 0 : (this.#flags[slot] ?? 0);
    if (flags === 0) return undefined;
    return {
      height: flags & heightMask,
      entries: this.#entries[slot] ?? 0,
      keyFirst: this.#keyFirst[slot] ?? 0,
      keyLast: this.#keyLast[slot] ?? 0,
      sound: (flags & soundBit) !== 0,
      underfull: (flags & underfullBit) !== 0,
    };
  }

  #slot(block: number): number {
    let low = 0;
    let high = this.#blocks.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const value = this.#blocks[middle] ?? 0;
      if (value === block) return middle;
      if (value < block) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }
}
