/**
 * Every bound and knob of storage/. storage/ may not import actors/, so its bounds stand here and not in
 * actors/limits.ts, which names this file.
 *
 * Not here: the bounds of the on-disk format. They are facts of dm-thin, and stand with the structure that has them
 * (base/ids.ts, base/sizes.ts and format/).
 */

/** Bytes of one part of a name (which are characters: names are ASCII). */
export const nameBytesMax = 127;

/**
 * Buffers of evicted metadata blocks that are kept for the next reads: a few hundred reads may be under way at once.
 */
export const spareBuffersMax = 512;
/** Operations after which the pins of an operation that was never run again are dropped. */
export const pinOperations = 4096;

/**
 * Data blocks in each of the two sets of recently unshared blocks, about 2 MiB. Above it, all blocks count as members.
 */
export const recentlyUnsharedMax = 2 ** 16;

/**
 * Metadata blocks kept for removals: a tenth of the metadata within these bounds (`metadata_reserve`,
 * drivers/md/dm-thin-metadata.c), and at most a quarter of it.
 */
export const headroomBlocksMax = 4096;
export const headroomBlocksMin = 16;

/**
 * A sibling takes entries from a full node only if it has this many places free; with fewer it would be full again
 * soon.
 */
export const siblingPlacesFreeMin = 8;
/** The overflow tree of metadata counts is written in full if more than one entry in so many changed. */
export const overflowEntriesPerChange = 8;
/**
 * Index entries with a wrong number of free blocks that are corrected with the next change. thin_restore 0.9 leaves
 * one.
 */
export const wrongHintsCorrectedMax = 16;

/** Levels that no valid tree exceeds: with at least 84 children a node, 84^9 > 2^53 leaves. A longer path is a loop. */
export const treeHeightMax = 10;
/** The same for the checker, which shares no code with the engine: 16 levels hold more than 2^64 keys. */
export const checkedDepthMax = 16;
/** The same for a scan. */
export const scannedLevelsMax = 17;

/** When a removal has too little space, the next try is a part of it: one of so many. */
export const removalDivisor = 8;

/** Leaves that one look-up of a range visits. */
export const leavesPerLookup = 8;
/** Bitmaps that one step of a growth of the data device adds: 1 MiB of metadata, 255 GiB of data in 64 KiB blocks. */
export const bitmapsPerGrowthStep = 256;
/** Bitmaps that one search for free data blocks reads. */
export const bitmapsPerSearch = 16;
/**
 * Nodes that one turn of a comparison touches; it ends with the step that reaches this number. A missing node makes the
 * operation run again, so this is well below the misses after which an operation runs alone.
 */
export const nodesPerTurn = 32;
/** Steps of one turn of a comparison. A step over a shared subtree touches no node, but takes time. */
export const stepsPerTurn = 1024;
/** Thin devices after which a scan that needs no block pauses, so that other work can run. */
export const devicesPerPause = 512;

/** Characters of one piece of a dump, about. */
export const dumpPieceChars = 32 * 1024;
/** Findings of a check that are listed; the rest is counted. */
export const findingsListedMax = 100;

/** Characters of one piece of the catalogue's first line, about. */
export const journalPieceChars = 64 * 1024;
/**
 * Bytes of the longest journal line that is read. The first line of 65,536 volumes with the longest names and all
 * settings has 62 MB.
 */
export const journalLineBytesMax = 64 * 1024 * 1024;

/** Words of 4 bytes that a search for what is not zero combines before one test. */
export const wordsPerZeroTest = 16;
