/**
 * Block status of thin devices: which vblocks are mapped, and where two devices differ, as runs. Nothing is changed
 * here.
 *
 * Two devices differ in a vblock if one maps it and the other does not, or if they map it to different data blocks.
 * Times do not matter. While both map one data block, both have its content, for these reasons:
 *
 * - The first mapping of a data block is an insertion, which takes only blocks without mappings. Every further mapping is
 *   a copy of it, for the same vblock, which a snapshot made. So both devices have the block from one mapping, and neither
 *   can have removed it and got it back while the other one kept it.
 * - A device writes a block in place only if the block is not shared: not if the mapping is older than the device's last
 *   snapshot, not if a node on the path has two parents, not if the block's count is above 1 (thin_mappings.ts). Since both
 *   map the block, one of these is true for each of them. What was written before the snapshot is the same for both.
 * - While the block is mapped it is not free, so it is not allocated for another mapping.
 *
 * The same is true of whole subtrees: a node with two parents is never changed in place, so the same block number under
 * both roots means the same content, and the subtree is skipped without being read. So the cost of comparing a large
 * volume with its snapshot depends on the changes since, not on the number of mappings.
 *
 * The number of nodes that one turn touches is bounded ({@linkcode nodesPerTurn}). The next turn continues at the
 * vblock where the last one ended. Each turn is right for the state at its time.
 */
import { assert } from "./base/assert.ts";
import type { CacheEntry } from "./block_cache.ts";
import type { DeviceRecord, DeviceTable } from "./device_table.ts";
import { blockTimeDblock } from "./format/block_time.ts";
import {
  childSizeBytes,
  nodeChild,
  nodeEntries,
  nodeFindAtOrBelow,
  nodeIsLeaf,
  nodeKey,
  nodeValueOffset,
} from "./format/btree_node.ts";
import type { DBlock, MetadataBlock, ThinId, VBlock } from "./base/ids.ts";
import { nodesPerTurn, stepsPerTurn, treeHeightMax } from "./base/limits.ts";
import { damaged } from "./metadata_fault.ts";
import type { Transaction } from "./transaction.ts";

/** Consecutive vblocks that are all marked (mapped, or different), or all not marked. */
export interface MarkedRun {
  readonly length: number;
  readonly isMarked: boolean;
}

/** The range of vblocks asked for, and the largest number of runs in the answer. */
export interface RunsWanted {
  readonly begin: VBlock;
  readonly end: VBlock;
  readonly runsMax: number;
}

/** Answers block status, for all thin devices. */
export class MappingRuns {
  readonly #transaction: Transaction;
  readonly #devices: DeviceTable;

  constructor(transaction: Transaction, devices: DeviceTable) {
    this.#transaction = transaction;
    this.#devices = devices;
  }

  /**
   * What is mapped, as runs from `begin` on without gaps: at least one run, and adjacent runs differ. Undefined if the
   * device does not exist, or is being deleted and so has lost mappings.
   */
  mapped(thin: ThinId, wanted: RunsWanted): readonly MarkedRun[] | undefined {
    const record = this.#whole(thin);
    if (record === undefined) return undefined;
    return this.#collect(wanted, (runs) => this.#addLeaf(record.root, runs));
  }

