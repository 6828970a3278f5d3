/**
 * Growth of both devices around the ends of bitmaps, from empty and from full pools. A plain recount, our check, and both
 * generations of thin_check judge every image, and a dump tells that no mapping changed.
 */
import { assertEquals } from "@std/assert";
import { assert } from "../../storage/base/assert.ts";
import { bitmapsPerGrowthStep } from "../../storage/base/limits.ts";
import { setBitmapCount } from "../../storage/format/bitmap.ts";
import { nodeValueOffset } from "../../storage/format/btree_node.ts";
import { type IndexEntry, unpackIndexEntry } from "../../storage/format/index_entry.ts";
import { metadataBlocksMax, metadataIndexEntry } from "../../storage/format/metadata_index.ts";
import {
  dblock,
  type MetadataBlock,
  metadataBlockSizeBytes,
  thinId,
  vblock,
} from "../../storage/base/ids.ts";
import { poolBlocksOf } from "../../storage/base/geometry.ts";
import { MetadataFault } from "../../storage/thin_metadata.ts";
import { withBlock } from "../support/metadata_image.ts";
import { checkImage, dumpImage } from "../support/metadata_reader.ts";
import { hasThinTools, mapAtOnce, restoreImage, runOnImage } from "../support/thin_tools.ts";
import { createSnapshots, createThin, MetadataDriver } from "../support/metadata_driver.ts";
import { Recount } from "../support/metadata_recount.ts";
import { enlarge, faultOf, makeMapped, makePool, one, superblockOf, two } from "../support/small_pools.ts";

const bitmap = 16_320;
const sizesAroundBitmaps = [bitmap - 1, bitmap, bitmap + 1, 2 * bitmap - 1, 2 * bitmap, 2 * bitmap + 1];

type PlainBlocks = Parameters<typeof poolBlocksOf>[0];

function sizesOf(pool: MetadataDriver): PlainBlocks {
  return { dataBlocks: pool.engine.dataBlocks, metadataBlocks: pool.engine.metadataBlocks };
}

const refusalOf = (pool: MetadataDriver, wanted: PlainBlocks) =>
  pool.engine.growth.refusal(poolBlocksOf(wanted));

/** Grows the pool, as its owner does: metadata first. Not committed. */
function grow(pool: MetadataDriver, wanted: PlainBlocks): void {
  assertEquals(refusalOf(pool, wanted), undefined);
  if (wanted.metadataBlocks > pool.engine.metadataBlocks) enlarge(pool, wanted.metadataBlocks);
  pool.run((engine) => engine.growth.growMetadata(wanted.metadataBlocks));
  let reached = pool.engine.dataBlocks;
  while (reached < wanted.dataBlocks) {
    reached = pool.run((engine) => engine.growth.growData(wanted.dataBlocks));
  }
  assertEquals(sizesOf(pool), wanted);
}

/** The image is sound, with every hint right, and has these sizes. */
function assertSound(image: Uint8Array, wanted: PlainBlocks): void {
  const recount = new Recount(image);
  assertEquals(recount.superblock.dataSpaceMap.blocks, wanted.dataBlocks);
  assertEquals(recount.superblock.metadataSpaceMap.blocks, wanted.metadataBlocks);
  const { problems, notes } = checkImage(image);
  assertEquals({ problems, notes }, { problems: [], notes: [] });
}

/** Mappings as text, without the size of the data device. */
function mappingsOf(image: Uint8Array): string {
  return dumpImage(image).text.replace(/nr_data_blocks="\d+"/, "");
}

/** Maps blocks of device 1 from `next` on to all data blocks that are free. */
function fill(pool: MetadataDriver, next: number): void {
  let from = dblock(0);
  let block = next;
  for (;;) {
    const found = pool.run((engine) => engine.findFreeData(from, 4096));
    for (const { begin, length } of found.runs) {
      for (let at = 0; at < length; at++, block++) {
        pool.run((engine) => engine.insert(one, vblock(block), dblock(begin + at)));
      }
    }
    from = found.next;
    if (from === pool.engine.dataBlocks) break;
  }
}

