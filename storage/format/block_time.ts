/**
 * A mapping as it lies in a leaf: data block << 24 | snapshot time, in a u64 (`pack_block_time`, drivers/md/dm-thin-metadata.c). Handled as two
 * words, because the whole does not fit a double and BigInt is too slow for every look-up.
 */
import { type DBlock, dblock } from "../base/ids.ts";
import { readU32, writeU32 } from "./fields.ts";

/**
 * Largest snapshot time a mapping can hold. A clock beyond it would spill into the data block number
 * (`pack_block_time`, drivers/md/dm-thin-metadata.c, shifts the block by 24 bits).
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
