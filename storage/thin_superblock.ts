/**
 * The superblock of a new pool, and the checks of a superblock when a pool is opened.
 */
import { dataBlocksMax, timeMax } from "./format/block_time.ts";
import { metadataBlocksMax } from "./format/metadata_index.ts";
import {
  dataBlockSizeSectorsMax,
  dataBlockSizeSectorsMin,
  flagNeedsCheck,
  type Superblock,
  superblockVersion,
  unpackSuperblock,
} from "./format/superblock.ts";
import type { Geometry } from "./base/geometry.ts";
import { metadataBlock, sectorSizeBytes } from "./base/ids.ts";
import { OpenRefused } from "./metadata_fault.ts";

/** How a pool's metadata is to be opened. */
export interface EngineOptions {
  /** Clean metadata blocks kept in memory. */
  readonly cacheBlocks: number;
  /** Size of the metadata device in metadata blocks. */
  readonly deviceBlocks: number;
  /** The pool will not be changed, so reference counts are not loaded. */
  readonly readOnly: boolean;
  /** For simulations with small state: accepts blocks of any number of sectors, which no other program makes. */
  readonly takesSmallBlocks?: boolean;
}

/** Unpacks and checks the superblock. Throws {@linkcode OpenRefused} with a message for the user. */
export function openSuperblock(bytes: Uint8Array, options: EngineOptions): Superblock {
  const superblock = unpackSuperblock(bytes);
  if (typeof superblock === "string") {
    const next = "Restore it from a backup or with thin_repair.";
    throw new OpenRefused(`The metadata was not opened: the superblock is damaged, ${superblock}. ${next}`);
  }
  const refusal = refusalOf(superblock, options);
  if (refusal !== undefined) throw new OpenRefused(`The metadata was not opened: ${refusal}`);
  const writeRefusal = options.readOnly ? undefined : writeRefusalOf(superblock);
  if (writeRefusal !== undefined) {
    throw new OpenRefused(`The metadata was not opened for writing: ${writeRefusal}`);
  }
  return superblock;
}

/** Why the metadata cannot be opened, and what to do next. */
function refusalOf(superblock: Superblock, options: EngineOptions): string | undefined {
  const { incompatFlags, dataBlockSizeSectors: sectors, metadataSpaceMap, dataSpaceMap } = superblock;
  if (incompatFlags !== 0) {
    return `it uses features unknown here (incompat flags ${incompatFlags}). Use the program that made it.`;
  }
  const unitSectors = options.takesSmallBlocks === true ? 1 : dataBlockSizeSectorsMin;
  const isLegalSize = sectors >= unitSectors && sectors <= dataBlockSizeSectorsMax &&
    sectors % unitSectors === 0;
  if (!isLegalSize) {
    return `its block size of ${sectors} sectors is no multiple of 64 KiB up to 1 GiB. Repair it with thin_repair.`;
  }
  const blocks = metadataSpaceMap.blocks;
  if (blocks === 0 || blocks > metadataBlocksMax) {
    return `its space map claims ${blocks} metadata blocks. Repair it with thin_repair.`;
  }
  if (blocks > options.deviceBlocks) {
    return `it has ${blocks} blocks, but only ${options.deviceBlocks} are there. Restore the rest from a backup.`;
  }
  if (superblock.time > timeMax) {
    return `its snapshot clock is at ${superblock.time}, beyond the 24 bits of a mapping. Repair it with thin_repair.`;
  }
  if (dataSpaceMap.blocks > dataBlocksMax) {
    return `its space map claims ${dataSpaceMap.blocks} data blocks. Repair it with thin_repair.`;
  }
  return undefined;
}

/** Why the metadata cannot be opened for writing, and what to do next. */
function writeRefusalOf(superblock: Superblock): string | undefined {
  if (superblock.compatRoFlags !== 0) {
    return `it uses features to be read only (compat_ro flags ${superblock.compatRoFlags}). Open it read-only.`;
  }
  if ((superblock.flags & flagNeedsCheck) !== 0) {
    return "a commit failed earlier and it is marked as needing a check. " +
      "Restart the host, whose memory may show what its disk does not have, and run `check --clear-needs-check`; or " +
      "open it read-only.";
  }
  return undefined;
}

/** What was counted while loading, to compare with the stored hints. */
export interface CountedHints {
  /** Index entries whose number of free blocks differed from the bitmap's. */
  readonly wrongEntries: number;
  readonly dataAllocated: number;
  readonly metadataAllocated: number;
}

/**
 * Sentences about hints that were wrong, as thin_restore 0.9 leaves them. The hints are not used, so this is no damage.
 */
export function notesOnHints(superblock: Superblock, counted: CountedHints): string[] {
  const notes: string[] = [];
  if (counted.wrongEntries > 0) {
    notes.push(
      `${counted.wrongEntries} space map index entries held a wrong number of free blocks; recounted`,
    );
  }
  if (superblock.dataSpaceMap.allocated !== counted.dataAllocated) {
    notes.push("the number of data blocks in use was wrong; recounted");
  }
  if (superblock.metadataSpaceMap.allocated !== counted.metadataAllocated) {
    notes.push("the number of metadata blocks in use was wrong; recounted");
  }
  return notes;
}

/** The superblock of a new pool. The first commit sets its roots. */
export function emptySuperblock(geometry: Geometry, uuid: Uint8Array): Superblock {
  const nowhere = metadataBlock(0);
  return {
    flags: 0,
    uuid,
    version: superblockVersion,
    time: 0,
    transactionId: 0n,
    heldRoot: nowhere,
    dataSpaceMap: { blocks: 0, allocated: 0, bitmapRoot: nowhere, overflowRoot: nowhere },
    metadataSpaceMap: {
      blocks: geometry.metadataBlocks,
      allocated: 0,
      bitmapRoot: nowhere,
      overflowRoot: nowhere,
    },
    mappingRoot: nowhere,
    detailsRoot: nowhere,
    dataBlockSizeSectors: geometry.blockSizeBytes / sectorSizeBytes,
    metadataBlocksAtFormat: geometry.metadataBlocks,
    compatFlags: 0,
    compatRoFlags: 0,
    incompatFlags: 0,
  };
}
