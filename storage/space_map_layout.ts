/**
 * Where the blocks of the metadata space map are, and how they move at a commit.
 *
 * The map counts its own blocks, so writing it changes it. All counts are in memory, so this is solved as follows:
 * every bitmap with a changed count moves to a new block. That may change counts in other bitmaps, which then move too.
 * Each bitmap moves at most once, so this ends. The bitmaps are encoded after that.
 */
import { type CacheEntry, kindBitmap, kindMetadataIndex } from "./block_cache.ts";
import { bitmapEntries, packBitmap } from "./format/bitmap.ts";
import type { IndexEntry } from "./format/index_entry.ts";
import { packMetadataIndexEntry } from "./format/metadata_index.ts";
import type { SpaceMapRoot } from "./format/space_map_root.ts";
import { type MetadataBlock, metadataBlock } from "./base/ids.ts";
import { OverflowLayout, type OverflowLeaf } from "./overflow_layout.ts";
import type { MetadataSpaceMap } from "./space_map_metadata.ts";
import type { Transaction } from "./transaction.ts";

/** Not written yet. Block 0 is the superblock, so no other structure can be there. */
const nowhere = metadataBlock(0);

/** Where the overflow tree of loaded metadata is. */
export interface LoadedOverflow {
  readonly root: MetadataBlock;
  readonly leaves: readonly OverflowLeaf[];
  readonly inner: readonly MetadataBlock[];
}

/** The blocks of the metadata space map. */
export class MetadataSpaceLayout {
  readonly #transaction: Transaction;
  #index: MetadataBlock = nowhere;
  /** By ordinal: where the bitmap is, and its hints when it was encoded last. */
  #entries: IndexEntry[] = [];
  readonly #overflow: OverflowLayout;
  /** What {@linkcode move} replaced, for rollback. */
  #before: { index: MetadataBlock; entries: IndexEntry[] } | undefined;

  constructor(transaction: Transaction) {
    this.#transaction = transaction;
    this.#overflow = new OverflowLayout(transaction);
  }

  get #space(): MetadataSpaceMap {
    return this.#transaction.space;
  }

  /** Takes the places of loaded metadata, once all counts are known. `bitmaps` are in ordinal order. */
  load(index: MetadataBlock, bitmaps: MetadataBlock[], overflow: LoadedOverflow): void {
    this.#index = index;
    this.#entries = bitmaps.map((bitmap, ordinal) => {
      const counts = this.#space.countsOf(ordinal);
      return indexEntry(bitmap, counts, counts.reduce((used, count) => count > 0 ? used + 1 : used, 0));
    });
    this.#overflow.load(overflow.root, overflow.leaves, overflow.inner);
  }

  /**
   * Blocks that {@linkcode move} allocates at most: every bitmap, the index, and the changed part of the overflow tree.
   */
  get blocksNeededMax(): number {
    return this.#space.ordinals + 1 + this.#overflow.blocksNeededMax;
  }

  /** Moves all that changed to new blocks and encodes it. The last step of a transaction. */
  move(): SpaceMapRoot {
    const space = this.#space;
    this.#before = { index: this.#index, entries: this.#entries.slice() };
    // The overflow tree first. The later steps change counts of blocks with count 1 or 0 only, which it does not
    // contain.
    this.#overflow.move();
    const index = this.#relocate(this.#index, kindMetadataIndex);
    this.#index = index.block;
    this.#moveBitmaps().forEach((bitmap, ordinal) => this.#encodeBitmap(ordinal, bitmap));
    this.#entries.forEach((entry, ordinal) => packMetadataIndexEntry(index.view, ordinal, entry));
    return {
      blocks: space.blocks,
      allocated: space.used,
      bitmapRoot: this.#index,
      overflowRoot: this.#overflow.root,
    };
  }

  /** Undoes {@linkcode move}. */
  rollback(): void {
    if (this.#before === undefined) return;
    this.#index = this.#before.index;
    this.#entries = this.#before.entries;
    this.#overflow.rollback();
    this.#before = undefined;
  }

  /** The operation that moved it succeeded, and the transaction ends. */
  endTransaction(): void {
    this.#before = undefined;
  }

  /** Moves dirty bitmaps until no move makes another one dirty. Returns the new blocks by ordinal, with gaps. */
  #moveBitmaps(): CacheEntry[] {
    const space = this.#space;
    const moved: CacheEntry[] = [];
    for (let hasMoved = true; hasMoved;) {
      hasMoved = false;
      for (let ordinal = 0; ordinal < space.ordinals; ordinal++) {
        if (moved[ordinal] !== undefined || !space.isDirtyOrdinal(ordinal)) continue;
        moved[ordinal] = this.#relocate(this.#entries[ordinal]?.bitmap ?? nowhere, kindBitmap);
        hasMoved = true;
      }
    }
    return moved;
  }

  #relocate(old: MetadataBlock, kind: number): CacheEntry {
    const entry = this.#transaction.allocate(kind);
    if (old !== nowhere) this.#space.decrement(old);
    return entry;
  }

  #encodeBitmap(ordinal: number, bitmap: CacheEntry): void {
    const counts = this.#space.countsOf(ordinal);
    this.#entries[ordinal] = indexEntry(bitmap.block, counts, packBitmap(bitmap.bytes, counts));
  }
}

function indexEntry(bitmap: MetadataBlock, counts: Uint32Array, used: number): IndexEntry {
  const firstFree = counts.indexOf(0);
  // The last bitmap is counted as if it were whole, as the kernel does (`sm_ll_find_free_block`).
  return { bitmap, free: bitmapEntries - used, noneFreeBefore: firstFree < 0 ? counts.length : firstFree };
}
