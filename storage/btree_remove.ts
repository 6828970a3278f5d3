/**
 * Removal from the metadata's B-trees, bottom up: entries are removed from one leaf, then its ancestors are rebalanced.
 * A node with less than a third of its capacity merges with a sibling or takes entries from it. A root with one child
 * is replaced by that child. The child's count stays then, because it loses one parent and gets another (the kernel got
 * this wrong once: CVE-2026-46107).
 */
import { treeHeightMax } from "./base/limits.ts";
import { assert } from "./base/assert.ts";
import type { CacheEntry } from "./block_cache.ts";
import { type Btree, nodeMinEntries } from "./btree.ts";
import { closeGap, copyEntries, openGap } from "./btree_entries.ts";
import {
  initNode,
  nodeChild,
  nodeEntries,
  nodeFindAtOrBelow,
  nodeIsLeaf,
  nodeKey,
  nodeMaxEntries,
  setNodeKey,
} from "./format/btree_node.ts";
import type { MetadataBlock } from "./base/ids.ts";
import { damaged } from "./metadata_fault.ts";

/** Removal from one kind of tree. */
export class BtreeRemover {
  readonly #tree: Btree;
  /** Owned nodes from the root down, and of each the slot of the next. */
  readonly #path: CacheEntry[] = [];
  readonly #slots: number[] = [];
  /** Number of entries that the last removal removed. */
  removed = 0;
  /** The key at which the next removal of a range continues. */
  next = 0;
  /** Whether the last removal of a range decremented the count of a shared node. */
  hasDroppedShared = false;

  constructor(tree: Btree) {
    this.#tree = tree;
  }

  /**
   * Removes one key, which must be in the tree. The caller decrements what its value refers to. Returns the new root.
   */
  removeKey(root: MetadataBlock, key: number): MetadataBlock {
    this.#shadowPath(root, key);
    const leaf = this.#path.at(-1)!;
    const index = nodeFindAtOrBelow(leaf.view, key);
    if (index < 0 || nodeKey(leaf.view, index) !== key) {
      damaged(leaf.block, "a key that was just found is gone");
    }
    this.#tree.transaction.edit(leaf);
    closeGap(leaf, index, 1);
    this.removed = 1;
    return this.#rebalance();
  }

  /**
   * Removes the keys in `[begin, end)` of the first leaf that has any, at most `entriesMax` of them, and decrements
   * what their values refer to. {@linkcode next} is `end` when no keys of the range remain. Returns the new root, or
   * the old one if the range had no keys.
   */
  removeInOneLeaf(root: MetadataBlock, begin: number, end: number, entriesMax: number): MetadataBlock {
    const tree = this.#tree;
    this.removed = 0;
    this.hasDroppedShared = false;
    this.next = end;
    if (!tree.seek(root, begin)) return root;
    const first = nodeKey(tree.leaf.view, tree.index);
    if (first >= end) return root;
    const entries = nodeEntries(tree.leaf.view);
    const last = nodeFindAtOrBelow(tree.leaf.view, end - 1);
    const count = Math.min(last - tree.index + 1, entriesMax);
    if (tree.index + count < entries) this.next = Math.min(end, nodeKey(tree.leaf.view, tree.index + count));
    else this.next = Math.min(end, tree.leafEnd);
    this.removed = count;
    if (count === entries && tree.leaf.block !== root) {
      this.#shadowPath(root, first, true);
      this.#dropLeaves(1, this.#slots.at(-1)!);
    } else {
      this.#shadowPath(root, first);
      this.#dropEntries(this.#path.at(-1)!, first, count);
    }
    return this.#rebalance();
  }

