/** The superblock at the two ends of its life: what a new pool begins with, and what decides whether one is opened. */
import { metadataBlocksMax } from "./format/metadata_index.ts";
import {
  dataBlockSizeSectorsMax,
  dataBlockSizeSectorsMin,
  flagNeedsCheck,
  type Superblock,
  superblockVersion,
  unpackSuperblock,
} from "./format/superblock.ts";
import { metadataBlock } from "./ids.ts";
import { OpenRefused } from "./metadata_fault.ts";

/** What a new pool is made of. */
export interface MetadataGeometry {
  readonly metadataBlocks: number;
  readonly dataBlocks: number;
  readonly dataBlockSizeSectors: number;
  /** 16 bytes, zeroes if absent as the kernel writes them. */
  readonly uuid?: Uint8Array;
}

export interface OpenOptions {
  /** Clean metadata blocks kept in memory. */
  readonly cacheBlocks: number;
  /** Size of the metadata device in metadata blocks. */
  readonly deviceBlocks: number;
  /** Nothing will be changed: reference counts are not loaded. */
  readonly readOnly: boolean;
}

/** No data block number has more bits than a mapping has room for. */
const dataBlocksMax = 2 ** 40;

/** The superblock's record. Throws {@linkcode OpenRefused} with the sentence to show. */
export function openSuperblock(bytes: Uint8Array, options: OpenOptions): Superblock {
  const superblock = unpackSuperblock(bytes);
  if (typeof superblock === "string") {
    throw new OpenRefused(
      `The metadata was not opened: the superblock is damaged, ${superblock}. Restore it from a backup or with thin_repair.`,
    );
  }
  const refusal = refusalOf(superblock, options) ??
    (options.readOnly ? undefined : writeRefusalOf(superblock));
  if (refusal !== undefined) throw new OpenRefused(refusal);
  return superblock;
}

function refusalOf(superblock: Superblock, options: OpenOptions): string | undefined {
  if (superblock.incompatFlags !== 0) {
    return `The metadata was not opened: it uses features this program does not know (incompat flags ${superblock.incompatFlags}). Open it with the program that made it.`;
  }
  const sectors = superblock.dataBlockSizeSectors;
  if (
    sectors < dataBlockSizeSectorsMin || sectors > dataBlockSizeSectorsMax ||
    sectors % dataBlockSizeSectorsMin !== 0
  ) {
    return `The metadata was not opened: its block size of ${sectors} sectors is not a multiple of 64 KiB up to 1 GiB. Repair it with thin_repair --data-block-size.`;
  }
  const blocks = superblock.metadataSpaceMap.blocks;
  if (blocks === 0 || blocks > metadataBlocksMax) {
    return `The metadata was not opened: its space map claims ${blocks} metadata blocks. Repair it with thin_repair.`;
  }
  if (blocks > options.deviceBlocks) {
    return `The metadata was not opened: it has ${blocks} blocks but the file or device holds only ${options.deviceBlocks}. It has been truncated; restore it from a backup.`;
  }
  if (superblock.dataSpaceMap.blocks > dataBlocksMax) {
    return `The metadata was not opened: its space map claims ${superblock.dataSpaceMap.blocks} data blocks. Repair it with thin_repair.`;
  }
  return undefined;
}

function writeRefusalOf(superblock: Superblock): string | undefined {
  if (superblock.compatRoFlags !== 0) {
    return `The metadata was not opened for writing: it uses features this program can only read (compat_ro flags ${superblock.compatRoFlags}). Open it read-only.`;
  }
  if ((superblock.flags & flagNeedsCheck) !== 0) {
    return "The metadata was not opened for writing: a commit failed earlier and it is marked as needing a check. Run thin_check --clear-needs-check-flag on it, or open it read-only.";
  }
  return undefined;
}

/** The superblock of a pool about to be made; its roots are filled in by the first commit. */
export function emptySuperblock(geometry: MetadataGeometry): Superblock {
  const nowhere = metadataBlock(0);
  return {
    flags: 0,
    uuid: geometry.uuid ?? new Uint8Array(16),
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
    dataBlockSizeSectors: geometry.dataBlockSizeSectors,
    metadataBlocksAtFormat: geometry.metadataBlocks,
    compatFlags: 0,
    compatRoFlags: 0,
    incompatFlags: 0,
  };
}
