/** The sizes of a pool are those of the last durable superblock. */
import { assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { createThin, MetadataDriver } from "../tests/support/metadata_driver.ts";
import { Defect } from "./base/assert.ts";
import { geometryOf } from "./base/geometry.ts";
import { metadataBlock, metadataBlockSizeBytes, thinId } from "./base/ids.ts";
import { SuperblockState } from "./superblock_state.ts";
import { emptySuperblock } from "./thin_superblock.ts";

const small = geometryOf({ blockSizeBytes: 65536, dataBlocks: 100, metadataBlocks: 100 });

Deno.test("a growth is part of the geometry once its commit is durable, and not before", () => {
  const pool = MetadataDriver.format(small);
  const image = new Uint8Array(200 * metadataBlockSizeBytes);
  image.set(pool.image);
  pool.replaceImage(image);
  pool.run((engine) => engine.growth.growMetadata(200));
  pool.run((engine) => engine.growth.growData(300));
  const plan = pool.engine.beginCommit();
  assertEquals(pool.engine.geometry, small);
  assertEquals([pool.engine.dataBlocks, pool.engine.metadataBlocks], [300, 200]);
  pool.write(plan);
  pool.engine.commitDurable();
  assertEquals(pool.engine.geometry, geometryOf({ ...small, dataBlocks: 300, metadataBlocks: 200 }));
  pool.reopen();
  assertEquals(pool.engine.geometry, geometryOf({ ...small, dataBlocks: 300, metadataBlocks: 200 }));
});

Deno.test("a growth that was not committed is gone after a stop", () => {
  const pool = MetadataDriver.format(small);
  pool.run((engine) => engine.growth.growData(300));
  pool.reopen();
  assertEquals(pool.engine.geometry, small);
});

Deno.test("a commit that changes no size leaves the geometry the same object", () => {
  const pool = MetadataDriver.format(small);
  const before = pool.engine.geometry;
  pool.run((engine) => createThin(engine, thinId(1)));
  pool.commit();
  assertStrictEquals(pool.engine.geometry, before);
});

Deno.test("a commit that would make the pool smaller is a defect", () => {
  const superblock = { ...emptySuperblock(small, new Uint8Array(16)) };
  const space = { blocks: 100, allocated: 0, bitmapRoot: metadataBlock(0), overflowRoot: metadataBlock(0) };
  const state = new SuperblockState(
    { ...superblock, dataSpaceMap: space },
    new Uint8Array(metadataBlockSizeBytes),
  );
  const { mappingRoot, detailsRoot } = superblock;
  const shrunk = { ...space, blocks: 99 };
  state.freeze({
    dataSpaceMap: shrunk,
    metadataSpaceMap: superblock.metadataSpaceMap,
    mappingRoot,
    detailsRoot,
  });
  assertThrows(() => state.commitDurable(), Defect, "a commit made the pool smaller");
});
