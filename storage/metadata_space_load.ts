/** Reads all reference counts of metadata blocks into memory when a pool is opened for writing. */
import { treeHeightMax } from "./base/limits.ts";
import { type CacheEntry, kindBitmap, kindMetadataIndex } from "./block_cache.ts";
import { Btree, plainValues } from "./btree.ts";
import { bitmapCount, bitmapEntries, bitmapNextUsed, countOverflows } from "./format/bitmap.ts";
import { nodeChild, nodeEntries, nodeIsLeaf, nodeKey, nodeValueOffset } from "./format/btree_node.ts";
import { readU32 } from "./format/fields.ts";
import { metadataIndexEntry } from "./format/metadata_index.ts";
import { overflowValueSizeBytes, type SpaceMapRoot } from "./format/space_map_root.ts";
import { superblockLocation } from "./format/superblock.ts";
import { type MetadataBlock, metadataBlock } from "./base/ids.ts";
import { countedFree, damaged } from "./metadata_fault.ts";
import type { OverflowLeaf } from "./overflow_layout.ts";
import type { MetadataSpaceLayout } from "./space_map_layout.ts";
import { overflowCountMin } from "./space_map_metadata.ts";
import type { Transaction } from "./transaction.ts";

/** Loads one metadata space map. {@linkcode load} continues where it faulted. */
export class MetadataSpaceLoad {
  readonly #transaction: Transaction;
  readonly #root: SpaceMapRoot;
  readonly #overflow: Btree;
  readonly #bitmaps: MetadataBlock[] = [];
  /**
   * Nodes of the overflow tree that are still to be read; those that were read: leaves with entries, and all others.
   */
  readonly #overflowNext: { block: MetadataBlock; height: number }[] = [];
  readonly #overflowLeaves: OverflowLeaf[] = [];
  readonly #overflowInner: MetadataBlock[] = [];
  /** Blocks with 3 or more references whose exact count has not been read yet. */
  #exactMissing = 0;
  #isStarted = false;
  #isDone = false;
  /** Index entries whose number of free blocks differed from the bitmap's. */
  wrongHints = 0;

  constructor(transaction: Transaction, root: SpaceMapRoot) {
    this.#transaction = transaction;
    this.#root = root;
    this.#overflow = new Btree(transaction, overflowValueSizeBytes, plainValues);
  }

  /**
   * Continues where the last call faulted. At the end it calls the layout's `load`, once: that takes a pass over all
   * counts, and this function is called again for each of the thousands of faults of what is loaded after it.
   */
  load(layout: MetadataSpaceLayout): void {
    if (this.#isDone) return;
    this.#loadBitmaps();
    if (!this.#isStarted) this.#overflowNext.push({ block: this.#root.overflowRoot, height: 0 });
    this.#isStarted = true;
    this.#loadOverflow();
    if (this.#exactMissing !== 0) {
      damaged(this.#root.overflowRoot, "a metadata block has three or more references but no exact count");
    }
    this.#checkOwnBlocks();
    layout.load(this.#root.bitmapRoot, this.#bitmaps, {
      root: this.#root.overflowRoot,
      leaves: this.#leavesInOrder(),
      inner: this.#overflowInner,
    });
    this.#transaction.space.isLoaded = true;
    this.#isDone = true;
  }

  /**
   * Faults if a block of the map itself has a count of 0 or an exact count. A commit frees the map's old blocks after
   * it has written the exact counts. If one of these blocks had an exact count, the commit would leave a wrong one
   * behind, and the metadata could not be opened again.
   */
  #checkOwnBlocks(): void {
    const leaves = this.#overflowLeaves.map(({ block }) => block);
    for (const block of [this.#root.bitmapRoot, ...this.#bitmaps, ...leaves, ...this.#overflowInner]) {
      const count = this.#transaction.space.count(block);
      if (count === 0) damaged(block, countedFree);
      if (count >= overflowCountMin) {
        damaged(block, `it is the metadata space map's own, which counts ${count} references to it`);
      }
    }
  }

  #loadBitmaps(): void {
    const space = this.#transaction.space;
    const index = this.#transaction.read(this.#root.bitmapRoot, kindMetadataIndex);
    for (let ordinal = this.#bitmaps.length; ordinal < space.ordinals; ordinal++) {
      const entry = metadataIndexEntry(index.view, ordinal);
      const bitmap = this.#transaction.read(entry.bitmap, kindBitmap);
      const used = this.#loadBitmap(bitmap, ordinal);
      if (space.count(superblockLocation) === 0) damaged(entry.bitmap, "it says that the superblock is free");
      if (entry.free !== bitmapEntries - used) this.wrongHints++;
      this.#bitmaps.push(entry.bitmap);
      this.#transaction.cache.dropClean(entry.bitmap); // its counts are in memory from here on
    }
  }

  #loadBitmap(bitmap: CacheEntry, ordinal: number): number {
    const space = this.#transaction.space;
    const base = ordinal * bitmapEntries;
    const entries = Math.min(bitmapEntries, space.blocks - base);
    let used = 0;
    for (let index = 0; (index = bitmapNextUsed(bitmap.bytes, index, entries)) < entries; index++) {
      const count = bitmapCount(bitmap.bytes, index);
      if (count === countOverflows) this.#exactMissing++;
      space.load(metadataBlock(base + index), count);
      used++;
    }
    return used;
  }

  #loadOverflow(): void {
    for (let next = this.#overflowNext.at(-1); next !== undefined; next = this.#overflowNext.at(-1)) {
      if (next.height > treeHeightMax) damaged(next.block, "the path to it never ends");
      const node = this.#overflow.node(next.block);
      this.#overflowNext.pop();
      if (nodeIsLeaf(node.view)) this.#loadOverflowLeaf(node);
      else {
        this.#overflowInner.push(next.block);
        for (let index = 0; index < nodeEntries(node.view); index++) {
          this.#overflowNext.push({ block: nodeChild(node.view, index), height: next.height + 1 });
        }
      }
    }
  }

  #loadOverflowLeaf(node: CacheEntry): void {
    const space = this.#transaction.space;
    const keys = new Uint32Array(nodeEntries(node.view));
    for (let index = 0; index < keys.length; index++) {
      const block = metadataBlock(nodeKey(node.view, index));
      const count = readU32(node.view, nodeValueOffset(node.view, index));
      if (block >= space.blocks || space.count(block) !== countOverflows || count < overflowCountMin) {
        damaged(node.block, `its count of metadata block ${block} contradicts the bitmap`);
      }
      keys[index] = block;
      space.load(block, count);
      this.#exactMissing--;
    }
    const isOnly = node.block === this.#root.overflowRoot;
    if (keys.length > 0 || isOnly) this.#overflowLeaves.push({ block: node.block, keys });
    else this.#overflowInner.push(node.block);
  }

  #leavesInOrder(): OverflowLeaf[] {
    const leaves = this.#overflowLeaves.toSorted((a, b) => (a.keys[0] ?? 0) - (b.keys[0] ?? 0));
    let last = -1;
    for (const { block, keys } of leaves) {
      if ((keys[0] ?? 0) <= last) damaged(block, "its keys are not apart from those of its siblings");
      last = keys.at(-1) ?? 0;
    }
    return leaves;
  }
}
