/**
 * The overflow tree of the metadata space map: a B-tree with the exact counts of metadata blocks with 3 or more
 * references. A commit writes only the leaves with changed counts, and the nodes above. To write the whole tree would
 * take milliseconds in one turn when snapshots share tens of thousands of nodes.
 *
 * The keys of the leaves are kept in memory, so nothing is read. A leaf is never changed in place: it is written to a
 * new block, and the old block loses its only reference, in the same transaction. The blocks of the tree have count 1,
 * so moving them changes no count in the tree.
 */
import { assert } from "./base/assert.ts";
import type { CacheEntry } from "./block_cache.ts";
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
import { overflowValueSizeBytes } from "./format/space_map_root.ts";
import { type MetadataBlock, metadataBlock } from "./base/ids.ts";
import { overflowEntriesPerChange } from "./base/limits.ts";
import { type MetadataSpaceMap, overflowCountMin } from "./space_map_metadata.ts";
import type { Transaction } from "./transaction.ts";

/** A written leaf: its block, and the keys in it (metadata block numbers), ascending. Never changed. */
export interface OverflowLeaf {
  readonly block: MetadataBlock;
  readonly keys: Uint32Array;
}

/** A leaf of the new tree. Without a block it is still to be written. */
interface PlannedLeaf {
  readonly block: MetadataBlock | undefined;
  readonly keys: Uint32Array;
}

/** The tree as it was written last. Never changed. */
interface Tree {
  readonly root: MetadataBlock;
  /** In the order of their keys. Only an empty tree has a leaf without keys. */
  readonly leaves: readonly OverflowLeaf[];
  /** The nodes above them. */
  readonly inner: readonly MetadataBlock[];
}

const overflowLeafEntriesMax = nodeCapacity(overflowValueSizeBytes);
/** Every leaf, except one that is the root, has a third of its capacity at least. */
const overflowLeafEntriesMin = overflowLeafEntriesMax / 3;

/** The blocks of the overflow tree. */
export class OverflowLayout {
  readonly #transaction: Transaction;
  #tree: Tree | undefined;
  #before: Tree | undefined;

  constructor(transaction: Transaction) {
    this.#transaction = transaction;
  }

  /** Takes the tree of loaded metadata. */
  load(root: MetadataBlock, leaves: readonly OverflowLeaf[], inner: readonly MetadataBlock[]): void {
    this.#tree = { root, leaves, inner };
  }

