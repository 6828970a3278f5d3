/**
 * Reference counts of data blocks: bitmaps, which are ordinary copy-on-write metadata blocks; an index tree, which
 * tells where they are; and an overflow tree for counts of 3 or more
 * (drivers/md/persistent-data/dm-space-map-common.c). The index entries are kept in memory and written into the tree at
 * the commit.
 */
import { assert } from "./base/assert.ts";
import type { DBlockRun } from "./block_set.ts";
import { mergedRuns, runsOf } from "./dblock_runs.ts";
import { type CacheEntry, kindBitmap } from "./block_cache.ts";
import { Btree, plainValues } from "./btree.ts";
import {
  bitmapCount,
  bitmapEntries,
  bitmapNextFree,
  bitmapNextUsed,
  bitmapUsed,
  clearBitmapFrom,
  countOverflows,
  setBitmapCount,
} from "./format/bitmap.ts";
import { dataBlocksMax } from "./format/block_time.ts";
import { nodeValueOffset } from "./format/btree_node.ts";
import { indexEntrySizeBytes, packIndexEntry, unpackIndexEntry } from "./format/index_entry.ts";
import { type DBlock, dblock, type MetadataBlock } from "./base/ids.ts";
import { bitmapsPerSearch, wrongHintsCorrectedMax } from "./base/limits.ts";
import { countedFree, damaged } from "./metadata_fault.ts";
import { overflowCountMax, OverflowCounts } from "./overflow_counts.ts";
import type { SpaceMapRoot } from "./format/space_map_root.ts";
import type { Transaction } from "./transaction.ts";

/** The counts of data blocks. */
export class DataSpaceMap {
  readonly #transaction: Transaction;
  readonly #index: Btree;
  readonly #overflow: OverflowCounts;
  #indexRoot: MetadataBlock;
  #blocks: number;
  #allocated: number;
  /** Index entries whose number of free blocks differed from the bitmap's, found while loading. */
  wrongHints = 0;
  /** By ordinal: where the bitmap is, and how many of its entries are in use. */
  #bitmaps: MetadataBlock[] = [];
  #used: number[] = [];
  /** By ordinal: an index below which no entry is free. A lower one is right too, so a rollback does not restore it. */
  #noneFree: number[] = [];
  /** Ordinals of bitmaps that were shadowed in this transaction: the commit writes their index entries. */
  #changed: number[] = [];
  /** Ordinals whose stored hint was wrong: they are corrected with the next change of the map. */
  #wrongHintOrdinals: number[] = [];
  /** Blocks whose count reached 0 since the last {@linkcode takeFreed}. */
  #freed: DBlock[] = [];

