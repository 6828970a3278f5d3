/**
 * The mapping tree of each thin device: vblock to data block and time; and whether a mapped block is shared.
 */
import type { AllowanceRefusal } from "./device_allowances.ts";
import type { CacheEntry } from "./block_cache.ts";
import { Btree, type TreeValues } from "./btree.ts";
import { BtreeRemover } from "./btree_remove.ts";
import type { DeviceRecord } from "./device_table.ts";
import { blockTimeDblock, blockTimeTime, packBlockTime } from "./format/block_time.ts";
import {
  childSizeBytes,
  nodeCapacity,
  nodeEntries,
  nodeFindAtOrBelow,
  nodeKey,
  nodeValueOffset,
} from "./format/btree_node.ts";
import { type DBlock, type VBlock, vblock } from "./base/ids.ts";
import { leavesPerLookup } from "./base/limits.ts";
import { damaged } from "./metadata_fault.ts";
import { RecentlyUnshared } from "./recently_unshared.ts";
import type { DataSpaceMap } from "./space_map_data.ts";
import type { Transaction } from "./transaction.ts";

/** What a vblock maps to. */
export type Mapping = { readonly kind: "unprovisioned"; readonly refusal?: AllowanceRefusal } | {
  readonly kind: "provisioned";
  /** Of a shared block, and of an unmapped one: why the device gets no block of its own for it. */
  readonly refusal?: AllowanceRefusal;
  readonly dblock: DBlock;
  readonly shared: boolean;
  /**
   * The time rule says that the block is shared. If `shared` is false all the same, the snapshot that shared it was
   * removed. Then a write in place comes with an insert of the same data block at the present time.
   */
  readonly isOld: boolean;
};

/** Consecutive vblocks mapped to consecutive data blocks, all shared or all not. */
export interface MappedRun {
  readonly vblockBegin: VBlock;
  readonly length: number;
  readonly dblockBegin: DBlock;
  readonly shared: boolean;
}

/** What is mapped in a range of vblocks. */
export interface MappedRange {
  readonly runs: readonly MappedRun[];
  /** The answer is complete below this vblock. The next call continues here, unless it is the end of the range. */
  readonly next: VBlock;
}

/** The mapping of a hole. One object, so that a look-up allocates none. */
const unprovisioned: Mapping = { kind: "unprovisioned" };

/** Mappings that a leaf can hold. */
export const leafEntriesMax = nodeCapacity(childSizeBytes);

/** Operations on the mapping tree of a device, given its record. */
export class ThinMappings {
  readonly #transaction: Transaction;
  readonly #data: DataSpaceMap;
  readonly #tree: Btree;
  readonly #remover: BtreeRemover;
  /** False for a pool opened read-only: then only the time rule tells what is shared. */
  readonly #areCountsKnown: boolean;
  /** The superblock has a metadata snapshot: its readers use trees that the counts of a path here may not show. */
  readonly #hasMetadataSnapshot: boolean;
  /** Blocks that are shared in a state which a crash can restore. The commit calls its `freeze` and `durable`. */
  readonly recentlyUnshared = new RecentlyUnshared();

  constructor(
    transaction: Transaction,
    data: DataSpaceMap,
    areCountsKnown: boolean,
    hasMetadataSnapshot: boolean,
  ) {
    this.#transaction = transaction;
    this.#data = data;
    this.#tree = new Btree(transaction, childSizeBytes, new DataReferences(data, this.recentlyUnshared));
    this.#remover = new BtreeRemover(this.#tree);
    this.#areCountsKnown = areCountsKnown;
    this.#hasMetadataSnapshot = hasMetadataSnapshot;
  }

