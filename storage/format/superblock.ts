/**
 * The superblock, metadata block 0 (`struct thin_disk_superblock`, drivers/md/dm-thin-metadata.c). All fields that a
 * commit changes are in its first sector.
 */
import { type MetadataBlock, metadataBlock, metadataBlockSizeBytes } from "../base/ids.ts";
import { assert } from "../base/assert.ts";
import { sealBlock, verifyBlock } from "./block_header.ts";
import { readOpaqueU64, readU32, readU64, viewOf, writeOpaqueU64, writeU32, writeU64 } from "./fields.ts";
import { packSpaceMapRoot, type SpaceMapRoot, unpackSpaceMapRoot } from "./space_map_root.ts";

/** The block of the superblock. */
export const superblockLocation: MetadataBlock = metadataBlock(0);
/** The number at byte 32 that identifies dm-thin metadata. */
const superblockMagic = 27_022_010;
/** The version that the kernel writes too. Readers accept any. */
export const superblockVersion = 2;
/** Bit of `flags`: thin_check must be run before the pool is written again. */
export const flagNeedsCheck = 1;
/** Bounds of `dataBlockSizeSectors`, which is a multiple of the smaller one. */
export const dataBlockSizeSectorsMin = 128;
export const dataBlockSizeSectorsMax = 2_097_152;

/** The fields of the superblock that are used. */
export interface Superblock {
  /** {@linkcode flagNeedsCheck}, and unknown bits, which are kept. */
  readonly flags: number;
  /** 16 bytes, kept. */
  readonly uuid: Uint8Array;
  readonly version: number;
  /** The snapshot clock. */
  readonly time: number;
  /** 64 bits, with no meaning for the metadata. */
  readonly transactionId: bigint;
  /** Block of the metadata snapshot, 0 if there is none. */
  readonly heldRoot: MetadataBlock;
  readonly dataSpaceMap: SpaceMapRoot;
  readonly metadataSpaceMap: SpaceMapRoot;
  /** Root of the tree from device id to the root of that device's mappings. */
  readonly mappingRoot: MetadataBlock;
  /** Root of the tree from device id to device details. */
  readonly detailsRoot: MetadataBlock;
  readonly dataBlockSizeSectors: number;
  /** Metadata blocks when the pool was made. The metadata space map has the present number. */
  readonly metadataBlocksAtFormat: number;
  readonly compatFlags: number;
  /** If not 0, the pool may be opened for reading only. */
  readonly compatRoFlags: number;
  /** If not 0, the pool may not be opened. */
  readonly incompatFlags: number;
}

const offsets = {
  flags: 4,
  uuid: 16,
  magic: 32,
  version: 40,
  time: 44,
  transactionId: 48,
  heldRoot: 56,
  dataSpaceMap: 64,
  metadataSpaceMap: 192,
  mappingRoot: 320,
  detailsRoot: 328,
  dataBlockSizeSectors: 336,
  metadataBlockSizeSectors: 340,
  metadataBlocksAtFormat: 344,
  compatFlags: 352,
  compatRoFlags: 356,
  incompatFlags: 360,
} as const;
const uuidSizeBytes = 16;
const metadataBlockSizeSectors = 8;

/**
 * Packs and seals a superblock for block `location` into `bytes`. Bytes that belong to no field stay as they are in
 * `bytes`. For a commit these must be the bytes of the previous superblock: then only the first sector changes. If we
 * stop during the write, each sector is old or new, so the block is the old superblock or the new one.
 */
export function packSuperblock(
  superblock: Superblock,
  bytes: Uint8Array = new Uint8Array(metadataBlockSizeBytes),
  location: MetadataBlock = superblockLocation,
): Uint8Array {
  assert(superblock.uuid.length === uuidSizeBytes, "a uuid has 16 bytes");
  const view = viewOf(bytes);
  writeU32(view, offsets.flags, superblock.flags);
  bytes.set(superblock.uuid, offsets.uuid);
  writeU64(view, offsets.magic, superblockMagic);
  writeU32(view, offsets.version, superblock.version);
  writeU32(view, offsets.time, superblock.time);
  writeOpaqueU64(view, offsets.transactionId, superblock.transactionId);
  writeU64(view, offsets.heldRoot, superblock.heldRoot);
  packSpaceMapRoot(view, offsets.dataSpaceMap, superblock.dataSpaceMap);
  packSpaceMapRoot(view, offsets.metadataSpaceMap, superblock.metadataSpaceMap);
  writeU64(view, offsets.mappingRoot, superblock.mappingRoot);
  writeU64(view, offsets.detailsRoot, superblock.detailsRoot);
  writeU32(view, offsets.dataBlockSizeSectors, superblock.dataBlockSizeSectors);
  writeU32(view, offsets.metadataBlockSizeSectors, metadataBlockSizeSectors);
  writeU64(view, offsets.metadataBlocksAtFormat, superblock.metadataBlocksAtFormat);
  writeU32(view, offsets.compatFlags, superblock.compatFlags);
  writeU32(view, offsets.compatRoFlags, superblock.compatRoFlags);
  writeU32(view, offsets.incompatFlags, superblock.incompatFlags);
  sealBlock(bytes, "superblock", location);
  return bytes;
}

/**
 * The superblock; or what is wrong with checksum, location or magic number, as the end of a sentence. The caller checks
 * the feature flags.
 */
export function unpackSuperblock(
  bytes: Uint8Array,
  location: MetadataBlock = superblockLocation,
): Superblock | string {
  const reason = verifyBlock(bytes, "superblock", location);
  if (reason !== undefined) return reason;
  const view = viewOf(bytes);
  if (readU64(view, offsets.magic) !== superblockMagic) return "its magic number is not that of dm-thin";
  return {
    flags: readU32(view, offsets.flags),
    uuid: bytes.slice(offsets.uuid, offsets.uuid + uuidSizeBytes),
    version: readU32(view, offsets.version),
    time: readU32(view, offsets.time),
    transactionId: readOpaqueU64(view, offsets.transactionId),
    heldRoot: metadataBlock(readU64(view, offsets.heldRoot)),
    dataSpaceMap: unpackSpaceMapRoot(view, offsets.dataSpaceMap),
    metadataSpaceMap: unpackSpaceMapRoot(view, offsets.metadataSpaceMap),
    mappingRoot: metadataBlock(readU64(view, offsets.mappingRoot)),
    detailsRoot: metadataBlock(readU64(view, offsets.detailsRoot)),
    dataBlockSizeSectors: readU32(view, offsets.dataBlockSizeSectors),
    metadataBlocksAtFormat: readU64(view, offsets.metadataBlocksAtFormat),
    compatFlags: readU32(view, offsets.compatFlags),
    compatRoFlags: readU32(view, offsets.compatRoFlags),
    incompatFlags: readU32(view, offsets.incompatFlags),
  };
}