  readonly #undoOrdinals: number[] = [];
  readonly #undoBitmaps: MetadataBlock[] = [];
  readonly #undoUsed: number[] = [];
  #mark = {
    indexRoot: 0,
    blocks: 0,
    allocated: 0,
    ordinals: 0,
    changed: 0,
    freed: 0,
    wrongHintOrdinals: this.#wrongHintOrdinals,
  };

  constructor(transaction: Transaction, root: SpaceMapRoot) {
    this.#transaction = transaction;
    this.#index = new Btree(transaction, indexEntrySizeBytes, plainValues);
    this.#overflow = new OverflowCounts(transaction, root.overflowRoot);
    this.#indexRoot = root.bitmapRoot;
    this.#blocks = root.blocks;
    this.#allocated = root.allocated;
  }

  get blocks(): number {
    return this.#blocks;
  }
  /** Blocks with a count above zero in the current state. */
  get allocated(): number {
    return this.#allocated;
  }
  get root(): SpaceMapRoot {
    return {
      blocks: this.#blocks,
      allocated: this.#allocated,
      bitmapRoot: this.#indexRoot,
      overflowRoot: this.#overflow.root,
    };
  }

  /** Makes the two empty trees of a new pool. */
  format(): void {
    this.#indexRoot = this.#transaction.allocateLeaf(indexEntrySizeBytes).block;
    this.#overflow.format();
  }

  /**
   * Reads index and bitmaps and counts the blocks in use; the stored hints are not used. Continues where the last call
   * faulted.
   */
  load(): void {
    const ordinals = Math.ceil(this.#blocks / bitmapEntries);
    if (this.#bitmaps.length === 0) this.#allocated = 0;
    this.#overflow.load();
    for (let ordinal = this.#bitmaps.length; ordinal < ordinals; ordinal++) {
      if (!this.#index.find(this.#indexRoot, ordinal)) {
        damaged(this.#indexRoot, `it leads to no bitmap ${ordinal} of the data space map`);
      }
      const { leaf, index } = this.#index;
      const entry = unpackIndexEntry(leaf.view, nodeValueOffset(leaf.view, index));
      const bitmap = this.#transaction.read(entry.bitmap, kindBitmap);
      if (this.#transaction.space.count(entry.bitmap) === 0) damaged(entry.bitmap, countedFree);
      const used = bitmapUsed(bitmap.bytes, this.#entriesOf(ordinal));
      if (entry.free !== bitmapEntries - used) {
        this.wrongHints++;
        if (this.#wrongHintOrdinals.length < wrongHintsCorrectedMax) this.#wrongHintOrdinals.push(ordinal);
      }
      this.#bitmaps.push(entry.bitmap);
      this.#used.push(used);
      this.#noneFree.push(bitmapNextFree(bitmap.bytes, 0, this.#entriesOf(ordinal)));
      this.#allocated += used;
      this.#transaction.cache.endOperation();
      this.#transaction.cache.beginOperation(); // each bitmap is a step of its own: unpin the blocks read for it
    }
  }

  count(block: DBlock): number {
    const ordinal = this.#ordinalOf(block);
    const bitmap = this.#transaction.read(this.#bitmaps[ordinal]!, kindBitmap);
    const count = bitmapCount(bitmap.bytes, block - ordinal * bitmapEntries);
    return count < countOverflows ? count : this.#overflow.count(block);
  }

  /** Whether the count is known to be 1 without reading a block. */
  isKnownSingle(block: DBlock): boolean {
    const ordinal = this.#ordinalOf(block);
    const bitmap = this.#transaction.cache.peek(this.#bitmaps[ordinal]!);
    return bitmap?.kind === kindBitmap && bitmapCount(bitmap.bytes, block - ordinal * bitmapEntries) === 1;
  }

  /** Returns the new count. */
  increment(block: DBlock): number {
    const ordinal = this.#ordinalOf(block);
    const index = block - ordinal * bitmapEntries;
    const bitmap = this.#transaction.read(this.#bitmaps[ordinal]!, kindBitmap);
    const count = bitmapCount(bitmap.bytes, index);
    if (count === countOverflows) {
      const exact = this.#overflow.count(block);
      if (exact === overflowCountMax) this.damagedCount(block, "cannot rise any more");
      this.#overflow.write(block, exact + 1);
      return exact + 1;
    }
    setBitmapCount(this.#owned(ordinal, bitmap).bytes, index, count + 1);
    if (count + 1 === countOverflows) this.#overflow.write(block, countOverflows);
    if (count === 0) this.#addUsed(ordinal, 1);
    return count + 1;
  }

  /** Returns the new count. At 0 the block is freed: see {@linkcode takeFreed}. */
  decrement(block: DBlock): number {
    const ordinal = this.#ordinalOf(block);
    const index = block - ordinal * bitmapEntries;
    const bitmap = this.#transaction.read(this.#bitmaps[ordinal]!, kindBitmap);
    const count = bitmapCount(bitmap.bytes, index);
    if (count === 0) damaged(bitmap.block, `the count of data block ${block} would fall below 0`);
    if (count === countOverflows) {
      const exact = this.#overflow.count(block);
      if (exact > countOverflows) {
        this.#overflow.write(block, exact - 1);
        return exact - 1;
      }
      this.#overflow.delete(block);
    }
    setBitmapCount(this.#owned(ordinal, bitmap).bytes, index, count - 1);
    if (count > 1) return count - 1;
    this.#noneFree[ordinal] = Math.min(this.#noneFree[ordinal]!, index);
    this.#addUsed(ordinal, -1);
    this.#freed.push(block);
    return 0;
  }

  /**
   * Blocks with count 0 from `from` on, in runs, at most `blocksWanted` blocks. Reads a bounded number of bitmaps;
   * `next` is where the next search continues, `blocks` at the end.
   */
  findFree(from: DBlock, blocksWanted: number): { runs: DBlockRun[]; next: DBlock } {
    const runs: DBlockRun[] = [];
    let at: number = from;
    let wanted = blocksWanted;
    let reads = bitmapsPerSearch;
    while (at < this.#blocks && wanted > 0) {
      const ordinal = Math.floor(at / bitmapEntries);
      const base = ordinal * bitmapEntries;
      const entries = this.#entriesOf(ordinal);
      if (this.#used[ordinal] === entries) {
        at = base + entries;
        continue;
      }
      if (reads-- === 0) break;
      const { bytes } = this.#transaction.read(this.#bitmaps[ordinal]!, kindBitmap);
      while (at < base + entries && wanted > 0) {
        const begin = bitmapNextFree(bytes, at - base, entries);
        const end = begin === entries
          ? begin
          : bitmapNextUsed(bytes, begin, Math.min(entries, begin + wanted));
        if (end > begin) runs.push({ begin: dblock(base + begin), length: end - begin });
        wanted -= end - begin;
        at = base + end;
      }
    }
    return { runs: mergedRuns(runs), next: dblock(Math.min(at, this.#blocks)) };
  }

  /** The blocks whose count reached 0 since the last call, as runs. */
  takeFreed(): DBlockRun[] {
    const freed = this.#freed;
    if (freed.length === 0) return [];
    this.#freed = [];
    return runsOf(freed);
  }

  /**
   * Grows the map to so many blocks; the new ones are free. If the last bitmap was not whole, it is written again with
   * its index entry: other programs may leave bits set behind its last block, and thin_restore 0.9 leaves a number of
   * free blocks there that is too low once there are more.
   */
  grow(blocks: number): void {
    assert(
      blocks >= this.#blocks && blocks <= dataBlocksMax,
      "the data device only grows, up to what a mapping names",
    );
    if (blocks > this.#blocks && this.#blocks % bitmapEntries > 0) {
      this.#clearPadding(this.#bitmaps.length - 1);
    }
    this.#blocks = blocks;
    for (let ordinal = this.#bitmaps.length; ordinal < Math.ceil(blocks / bitmapEntries); ordinal++) {
      const bitmap = this.#transaction.allocate(kindBitmap);
      this.#bitmaps.push(bitmap.block);
      this.#used.push(0);
      this.#noneFree.push(0);
      this.#enterIndex(ordinal);
    }
  }

  #clearPadding(ordinal: number): void {
    const bitmap = this.#transaction.read(this.#bitmaps[ordinal]!, kindBitmap);
    clearBitmapFrom(this.#owned(ordinal, bitmap).bytes, this.#entriesOf(ordinal));
  }

  /**
   * Writes the index entries of changed bitmaps. Their paths were shadowed when the bitmaps changed, so this allocates
   * no block.
   */
  flush(): void {
    for (const ordinal of this.#changed) {
      const bitmap = this.#bitmaps[ordinal]!;
      this.#index.prepareOverwrite(this.#indexRoot, ordinal);
      const { leaf, index } = this.#index;
      packIndexEntry(leaf.view, nodeValueOffset(leaf.view, index), {
        bitmap,
        free: bitmapEntries - this.#used[ordinal]!,
        noneFreeBefore: this.#noneFreeBefore(ordinal, bitmap),
      });
    }
  }

  /**
   * The hint for the index entry. 0, which is always right, for a bitmap that did not change and may not be in memory.
   */
  #noneFreeBefore(ordinal: number, bitmap: MetadataBlock): number {
    if (!this.#transaction.isOwned(bitmap)) return 0;
    const { bytes } = this.#transaction.read(bitmap, kindBitmap);
    const noneFree = bitmapNextFree(bytes, this.#noneFree[ordinal]!, this.#entriesOf(ordinal));
    this.#noneFree[ordinal] = noneFree;
    return noneFree;
  }

  /** To be called after {@linkcode flush} succeeded and the transaction ended. */
  endTransaction(): void {
    this.#changed = [];
  }

  begin(): void {
    this.#undoOrdinals.length = 0;
    this.#undoBitmaps.length = 0;
    this.#undoUsed.length = 0;
    const mark = this.#mark;
    mark.indexRoot = this.#indexRoot;
    this.#overflow.begin();
    mark.blocks = this.#blocks;
    mark.allocated = this.#allocated;
    mark.ordinals = this.#bitmaps.length;
    mark.changed = this.#changed.length;
    mark.freed = this.#freed.length;
    mark.wrongHintOrdinals = this.#wrongHintOrdinals;
  }

  rollback(): void {
    for (let at = this.#undoOrdinals.length - 1; at >= 0; at--) {
      this.#bitmaps[this.#undoOrdinals[at]!] = this.#undoBitmaps[at]!;
      this.#used[this.#undoOrdinals[at]!] = this.#undoUsed[at]!;
    }
    const mark = this.#mark;
    assert(
      this.#bitmaps.length >= mark.ordinals && this.#changed.length >= mark.changed &&
        this.#freed.length >= mark.freed,
      "an operation shortened a list of its transaction",
    );
    this.#indexRoot = mark.indexRoot as MetadataBlock;
    this.#overflow.rollback();
    this.#blocks = mark.blocks;
    this.#allocated = mark.allocated;
    this.#bitmaps.length = mark.ordinals;
    this.#used.length = mark.ordinals;
    this.#noneFree.length = mark.ordinals;
    this.#changed.length = mark.changed;
    this.#freed.length = mark.freed;
    this.#wrongHintOrdinals = mark.wrongHintOrdinals;
  }

  /** Entries of a bitmap that stand for blocks: all, except in the last bitmap. */
  #entriesOf(ordinal: number): number {
    return Math.min(bitmapEntries, this.#blocks - ordinal * bitmapEntries);
  }

  #ordinalOf(block: DBlock): number {
    this.requireInside(block);
    return Math.floor(block / bitmapEntries);
  }

  /** Faults if the block, which a mapping refers to, is beyond the end of the data device. */
  requireInside(block: DBlock): void {
    if (!(block < this.#blocks)) damaged(this.#indexRoot, `data block ${block} lies outside the data device`);
  }

  /** Throws the fault for a count that cannot be right. It names the bitmap with that count. */
  damagedCount(block: DBlock, reason: string): never {
    damaged(this.#bitmaps[this.#ordinalOf(block)]!, `the reference count of data block ${block} ${reason}`);
  }

  /** The bitmap, shadowed and saved for rollback. */
  #owned(ordinal: number, bitmap: CacheEntry): CacheEntry {
    const owned = this.#transaction.shadow(bitmap);
    if (owned === bitmap) this.#transaction.edit(bitmap);
    else {
      this.#recordUndo(ordinal);
      this.#bitmaps[ordinal] = owned.block;
      this.#enterIndex(ordinal);
    }
    return owned;
  }

  /**
   * Shadows the path to the index entry now, so that the commit needs no block from the device and no free block.
   */
  #enterIndex(ordinal: number): void {
    this.#indexRoot = this.#index.prepareInsert(this.#indexRoot, ordinal);
    this.#changed.push(ordinal);
    const wrong = this.#wrongHintOrdinals;
    this.#wrongHintOrdinals = [];
    for (const other of wrong) this.#enterIndex(other);
  }

  #addUsed(ordinal: number, change: number): void {
    this.#recordUndo(ordinal);
    this.#used[ordinal]! += change;
    this.#allocated += change;
    const used = this.#used[ordinal]!;
    assert(used >= 0 && used <= this.#entriesOf(ordinal), "a bitmap has other entries in use than counted");
    assert(this.#allocated >= used && this.#allocated <= this.#blocks, "data blocks are counted wrongly");
  }

  #recordUndo(ordinal: number): void {
    this.#undoOrdinals.push(ordinal);
    this.#undoBitmaps.push(this.#bitmaps[ordinal]!);
    this.#undoUsed.push(this.#used[ordinal]!);
  }
}
