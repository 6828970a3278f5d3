/**
 * Which sizes a pool can grow to. New data blocks need bitmaps, and index nodes above them, in free metadata blocks
 * that are not of the headroom. New metadata blocks need only themselves.
 */
import { assert } from "./base/assert.ts";
import { type PoolBlocks, poolBlocksOf } from "./base/geometry.ts";
import { bitmapsPerGrowthStep } from "./base/limits.ts";
import { bitmapEntries } from "./format/bitmap.ts";
import { dataBlocksMax } from "./format/block_time.ts";
import { childSizeBytes, nodeCapacity } from "./format/btree_node.ts";
import { indexEntrySizeBytes } from "./format/index_entry.ts";
import { metadataBlocksMax } from "./format/metadata_index.ts";
import { MetadataFault } from "./metadata_fault.ts";
import type { MetadataOperation } from "./metadata_operation.ts";
import { headroomOf, type MetadataHeadroom } from "./metadata_headroom.ts";
import type { DataSpaceMap } from "./space_map_data.ts";
import type { MetadataSpaceMap } from "./space_map_metadata.ts";

/** Why a pool was not grown. Nothing has changed. */
export type GrowthRefusal =
  /** The device has `blocks` already: shrinking is not possible. */
  | { readonly kind: "shrinks"; readonly device: "data" | "metadata"; readonly blocks: number }
  /** The device cannot have more than `blocksMax`, as dm-thin's format and the largest metadata limit it. */
  | { readonly kind: "tooLarge"; readonly device: "data" | "metadata"; readonly blocksMax: number }
  /** It would be possible with metadata of so many blocks, which are more than was asked for. */
  | { readonly kind: "needsMetadata"; readonly metadataBlocks: number };

/** The parts of the metadata that growth concerns. */
export interface GrowthParts {
  readonly space: MetadataSpaceMap;
  readonly headroom: MetadataHeadroom;
  readonly data: DataSpaceMap;
  readonly operation: MetadataOperation;
}

/** See the head of this file. */
export class Growth {
  readonly #parts: GrowthParts;

  constructor(parts: GrowthParts) {
    this.#parts = parts;
  }

  /**
   * Why the pool cannot get these sizes, or undefined. A device that is not to grow is wanted at its present size. Blocks
   * that are free only after a commit do not count, so a caller with changes commits them first.
   */
  refusal(wanted: PoolBlocks): GrowthRefusal | undefined {
    const { space, data } = this.#parts;
    const shrinks = (device: "data" | "metadata", blocks: number) =>
      ({ kind: "shrinks", device, blocks }) as const;
    if (wanted.metadataBlocks < space.blocks) return shrinks("metadata", space.blocks);
    if (wanted.dataBlocks < data.blocks) return shrinks("data", data.blocks);
    if (wanted.metadataBlocks > metadataBlocksMax) return tooLarge("metadata", metadataBlocksMax);
    if (wanted.dataBlocks > dataBlocksMax) return tooLarge("data", dataBlocksMax);
    if (this.#fits(wanted)) return undefined;
    const { dataBlocks, metadataBlocks } = wanted;
    const fitsMetadata = (blocks: number) => this.#fits(poolBlocksOf({ dataBlocks, metadataBlocks: blocks }));
    if (fitsMetadata(metadataBlocksMax)) {
      const needed = firstThat(fitsMetadata, metadataBlocks, metadataBlocksMax);
      return { kind: "needsMetadata", metadataBlocks: needed };
    }
    const failsData = (blocks: number) =>
      !this.#fits(poolBlocksOf({ dataBlocks: blocks, metadataBlocks: metadataBlocksMax }));
    return tooLarge("data", firstThat(failsData, data.blocks, dataBlocks) - 1);
  }

  #fits({ dataBlocks, metadataBlocks }: PoolBlocks): boolean {
    const { space, data, headroom } = this.#parts;
    const allocatable = headroom.allocatableOf(metadataBlocks);
    if (dataBlocks > data.blocks) {
      return allocatable - metadataBlocksNeededMax(data.blocks, dataBlocks) >= headroomOf(metadataBlocks);
    }
    return metadataBlocks === space.blocks || allocatable >= 0;
  }

  /**
   * Grows the data space map towards so many blocks by a bounded number of bitmaps, and returns how far it came. The
   * data device has the blocks. Faults with noMetadataSpace if the free metadata does not suffice: see
   * {@linkcode refusal}.
   */
  growData(blocks: number): number {
    const { data, headroom, operation } = this.#parts;
    operation.run(() => {
      data.grow(stepEnd(data.blocks, blocks));
      headroom.admit();
    });
    return data.blocks;
  }

  /**
   * Grows the metadata space map to so many blocks, which the metadata device has. No old block needs to be free: the
   * commit can write the new bitmaps into the new blocks (FORMAT.md, "How growth survives a crash"). Faults with
   * noMetadataSpace if there are not enough of both for a commit: see {@linkcode refusal}.
   */
  growMetadata(blocks: number): void {
    const { space, headroom, operation } = this.#parts;
    assert(
      blocks >= space.blocks && blocks <= metadataBlocksMax,
      "metadata grows, up to what its index can count",
    );
    if (blocks === space.blocks) return;
    if (headroom.allocatableOf(blocks) < 0) throw new MetadataFault({ kind: "noMetadataSpace" });
    operation.run(() => space.grow(blocks));
  }
}

function tooLarge(device: "data" | "metadata", blocksMax: number): GrowthRefusal {
  return { kind: "tooLarge", device, blocksMax };
}

/**
 * How far one step of a growth from `present` to `wanted` data blocks goes. A step ends between two bitmaps, and is a
 * legal pool: if we stop after it was committed, the pool has grown by whole steps.
 */
function stepEnd(present: number, wanted: number): number {
  const bitmaps = Math.ceil(present / bitmapEntries) + bitmapsPerGrowthStep;
  return Math.min(wanted, bitmaps * bitmapEntries);
}

/**
 * Metadata blocks that a growth of the data space map allocates at most: the new bitmaps, a copy of the last old one,
 * and every node of the index tree, were all as empty as they may be.
 */
function metadataBlocksNeededMax(present: number, wanted: number): number {
  const bitmaps = Math.ceil(wanted / bitmapEntries);
  let needed = bitmaps - Math.ceil(present / bitmapEntries) + 1;
  let level = Math.ceil(bitmaps / (nodeCapacity(indexEntrySizeBytes) / 3));
  needed += level;
  while (level > 1) {
    level = Math.ceil(level / (nodeCapacity(childSizeBytes) / 3));
    needed += level;
  }
  return needed;
}

/**
 * Bisects (below, last] for the smallest value that passes. `last` must pass. Above a value that passes, others pass too, but
 * for a few: the headroom grows with the metadata, by a block here and there. So the result passes, but may not be the smallest.
 */
function firstThat(passes: (value: number) => boolean, below: number, last: number): number {
  let [fails, passed] = [below, last];
  while (passed - fails > 1) {
    const middle = Math.floor((fails + passed) / 2);
    if (passes(middle)) passed = middle;
    else fails = middle;
  }
  return passed;
}
