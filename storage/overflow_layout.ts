/**
 * Where the exact counts of metadata blocks with three and more references lie: a B-tree that a commit changes only where
 * counts have changed. In full it would cost milliseconds in one turn where snapshots share tens of thousands of nodes.
 *
 * What the leaves hold is kept in memory, so that nothing need be read. A leaf is never changed in place: it gets
 * a new home, and its old one loses its only reference, which is a matter of the same transaction as all else. The
 * blocks of the tree have count 1, so moving them changes no count that the tree holds.
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

/** A leaf that lies in a block, and the blocks whose counts it holds, ascending. Never changed. */
export interface OverflowLeaf {
  readonly block: MetadataBlock;
  readonly keys: Uint32Array;
}

/** A leaf as it shall be; one without a block has still to be made. */
interface Piece {
  readonly block: MetadataBlock | undefined;
  readonly keys: Uint32Array;
}

/** The tree as it lies on the device. Never changed. */
interface Tree {
  readonly root: MetadataBlock;
  /** In the order of their keys. All hold some, but for an empty tree's only one. */
  readonly leaves: readonly OverflowLeaf[];
  /** The nodes above them. */
  readonly inner: readonly MetadataBlock[];
}

const leafEntriesMax = nodeCapacity(overflowValueSizeBytes);
/** Every leaf but an only one holds a third of what it could. */
const leafEntriesMin = leafEntriesMax / 3;

/** The blocks of the overflow tree. */
export class OverflowLayout {
  readonly #transaction: Transaction;
  #tree: Tree | undefined;
  #before: Tree | undefined;

  constructor(transaction: Transaction) {
    this.#transaction = transaction;
  }

  /** Where the loaded metadata has it. */
  load(root: MetadataBlock, leaves: readonly OverflowLeaf[], inner: readonly MetadataBlock[]): void {
    this.#tree = { root, leaves, inner };
  }

