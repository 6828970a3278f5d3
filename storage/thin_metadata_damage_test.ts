/** What the engine does with metadata that it may not open, that is damaged, or that is not in memory. */
import { Random } from "../tests/support/world.ts";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { createSnapshots, MetadataDriver } from "../tests/support/metadata_driver.ts";
import { Recount } from "../tests/support/metadata_recount.ts";
import { committed, faultOf, makeMapped, one, superblockOf, two } from "../tests/support/small_pools.ts";
import { sealBlock } from "./format/block_header.ts";
import { viewOf } from "./format/fields.ts";
import { packSuperblock, type Superblock } from "./format/superblock.ts";
import { dblock, metadataBlock, metadataBlockSizeBytes, thinId, vblock } from "./base/ids.ts";
import { MetadataFault, OpenRefused, ThinMetadata } from "./thin_metadata.ts";

Deno.test("superblocks that may not be opened, or not for writing, are refused with a sentence", () => {
  const refusal = (change: Partial<Superblock>, readOnly = false, deviceBlocks = 512): string => {
    const pool = makeMapped(1);
    const bytes = packSuperblock({ ...superblockOf(pool), ...change });
    return assertThrows(
      () => ThinMetadata.open(bytes, { cacheBlocks: 10, deviceBlocks, readOnly }),
      OpenRefused,
    ).message;
  };
  assert(refusal({ incompatFlags: 1 }, true).includes("incompat flags 1"));
  assert(refusal({ compatRoFlags: 4 }).includes("Open it read-only"));
  assert(refusal({ dataBlockSizeSectors: 100 }).includes("100 sectors"));
  assert(refusal({}, true, 511).includes("only 511 are there"));
  const flipped = superblockOf(makeMapped(1));
  const bytes = packSuperblock(flipped);
  bytes[200]! ^= 1;
  assert(
    assertThrows(
      () => ThinMetadata.open(bytes, { cacheBlocks: 1, deviceBlocks: 512, readOnly: true }),
      OpenRefused,
    )
      .message.includes("superblock is damaged"),
  );
});

Deno.test("a pool opened read-only answers look-ups and changes nothing", () => {
  const pool = makeMapped(300);
  pool.reopen(true);
  const mapping = pool.run((engine) => engine.lookup(one, vblock(299)));
  assertEquals(mapping, { kind: "provisioned", dblock: dblock(299), shared: false, isOld: false });
  assertEquals(pool.engine.dataFree, 40_000 - 300);
  assertThrows(() => pool.engine.insert(one, vblock(0), dblock(999)), Error, "opened for writing");
});

Deno.test("a damaged block is named, the operation undone, and its neighbours still answer", () => {
  const pool = makeMapped(600);
  const root = new Recount(pool.image).superblock.mappingRoot;
  const leaf = leafOf(pool, root, 500);
  pool.image[leaf * metadataBlockSizeBytes + 100]! ^= 1;
  pool.reopen();
  const reason = "its checksum is not that of a B-tree node";
  const expected = { kind: "damaged" as const, block: metadataBlock(leaf), reason };
  assertEquals(faultOf(() => pool.run((engine) => engine.lookup(one, vblock(500)))), expected);
  assertEquals(faultOf(() => pool.run((engine) => engine.insert(one, vblock(500), dblock(900)))), expected);
  assertEquals(pool.engine.dataFree, 40_000 - 600);
  assertEquals(pool.run((engine) => engine.lookup(one, vblock(3))).kind, "provisioned");
});

Deno.test("pointers outside the metadata and paths without end are damage, not crashes", () => {
  const pool = makeMapped(600);
  const root = new Recount(pool.image).superblock.mappingRoot;
  const inner = childOf(pool, root, 0);
  const bytes = pool.image.subarray(inner * metadataBlockSizeBytes, (inner + 1) * metadataBlockSizeBytes);
  const pointTo = (block: number): MetadataFault["fault"] => {
    viewOf(bytes).setBigUint64(2048, BigInt(block), true);
    sealBlock(bytes, "btreeNode", metadataBlock(inner));
    pool.reopen();
    return faultOf(() => pool.run((engine) => engine.lookup(one, vblock(0))));
  };
  const outside = {
    kind: "damaged" as const,
    block: metadataBlock(99_999),
    reason: "it lies outside the metadata",
  };
  assertEquals(pointTo(99_999), outside);
  assertEquals(pointTo(inner), {
    kind: "damaged",
    block: metadataBlock(inner),
    reason: "it holds keys that its parent has elsewhere",
  });
});

