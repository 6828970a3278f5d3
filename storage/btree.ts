/**
 * B-trees of the metadata: look-up and insertion (removal is in btree_remove.ts).
 *
 * A tree is identified by the block number of its root. A change returns the new root, which its caller stores. Every
 * node on the path to a change is shadowed first. If the node was shared, its children now have two parents, so their
 * counts are incremented (`inc_children`, drivers/md/persistent-data/dm-btree.c). If it was not shared, it only moved,
 * and the counts of its children stay.
 */
import type { CacheEntry, CacheKind } from "./block_cache.ts";
import { closeGap, copyEntries, openGap } from "./btree_entries.ts";
import {
  childSizeBytes,
  initNode,
  nodeChild,
  nodeEntries,
  nodeFindAtOrBelow,
  nodeIsLeaf,
  nodeKey,
  nodeMaxEntries,
  setNodeChild,
  setNodeKey,
} from "./format/btree_node.ts";
import type { MetadataBlock } from "./base/ids.ts";
import { siblingPlacesFreeMin, treeHeightMax } from "./base/limits.ts";
import { damaged } from "./metadata_fault.ts";
import type { Transaction } from "./transaction.ts";

/**
 * How the values of a tree's leaves count references (`struct dm_btree_value_type`,
 * drivers/md/persistent-data/dm-btree.h).
 */
export interface TreeValues {
  /** The leaf was copied and the original stays: one more reference to what the value at `index` refers to. */
  increment(leaf: CacheEntry, index: number): void;
  /** The value at `index` is removed: one reference less. */
  decrement(leaf: CacheEntry, index: number): void;
}

/** Values that are no references. */
export const plainValues: TreeValues = { increment: () => {}, decrement: () => {} };

/** Entries that every node except the root has at least: a third of its capacity. */
export function nodeMinEntries(node: CacheEntry): number {
  return nodeMaxEntries(node.view) / 3;
}

/**
 * Faults if a node has keys outside the range that its parent gives: look-ups would miss them, changes would misplace
 * keys.
 */
function requireKeysBetween({ view, block }: CacheEntry, begin: number, end: number): void {
  const entries = nodeEntries(view);
  if (entries === 0) return;
  if (nodeKey(view, 0) < begin || nodeKey(view, entries - 1) >= end) {
    damaged(block, "it holds keys that its parent has elsewhere");
  }
}

/** All trees of one kind, which are identified by their roots. Keeps the result of the last search. */
export class Btree {
  readonly transaction: Transaction;
  /** Bytes of a leaf value, which is also the cache kind of the nodes. */
  readonly kind: CacheKind;
  readonly values: TreeValues;

  // The result of the last search. It is in fields so that a look-up allocates nothing.
  #leaf: CacheEntry | undefined;
  /** Index of the entry found or inserted. If none was found: of the last key below the one wanted, or -1. */
  index = -1;
  /** Keys that belong in {@linkcode leaf} are in `[leafBegin, leafEnd)`. */
  leafBegin = 0;
  leafEnd = Infinity;
  /** Some node on the path to the leaf has more than one parent. */
  isPathShared = false;
  /** Whether the key was in the tree before. */
  isFound = false;
  /** The operation that used these trees last, if by an insertion, and the root that the insertion returned. */
  #insertedBy = 0;
  #insertedRoot: MetadataBlock | undefined;

  constructor(transaction: Transaction, kind: CacheKind, values: TreeValues) {
    this.transaction = transaction;
    this.kind = kind;
    this.values = values;
  }

  /** The leaf of the last search or insertion. */
  get leaf(): CacheEntry {
    return this.#leaf!;
  }

  node(block: MetadataBlock): CacheEntry {
    return this.transaction.read(block, this.kind);
  }

