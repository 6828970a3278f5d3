/**
 * The header of every metadata block: a salted checksum, and the block's own number at byte 8 (`dm_bm_checksum`,
 * drivers/md/persistent-data/dm-block-manager.c). The salt differs by kind of block, so a node that is read where a
 * bitmap is expected fails the checksum.
 */
import { type MetadataBlock, metadataBlockSizeBytes } from "../base/ids.ts";
import { assert } from "../base/assert.ts";
import { checksumOf } from "./crc32c.ts";
import { readU32, readU64, viewOf, writeU32, writeU64 } from "./fields.ts";

/** The kinds of metadata blocks. */
export type BlockKind = "superblock" | "btreeNode" | "metadataIndex" | "bitmap";

/** XORed into the checksum, by kind of block. */
const checksumSalt: Readonly<Record<BlockKind, number>> = {
  superblock: 160_774,
  btreeNode: 121_107,
  metadataIndex: 160_478,
  bitmap: 240_779,
};

const checksumOffset = 0;
const blockNumberOffset = 8;

/**
 * Checks length, checksum and block number. Returns undefined, or what is wrong, as the end of a sentence.
 */
export function verifyBlock(bytes: Uint8Array, kind: BlockKind, block: MetadataBlock): string | undefined {
  if (bytes.length !== metadataBlockSizeBytes) return "it is cut short";
  const view = viewOf(bytes);
  if (readU32(view, checksumOffset) !== checksumOf(bytes, checksumSalt[kind])) {
    return `its checksum is not that of a ${kindWords[kind]}`;
  }
  const stored = readU64(view, blockNumberOffset);
  if (stored !== block) return `it says it is block ${stored}`;
  return undefined;
}

const kindWords: Readonly<Record<BlockKind, string>> = {
  superblock: "superblock",
  btreeNode: "B-tree node",
  metadataIndex: "metadata index",
  bitmap: "space map bitmap",
};

/** Writes the block's number, and then its checksum. The bytes must not be changed after this. */
export function sealBlock(bytes: Uint8Array, kind: BlockKind, block: MetadataBlock): void {
  assert(bytes.length === metadataBlockSizeBytes, "only a whole metadata block is sealed");
  const view = viewOf(bytes);
  writeU64(view, blockNumberOffset, block);
  writeU32(view, checksumOffset, checksumOf(bytes, checksumSalt[kind]));
}
