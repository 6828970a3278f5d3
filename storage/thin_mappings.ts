/**
 * The mapping tree of each device: vblock to data block and time, and the answer to "is this block shared?".
 */
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
export type Mapping = { readonly kind: "unprovisioned" } | {
  readonly kind: "provisioned";
  readonly dblock: DBlock;
  readonly shared: boolean;
  /**
   * The time rule calls it shared, whatever `shared` says. Whoever shared it is gone if it is not: whoever writes it
   * then in place inserts it first, with the same data block, at the present time.
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
  /** Everything below is answered; go on from here, or stop if it is the end of the range. */
  readonly next: VBlock;
}

/** The one answer for a hole, so that nobody allocates it per look-up. */
const unprovisioned: Mapping = { kind: "unprovisioned" };

/** Mappings in a full leaf. */
export const leafEntriesMax = nodeCapacity(childSizeBytes);

/** Operations on the mapping tree of a device, given its record. */
export class ThinMappings {
  readonly #transaction: Transaction;
  readonly #data: DataSpaceMap;
  readonly #tree: Btree;
  readonly #remover: BtreeRemover;
  /** A pool opened read-only loads no counts; then the time rule alone answers. */
  readonly #areCountsKnown: boolean;
  /** Where a metadata snapshot is held, somebody reads trees that the counts of our paths may not tell of. */
  readonly #isHeld: boolean;
  /** Who let go of what since the last durable commit; whoever commits says when that is. */
  readonly recentlyUnshared = new RecentlyUnshared();

  constructor(transaction: Transaction, data: DataSpaceMap, areCountsKnown: boolean, isHeld: boolean) {
    this.#transaction = transaction;
    this.#data = data;
    this.#tree = new Btree(transaction, childSizeBytes, new DataReferences(data, this.recentlyUnshared));
    this.#remover = new BtreeRemover(this.#tree);
    this.#areCountsKnown = areCountsKnown;
    this.#isHeld = isHeld;
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

  /** The mapped runs in `[begin, end)`, at most `runsMax`, after bounded work; `next` is where to go on. */
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
   * Maps `block` to `mapped`, in place of what it was mapped to, or at another time only. The device's record is ready
   * to be changed.
   */
  insert(device: DeviceRecord, block: VBlock, mapped: DBlock, time: number): void {
    const tree = this.#tree;
    device.root = tree.prepareInsert(device.root, block);
    const { leaf, index } = tree;
    const offset = nodeValueOffset(leaf.view, index);
    const before = tree.isFound ? blockTimeDblock(leaf.view, offset) : undefined;
    if (before !== mapped) {
      // The allocator saw 0, and no operation raises a count from 0 but this one: then the bitmap was read anew and differs.
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
  }

  /**
   * Gives the present time to all that others have left to the device in an owned leaf: who writes one of these blocks
   * writes its neighbours too, and the leaf is to be written anyway. What would have to be read for it stays as it is.
   */
  #renewLeaf(device: DeviceRecord, leaf: CacheEntry, time: number): void {
    for (let index = nodeEntries(leaf.view) - 1; index >= 0; index--) {
      const offset = nodeValueOffset(leaf.view, index);
      if (blockTimeTime(leaf.view, offset) >= device.snapshottedTime) continue;
      const mapped = blockTimeDblock(leaf.view, offset);
      if (this.#isHeld || this.recentlyUnshared.has(mapped) || !this.#data.isKnownSingle(mapped)) continue;
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

  /** Unmaps what one leaf holds of `[begin, end)`, at most `entriesMax` blocks. Returns where to go on. */
  removeInOneLeaf(device: DeviceRecord, begin: VBlock, end: VBlock, entriesMax: number): VBlock {
    device.root = this.#remover.removeInOneLeaf(device.root, begin, end, entriesMax);
    if (this.#remover.hasDroppedShared) this.recentlyUnshared.addAll();
    this.#subtractMapped(device);
    return vblock(this.#remover.next);
  }

  /**
   * Unmaps a slice of about `entriesMax` blocks from the end, or everything if what is the device's own is no
   * more than that: shared subtrees only lose a reference then. Returns true when the tree is gone; the
   * device must go with it.
   */
  removeFromEnd(device: DeviceRecord, entriesMax: number): boolean {
    device.isBeingDeleted = true;
    // It shares most of what it has, so that its blocks are not noted one by one.
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

  /** Whether so few blocks are mapped. An empty tree counts as such whatever its details say. */
  #isAtMost(device: DeviceRecord, blocks: number): boolean {
    return device.mappedBlocks <= blocks || this.#tree.lastKey(device.root) === undefined;
  }

  /** Foreign metadata may hold a wrong number, which the kernel believes too; it must not become negative. */
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
   * A block may be written in place if nobody else has the path to its mapping, and its data count is 1. For metadata
   * of our own the time rule (`__snapshotted_since`, drivers/md/dm-thin-metadata.c) implies both; foreign metadata can map one block twice at equal times, or
   * share a tree whose times are wrong. While a metadata snapshot is held, counts of paths it shares rise, and blocks
   * are copied that the kernel would overwrite: legal, and safe for the snapshot.
   *
   * Where the time rule says shared, counts may say otherwise since whoever shared the block is gone. That is true
   * of the present state only, unless it is true of the last durable one and of the one that is being committed too:
   * if we stopped, who is gone would be back, and must find its bytes.
   */
  #isShared(mapped: DBlock, isOld: boolean, isPathShared: boolean): boolean {
    if (!this.#areCountsKnown) {
      this.#data.requireInside(mapped);
      return isOld;
    }
    const count = this.#data.count(mapped);
    // It would be given to another mapping as a free block. Found here, it is found before this one is written.
    if (count === 0) this.#data.damagedCount(mapped, "is 0 though it is mapped");
    return isPathShared || count !== 1 || isOld && (this.#isHeld || this.recentlyUnshared.has(mapped));
  }

  /** Adds the entry to the runs. Returns false if that needs a run too many. */
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

/** A {@linkcode MappedRun} that still grows. */
interface OpenRun {
  vblockBegin: VBlock;
  length: number;
  dblockBegin: DBlock;
  shared: boolean;
}

/** The values of a mapping tree: every leaf entry is one reference to its data block. */
class DataReferences implements TreeValues {
  readonly #data: DataSpaceMap;
  readonly #recentlyUnshared: RecentlyUnshared;

  constructor(data: DataSpaceMap, recentlyUnshared: RecentlyUnshared) {
    this.#data = data;
    this.#recentlyUnshared = recentlyUnshared;
  }

  adopt(leaf: CacheEntry, index: number): void {
    const mapped = blockTimeDblock(leaf.view, nodeValueOffset(leaf.view, index));
    if (this.#data.increment(mapped) === 1) {
      this.#data.damagedCount(mapped, "is 0 though it is mapped");
    }
  }

  drop(leaf: CacheEntry, index: number): void {
    const mapped = blockTimeDblock(leaf.view, nodeValueOffset(leaf.view, index));
    if (this.#data.decrement(mapped) > 0) this.#recentlyUnshared.add(mapped);
  }
}