  /** Finds `key`, and sets the fields above. Returns whether it is in the tree. */
  find(root: MetadataBlock, key: number): boolean {
    this.#insertedBy = 0;
    const space = this.transaction.space;
    let node = this.node(root);
    let isShared = space.countInUse(root) > 1;
    this.leafBegin = 0;
    this.leafEnd = Infinity;
    for (let height = 0; !nodeIsLeaf(node.view); height++) {
      if (height > treeHeightMax) damaged(root, "the path below it never ends");
      const slot = this.#narrow(node, key);
      const child = nodeChild(node.view, slot);
      const parent = node;
      node = this.node(child);
      requireKeysBetween(node, nodeKey(parent.view, slot), this.leafEnd);
      if (space.countInUse(child) > 1) isShared = true;
    }
    this.#leaf = node;
    this.index = nodeFindAtOrBelow(node.view, key);
    this.isPathShared = isShared;
    this.isFound = this.index >= 0 && nodeKey(node.view, this.index) === key;
    return this.isFound;
  }

  /**
   * Finds the first key at or above `key`. Returns whether there is one; then `leaf` and `index` tell its place.
   */
  seek(root: MetadataBlock, key: number): boolean {
    let from = key;
    for (;;) {
      if (this.find(root, from)) return true;
      this.index++;
      if (this.index < nodeEntries(this.leaf.view)) return true;
      if (this.leafEnd === Infinity) return false;
      if (nodeEntries(this.leaf.view) === 0) damaged(this.leaf.block, "it is a leaf without entries");
      from = this.leafEnd; // increases with every pass
    }
  }

  /** The greatest key, undefined in an empty tree. */
  lastKey(root: MetadataBlock): number | undefined {
    let node = this.node(root);
    for (let height = 0; !nodeIsLeaf(node.view); height++) {
      if (height > treeHeightMax) damaged(root, "the path below it never ends");
      node = this.node(nodeChild(node.view, nodeEntries(node.view) - 1));
    }
    const entries = nodeEntries(node.view);
    return entries === 0 ? undefined : nodeKey(node.view, entries - 1);
  }

  /**
   * Makes a place for `key` in an owned leaf, or finds its place ({@linkcode isFound}). The caller then writes the
   * value at
   * `leaf` and `index`. Returns the new root.
   *
   * Full nodes are split on the way down, so a parent always has a free place for one more child.
   */
  prepareInsert(root: MetadataBlock, key: number): MetadataBlock {
    const operation = this.transaction.cache.operation;
    if (this.#insertedBy === operation && this.#insertedRoot === root && this.#isNext(key)) {
      this.#openLeaf(this.leaf, key);
      return root;
    }
    let node = this.shadowNode(this.node(root));
    const newRoot = node.block;
    this.leafBegin = 0;
    this.leafEnd = Infinity;
    if (this.#mustSplit(node, key)) this.#splitRoot(node, key);
    for (let height = 0; !nodeIsLeaf(node.view); height++) {
      if (height > treeHeightMax) damaged(root, "the path below it never ends");
      let slot = nodeFindAtOrBelow(node.view, key);
      if (slot < 0) {
        this.transaction.edit(node);
        setNodeKey(node.view, 0, key); // a parent's key must not be above the first key of the child
        slot = 0;
      }
      const child = this.shadowChild(node, slot);
      if (this.#mustSplit(child, key)) this.#makeRoom(node, slot, child, key);
      slot = this.#narrow(node, key);
      node = this.node(nodeChild(node.view, slot));
    }
    this.#openLeaf(node, key);
    this.#insertedBy = operation;
    this.#insertedRoot = newRoot;
    return newRoot;
  }

  /** Whether the key belongs after the last key of the leaf of the last insertion, and that leaf is not full. */
  #isNext(key: number): boolean {
    const { view } = this.leaf;
    const entries = nodeEntries(view);
    return key < this.leafEnd && entries < nodeMaxEntries(view) && key > nodeKey(view, entries - 1);
  }

  /**
   * Finds a key whose path is owned, so that its value can be overwritten. Reads nothing from the device and allocates
   * nothing.
   */
  prepareOverwrite(root: MetadataBlock, key: number): void {
    const isThere = this.find(root, key);
    if (!isThere || this.leaf.state !== "dirty") {
      damaged(this.leaf.block, `key ${key} is not where an insertion put it`);
    }
    this.transaction.edit(this.leaf);
  }

  /** Shadows the node. If it was shared, the counts of its children are incremented. */
  shadowNode(node: CacheEntry): CacheEntry {
    const wasShared = this.transaction.space.count(node.block) > 1;
    const owned = this.transaction.shadow(node);
    if (owned !== node && wasShared) this.incrementEntries(owned, 0, nodeEntries(owned.view));
    return owned;
  }

  /** Shadows the child at `slot` of an owned node, and writes its new block number into the node. */
  shadowChild(parent: CacheEntry, slot: number): CacheEntry {
    const child = this.node(nodeChild(parent.view, slot));
    const endSlot = slot + 1;
    const end = endSlot < nodeEntries(parent.view) ? nodeKey(parent.view, endSlot) : Infinity;
    requireKeysBetween(child, nodeKey(parent.view, slot), end);
    const owned = this.shadowNode(child);
    if (owned !== child) {
      this.transaction.edit(parent);
      setNodeChild(parent.view, slot, owned.block);
    }
    return owned;
  }

  /** Entries were copied out of a node that stays: one more reference to each child or value. */
  incrementEntries(node: CacheEntry, begin: number, count: number): void {
    const isLeaf = nodeIsLeaf(node.view);
    for (let index = begin; index < begin + count; index++) {
      if (isLeaf) this.values.increment(node, index);
      else this.transaction.space.increment(nodeChild(node.view, index));
    }
  }

  /** The slot of the child that `key` belongs to. Narrows `leafBegin` and `leafEnd` to the keys of that child. */
  #narrow(node: CacheEntry, key: number): number {
    const entries = nodeEntries(node.view);
    if (entries === 0) damaged(node.block, "it is an inner node without children");
    const slot = Math.max(0, nodeFindAtOrBelow(node.view, key));
    if (slot > 0) this.leafBegin = nodeKey(node.view, slot);
    if (slot + 1 < entries) this.leafEnd = nodeKey(node.view, slot + 1);
    return slot;
  }