  lookup(device: DeviceRecord, block: VBlock): Mapping {
    let leaf = device.leaf;
    let index: number;
    if (
      leaf !== undefined && leaf.state !== "gone" && block >= device.leafBegin && block < device.leafEnd &&
      (!device.isLeafShared || device.leafFoundAt === this.#transaction.space.unshared)
    ) {
      leaf.referenced = true;
      index = nodeFindAtOrBelow(leaf.view, block);
    } else {
      const tree = this.#tree;
      tree.find(device.root, block);
      leaf = tree.leaf;
      index = tree.index;
      this.#rememberLeaf(device);
    }
    if (index < 0 || nodeKey(leaf.view, index) !== block) return unprovisioned;
    const offset = nodeValueOffset(leaf.view, index);
    const mapped = blockTimeDblock(leaf.view, offset);
    const isOld = blockTimeTime(leaf.view, offset) < device.snapshottedTime;
    return {
      kind: "provisioned",
      dblock: mapped,
      shared: this.#isShared(mapped, isOld, device.isLeafShared),
      isOld,
    };
  }

  /**
   * The mapped runs in `[begin, end)`, at most `runsMax`. The work of one call is bounded; `next` is where the next
   * continues.
   */
  lookupRange(device: DeviceRecord, begin: VBlock, end: VBlock, runsMax: number): MappedRange {
    const tree = this.#tree;
    const runs: OpenRun[] = [];
    let at: number = begin;
    for (let leaves = 0; at < end && leaves < leavesPerLookup; leaves++) {
      if (!tree.seek(device.root, at)) return { runs, next: end };
      const entries = nodeEntries(tree.leaf.view);
      for (let index = tree.index; index < entries; index++) {
        const key = nodeKey(tree.leaf.view, index);
        if (key >= end) return { runs, next: end };
        if (!this.#extendRuns(device, runs, key, index, runsMax)) return { runs, next: vblock(key) };
      }
      at = Math.min(end, tree.leafEnd);
    }
    return { runs, next: vblock(at) };
  }

  highestMapped(device: DeviceRecord): VBlock | undefined {
    const key = this.#tree.lastKey(device.root);
    return key === undefined ? undefined : vblock(key);
  }

  /** An empty tree for a new device. */
  makeTree(): CacheEntry {
    return this.#transaction.allocateLeaf(childSizeBytes);
  }

  /**
   * Maps `block` to `mapped`. It replaces the mapping that the block has, or only its time, and returns the data block that it
   * had. The caller has called {@linkcode DeviceTable.change} for the device.
   */
  insert(device: DeviceRecord, block: VBlock, mapped: DBlock, time: number): DBlock | undefined {
    const tree = this.#tree;
    device.root = tree.prepareInsert(device.root, block);
    const { leaf, index } = tree;
    const offset = nodeValueOffset(leaf.view, index);
    const before = tree.isFound ? blockTimeDblock(leaf.view, offset) : undefined;
    if (before !== mapped) {
      // The allocator found a count of 0, and only this operation increments from 0. So the bitmap was read again, and
      // differs.
      if (this.#data.count(mapped) !== 0) {
        damaged(leaf.block, `free data block ${mapped} has a reference by now`);
      }
      this.#data.increment(mapped);
      if (before !== undefined && this.#data.decrement(before) > 0) this.recentlyUnshared.add(before);
    }
    if (before === undefined) device.mappedBlocks++;
    packBlockTime(leaf.view, offset, mapped, time);
    if (before === mapped) this.#renewLeaf(device, leaf, time);
    this.#rememberLeaf(device);
    return before;
  }

  /**
   * Sets the present time in all mappings of an owned leaf that are old but no longer shared: neighbours of a written
   * block are often written too, and the leaf is going to be written anyway. Mappings whose count is not in memory are
   * left out.
   */
  #renewLeaf(device: DeviceRecord, leaf: CacheEntry, time: number): void {
    for (let index = nodeEntries(leaf.view) - 1; index >= 0; index--) {
      const offset = nodeValueOffset(leaf.view, index);
      if (blockTimeTime(leaf.view, offset) >= device.snapshottedTime) continue;
      const mapped = blockTimeDblock(leaf.view, offset);
      if (
        this.#hasMetadataSnapshot || this.recentlyUnshared.has(mapped) || !this.#data.isKnownSingle(mapped)
      ) continue;
      packBlockTime(leaf.view, offset, mapped, time);
    }
  }

  /** The first mapped vblock in `[begin, end)`. */
  firstMapped(device: DeviceRecord, begin: VBlock, end: VBlock): VBlock | undefined {
    const tree = this.#tree;
    if (!tree.seek(device.root, begin)) return undefined;
    const key = nodeKey(tree.leaf.view, tree.index);
    return key < end ? vblock(key) : undefined;
  }

  /**
   * Removes the mappings in `[begin, end)` of one leaf, at most `entriesMax`. Returns where the next call continues.
   */
  removeInOneLeaf(device: DeviceRecord, begin: VBlock, end: VBlock, entriesMax: number): VBlock {
    device.root = this.#remover.removeInOneLeaf(device.root, begin, end, entriesMax);
    if (this.#remover.hasDroppedShared) this.recentlyUnshared.addAll();
    this.#subtractMapped(device);
    return vblock(this.#remover.next);
  }

  /**
   * Removes about `entriesMax` mappings from the end, or the whole tree if its unshared leaves have no more than that:
   * a shared subtree only loses a reference. Returns true when the tree is gone; then the caller removes the device.
   */
  removeFromEnd(device: DeviceRecord, entriesMax: number): boolean {
    device.isBeingDeleted = true;
    // Most of its blocks are shared, through nodes that are not visited, so they cannot be added one by one.
    this.recentlyUnshared.addAll();
    const leaves = Math.floor(entriesMax / leafEntriesMax);
    const isSmall = this.#remover.countUnshared(device.root, leaves) <= leaves ||
      leaves === 0 && this.#isAtMost(device, entriesMax);
    if (isSmall) {
      this.#remover.removeTree(device.root);
      return true;
    }
    if (leaves > 0) device.root = this.#remover.removeRightLeaves(device.root, leaves);
    else device.root = this.#remover.removeRightEntries(device.root, entriesMax);
    this.#subtractMapped(device);
    return false;
  }

  /** Whether at most `blocks` blocks are mapped. An empty tree counts as 0, whatever the device's details say. */
  #isAtMost(device: DeviceRecord, blocks: number): boolean {
    return device.mappedBlocks <= blocks || this.#tree.lastKey(device.root) === undefined;
  }

  /** mapped_blocks of foreign metadata may be too small, and must not become negative. */
  #subtractMapped(device: DeviceRecord): void {
    device.mappedBlocks = Math.max(0, device.mappedBlocks - this.#remover.removed);
  }

  #rememberLeaf(device: DeviceRecord): void {
    const tree = this.#tree;
    device.leaf = tree.leaf;
    device.leafBegin = tree.leafBegin;
    device.leafEnd = tree.leafEnd;
    device.isLeafShared = tree.isPathShared;
    device.leafFoundAt = this.#transaction.space.unshared;
  }

  /**
   * A block may be written in place if no node on the path to its mapping is shared, and its data count is 1. For
   * metadata written by this program the time rule (`__snapshotted_since`, drivers/md/dm-thin-metadata.c) implies both.
   * Foreign metadata may map one block twice at equal times, or share a tree with wrong times. A metadata snapshot
   * increments the counts of paths that it shares, so blocks are copied that the kernel would overwrite; this is safe
   * too.
   *
   * If the time rule says shared but the counts do not, the snapshot that shared the block was removed. The counts are
   * those of the current state. The last durable state and the one being committed may differ: after a crash the
   * removed snapshot exists again and must see the old bytes. recently_unshared.ts tells whether they may.
   */
  #isShared(mapped: DBlock, isOld: boolean, isPathShared: boolean): boolean {
    if (!this.#areCountsKnown) {
      this.#data.requireInside(mapped);
      return isOld;
    }
    const count = this.#data.count(mapped);
    // With count 0 the block could be allocated for another mapping. Checked here, it is found before this one is
    // written.
    if (count === 0) this.#data.damagedCount(mapped, "is 0 though it is mapped");
    return isPathShared || count !== 1 || isOld && (
          this.#hasMetadataSnapshot || this.recentlyUnshared.has(mapped)
        );
  }

  /** Adds the entry to the runs. Returns false, adding nothing, if that needs more than `runsMax` runs. */
  #extendRuns(device: DeviceRecord, runs: OpenRun[], key: number, index: number, runsMax: number): boolean {
    const { leaf, isPathShared } = this.#tree;
    const offset = nodeValueOffset(leaf.view, index);
    const mapped = blockTimeDblock(leaf.view, offset);
    const isOld = blockTimeTime(leaf.view, offset) < device.snapshottedTime;
    const shared = this.#isShared(mapped, isOld, isPathShared);
    const last = runs.at(-1);
    if (
      last !== undefined && last.shared === shared && last.vblockBegin + last.length === key &&
      last.dblockBegin + last.length === mapped
    ) {
      last.length++;
      return true;
    }
    if (runs.length === runsMax) return false;
    runs.push({ vblockBegin: vblock(key), length: 1, dblockBegin: mapped, shared });
    return true;
  }
}

/** A {@linkcode MappedRun} that can be extended. */
interface OpenRun {
  vblockBegin: VBlock;
  length: number;
  dblockBegin: DBlock;
  shared: boolean;
}

/** The values of a mapping tree: each is one reference to its data block. */
class DataReferences implements TreeValues {
  readonly #data: DataSpaceMap;
  readonly #recentlyUnshared: RecentlyUnshared;

  constructor(data: DataSpaceMap, recentlyUnshared: RecentlyUnshared) {
    this.#data = data;
    this.#recentlyUnshared = recentlyUnshared;
  }

  increment(leaf: CacheEntry, index: number): void {
    const mapped = blockTimeDblock(leaf.view, nodeValueOffset(leaf.view, index));
    if (this.#data.increment(mapped) === 1) {
      this.#data.damagedCount(mapped, "is 0 though it is mapped");
    }
  }

  decrement(leaf: CacheEntry, index: number): void {
    const mapped = blockTimeDblock(leaf.view, nodeValueOffset(leaf.view, index));
    if (this.#data.decrement(mapped) > 0) this.#recentlyUnshared.add(mapped);
  }
}
