/**
 * Where the metadata space map itself lies, and how it moves at a commit.
 *
 * The map counts its own blocks, so writing it changes it. As all counts are in memory, the circle closes
 * like this (dm-thin.md 2.3): every bitmap with a changed count gets a new home; that changes counts in
 * perhaps other bitmaps, which then move too; each bitmap moves at most once, so this ends. Only then is
 * anything encoded.
 */
import { assert } from "./assert.ts";
import { type CacheEntry, kindBitmap, kindMetadataIndex } from "./block_cache.ts";
import { bitmapEntries, packBitmap } from "./format/bitmap.ts";
import {
  childSizeBytes,
  initNode,
  nodeCapacity,
  nodeValueOffset,
  setNodeChild,
  setNodeEntries,
  setNodeKey,
} from "./format/btree_node.ts";
import { writeU32 } from "./format/fields.ts";
import type { IndexEntry } from "./format/index_entry.ts";
import { packMetadataIndexEntry } from "./format/metadata_index.ts";
import type { SpaceMapRoot } from "./format/space_map_root.ts";
import { type MetadataBlock, metadataBlock } from "./ids.ts";
import type { MetadataSpaceMap } from "./space_map_metadata.ts";
import type { Transaction } from "./transaction.ts";

/** Bytes of a count in an overflow tree, which is also the cache kind of its nodes. */
export const overflowValueSizeBytes = 4;

/** No home yet. Block 0 is the superblock, so no other structure lies there. */
const homeless = metadataBlock(0);

/** A node of the bulk-built overflow tree, with the first key below it. */
interface BuiltNode {
  readonly block: MetadataBlock;
  readonly firstKey: number;
}