  /**
   * Removes up to `leavesMax` whole leaves from the right end. The root must not be a leaf. Returns the new root.
   */
  removeRightLeaves(root: MetadataBlock, leavesMax: number): MetadataBlock {
    this.#shadowPath(root, Number.MAX_SAFE_INTEGER, true);
    const parent = this.#path.at(-1)!;
    const entries = nodeEntries(parent.view);
    const count = Math.min(leavesMax, entries);
    this.removed = 0;
    for (let slot = entries - count; slot < entries; slot++) {
      this.removed += nodeEntries(this.#tree.node(nodeChild(parent.view, slot)).view);
    }
    this.#dropLeaves(count, entries - count);
    return this.#rebalance();
  }

  /** Removes up to `entriesMax` entries from the end of the last leaf. Returns the new root. */
  removeRightEntries(root: MetadataBlock, entriesMax: number): MetadataBlock {
    const last = this.#tree.lastKey(root);
    this.removed = 0;
    if (last === undefined) return root;
    this.#tree.find(root, last);
    const first = nodeKey(this.#tree.leaf.view, Math.max(0, this.#tree.index + 1 - entriesMax));
    return this.removeInOneLeaf(root, first, last + 1, entriesMax);
  }

  /** Removes a whole tree. A shared node loses one reference. A node that is not shared is freed, with all below it. */
  removeTree(root: MetadataBlock, height = 0): void {
    const tree = this.#tree;
    if (tree.transaction.space.count(root) <= 1) {
      if (height > treeHeightMax) damaged(root, "the path to it never ends");
      const node = tree.node(root);
      const isLeaf = nodeIsLeaf(node.view);
      for (let index = 0; index < nodeEntries(node.view); index++) {
        if (isLeaf) tree.values.decrement(node, index);
        else this.removeTree(nodeChild(node.view, index), height + 1);
      }
    } else this.hasDroppedShared = true;
    tree.transaction.space.decrement(root);
  }

  /**
   * Number of nodes that {@linkcode removeTree} would free. It stops counting above `nodesMax`.
   */
  countUnshared(root: MetadataBlock, nodesMax: number, height = 0): number {
    const tree = this.#tree;
    if (tree.transaction.space.count(root) > 1) return 0;
    if (height > treeHeightMax) damaged(root, "the path to it never ends");
    const node = tree.node(root);
    if (nodeIsLeaf(node.view)) return 1;
    let nodes = 1;
    for (let index = 0; index < nodeEntries(node.view) && nodes <= nodesMax; index++) {
      nodes += this.countUnshared(nodeChild(node.view, index), nodesMax - nodes, height + 1);
    }
    return nodes;
  }

  /** Shadows the path to the leaf of `key`, or only to the parent of that leaf. */
  #shadowPath(root: MetadataBlock, key: number, stopAboveLeaf = false): void {
    const tree = this.#tree;
    this.#path.length = 0;
    this.#slots.length = 0;
    let node = tree.shadowNode(tree.node(root));
    this.#path.push(node);
    while (!nodeIsLeaf(node.view)) {
      if (this.#path.length > treeHeightMax) damaged(root, "the path below it never ends");
      const slot = Math.max(0, nodeFindAtOrBelow(node.view, key));
      this.#slots.push(slot);
      if (stopAboveLeaf && nodeIsLeaf(tree.node(nodeChild(node.view, slot)).view)) return;
      node = tree.shadowChild(node, slot);
      this.#path.push(node);
    }
    assert(!stopAboveLeaf, "a tree of one leaf has no leaf to drop from a parent");
  }

  #dropEntries(leaf: CacheEntry, firstKey: number, count: number): void {
    const begin = nodeFindAtOrBelow(leaf.view, firstKey);
    for (let index = begin; index < begin + count; index++) this.#tree.values.decrement(leaf, index);
    this.#tree.transaction.edit(leaf);
    closeGap(leaf, begin, count);
  }

  /** Removes `count` leaves from `slot` on of their parent, the last node of the path. */
  #dropLeaves(count: number, slot: number): void {
    const parent = this.#path.at(-1)!;
    for (let index = slot; index < slot + count; index++) this.removeTree(nodeChild(parent.view, index));
    this.#tree.transaction.edit(parent);
    closeGap(parent, slot, count);
    // The path ends at the parent now.
    this.#slots.length = this.#path.length - 1;
  }

