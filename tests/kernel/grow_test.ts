/**
 * The kernel agrees on growth: its thin-pool target, in a VM, uses a pool that we grew to its last block, and we use one
 * that it grew.
 */
import { geometryOf, poolBlocksOf } from "../../storage/base/geometry.ts";
import { assertEquals } from "@std/assert";
import { dblock, metadataBlockSizeBytes, thinId, vblock } from "../../storage/base/ids.ts";
import { createThin, MetadataDriver } from "../support/metadata_driver.ts";
import { PoolOnDisk, soakTest } from "../support/server.ts";
import { restoreImage } from "../support/thin_tools.ts";
import { contentsHere, contentsInGuest, hasGuestPool, volumeNamed } from "./guest_pool.ts";

const ignore = !hasGuestPool();
const blockSectors = 128;
const bitmap = 16_320;

type PlainBlocks = Parameters<typeof poolBlocksOf>[0];
const newId = 900;

/** A pool of which all data blocks but the last `free` are mapped. They were never written, and read as zeroes. */
function nearlyFull(sizes: PlainBlocks, free: number): MetadataDriver {
  const pool = MetadataDriver.format(geometryOf({ ...sizes, blockSizeBytes: blockSectors * 512 }));
  pool.run((engine) => createThin(engine, thinId(1)));
  for (let block = 0; block < sizes.dataBlocks - free; block++) {
    pool.run((engine) => engine.insert(thinId(1), vblock(block), dblock(block)));
  }
  pool.commit();
  return pool;
}

/** Grows the metadata as its owner does, file first. */
function grow(pool: MetadataDriver, wanted: PlainBlocks): void {
  assertEquals(pool.engine.growth.refusal(poolBlocksOf(wanted)), undefined);
  const image = new Uint8Array(wanted.metadataBlocks * metadataBlockSizeBytes);
  image.set(pool.image);
  pool.replaceImage(image);
  pool.run((engine) => engine.growth.growMetadata(wanted.metadataBlocks));
  assertEquals(pool.run((engine) => engine.growth.growData(wanted.dataBlocks)), wanted.dataBlocks);
  pool.commit();
}

/** The files of a pool with this metadata, before they have a pool directory: sparse, of these sizes. */
async function putFiles(pool: PoolOnDisk, image: Uint8Array, sizes: PlainBlocks): Promise<void> {
  await Deno.mkdir(pool.directory);
  await Deno.writeFile(pool.metadataPath, image);
  await Deno.truncate(pool.metadataPath, sizes.metadataBlocks * metadataBlockSizeBytes);
  await Deno.writeFile(pool.dataPath, new Uint8Array(0));
  await Deno.truncate(pool.dataPath, sizes.dataBlocks * blockSectors * 512);
}

/** The kernel fills the pool to the last block; then we import it, find it sound and full, and read what it wrote. */
async function fillInGuest(pool: PoolOnDisk, sizes: PlainBlocks, free: number): Promise<void> {
  const guest = await contentsInGuest({
    script: "grow.sh",
    metadataPath: pool.metadataPath,
    dataPath: pool.dataPath,
    args: [blockSectors, sizes.dataBlocks, newId, free],
  });
  await pool.verb("import", "--metadata", pool.metadataPath, "--data", pool.dataPath);
  await pool.requireSound();
  const status = await pool.status();
  assertEquals(status.data_total_bytes, sizes.dataBlocks * blockSectors * 512);
  assertEquals(status.data_used_bytes, status.data_total_bytes);
  assertEquals(status.metadata_total_bytes, sizes.metadataBlocks * metadataBlockSizeBytes);
  const server = await pool.serve();
  const filled = volumeNamed(await pool.list(), `thin-${newId}`);
  assertEquals(await contentsHere(server, [filled]), guest("filled"));
  await server.stop();
  await pool.requireSound();
}

Deno.test({
  name: "the kernel fills a pool that we grew over the end of a bitmap, on both devices, to its last block",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.folder();
    const metadata = nearlyFull({ dataBlocks: bitmap - 1, metadataBlocks: 1024 }, 4);
    const sizes = { dataBlocks: bitmap + 11, metadataBlocks: bitmap + 1 };
    grow(metadata, sizes);
    await putFiles(pool, metadata.image, sizes);
    await fillInGuest(pool, sizes, 16);
  },
});

Deno.test({
  name:
    "a pool that the kernel grew over the end of a bitmap, on both devices, opens here, and `grow` goes on",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.folder();
    const metadata = nearlyFull({ dataBlocks: bitmap, metadataBlocks: bitmap - 1 }, 1);
    const sizes = { dataBlocks: bitmap + 1, metadataBlocks: bitmap + 700 };
    await putFiles(pool, metadata.image, sizes);
    await fillInGuest(pool, sizes, 2);

    const dataBytes = (2 * bitmap + 1) * blockSectors * 512;
    await pool.verb("grow", `${dataBytes}`, "--metadata", `+${metadataBlockSizeBytes}`);
    await pool.requireSound();
    const { data_total_bytes, data_used_bytes } = await pool.status();
    assertEquals(data_total_bytes - data_used_bytes, bitmap * blockSectors * 512);
  },
});

soakTest({
  name: "the kernel finds every block of a pool that thin_restore 0.9 made and we grew",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.folder();
    const xml =
      `<superblock uuid="" time="0" transaction="0" version="2" data_block_size="128" nr_data_blocks="100">
<device dev_id="1" mapped_blocks="99" transaction="0" creation_time="0" snap_time="0">
<range_mapping origin_begin="0" data_begin="0" length="99" time="0"/>
</device>
</superblock>`;
    const metadata = new MetadataDriver(restoreImage(xml, "0.9", 512), 1000);
    const sizes = { dataBlocks: 200, metadataBlocks: 1024 };
    grow(metadata, sizes);
    await putFiles(pool, metadata.image, sizes);
    await fillInGuest(pool, sizes, 101);
  },
});