  get root(): MetadataBlock {
    assert(this.#tree !== undefined, "the overflow tree is loaded or made");
    return this.#tree.root;
  }

  /** Blocks that {@linkcode move} allocates at most. */
  get blocksNeededMax(): number {
    const space = this.#transaction.space;
    const leaves = this.#tree?.leaves.length ?? 0;
    const changes = space.recounted.length;
    // Consecutive changed leaves become at most one leaf more, and one more for each `overflowLeafEntriesMax` new entries.
    const fromChanges = leaves + Math.min(changes, leaves + Math.ceil(changes / overflowLeafEntriesMax));
    const fromEntries = Math.max(1, Math.floor(space.overflowing / overflowLeafEntriesMin));
    const made = Math.min(fromChanges, fromEntries);
    const all = leaves > 1 ? Math.min(fromChanges, leaves + fromEntries) : fromEntries;
    return Math.max(1, made) + innerNodesOver(all);
  }

  /** Writes every leaf with a changed count, and the nodes above, to new blocks. */
  move(): void {
    const space = this.#transaction.space;
    const before = this.#tree;
    this.#before = before;
    if (before !== undefined && space.recounted.length === 0) return;
    // If most leaves change, one pass over all counts takes less time than finding those that do not.
    const isMost = space.recounted.length > space.overflowing / overflowEntriesPerChange;
    const planned = isMost
      ? new LeafPlan(space).whole()
      : new LeafPlan(space).of(before?.leaves ?? [], Uint32Array.from(space.recounted).sort());
    const kept = new Set(planned.map(({ block }) => block));
    for (const { block } of before?.leaves ?? []) if (!kept.has(block)) space.decrement(block);
    for (const block of before?.inner ?? []) space.decrement(block);
    const leaves = planned.map(({ block, keys }) => ({ block: block ?? this.#makeLeaf(keys), keys }));
    const inner: MetadataBlock[] = [];
    let level = leaves.map(({ block, keys }) => ({ block, firstKey: keys[0] ?? 0 }));
    while (level.length > 1) {
      level = this.#makeInner(level);
      inner.push(...level.map(({ block }) => block));
    }
    this.#tree = { root: level[0]!.block, leaves, inner };
  }

  /** Undoes {@linkcode move}. */
  rollback(): void {
    this.#tree = this.#before;
  }

  #makeLeaf(keys: Uint32Array): MetadataBlock {
    const { view, block } = this.#makeNode(true, keys.length);
    for (let index = 0; index < keys.length; index++) {
      const key = keys[index]!;
      setNodeKey(view, index, key);
      writeU32(view, nodeValueOffset(view, index), this.#transaction.space.count(metadataBlock(key)));
    }
    return block;
  }

  /** Writes the level above the children. They are spread evenly, so that no node is less than half full. */
  #makeInner(children: readonly InnerEntry[]): InnerEntry[] {
    return evenly(children.length, nodeCapacity(childSizeBytes)).map(([begin, end]) => {
      const { view, block } = this.#makeNode(false, end - begin);
      for (let at = begin; at < end; at++) {
        setNodeKey(view, at - begin, children[at]!.firstKey);
        setNodeChild(view, at - begin, children[at]!.block);
      }
      return { block, firstKey: children[begin]!.firstKey };
    });
  }

  #makeNode(isLeaf: boolean, entries: number): CacheEntry {
    const node = this.#transaction.allocate(overflowValueSizeBytes);
    initNode(node.view, isLeaf, isLeaf ? overflowValueSizeBytes : childSizeBytes);
    setNodeEntries(node.view, entries);
    return node;
  }
}

interface InnerEntry {
  readonly block: MetadataBlock;
  readonly firstKey: number;
}

/**
 * Plans the leaves of the new tree. A leaf to which a changed block belongs is written again. So is a leaf next to it,
 * if there would be too few keys for a leaf otherwise. All other leaves are kept.
 */
class LeafPlan {
  readonly #space: MetadataSpaceMap;
  readonly #leaves: PlannedLeaf[] = [];
  /** Keys after those of the last planned leaf, which have no leaf yet, and their number. */
  #pending = new Uint32Array(0);
  #pendingLength = 0;

  constructor(space: MetadataSpaceMap) {
    this.#space = space;
  }

  of(leaves: readonly OverflowLeaf[], changed: Uint32Array): PlannedLeaf[] {
    const planned = this.#leaves;
    this.#pending = new Uint32Array(changed.length + leaves.reduce((sum, { keys }) => sum + keys.length, 0));
    let at = 0;
    for (let leaf = 0; leaf < leaves.length; leaf++) {
      const { keys } = leaves[leaf]!;
      const from = at;
      const endKey = leaves[leaf + 1]?.keys[0] ?? Infinity;
      while (at < changed.length && changed[at]! < endKey) at++;
      const isTooLittle = this.#pendingLength > 0 && this.#pendingLength < overflowLeafEntriesMin &&
        planned.length === 0;
      if (at > from) this.#addChanged(keys, changed.subarray(from, at));
      else if (isTooLittle) this.#addKeys(keys);
      else {
        this.#planPending();
        planned.push(leaves[leaf]!);
      }
    }
    this.#addChanged(new Uint32Array(0), changed.subarray(at));
    this.#planPending();
    if (planned.length === 0) planned.push({ block: undefined, keys: new Uint32Array(0) });
    return planned;
  }

  whole(): PlannedLeaf[] {
    this.#addKeys(this.#space.overflowingBlocks());
    this.#planPending();
    if (this.#leaves.length === 0) this.#leaves.push({ block: undefined, keys: new Uint32Array(0) });
    return this.#leaves;
  }

  #addKeys(keys: Uint32Array): void {
    if (this.#pending.length === 0) this.#pending = new Uint32Array(keys.length);
    this.#pending.set(keys, this.#pendingLength);
    this.#pendingLength += keys.length;
  }

  /** Adds the keys of a leaf and the changed keys that belong in the tree now. Both ascend. */
  #addChanged(keys: Uint32Array, changed: Uint32Array): void {
    const pending = this.#pending;
    let length = this.#pendingLength;
    let from = 0;
    for (let at = 0; at < changed.length; at++) {
      const key = changed[at]!;
      while (from < keys.length && keys[from]! < key) pending[length++] = keys[from++]!;
      if (keys[from] === key) from++;
      if (this.#space.count(metadataBlock(key)) >= overflowCountMin) pending[length++] = key;
    }
    while (from < keys.length) pending[length++] = keys[from++]!;
    this.#pendingLength = length;
  }

  /**
   * Plans leaves for the pending keys, together with the keys of the last planned leaf if they are too few for a leaf.
   */
  #planPending(): void {
    const planned = this.#leaves;
    let keys = this.#pending.subarray(0, this.#pendingLength);
    while (keys.length > 0 && keys.length < overflowLeafEntriesMin && planned.length > 0) {
      keys = joined(planned.pop()!.keys, keys);
    }
    for (const [begin, end] of evenly(keys.length, overflowLeafEntriesMax)) {
      planned.push({ block: undefined, keys: keys.slice(begin, end) });
    }
    this.#pendingLength = 0;
  }
}

function joined(first: Uint32Array, second: Uint32Array): Uint32Array<ArrayBuffer> {
  const both = new Uint32Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/**
 * Divides `count` into the fewest parts of at most `partMax`, with sizes that differ by at most 1. Begin and end of
 * each.
 */
function evenly(count: number, partMax: number): (readonly [number, number])[] {
  const parts = Math.ceil(count / partMax);
  return Array.from({ length: parts }, (_, part) => {
    return [Math.floor(part * count / parts), Math.floor((part + 1) * count / parts)] as const;
  });
}

/** Inner nodes above so many leaves. */
function innerNodesOver(leaves: number): number {
  let nodes = 0;
  for (let level = leaves; level > 1;) {
    level = Math.ceil(level / nodeCapacity(childSizeBytes));
    nodes += level;
  }
  return nodes;
}