for (const isFull of [false, true]) {
  const state = isFull ? "full" : "nearly empty";
  Deno.test(`a ${state} data device grows to and from the ends of bitmaps, and its last block is mapped`, () => {
    for (const before of [100, bitmap - 1, bitmap, bitmap + 1]) {
      const full = makePool(2048, before);
      full.run((engine) => createThin(engine, one));
      if (isFull) fill(full, 0);
      else full.run((engine) => engine.insert(one, vblock(7), dblock(3)));
      full.commit();
      for (const after of sizesAroundBitmaps.filter((blocks) => blocks > before)) {
        const pool = new MetadataDriver(full.image.slice(), 1000);
        const mappings = mappingsOf(pool.image);
        grow(pool, { ...sizesOf(pool), dataBlocks: after });
        pool.commit();
        assertSound(pool.image, { dataBlocks: after, metadataBlocks: 2048 });
        assertEquals(mappingsOf(pool.image), mappings);
        pool.reopen();
        assertEquals(pool.engine.notes, []);
        pool.run((engine) => engine.insert(one, vblock(bitmap * 9), dblock(after - 1)));
        const { runs } = pool.run((engine) => engine.findFreeData(dblock(before), 1));
        if (before < after - 1) assertEquals(runs, [{ begin: dblock(before), length: 1 }]);
        pool.commit();
        assertSound(pool.image, { dataBlocks: after, metadataBlocks: 2048 });
      }
    }
  });
}

/** Creates devices until none is accepted any more, so that all metadata but the headroom is in use. */
function exhaustMetadata(pool: MetadataDriver): void {
  for (let id = 1000;; id++) {
    try {
      pool.run((engine) => createThin(engine, thinId(id)));
    } catch (error) {
      if (error instanceof MetadataFault && error.fault.kind === "noMetadataSpace") break;
      throw error;
    }
    if (id % 100 === 0) pool.commit();
  }
  pool.commit();
}

for (const isFull of [false, true]) {
  Deno.test(`${isFull ? "exhausted" : "nearly empty"} metadata grows to and from the ends of bitmaps`, () => {
    for (const before of isFull ? [200] : [200, bitmap - 1, bitmap, bitmap + 1]) {
      const first = makePool(before, 100);
      first.run((engine) => createThin(engine, one));
      first.run((engine) => engine.insert(one, vblock(7), dblock(3)));
      first.commit();
      if (isFull) exhaustMetadata(first);
      for (
        const after of [
          before + 1,
          ...sizesAroundBitmaps.filter((blocks) => blocks > before).slice(0, 3),
        ]
      ) {
        const pool = new MetadataDriver(first.image.slice(), 1000);
        const mappings = mappingsOf(pool.image);
        grow(pool, { ...sizesOf(pool), metadataBlocks: after });
        pool.commit();
        assertSound(pool.image, { dataBlocks: 100, metadataBlocks: after });
        assertEquals(mappingsOf(pool.image), mappings);
        pool.reopen();
        assertEquals(pool.engine.notes, []);
        // A growth by a block or two is more space, but not enough for a device beside the headroom.
        if (after > before + 300) pool.run((engine) => createThin(engine, two));
        pool.commit();
        assertSound(pool.image, { dataBlocks: 100, metadataBlocks: after });
      }
    }
  });
}

Deno.test("metadata without one free block, as the kernel may leave it, grows into the added blocks", () => {
  for (const [before, suffices] of [[64, 67], [bitmap - 2, bitmap + 2]] as const) {
    const pool = makeMapped(10, before);
    const mappings = mappingsOf(pool.image);
    // Blocks that no structure refers to are in use: nothing here can be allocated.
    pool.replaceImage(withBlock(pool.image, metadataBitmap(pool.image, 0), (_view, bytes) => {
      for (let block = 0; block < before; block++) setBitmapCount(bytes, block, 1);
    }));
    pool.reopen();
    assertEquals(pool.engine.metadataFree, 0);
    const refusal = refusalOf(pool, { dataBlocks: 40_000, metadataBlocks: before + 1 });
    assertEquals(refusal, { kind: "needsMetadata", metadataBlocks: suffices });
    const fault = faultOf(() => pool.engine.growth.growMetadata(suffices - 1));
    assertEquals([fault, pool.engine.metadataBlocks], [{ kind: "noMetadataSpace" }, before]);
    grow(pool, { dataBlocks: 40_000, metadataBlocks: suffices });
    pool.commit();
    const { metadataSpaceMap } = superblockOf(pool);
    assertEquals(metadataSpaceMap.blocks, suffices);
    assert(metadataSpaceMap.bitmapRoot >= before, "the index lies in the added space");
    pool.reopen();
    assertEquals(mappingsOf(pool.image), mappings);
  }
});

