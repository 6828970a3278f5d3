/**
 * Where the metadata space map itself lies, and how it moves at a commit.
 *
 * The map counts its own blocks, so writing it changes it. As all counts are in memory, the circle closes
 * like this: every bitmap with a changed count gets a new home; that changes counts in
 * perhaps other bitmaps, which then move too; each bitmap moves at most once, so this ends. Only then is
 * anything encoded.
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

/** No home yet. Block 0 is the superblock, so no other structure lies there. */
const homeless = metadataBlock(0);

/** Where the overflow tree of loaded metadata lies. */
export interface LoadedOverflow {
  readonly root: MetadataBlock;
  readonly leaves: readonly OverflowLeaf[];
  readonly inner: readonly MetadataBlock[];
}

/** The blocks of the metadata space map. */
export class MetadataSpaceLayout {
  readonly #transaction: Transaction;
  #index: MetadataBlock = homeless;
  /** By ordinal: where the bitmap is and what its hints were when it was last encoded. */
  #entries: IndexEntry[] = [];
  readonly #overflow: OverflowLayout;
  /** What {@linkcode move} replaced, for undo. */
  #before: { index: MetadataBlock; entries: IndexEntry[] } | undefined;

  constructor(transaction: Transaction) {
    this.#transaction = transaction;
    this.#overflow = new OverflowLayout(transaction);
  }

  get #space(): MetadataSpaceMap {
    return this.#transaction.space;
  }

  /** Where the loaded metadata has it, once all counts are known. `bitmaps` are in ordinal order. */
  load(index: MetadataBlock, bitmaps: MetadataBlock[], overflow: LoadedOverflow): void {
    this.#index = index;
    this.#entries = bitmaps.map((bitmap, ordinal) => {
      const counts = this.#space.countsOf(ordinal);
      return indexEntry(bitmap, counts, counts.reduce((used, count) => count > 0 ? used + 1 : used, 0));
    });
    this.#overflow.load(overflow.root, overflow.leaves, overflow.inner);
  }

  /** Blocks that {@linkcode move} may need at worst: every bitmap, the index, and of the overflow tree what changed. */
  get blocksNeededMax(): number {
    return this.#space.ordinals + 1 + this.#overflow.blocksNeededMax;
  }

  /** Gives everything that changed a new home and encodes it. The last step of a transaction. */
  move(): SpaceMapRoot {
    const space = this.#space;
    this.#before = { index: this.#index, entries: this.#entries.slice() };
    // The overflow tree first: its blocks have count 1, so nothing after it changes which counts it must
    // hold.
    this.#overflow.move();
    const index = this.#rehome(this.#index, kindMetadataIndex);
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

  /** The operation that moved it succeeded. */
  settle(): void {
    this.#before = undefined;
  }

  /** Moves dirty bitmaps until no move dirties another. Returns the new blocks by ordinal, with gaps. */
  #moveBitmaps(): CacheEntry[] {
    const space = this.#space;
    const moved: CacheEntry[] = [];
    for (let hasMoved = true; hasMoved;) {
      hasMoved = false;
      for (let ordinal = 0; ordinal < space.ordinals; ordinal++) {
        if (moved[ordinal] !== undefined || !space.isDirtyOrdinal(ordinal)) continue;
        moved[ordinal] = this.#rehome(this.#entries[ordinal]?.bitmap ?? homeless, kindBitmap);
        hasMoved = true;
      }
    }
    return moved;
  }

  #rehome(old: MetadataBlock, kind: number): CacheEntry {
    const home = this.#transaction.allocate(kind);
    if (old !== homeless) this.#space.decrement(old);
    return home;
  }

  #encodeBitmap(ordinal: number, bitmap: CacheEntry): void {
    const counts = this.#space.countsOf(ordinal);
    this.#entries[ordinal] = indexEntry(bitmap.block, counts, packBitmap(bitmap.bytes, counts));
  }
}

function indexEntry(bitmap: MetadataBlock, counts: Uint32Array, used: number): IndexEntry {
  const firstFree = counts.indexOf(0);
  // As if the bitmap were whole, the last one too, as the kernel does (`sm_ll_find_free_block`).
  return { bitmap, free: bitmapEntries - used, noneFreeBefore: firstFree < 0 ? counts.length : firstFree };
}
