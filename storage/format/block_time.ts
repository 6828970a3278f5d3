/**
 * A mapping in a leaf: data block << 24 | snapshot time, in a u64 (`pack_block_time`, drivers/md/dm-thin-metadata.c).
 * It is handled as two words, because 64 bits do not fit into a double, and BigInt is too slow for look-ups.
 */
import { type DBlock, dblock } from "../base/ids.ts";
import { readU32, writeU32 } from "./fields.ts";

/**
 * The largest snapshot time of a mapping. A larger one would change the data block number, since `pack_block_time` does
 * not mask the time.
 */
export const timeMax = 0xff_ffff;

/** Data blocks that a mapping can name: 40 bits. */
export const dataBlocksMax = 2 ** 40;

/** The data block of the mapping at `offset`. */
export function blockTimeDblock(view: DataView, offset: number): DBlock {
  return dblock(readU32(view, offset + 4) * 256 + (readU32(view, offset) >>> 24));
}

/** The snapshot clock when the mapping at `offset` was made. */
export function blockTimeTime(view: DataView, offset: number): number {
  return readU32(view, offset) & timeMax;
}

/** Writes a mapping at `offset`. The block has 40 bits, the time 24. */
export function packBlockTime(view: DataView, offset: number, block: DBlock, time: number): void {
  writeU32(view, offset, (block % 256) * 0x100_0000 + time);
  writeU32(view, offset + 4, Math.floor(block / 256));
}