Deno.test("repeated growth of both devices, with snapshots and deletions between, ends full to the last block", () => {
  const pool = makePool(100, 500);
  pool.run((engine) => createThin(engine, one));
  let snapshots = 0;
  for (const factor of [1, 2, 7, 33, 34, 70]) {
    const wanted = { dataBlocks: 500 * factor + 3 * factor, metadataBlocks: 100 * factor + factor };
    grow(pool, wanted);
    if (factor === 33) {
      grow(pool, { dataBlocks: wanted.dataBlocks + 1, metadataBlocks: wanted.metadataBlocks + 1 });
    }
    fill(pool, 100_000 * factor);
    pool.commit();
    assertEquals(pool.engine.dataFree, 0);
    const thin = thinId(10 + snapshots++);
    pool.run((engine) => createSnapshots(engine, [{ thin, origin: one }], { tick: true }));
    pool.commit();
    pool.reopen();
    while (snapshots % 2 === 0 && !pool.run((engine) => engine.deleteThin(thin, 4)));
    pool.run((engine) => engine.removeRange(one, vblock(100_000 * factor), vblock(100_000 * factor + 50)));
    pool.commit();
    assertSound(pool.image, sizesOf(pool));
  }
  for (const thin of pool.engine.thinIds()) while (!pool.run((engine) => engine.deleteThin(thin, 16)));
  pool.commit();
  assertEquals(pool.engine.dataFree, pool.engine.dataBlocks);
  assertSound(pool.image, sizesOf(pool));
});

Deno.test("growth that stops before the superblock leaves the old size whole, and can be done again", () => {
  for (
    const wanted of [{ dataBlocks: 3 * bitmap, metadataBlocks: 512 }, {
      dataBlocks: 500,
      metadataBlocks: 2 * bitmap,
    }]
  ) {
    const pool = makePool(512, 500);
    pool.run((engine) => createThin(engine, one));
    pool.run((engine) => engine.insert(one, vblock(1), dblock(499)));
    pool.commit();
    const mappings = mappingsOf(pool.image);
    grow(pool, wanted);
    const plan = pool.engine.beginCommit();
    for (const { block, bytes } of plan.blocks) {
      pool.image.set(bytes, block * metadataBlockSizeBytes);
      assertSound(pool.image, { dataBlocks: 500, metadataBlocks: 512 });
    }
    assertEquals(mappingsOf(pool.image), mappings);
    pool.reopen();
    grow(pool, wanted);
    pool.commit();
    assertSound(pool.image, wanted);
    assertEquals(mappingsOf(pool.image), mappings);
  }
});

Deno.test("growth goes on while a commit is written and while a commit is held", () => {
  const pool = makeMapped(300);
  const held = pool.engine.holdCommit();
  pool.run((engine) => engine.insert(one, vblock(300), dblock(300)));
  const plan = pool.engine.beginCommit();
  grow(pool, { dataBlocks: 3 * bitmap + 5, metadataBlocks: 700 });
  pool.write(plan);
  pool.engine.commitDurable();
  assertSound(pool.image.slice(0, 512 * metadataBlockSizeBytes), { dataBlocks: 40_000, metadataBlocks: 512 });
  held.release();
  pool.commit();
  assertSound(pool.image, sizesOf(pool));
});

