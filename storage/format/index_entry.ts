/**
 * The index entry of one bitmap, 16 bytes, the same for both space maps (`struct disk_index_entry`,
 * drivers/md/persistent-data/dm-space-map-common.h).
 */
import { type MetadataBlock, metadataBlock } from "../base/ids.ts";
import { readU32, readU64, writeU32, writeU64 } from "./fields.ts";

/** Bytes of a packed {@linkcode IndexEntry}. */
export const indexEntrySizeBytes = 16;

/** Where a bitmap is, and two hints for the allocation of blocks. */
export interface IndexEntry {
  /** The metadata block with the bitmap. */
  readonly bitmap: MetadataBlock;
  /** Entries with count 0, counted as if the last bitmap were whole too. A hint. */
  readonly free: number;
  /** Every entry below this one is in use. A hint; 0 is always right. */
  readonly noneFreeBefore: number;
}

/** Reads an entry. */
export function unpackIndexEntry(view: DataView, offset: number): IndexEntry {
  return {
    bitmap: metadataBlock(readU64(view, offset)),
    free: readU32(view, offset + 8),
    noneFreeBefore: readU32(view, offset + 12),
  };
}

/** Writes an entry. */
export function packIndexEntry(view: DataView, offset: number, entry: IndexEntry): void {
  writeU64(view, offset, entry.bitmap);
  writeU32(view, offset + 8, entry.free);
  writeU32(view, offset + 12, entry.noneFreeBefore);
}
