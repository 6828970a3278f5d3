/**
 * The root of a space map, 32 bytes in the superblock (`struct disk_sm_root`,
 * drivers/md/persistent-data/dm-space-map-common.h).
 */
import { type MetadataBlock, metadataBlock } from "../base/ids.ts";
import { readU64, writeU64 } from "./fields.ts";

/** Bytes of a value in an overflow tree: the exact reference count, a u32. */
export const overflowValueSizeBytes = 4;

/** Where a space map is, and how many blocks it counts. */
export interface SpaceMapRoot {
  /** Number of blocks that it counts. */
  readonly blocks: number;
  /** Number of blocks with a count above 0. A hint: thin_restore 0.9 writes a wrong one. */
  readonly allocated: number;
  /** Root of the index tree (data) or the index block (metadata). */
  readonly bitmapRoot: MetadataBlock;
  /** Root of the tree with counts of 3 or more. */
  readonly overflowRoot: MetadataBlock;
}

/** Reads a root. */
export function unpackSpaceMapRoot(view: DataView, offset: number): SpaceMapRoot {
  return {
    blocks: readU64(view, offset),
    allocated: readU64(view, offset + 8),
    bitmapRoot: metadataBlock(readU64(view, offset + 16)),
    overflowRoot: metadataBlock(readU64(view, offset + 24)),
  };
}

/** Writes a root. */
export function packSpaceMapRoot(view: DataView, offset: number, root: SpaceMapRoot): void {
  writeU64(view, offset, root.blocks);
  writeU64(view, offset + 8, root.allocated);
  writeU64(view, offset + 16, root.bitmapRoot);
  writeU64(view, offset + 24, root.overflowRoot);
}
