/**
 * The geometry of a pool: the size of its blocks, and how many data and metadata blocks it has.
 *
 * The three are distinct types, so that a number of data blocks cannot be used as one of metadata blocks or as bytes. Only
 * {@linkcode geometryOf} and {@linkcode poolBlocksOf} cast to them. The superblock of the last durable commit is where the geometry of an open pool comes
 * from (superblock_state.ts).
 */
import { assert } from "./assert.ts";
import { metadataBlockSizeBytes, sectorSizeBytes } from "./ids.ts";

declare const unit: unique symbol;
type Counted<Unit extends string> = number & { readonly [unit]: Unit };

/** A number of data blocks. */
export type DataBlocks = Counted<"data blocks">;
/** A number of metadata blocks, of 4096 bytes each. */
export type MetadataBlocks = Counted<"metadata blocks">;
/** Bytes of one data block: a multiple of the sector, the same as long as the pool exists. */
export type BlockSizeBytes = Counted<"bytes of a data block">;

/** See the head of this file. */
export interface Geometry {
  readonly blockSizeBytes: BlockSizeBytes;
  readonly dataBlocks: DataBlocks;
  readonly metadataBlocks: MetadataBlocks;
}

/** The sizes of a pool's two devices, in blocks. */
export type PoolBlocks = Pick<Geometry, "dataBlocks" | "metadataBlocks">;

/** A geometry of plain numbers that the caller has checked. */
export function geometryOf(
  sizes: { readonly blockSizeBytes: number; readonly dataBlocks: number; readonly metadataBlocks: number },
): Geometry {
  const { blockSizeBytes } = sizes;
  assert(
    blockSizeBytes > 0 && blockSizeBytes % sectorSizeBytes === 0,
    "a data block is a whole number of sectors",
  );
  return { blockSizeBytes: blockSizeBytes as BlockSizeBytes, ...poolBlocksOf(sizes) };
}

/** Sizes of plain numbers that the caller has checked. */
export function poolBlocksOf(
  { dataBlocks, metadataBlocks }: { readonly dataBlocks: number; readonly metadataBlocks: number },
): PoolBlocks {
  assert(Number.isInteger(dataBlocks) && dataBlocks >= 0, "data blocks are counted");
  assert(
    Number.isInteger(metadataBlocks) && metadataBlocks > 0,
    "there is a metadata block for the superblock",
  );
  return { dataBlocks: dataBlocks as DataBlocks, metadataBlocks: metadataBlocks as MetadataBlocks };
}

/** Bytes that all data blocks take on the data device. */
export function dataBytesOf({ dataBlocks, blockSizeBytes }: Geometry): number {
  return dataBlocks * blockSizeBytes;
}

/** Bytes that all metadata blocks take on the metadata device. */
export function metadataBytesOf({ metadataBlocks }: Geometry): number {
  return metadataBlocks * metadataBlockSizeBytes;
}

/** True if a pool of the first geometry can become one of the second: nothing shrinks, and blocks keep their size. */
export function canBecome(before: Geometry, after: Geometry): boolean {
  return after.blockSizeBytes === before.blockSizeBytes && after.dataBlocks >= before.dataBlocks &&
    after.metadataBlocks >= before.metadataBlocks;
}