  /**
   * Where two devices differ, as {@linkcode mapped} answers it. Undefined if one does not exist or is being deleted.
   */
  differing(thin: ThinId, other: ThinId, wanted: RunsWanted): readonly MarkedRun[] | undefined {
    const [one, two] = [this.#whole(thin), this.#whole(other)];
    if (one === undefined || two === undefined) return undefined;
    let heights: readonly [number, number] | undefined;
    return this.#collect(wanted, (runs) => {
      if (one.root === two.root) return runs.add(Infinity, false);
      heights ??= [this.#height(one.root, runs.at), this.#height(two.root, runs.at)];
      const [height, otherHeight] = heights;
      return this.#addDifference(
        subtree(one.root, height),
        subtree(two.root, otherHeight),
        runs,
      );
    });
  }

  #whole(thin: ThinId): DeviceRecord | undefined {
    const record = this.#devices.get(thin);
    return record?.isBeingDeleted ? undefined : record;
  }

  /** Takes steps until there are enough runs or the turn is over. Every step advances by at least one vblock. */
  #collect(wanted: RunsWanted, step: (runs: Runs) => boolean): readonly MarkedRun[] {
    const cache = this.#transaction.cache;
    const runs = new Runs(wanted);
    cache.beginOperation();
    for (let steps = 0; runs.at < wanted.end; steps++) {
      if (steps > 0 && (steps >= stepsPerTurn || cache.blocksTouched >= nodesPerTurn)) break;
      if (!step(runs)) break;
    }
    cache.endOperation();
    return runs.found;
  }

  /**
   * Adds the mappings of one leaf from `runs.at` on, and the hole after them. Returns false if that needs too many
   * runs.
   */
  #addLeaf(root: MetadataBlock, runs: Runs): boolean {
    const place = subtree(root, 0);
    while (this.#descend(place, runs.at)) continue;
    const { view } = this.#node(place.block);
    const entries = nodeEntries(view);
    const first = firstAtOrAbove(view, runs.at);
    const last = entries - 1;
    if (first <= last && nodeKey(view, last) < place.end) {
      const [begin, end] = [nodeKey(view, first), nodeKey(view, last) + 1];
      // Most leaves of most volumes are one run.
      if (end - begin === entries - first) {
        return runs.add(begin, false) && runs.add(end, true) && runs.add(place.end, false);
      }
    }
    for (let index = first; index < entries; index++) {
      const key = nodeKey(view, index);
      if (key >= place.end || runs.at >= runs.end) break;
      if (!runs.add(key, false) || !runs.add(key + 1, true)) return false;
    }
    return runs.add(place.end, false);
  }

  /**
   * Goes down both trees towards `runs.at`, level by level, until both reach the same node or two leaves. The heights
   * only save reads: if they are wrong (foreign metadata), more nodes are read, and the answer is the same.
   */
  #addDifference(one: ComparedSubtree, other: ComparedSubtree, runs: Runs): boolean {
    for (;;) {
      if (one.block === other.block) return runs.add(Math.min(one.end, other.end), false);
      if (one.height > other.height) this.#lower(one, other.height, runs.at);
      else if (other.height > one.height) this.#lower(other, one.height, runs.at);
      else {
        const isInner = this.#descend(one, runs.at);
        if (!this.#descend(other, runs.at) && !isInner) return this.#addLeaves(one, other, runs);
      }
    }
  }

  /** Goes one node down. If the node is a leaf already, its height is set to `height`. */
  #lower(place: ComparedSubtree, height: number, key: number): void {
    if (!this.#descend(place, key)) place.height = height;
  }

  /** Compares two leaves over the keys that belong to both. */
  #addLeaves(one: ComparedSubtree, other: ComparedSubtree, runs: Runs): boolean {
    const [view, otherView] = [this.#node(one.block).view, this.#node(other.block).view];
    assert(nodeIsLeaf(view) && nodeIsLeaf(otherView), "only leaves hold mappings");
    const end = Math.min(one.end, other.end, runs.end);
    let index = firstAtOrAbove(view, runs.at);
    let otherIndex = firstAtOrAbove(otherView, runs.at);
    for (;;) {
      const key = index < nodeEntries(view) ? nodeKey(view, index) : Infinity;
      const otherKey = otherIndex < nodeEntries(otherView) ? nodeKey(otherView, otherIndex) : Infinity;
      const next = Math.min(key, otherKey);
      if (next >= end) return runs.add(end, false);
      const isSame = key === otherKey && dblockAt(view, index) === dblockAt(otherView, otherIndex);
      if (!runs.add(next, false) || !runs.add(next + 1, !isSame)) return false;
      if (key === next) index++;
      if (otherKey === next) otherIndex++;
    }
  }

  /** Goes one node down towards `key`. Returns false in a leaf. */
  #descend(place: ComparedSubtree, key: number): boolean {
    const { view } = this.#node(place.block);
    if (nodeIsLeaf(view)) return false;
    const entries = nodeEntries(view);
    if (entries === 0) damaged(place.block, "it is an inner node without children");
    if (++place.depth > treeHeightMax) damaged(place.block, "the path to it never ends");
    const slot = Math.max(0, nodeFindAtOrBelow(view, key));
    if (slot + 1 < entries) place.end = Math.min(place.end, nodeKey(view, slot + 1));
    place.block = nodeChild(view, slot);
    place.height--;
    return true;
  }

  #height(root: MetadataBlock, key: number): number {
    const place = subtree(root, 0);
    while (this.#descend(place, key)) continue;
    return place.depth;
  }

  #node(block: MetadataBlock): CacheEntry {
    return this.#transaction.read(block, childSizeBytes);
  }
}

/** A node on the path down. The keys below it are less than `end`. */
interface ComparedSubtree {
  block: MetadataBlock;
  /** Expected number of nodes between this one and a leaf. */
  height: number;
  end: number;
  depth: number;
}

function subtree(root: MetadataBlock, height: number): ComparedSubtree {
  return { block: root, height, end: Infinity, depth: 0 };
}

function firstAtOrAbove(leaf: DataView, key: number): number {
  const index = nodeFindAtOrBelow(leaf, key);
  return index >= 0 && nodeKey(leaf, index) === key ? index : index + 1;
}

function dblockAt(leaf: DataView, index: number): DBlock {
  return blockTimeDblock(leaf, nodeValueOffset(leaf, index));
}

/** The runs found so far, from the begin of the range up to {@linkcode Runs.at}. */
class Runs {
  readonly found: { length: number; isMarked: boolean }[] = [];
  readonly #end: number;
  readonly #runsMax: number;
  at: number;

  constructor({ begin, end, runsMax }: RunsWanted) {
    assert(begin < end && runsMax > 0, "something is asked");
    this.at = begin;
    this.#end = end;
    this.#runsMax = runsMax;
  }

  get end(): number {
    return this.#end;
  }

  /** Adds the vblocks from `at` to `to`. Returns false, adding nothing, if that needs more than `runsMax` runs. */
  add(to: number, isMarked: boolean): boolean {
    const length = Math.min(to, this.#end) - this.at;
    if (length <= 0) return true;
    const last = this.found.at(-1);
    if (last?.isMarked === isMarked) last.length += length;
    else if (this.found.length === this.#runsMax) return false;
    else this.found.push({ length, isMarked });
    this.at += length;
    return true;
  }
}