Deno.test("smaller sizes are refused, and sizes that dm-thin's format cannot hold", () => {
  const pool = makePool(100, 500);
  const refusal = (dataBlocks: number, metadataBlocks: number) =>
    refusalOf(pool, { dataBlocks, metadataBlocks });
  assertEquals(refusal(500, 100), undefined);
  assertEquals(refusal(499, 100), { kind: "shrinks", device: "data", blocks: 500 });
  assertEquals(refusal(500, 99), { kind: "shrinks", device: "metadata", blocks: 100 });
  assertEquals(refusal(500, 4_161_600), undefined);
  assertEquals(refusal(500, 4_161_601), { kind: "tooLarge", device: "metadata", blocksMax: 4_161_600 });
  assertEquals(refusal(2 ** 40 + 1, 100), { kind: "tooLarge", device: "data", blocksMax: 2 ** 40 });
  const tooLarge = refusal(2 ** 40, 100);
  assert(tooLarge?.kind === "tooLarge" && tooLarge.device === "data", "no metadata holds 2^40 counts");
  assertEquals(refusal(tooLarge.blocksMax + 1, metadataBlocksMax)?.kind, "tooLarge");
  assertEquals(refusal(tooLarge.blocksMax, metadataBlocksMax), undefined);
});

Deno.test("data whose bitmaps do not fit is refused with the metadata that suffices, and nothing changes", () => {
  const pool = makePool(64, 500);
  pool.run((engine) => createThin(engine, one));
  pool.commit();
  for (const dataBlocks of [60 * bitmap, 400 * bitmap + 1]) {
    const before = pool.image.slice();
    const refusal = refusalOf(pool, { ...sizesOf(pool), dataBlocks });
    assert(refusal?.kind === "needsMetadata", "the metadata is too small");
    const { metadataBlocks } = refusal;
    assertEquals(faultOf(() => pool.run((engine) => engine.growth.growData(dataBlocks))), {
      kind: "noMetadataSpace",
    });
    pool.commit();
    assertEquals(superblockOf(pool).dataSpaceMap.blocks, 500);
    assertEquals(mappingsOf(pool.image), mappingsOf(before));

    const grown = new MetadataDriver(pool.image.slice(), 1000);
    const less = refusalOf(grown, { dataBlocks, metadataBlocks: metadataBlocks - 2 });
    assertEquals(less?.kind, "needsMetadata");
    grow(grown, { dataBlocks, metadataBlocks });
    grown.commit();
    assertSound(grown.image, { dataBlocks, metadataBlocks });
    const needed = new Recount(grown.image).metadataCounts.size;
    assert(
      metadataBlocks < needed * 1.2 + 64,
      `${metadataBlocks} blocks were asked for, ${needed} are in use`,
    );
  }
});

Deno.test("a large growth is done in steps, each of which is a legal pool", () => {
  const pool = makePool(4096, 500);
  const wanted = (2 * bitmapsPerGrowthStep + 5) * bitmap + 7;
  const reached: number[] = [];
  while (reached.at(-1) !== wanted) {
    reached.push(pool.run((engine) => engine.growth.growData(wanted)));
    pool.commit();
    assertEquals(superblockOf(pool).dataSpaceMap.blocks, reached.at(-1));
    assertEquals(checkImage(pool.image).problems, []);
  }
  const steps = [1, 2].map((step) => (1 + step * bitmapsPerGrowthStep) * bitmap);
  assertEquals(reached, [...steps, wanted]);
});

/** The index entry of a bitmap of the data space map, whose index tree is one leaf. */
function dataIndexEntry(image: Uint8Array, ordinal: number): IndexEntry {
  const { bitmapRoot } = new Recount(image, false).superblock.dataSpaceMap;
  const view = new DataView(image.buffer, bitmapRoot * metadataBlockSizeBytes, metadataBlockSizeBytes);
  return unpackIndexEntry(view, nodeValueOffset(view, ordinal));
}

/** A bitmap of the metadata space map. */
function metadataBitmap(image: Uint8Array, ordinal: number): MetadataBlock {
  const { bitmapRoot } = new Recount(image, false).superblock.metadataSpaceMap;
  return metadataIndexEntry(new DataView(image.buffer, bitmapRoot * metadataBlockSizeBytes), ordinal).bitmap;
}

