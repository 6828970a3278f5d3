/** Small pools for tests of the engine. */
import { geometryOf } from "../../storage/base/geometry.ts";
import { assertThrows } from "@std/assert";
import { type Superblock, unpackSuperblock } from "../../storage/format/superblock.ts";
import { dblock, metadataBlockSizeBytes, thinId, vblock } from "../../storage/base/ids.ts";
import type { MetadataFault } from "../../storage/thin_metadata.ts";
import { createThin, MetadataDriver } from "./metadata_driver.ts";
import { Recount } from "./metadata_recount.ts";

export const one = thinId(1);
export const two = thinId(2);

export function makePool(metadataBlocks = 512, dataBlocks = 40_000, cacheBlocks = 1000): MetadataDriver {
  return MetadataDriver.format(
    geometryOf({ metadataBlocks, dataBlocks, blockSizeBytes: 65536 }),
    cacheBlocks,
  );
}

/** A pool with device 1, vblocks `[0, blocks)` mapped to the same data blocks, committed. */
export function makeMapped(blocks: number, metadataBlocks = 512): MetadataDriver {
  const pool = makePool(metadataBlocks);
  pool.run((engine) => createThin(engine, one));
  for (let at = 0; at < blocks; at++) pool.run((engine) => engine.insert(one, vblock(at), dblock(at)));
  pool.commit();
  return pool;
}

export function faultOf(operation: () => void): MetadataFault["fault"] {
  return (assertThrows(operation) as MetadataFault).fault;
}

/** Commits and recounts what is then on the device. */
export function committed(pool: MetadataDriver): Recount {
  pool.commit();
  return new Recount(pool.image);
}

export function superblockOf(pool: MetadataDriver): Superblock {
  return unpackSuperblock(pool.image.slice(0, metadataBlockSizeBytes)) as Superblock;
}

/** Gives the metadata device so many blocks. What is new in it is not zero, as on a disk that was used. */
export function enlarge(pool: MetadataDriver, blocks: number): void {
  const image = new Uint8Array(blocks * metadataBlockSizeBytes).fill(0xa5);
  image.set(pool.image);
  pool.replaceImage(image);
}