  /** Whether an insertion of `key` may need a place in the node, and the node is full. */
  #mustSplit(node: CacheEntry, key: number): boolean {
    if (nodeEntries(node.view) < nodeMaxEntries(node.view)) return false;
    if (!nodeIsLeaf(node.view)) return true;
    const index = nodeFindAtOrBelow(node.view, key);
    return index < 0 || nodeKey(node.view, index) !== key;
  }

  #openLeaf(leaf: CacheEntry, key: number): void {
    this.#leaf = leaf;
    this.index = nodeFindAtOrBelow(leaf.view, key);
    this.isFound = this.index >= 0 && nodeKey(leaf.view, this.index) === key;
    this.isPathShared = false;
    this.transaction.edit(leaf);
    if (this.isFound) return;
    this.index++;
    openGap(leaf, this.index, 1);
    setNodeKey(leaf.view, this.index, key);
  }

  /**
   * Number of entries that stay in the left node of a split. For ascending keys it is two
   * thirds, and later `#makeRoom` fills the left node up.
   */
  #splitPoint(node: CacheEntry, key: number): number {
    const entries = nodeEntries(node.view);
    if (key > nodeKey(node.view, entries - 1)) return entries - nodeMinEntries(node);
    if (key < nodeKey(node.view, 0)) return nodeMinEntries(node);
    return Math.floor(entries / 2);
  }

  /** Splits the root into two new nodes. The root keeps its block and becomes their parent. */
  #splitRoot(root: CacheEntry, key: number): void {
    const point = this.#splitPoint(root, key);
    const entries = nodeEntries(root.view);
    const left = this.#newNodeLike(root);
    const right = this.#newNodeLike(root);
    openGap(left, 0, point);
    copyEntries(root, 0, left, 0, point);
    openGap(right, 0, entries - point);
    copyEntries(root, point, right, 0, entries - point);
    this.transaction.edit(root);
    root.bytes.fill(0);
    initNode(root.view, false, childSizeBytes);
    openGap(root, 0, 2);
    setNodeKey(root.view, 0, nodeKey(left.view, 0));
    setNodeChild(root.view, 0, left.block);
    setNodeKey(root.view, 1, nodeKey(right.view, 0));
    setNodeChild(root.view, 1, right.block);
  }

  #newNodeLike(node: CacheEntry): CacheEntry {
    const isLeaf = nodeIsLeaf(node.view);
    const made = this.transaction.allocate(this.kind);
    initNode(made.view, isLeaf, isLeaf ? this.kind : childSizeBytes);
    return made;
  }

  /** Moves entries of the full child at `slot` to a sibling that is not full, or else to a new sibling. */
  #makeRoom(parent: CacheEntry, slot: number, child: CacheEntry, key: number): void {
    const entries = nodeEntries(child.view);
    const isAppend = key > nodeKey(child.view, entries - 1);
    const isPrepend = key < nodeKey(child.view, 0);
    this.transaction.edit(parent);
    this.transaction.edit(child);
    const left = isPrepend ? undefined : this.#roomySibling(parent, slot - 1, child);
    if (left !== undefined) return this.#shiftLeft(parent, slot, left, child, isAppend);
    const right = isAppend ? undefined : this.#roomySibling(parent, slot + 1, child);
    if (right !== undefined) return this.#shiftRight(parent, slot, child, right, isPrepend);

    const point = this.#splitPoint(child, key);
    const made = this.#newNodeLike(child);
    openGap(made, 0, entries - point);
    copyEntries(child, point, made, 0, entries - point);
    closeGap(child, point, entries - point);
    openGap(parent, slot + 1, 1);
    setNodeKey(parent.view, slot + 1, nodeKey(made.view, 0));
    setNodeChild(parent.view, slot + 1, made.block);
  }

  /** The sibling at `slot`, shadowed, if it exists, is not shared and has enough places free. */
  #roomySibling(parent: CacheEntry, slot: number, child: CacheEntry): CacheEntry | undefined {
    if (slot < 0 || slot >= nodeEntries(parent.view)) return undefined;
    const block = nodeChild(parent.view, slot);
    if (this.transaction.space.count(block) > 1) return undefined;
    const sibling = this.node(block);
    if (nodeMaxEntries(sibling.view) !== nodeMaxEntries(child.view)) {
      damaged(block, "its siblings have another capacity");
    }
    if (nodeEntries(sibling.view) > nodeMaxEntries(sibling.view) - siblingPlacesFreeMin) return undefined;
    return this.shadowChild(parent, slot);
  }

  #shiftLeft(
    parent: CacheEntry,
    slot: number,
    left: CacheEntry,
    child: CacheEntry,
    asManyAsFit: boolean,
  ): void {
    const count = this.#countToMove(left, child, asManyAsFit);
    const end = nodeEntries(left.view);
    this.transaction.edit(left);
    openGap(left, end, count);
    copyEntries(child, 0, left, end, count);
    closeGap(child, 0, count);
    setNodeKey(parent.view, slot, nodeKey(child.view, 0));
  }

  #shiftRight(
    parent: CacheEntry,
    slot: number,
    child: CacheEntry,
    right: CacheEntry,
    asManyAsFit: boolean,
  ): void {
    const count = this.#countToMove(right, child, asManyAsFit);
    const from = nodeEntries(child.view) - count;
    this.transaction.edit(right);
    openGap(right, 0, count);
    copyEntries(child, from, right, 0, count);
    closeGap(child, from, count);
    setNodeKey(parent.view, slot + 1, nodeKey(right.view, 0));
  }

  #countToMove(sibling: CacheEntry, full: CacheEntry, asManyAsFit: boolean): number {
    const entries = nodeEntries(full.view);
    const room = nodeMaxEntries(sibling.view) - nodeEntries(sibling.view);
    if (asManyAsFit) return Math.min(room, entries - nodeMinEntries(full));
    return Math.ceil(room / 2); // the other node is full, so afterwards both have the same number of entries
  }
}