/** Everything an operation may change that can be asked for. */
function facts(engine: ThinMetadata): unknown {
  return [
    engine.thinIds().map((thin) => engine.device(thin)),
    engine.dataFree,
    engine.metadataFree,
    engine.dirtyBlocks,
    engine.isDirty,
    engine.time,
    engine.transactionId,
    engine.takeFreed(),
  ];
}

const three = thinId(3);

const undoable: readonly (readonly [string, (engine: ThinMetadata) => void])[] = [
  ["an insertion into a shared leaf", (engine) => engine.insert(one, vblock(900), dblock(33_000))],
  ["a replacement", (engine) => engine.insert(two, vblock(10), dblock(33_001))],
  ["a removal", (engine) => void engine.removeRange(one, vblock(400), vblock(700))],
  ["a snapshot", (engine) => createSnapshots(engine, [{ thin: three, origin: two }], { tick: true })],
  ["a slice of a deletion", (engine) => void engine.deleteThin(one, 2)],
  ["a whole deletion", (engine) => void engine.deleteThin(two, 100)],
];

for (const [name, operation] of undoable) {
  Deno.test(`${name} that misses a block, at any block, has changed nothing`, () => {
    const pool = makeMapped(1500);
    pool.run((engine) => createSnapshots(engine, [{ thin: two, origin: one }], { tick: true }));
    for (let at = 0; at < 1500; at += 100) {
      pool.run((engine) => engine.insert(two, vblock(at), dblock(9000 + at)));
    }
    pool.commit();
    const cold = new MetadataDriver(pool.image, 1);
    cold.run((engine) => engine.lookup(one, vblock(0))); // evicts what loading left
    const before = facts(cold.engine);
    let attempts = 0;
    cold.run((engine) => {
      assertEquals(facts(engine), before);
      attempts++;
      operation(engine);
    });
    assert(attempts > 1, "the operation met missing blocks");
    committed(cold);
  });
}

Deno.test("an insertion that splits an owned leaf and then misses a bitmap leaves the tree whole", () => {
  const pool = makeMapped(400);
  const cold = new MetadataDriver(pool.image, 1);
  let mapped = 400;
  let splitsUndone = 0;
  for (; mapped < 1000; mapped++) {
    cold.run((engine) => engine.lookup(one, vblock(0)));
    try {
      // Its bitmap is the second, which this transaction has not touched.
      cold.engine.insert(one, vblock(mapped), dblock(20_000));
      throw new Error("the bitmap was not missed");
    } catch (error) {
      if (!(error instanceof MetadataFault)) throw error;
      splitsUndone++;
    }
    cold.run((engine) => engine.insert(one, vblock(mapped), dblock(mapped)));
  }
  assertEquals([splitsUndone, committed(cold).devices.get(1)!.size], [600, 1000]);
});

Deno.test("with a cache of one block every operation still comes to its end", () => {
  const pool = makeMapped(3000);
  const tight = new MetadataDriver(pool.image, 1);
  const random = new Random(8);
  for (let round = 0; round < 200; round++) {
    const at = vblock(random.below(3000));
    assertEquals(tight.run((engine) => engine.lookup(one, at)).kind, "provisioned");
  }
  tight.run((engine) => createSnapshots(engine, [{ thin: two, origin: one }], { tick: true }));
  tight.run((engine) => engine.insert(two, vblock(1500), dblock(30_000)));
  committed(tight);
});

/** The block that child `slot` of a node lies in. */
function childOf(pool: MetadataDriver, block: number, slot: number): number {
  const view = viewOf(
    pool.image.subarray(block * metadataBlockSizeBytes, (block + 1) * metadataBlockSizeBytes),
  );
  return Number(view.getBigUint64(2048 + 8 * slot, true));
}

/** The leaf of the only device's mapping of `key`; its tree has two levels. */
function leafOf(pool: MetadataDriver, mappingRoot: number, key: number): number {
  const inner = childOf(pool, mappingRoot, 0);
  const view = viewOf(
    pool.image.subarray(inner * metadataBlockSizeBytes, (inner + 1) * metadataBlockSizeBytes),
  );
  let slot = 0;
  while (slot + 1 < view.getUint32(16, true) && view.getUint32(32 + 8 * (slot + 1), true) <= key) slot++;
  return childOf(pool, inner, slot);
}
