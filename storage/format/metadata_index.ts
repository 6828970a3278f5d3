/**
 * The metadata space map's index block: up to 255 index entries in bitmap order, unused ones zero
 * (`struct disk_metadata_index`, drivers/md/persistent-data/dm-space-map-common.h).
 */
import { bitmapEntries } from "./bitmap.ts";
import { type IndexEntry, indexEntrySizeBytes, packIndexEntry, unpackIndexEntry } from "./index_entry.ts";

/** Index entries in the block. */
const metadataIndexEntries = 255;
/** Metadata blocks that the index can count. */
export const metadataBlocksMax = metadataIndexEntries * bitmapEntries;

const payloadOffset = 16;

/** The entry of bitmap `ordinal`. */
export function metadataIndexEntry(view: DataView, ordinal: number): IndexEntry {
  return unpackIndexEntry(view, payloadOffset + ordinal * indexEntrySizeBytes);
}

/** Writes the entry of bitmap `ordinal`. */
export function packMetadataIndexEntry(view: DataView, ordinal: number, entry: IndexEntry): void {
  packIndexEntry(view, payloadOffset + ordinal * indexEntrySizeBytes, entry);
}