  get root(): MetadataBlock {
    assert(this.#tree !== undefined, "the overflow tree is loaded or made");
    return this.#tree.root;
  }

  /** Blocks that {@linkcode move} may need at worst. */
  get blocksNeededMax(): number {
    const space = this.#transaction.space;
    const leaves = this.#tree?.leaves.length ?? 0;
    const changes = space.recounted.length;
    // Each run of changed leaves becomes one more than it was, and one more for each leaf's worth of new entries.
    const fromChanges = leaves + Math.min(changes, leaves + Math.ceil(changes / leafEntriesMax));
    const fromEntries = Math.max(1, Math.floor(space.overflowing / leafEntriesMin));
    const made = Math.min(fromChanges, fromEntries);
    const all = leaves > 1 ? Math.min(fromChanges, leaves + fromEntries) : fromEntries;
    return Math.max(1, made) + innerNodesOver(all);
  }

  /** Gives every leaf with a changed count a new home, and the nodes above. */
  move(): void {
    const space = this.#transaction.space;
    const before = this.#tree;
    this.#before = before;
    if (before !== undefined && space.recounted.length === 0) return;
    // Where most leaves change anyway, one pass over all counts takes less than finding out which do not.
    const isMost = space.recounted.length > space.overflowing / overflowEntriesPerChange;
    const pieces = isMost
      ? new Pieces(space).whole()
      : new Pieces(space).of(before?.leaves ?? [], Uint32Array.from(space.recounted).sort());
    const kept = new Set(pieces.map(({ block }) => block));
    for (const { block } of before?.leaves ?? []) if (!kept.has(block)) space.decrement(block);
    for (const block of before?.inner ?? []) space.decrement(block);
    const leaves = pieces.map(({ block, keys }) => ({ block: block ?? this.#makeLeaf(keys), keys }));
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

  /** One level above the children, which are spread evenly, so that no node is less than half full. */
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
 * The leaves as they shall be. Those that hold a changed block, and what a changed block belongs to, are taken apart and put
 * together anew; so is the leaf before what would be too little for one, or after it.
 */
class Pieces {
  readonly #space: MetadataSpaceMap;
  readonly #made: Piece[] = [];
  /** Keys that belong after those of the last piece, and how many. */
  #loose = new Uint32Array(0);
  #looseLength = 0;

  constructor(space: MetadataSpaceMap) {
    this.#space = space;
  }

  of(leaves: readonly OverflowLeaf[], changed: Uint32Array): Piece[] {
    const pieces = this.#made;
    this.#loose = new Uint32Array(changed.length + leaves.reduce((sum, { keys }) => sum + keys.length, 0));
    let at = 0;
    for (let leaf = 0; leaf < leaves.length; leaf++) {
      const { keys } = leaves[leaf]!;
      const from = at;
      const endKey = leaves[leaf + 1]?.keys[0] ?? Infinity;
      while (at < changed.length && changed[at]! < endKey) at++;
      const isTooLittle = this.#looseLength > 0 && this.#looseLength < leafEntriesMin && pieces.length === 0;
      if (at > from) this.#loosenChanged(keys, changed.subarray(from, at));
      else if (isTooLittle) this.#loosen(keys);
      else {
        this.#putTogether();
        pieces.push(leaves[leaf]!);
      }
    }
    this.#loosenChanged(new Uint32Array(0), changed.subarray(at));
    this.#putTogether();
    if (pieces.length === 0) pieces.push({ block: undefined, keys: new Uint32Array(0) });
    return pieces;
  }

  whole(): Piece[] {
    this.#loosen(this.#space.overflowingBlocks());
    this.#putTogether();
    if (this.#made.length === 0) this.#made.push({ block: undefined, keys: new Uint32Array(0) });
    return this.#made;
  }

  #loosen(keys: Uint32Array): void {
    if (this.#loose.length === 0) this.#loose = new Uint32Array(keys.length);
    this.#loose.set(keys, this.#looseLength);
    this.#looseLength += keys.length;
  }

  /** The keys of a leaf, with the changed ones among them where they belong now. Both ascend. */
  #loosenChanged(keys: Uint32Array, changed: Uint32Array): void {
    const loose = this.#loose;
    let length = this.#looseLength;
    let from = 0;
    for (let at = 0; at < changed.length; at++) {
      const key = changed[at]!;
      while (from < keys.length && keys[from]! < key) loose[length++] = keys[from++]!;
      if (keys[from] === key) from++;
      if (this.#space.count(metadataBlock(key)) >= overflowCountMin) loose[length++] = key;
    }
    while (from < keys.length) loose[length++] = keys[from++]!;
    this.#looseLength = length;
  }

  /** Makes leaves for the loose keys, with those of the last piece if it takes that to fill one. */
  #putTogether(): void {
    const pieces = this.#made;
    let keys = this.#loose.subarray(0, this.#looseLength);
    while (keys.length > 0 && keys.length < leafEntriesMin && pieces.length > 0) {
      keys = joined(pieces.pop()!.keys, keys);
    }
    for (const [begin, end] of evenly(keys.length, leafEntriesMax)) {
      pieces.push({ block: undefined, keys: keys.slice(begin, end) });
    }
    this.#looseLength = 0;
  }
}

function joined(first: Uint32Array, second: Uint32Array): Uint32Array<ArrayBuffer> {
  const both = new Uint32Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/** Begin and end of the fewest parts of at most `partMax` that differ by one at most. */
function evenly(count: number, partMax: number): (readonly [number, number])[] {
  const parts = Math.ceil(count / partMax);
  return Array.from({ length: parts }, (_, part) => {
    return [Math.floor(part * count / parts), Math.floor((part + 1) * count / parts)] as const;
  });
}

/** Nodes above so many leaves. */
function innerNodesOver(leaves: number): number {
  let nodes = 0;
  for (let level = leaves; level > 1;) {
    level = Math.ceil(level / nodeCapacity(childSizeBytes));
    nodes += level;
  }
  return nodes;
}
