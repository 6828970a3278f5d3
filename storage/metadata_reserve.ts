/**
 * Admission by free metadata blocks. Every operation must leave enough for the commit that makes it durable; ordinary
 * ones also leave a reserve, so that deletion and discard go on when everything else is refused (dm-thin.md 2.7).
 */
import { MetadataFault } from "./metadata_fault.ts";
import type { MetadataSpaceLayout } from "./space_map_layout.ts";
import type { MetadataSpaceMap } from "./space_map_metadata.ts";

/** The reserve is a tenth of the metadata, as in the kernel, within these bounds and at most a quarter. */
const reserveBlocksMax = 4096;
const reserveBlocksMin = 16;
/** Mappings in a whole leaf: what a removal takes at once when space is plentiful. */
const leafEntriesMax = 252;
/** Blocks that removing one mapping may need at worst: its bitmap, its part of the index and overflow trees' paths. */
const blocksPerRemoval = 4;
/** Blocks that owning the paths to one leaf of one device may need at worst, siblings included. */
const blocksPerPath = 24;

export class MetadataReserve {
  readonly #space: MetadataSpaceMap;
  readonly #layout: MetadataSpaceLayout;

  constructor(space: MetadataSpaceMap, layout: MetadataSpaceLayout) {
    this.#space = space;
    this.#layout = layout;
  }

  /** Refuses an operation that went below the reserve. */
  admit(): void {
    const blocks = this.#space.blocks;
    const tenth = Math.min(reserveBlocksMax, Math.floor(blocks / 10));
    const reserve = Math.min(Math.floor(blocks / 4), Math.max(reserveBlocksMin, tenth));
    if (this.#toSpare() < reserve) throw new MetadataFault({ kind: "noMetadataSpace" });
  }

  /** Refuses an operation after which a commit might not find the blocks it needs. */
  admitFromReserve(): void {
    if (this.#toSpare() < 0) throw new MetadataFault({ kind: "noMetadataSpace" });
  }

  /** How many mappings to remove in one operation: fewer when space is short, so that each step still fits. */
  removalsAtOnce(): number {
    const removals = Math.floor((this.#toSpare() - blocksPerPath) / blocksPerRemoval);
    return Math.max(1, Math.min(leafEntriesMax, removals));
  }

  /** Blocks that may still be allocated so that a commit remains possible. */
  #toSpare(): number {
    return this.#space.allocatable - this.#layout.blocksNeededMax;
  }
}