Deno.test("bits that another program left behind the last block are cleared by growth, on both devices", () => {
  const metadataBlocks = bitmap + 100;
  const { image: sound, engine: { dataBlocks } } = makeMapped(10, metadataBlocks);
  const litter = (bytes: Uint8Array, begin: number) => {
    for (let at = begin; at < bitmap; at++) setBitmapCount(bytes, at, 1 + at % 2);
  };
  const lastData = dataIndexEntry(sound, Math.floor(dataBlocks / bitmap)).bitmap;
  let image = withBlock(sound, lastData, (_view, bytes) => litter(bytes, dataBlocks % bitmap));
  image = withBlock(image, metadataBitmap(sound, 1), (_view, bytes) => litter(bytes, 100));
  const pool = new MetadataDriver(image, 1000);
  assertEquals(checkImage(image).problems, []);
  const wanted = { dataBlocks: dataBlocks + 1, metadataBlocks: metadataBlocks + 1 };
  grow(pool, wanted);
  pool.commit();
  assertSound(pool.image, wanted);
});

Deno.test({
  name:
    "a pool of thin_restore 0.9, whose last bitmaps have too few free, grows with right numbers and fills up",
  ignore: !hasThinTools("0.9"),
  fn: () => {
    const image = restoreImage(xmlOf(100, 99), "0.9", 512);
    assertEquals(dataIndexEntry(image, 0).free, 1);
    const pool = new MetadataDriver(image, 1000);
    grow(pool, { dataBlocks: 200, metadataBlocks: 1024 });
    pool.commit();
    assertEquals(dataIndexEntry(pool.image, 0).free, bitmap - 99);
    assertSound(pool.image, { dataBlocks: 200, metadataBlocks: 1024 });
    fill(pool, 1000);
    pool.commit();
    assertEquals(pool.engine.dataFree, 0);
    assertSound(pool.image, { dataBlocks: 200, metadataBlocks: 1024 });
  },
});

function xmlOf(dataBlocks: number, mapped: number): string {
  return `<superblock uuid="" time="0" transaction="0" version="2" data_block_size="128" nr_data_blocks="${dataBlocks}">
<device dev_id="1" mapped_blocks="${mapped}" transaction="0" creation_time="0" snap_time="0">
<range_mapping origin_begin="0" data_begin="0" length="${mapped}" time="0"/>
</device>
</superblock>`;
}

Deno.test({
  name: "both generations of thin_check accept grown pools, and thin_dump prints the same mappings as before",
  ignore: !hasThinTools("0.9") || !hasThinTools("1.x"),
  fn: async () => {
    const pool = makeMapped(500, 200);
    pool.run((engine) => createSnapshots(engine, [{ thin: two, origin: one }], { tick: true }));
    pool.run((engine) => engine.insert(one, vblock(3), dblock(700)));
    pool.commit();
    const dumpOf = async (image: Uint8Array) => {
      const { stdout } = await runOnImage("thin_dump", "0.9", image);
      return stdout.replace(/nr_data_blocks="\d+"/, "");
    };
    const mappings = await dumpOf(pool.image);
    const images: Uint8Array[] = [];
    for (const size of sizesAroundBitmaps) {
      const data = new MetadataDriver(pool.image.slice(), 1000);
      grow(data, { dataBlocks: 40_000 + size, metadataBlocks: 200 });
      data.commit();
      const metadata = new MetadataDriver(pool.image.slice(), 1000);
      grow(metadata, { dataBlocks: 40_000, metadataBlocks: size });
      metadata.commit();
      images.push(data.image, metadata.image);
    }
    await mapAtOnce(images, 4, async (image) => {
      for (const version of ["0.9", "1.x"] as const) {
        const { status, stderr } = await runOnImage("thin_check", version, image);
        assertEquals(status, 0, `thin_check ${version}: ${stderr}`);
      }
      assertEquals(await dumpOf(image), mappings);
    });
  },
});