/** The blocks of the metadata space map. */
export class MetadataSpaceLayout {
  readonly #transaction: Transaction;
  #index: MetadataBlock = homeless;
  /** By ordinal: where the bitmap is and what its hints were when it was last encoded. */
  #entries: IndexEntry[] = [];
  #overflowRoot: MetadataBlock = homeless;
  #overflowNodes: MetadataBlock[] = [];
  /** What {@linkcode move} replaced, for undo. */
  #before: {
    index: MetadataBlock;
    entries: IndexEntry[];
    overflowRoot: MetadataBlock;
    overflowNodes: MetadataBlock[];
  } | undefined;

  constructor(transaction: Transaction) {
    this.#transaction = transaction;
  }

  get #space(): MetadataSpaceMap {
    return this.#transaction.space;
  }

  /**
   * Where the loaded metadata has it, once all counts are known. `bitmaps` are in ordinal order,
   * `overflowNodes` all nodes of that tree.
   */
  load(
    index: MetadataBlock,
    bitmaps: MetadataBlock[],
    overflowRoot: MetadataBlock,
    overflowNodes: MetadataBlock[],
  ): void {
    this.#index = index;
    this.#entries = bitmaps.map((bitmap, ordinal) => {
      const counts = this.#space.countsOf(ordinal);
      return indexEntry(bitmap, counts, counts.reduce((used, count) => count > 0 ? used + 1 : used, 0));
    });
    this.#overflowRoot = overflowRoot;
    this.#overflowNodes = overflowNodes;
  }

  /** Blocks that {@linkcode move} may need at worst: every bitmap, the index, a new overflow tree. */
  get blocksNeededMax(): number {
    return this.#space.ordinals + 1 + overflowTreeNodes(this.#space.overflowing);
  }

  /** Gives everything that changed a new home and encodes it. The last step of a transaction. */
  move(): SpaceMapRoot {
    const space = this.#space;
    this.#before = {
      index: this.#index,
      entries: this.#entries.slice(),
      overflowRoot: this.#overflowRoot,
      overflowNodes: this.#overflowNodes,
    };
    // The overflow tree first: its blocks have count 1, so nothing after it changes which counts it must
    // hold.
    if (space.overflowChanged) this.#rebuildOverflow();
    const index = this.#rehome(this.#index, kindMetadataIndex);
    this.#index = index.block;
    this.#moveBitmaps().forEach((bitmap, ordinal) => this.#encodeBitmap(ordinal, bitmap));
    this.#entries.forEach((entry, ordinal) => packMetadataIndexEntry(index.view, ordinal, entry));
    return {
      blocks: space.blocks,
      allocated: space.used,
      bitmapRoot: this.#index,
      overflowRoot: this.#overflowRoot,
    };
  }

  /** Undoes {@linkcode move}. */
  rollback(): void {
    if (this.#before === undefined) return;
    this.#index = this.#before.index;
    this.#entries = this.#before.entries;
    this.#overflowRoot = this.#before.overflowRoot;
    this.#overflowNodes = this.#before.overflowNodes;
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

  /**
   * Builds the overflow tree anew, bottom up. Entries are spread evenly, so that no node is less than half
   * full.
   */
  #rebuildOverflow(): void {
    const space = this.#space;
    for (const node of this.#overflowNodes) space.decrement(node);
    this.#overflowNodes = [];
    const blocks = space.overflowingBlocks();
    assert(blocks.length === space.overflowing, "the counts of three and more are counted");
    let level = this.#buildLeaves(blocks);
    while (level.length > 1) level = this.#buildInternal(level);
    this.#overflowRoot = level[0]!.block;
  }

  #buildLeaves(blocks: readonly number[]): BuiltNode[] {
    const leaves = Math.max(1, Math.ceil(blocks.length / nodeCapacity(overflowValueSizeBytes)));
    const built: BuiltNode[] = [];
    for (let leaf = 0; leaf < leaves; leaf++) {
      const begin = Math.floor(leaf * blocks.length / leaves);
      const end = Math.floor((leaf + 1) * blocks.length / leaves);
      const { view, block } = this.#newOverflowNode(true);
      setNodeEntries(view, end - begin);
      for (let index = 0; index < end - begin; index++) {
        const key = blocks[begin + index]!;
        setNodeKey(view, index, key);
        writeU32(view, nodeValueOffset(view, index), this.#space.count(metadataBlock(key)));
      }
      built.push({ block, firstKey: blocks[begin] ?? 0 });
    }
    return built;
  }

  #buildInternal(children: readonly BuiltNode[]): BuiltNode[] {
    const nodes = Math.ceil(children.length / nodeCapacity(childSizeBytes));
    const built: BuiltNode[] = [];
    for (let node = 0; node < nodes; node++) {
      const begin = Math.floor(node * children.length / nodes);
      const end = Math.floor((node + 1) * children.length / nodes);
      const { view, block } = this.#newOverflowNode(false);
      setNodeEntries(view, end - begin);
      for (let index = 0; index < end - begin; index++) {
        setNodeKey(view, index, children[begin + index]!.firstKey);
        setNodeChild(view, index, children[begin + index]!.block);
      }
      built.push({ block, firstKey: children[begin]!.firstKey });
    }
    return built;
  }

  #newOverflowNode(isLeaf: boolean): CacheEntry {
    const node = this.#transaction.allocate(overflowValueSizeBytes);
    initNode(node.view, isLeaf, isLeaf ? overflowValueSizeBytes : childSizeBytes);
    this.#overflowNodes.push(node.block);
    return node;
  }
}

function indexEntry(bitmap: MetadataBlock, counts: Uint32Array, used: number): IndexEntry {
  const firstFree = counts.indexOf(0);
  // As if the bitmap were whole, the last one too: dm-thin.md 1.9.2.
  return { bitmap, free: bitmapEntries - used, noneFreeBefore: firstFree < 0 ? counts.length : firstFree };
}

/** Nodes of a bulk-built overflow tree of so many entries. */
function overflowTreeNodes(entries: number): number {
  let level = Math.max(1, Math.ceil(entries / nodeCapacity(overflowValueSizeBytes)));
  let nodes = level;
  while (level > 1) {
    level = Math.ceil(level / nodeCapacity(childSizeBytes));
    nodes += level;
  }
  return nodes;
}
