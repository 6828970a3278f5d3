/**
 * Admission by free metadata blocks. Every operation must leave enough free blocks for the commit that makes it
 * durable. All except removals must leave a reserve besides, so that removal and discard are possible when other
 * operations are refused (as `metadata_reserve` in drivers/md/dm-thin-metadata.c).
 */
import { reserveBlocksMax, reserveBlocksMin } from "./base/limits.ts";
import { MetadataFault } from "./metadata_fault.ts";
import type { MetadataSpaceLayout } from "./space_map_layout.ts";
import type { MetadataSpaceMap } from "./space_map_metadata.ts";

/** Decides whether an operation left enough free metadata blocks. */
export class MetadataReserve {
  readonly #space: MetadataSpaceMap;
  readonly #layout: MetadataSpaceLayout;

  constructor(space: MetadataSpaceMap, layout: MetadataSpaceLayout) {
    this.#space = space;
    this.#layout = layout;
  }

  /** Refuses an operation that used blocks of the reserve. */
  admit(): void {
    const blocks = this.#space.blocks;
    const tenth = Math.min(reserveBlocksMax, Math.floor(blocks / 10));
    const reserve = Math.min(Math.floor(blocks / 4), Math.max(reserveBlocksMin, tenth));
    if (this.#toSpare() < reserve) throw new MetadataFault({ kind: "noMetadataSpace" });
  }

  /** Refuses an operation after which a commit might not have enough free blocks. */
  admitFromReserve(): void {
    if (this.#toSpare() < 0) throw new MetadataFault({ kind: "noMetadataSpace" });
  }

  /** Blocks that may still be allocated with a commit remaining possible. */
  #toSpare(): number {
    return this.#space.allocatable - this.#layout.blocksNeededMax;
  }
}