  /** Restores the minimum number of entries from the end of the path upwards. Returns the root. */
  #rebalance(): MetadataBlock {
    const space = this.#tree.transaction.space;
    for (let level = this.#path.length - 1; level > 0; level--) {
      const node = this.#path[level]!;
      const parent = this.#path[level - 1]!;
      const slot = this.#slots[level - 1]!;
      if (nodeEntries(node.view) === 0) {
        this.#tree.transaction.edit(parent);
        closeGap(parent, slot, 1);
        space.decrement(node.block);
      } else if (nodeEntries(node.view) < nodeMinEntries(node)) this.#refill(parent, slot, node);
      else break;
    }
    return this.#lowerRoot(this.#path[0]!).block;
  }

  #lowerRoot(root: CacheEntry): CacheEntry {
    const tree = this.#tree;
    let top = root;
    while (!nodeIsLeaf(top.view) && nodeEntries(top.view) === 1) {
      // The child may be shared. Then the next change shadows it and increments the counts of its children.
      if (!tree.transaction.isOwned(top.block)) break;
      const child = tree.node(nodeChild(top.view, 0));
      tree.transaction.space.decrement(top.block);
      top = child;
    }
    if (!nodeIsLeaf(top.view) && nodeEntries(top.view) === 0) {
      tree.transaction.edit(top);
      top.bytes.fill(0);
      initNode(top.view, true, tree.kind);
    }
    return top;
  }

  /**
   * Brings a node to its minimum: merges it with a sibling or takes entries from it. The left sibling is preferred.
   */
  #refill(parent: CacheEntry, slot: number, node: CacheEntry): void {
    const tree = this.#tree;
    if (nodeEntries(parent.view) === 1) return; // no sibling: the parent is a root, which will be replaced
    const isLeft = slot > 0;
    const siblingSlot = isLeft ? slot - 1 : slot + 1;
    const sibling = tree.node(nodeChild(parent.view, siblingSlot));
    if (nodeIsLeaf(sibling.view) !== nodeIsLeaf(node.view)) {
      damaged(sibling.block, "its siblings are at another height");
    }
    tree.transaction.edit(parent);
    tree.transaction.edit(node);
    const capacity = nodeMaxEntries(node.view);
    const total = nodeEntries(node.view) + nodeEntries(sibling.view);
    // A merged node keeps a few places free, or the next insertion would split it again.
    if (total <= capacity - Math.floor(capacity / 12)) {
      this.#merge(parent, siblingSlot, sibling, node, isLeft);
    } else this.#balance(parent, siblingSlot, node, isLeft);
  }

  /** Moves all entries of the sibling into the node, and frees the sibling. */
  #merge(
    parent: CacheEntry,
    siblingSlot: number,
    sibling: CacheEntry,
    node: CacheEntry,
    isLeft: boolean,
  ): void {
    const tree = this.#tree;
    const count = nodeEntries(sibling.view);
    const at = isLeft ? 0 : nodeEntries(node.view);
    openGap(node, at, count);
    copyEntries(sibling, 0, node, at, count);
    // If the sibling is shared, its entries now have two parents. Else they only moved.
    if (tree.transaction.space.count(sibling.block) > 1) tree.incrementEntries(node, at, count);
    tree.transaction.space.decrement(sibling.block);
    if (isLeft) setNodeKey(parent.view, siblingSlot + 1, nodeKey(parent.view, siblingSlot));
    closeGap(parent, siblingSlot, 1);
  }

  /** Moves entries from the sibling until both have about the same number. */
  #balance(parent: CacheEntry, siblingSlot: number, node: CacheEntry, isLeft: boolean): void {
    const sibling = this.#tree.shadowChild(parent, siblingSlot);
    this.#tree.transaction.edit(sibling);
    const entries = nodeEntries(node.view);
    const siblingEntries = nodeEntries(sibling.view);
    const count = Math.floor((siblingEntries - entries) / 2);
    const from = isLeft ? siblingEntries - count : 0;
    const at = isLeft ? 0 : entries;
    openGap(node, at, count);
    copyEntries(sibling, from, node, at, count);
    closeGap(sibling, from, count);
    if (isLeft) setNodeKey(parent.view, siblingSlot + 1, nodeKey(node.view, 0));
    else setNodeKey(parent.view, siblingSlot, nodeKey(sibling.view, 0));
  }
}
