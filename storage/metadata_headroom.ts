/**
 * Admission by free metadata blocks. Every operation must leave enough free blocks for the commit that makes it
 * durable. All except removals must leave some headroom besides, so that removal and discard are possible when other
 * operations are refused (as `metadata_reserve` in drivers/md/dm-thin-metadata.c).
 */
import { headroomBlocksMax, headroomBlocksMin } from "./base/limits.ts";
import { bitmapEntries } from "./format/bitmap.ts";
import { MetadataFault } from "./metadata_fault.ts";
import type { MetadataSpaceLayout } from "./space_map_layout.ts";
import type { MetadataSpaceMap } from "./space_map_metadata.ts";

/** Decides whether an operation left enough free metadata blocks. */
export class MetadataHeadroom {
  readonly #space: MetadataSpaceMap;
  readonly #layout: MetadataSpaceLayout;

  constructor(space: MetadataSpaceMap, layout: MetadataSpaceLayout) {
    this.#space = space;
    this.#layout = layout;
  }

  /** Refuses an operation that used blocks of the headroom. */
  admit(): void {
    const { blocks } = this.#space;
    if (this.allocatableOf(blocks) < headroomOf(blocks)) throw new MetadataFault({ kind: "noMetadataSpace" });
  }

  /** Refuses an operation after which a commit might not have enough free blocks. */
  admitFromHeadroom(): void {
    if (this.allocatableOf(this.#space.blocks) < 0) throw new MetadataFault({ kind: "noMetadataSpace" });
  }

  /**
   * Blocks that operations other than removals may still use: without those kept for removals and for the next commit, and
   * without those that are free only once it is durable. A pool opened read-only counts no block: `free` is then what its
   * superblock says.
   */
  available(free?: number): number {
    const { blocks } = this.#space;
    const usable = free === undefined ? this.allocatableOf(blocks) : free - this.#layout.blocksNeededMax;
    return Math.max(0, usable - headroomOf(blocks));
  }

  /** The same once all changes so far are durable: it gives back the blocks that they freed. */
  availableAfterCommit(): number {
    const { blocks, releasable } = this.#space;
    return Math.max(0, this.allocatableOf(blocks) + releasable - headroomOf(blocks));
  }

  /**
   * Blocks that may still be allocated with a commit remaining possible, if the metadata had so many `blocks`, which
   * are not fewer than it has. Every added block is free, and every added bitmap is written by the commit.
   */
  allocatableOf(blocks: number): number {
    const space = this.#space;
    const added = blocks - space.blocks;
    const addedBitmaps = Math.ceil(blocks / bitmapEntries) - space.ordinals;
    return space.allocatable + added - this.#layout.blocksNeededMax - addedBitmaps;
  }
}

/** The headroom of metadata with so many blocks. */
export function headroomOf(blocks: number): number {
  const tenth = Math.min(headroomBlocksMax, Math.floor(blocks / 10));
  return Math.min(Math.floor(blocks / 4), Math.max(headroomBlocksMin, tenth));
}
