import { geometryOf } from "./base/geometry.ts";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { createSnapshots, createThin, MetadataDriver } from "../tests/support/metadata_driver.ts";
import { Recount } from "../tests/support/metadata_recount.ts";
import {
  committed,
  faultOf,
  makeMapped,
  makePool,
  one,
  superblockOf,
  two,
} from "../tests/support/small_pools.ts";
import { flagNeedsCheck, packSuperblock } from "./format/superblock.ts";
import { dblock, metadataBlockSizeBytes, thinId, vblock } from "./base/ids.ts";
import { OpenRefused, ThinMetadata } from "./thin_metadata.ts";

Deno.test("a new pool is empty, counts right, and keeps its uuid", () => {
  const uuid = new TextEncoder().encode("0123456789abcdef");
  const geometry = geometryOf({ metadataBlocks: 100, dataBlocks: 20_000, blockSizeBytes: 256 * 512 });
  const pool = MetadataDriver.format(geometry, 1000, uuid);
  const recount = new Recount(pool.image);
  assertEquals(recount.superblock.uuid, uuid);
  assertEquals(pool.engine.geometry, geometry);
  assertEquals([pool.engine.dataFree, pool.engine.metadataBlocks], [20_000, 100]);
  assertEquals(pool.engine.metadataFree, 100 - recount.metadataCounts.size);
  assertEquals(pool.engine.notes, []);
});

Deno.test("a pool of twelve metadata blocks opens, and refuses its first device without harm", () => {
  const pool = makePool(12, 100);
  assertEquals(faultOf(() => pool.run((engine) => createThin(engine, one))), { kind: "noMetadataSpace" });
  assertEquals(pool.engine.thinIds(), []);
  committed(pool);
});

Deno.test("metadata too small for its data is refused by format", () => {
  const geometry = geometryOf({ metadataBlocks: 12, dataBlocks: 16_320 * 10, blockSizeBytes: 65536 });
  assertEquals(faultOf(() => ThinMetadata.format(geometry)), { kind: "noMetadataSpace" });
});

for (const dataBlocks of [16_319, 16_320, 16_321, 32_640]) {
  Deno.test(`the last of ${dataBlocks} data blocks can be mapped and freed`, () => {
    const pool = makePool(64, dataBlocks);
    pool.run((engine) => createThin(engine, one));
    const last = dblock(dataBlocks - 1);
    const { runs, next } = pool.run((engine) => engine.findFreeData(dblock(dataBlocks - 3), 100));
    assertEquals(runs, [{ begin: dblock(dataBlocks - 3), length: 3 }]);
    assertEquals(next, dataBlocks);
    pool.run((engine) => engine.insert(one, vblock(7), last));
    committed(pool);
    pool.reopen();
    assertEquals(pool.run((engine) => engine.dataReferenceCount(last)), 1);
    pool.run((engine) => engine.removeRange(one, vblock(0), vblock(100)));
    assertEquals(pool.engine.takeFreed(), [{ begin: last, length: 1 }]);
    committed(pool);
  });
}

for (const metadataBlocks of [16_319, 16_320, 16_321]) {
  Deno.test(`metadata of ${metadataBlocks} blocks is counted to its end`, () => {
    const pool = makePool(metadataBlocks, 1000);
    pool.run((engine) => createThin(engine, one));
    pool.run((engine) => engine.insert(one, vblock(0), dblock(0)));
    committed(pool);
    pool.reopen();
    assertEquals(pool.engine.notes, []);
    assertEquals(pool.engine.metadataBlocks, metadataBlocks);
  });
}

Deno.test("a search for free data stops at what is wanted and joins runs across bitmaps", () => {
  const pool = makePool(512, 16_320 * 2);
  pool.run((engine) => createThin(engine, one));
  for (const block of [10, 16_319]) {
    pool.run((engine) => engine.insert(one, vblock(block), dblock(block)));
  }
  assertEquals(pool.run((engine) => engine.findFreeData(dblock(9), 3)).runs, [
    { begin: dblock(9), length: 1 },
    { begin: dblock(11), length: 2 },
  ]);
  pool.run((engine) => engine.removeRange(one, vblock(16_319), vblock(16_320)));
  assertEquals(pool.run((engine) => engine.findFreeData(dblock(16_300), 100)), {
    runs: [{ begin: dblock(16_300), length: 100 }],
    next: dblock(16_400),
  });
});

Deno.test("an origin's block is shared after a snapshot, and its new block is not", () => {
  const pool = makeMapped(3);
  pool.run((engine) => createSnapshots(engine, [{ thin: two, origin: one }], { tick: true }));
  const before = { kind: "provisioned", dblock: dblock(1), shared: true, isOld: true } as const;
  assertEquals(pool.run((engine) => engine.lookup(one, vblock(1))), before);
  assertEquals(pool.run((engine) => engine.lookup(two, vblock(1))), before);
  pool.run((engine) => engine.insert(one, vblock(1), dblock(9)));
  assertEquals(pool.run((engine) => engine.lookup(one, vblock(1))), {
    kind: "provisioned",
    dblock: dblock(9),
    shared: false,
    isOld: false,
  });
  assertEquals(pool.run((engine) => engine.lookup(two, vblock(1))), before);
  assertEquals(pool.run((engine) => engine.lookup(one, vblock(3))), { kind: "unprovisioned" });
  assertEquals(committed(pool).devices.get(1)!.get(1), [9, 1]);
});

Deno.test("several snapshots in one change take one tick, and one refused leaves none", () => {
  const pool = makeMapped(3);
  pool.run((engine) =>
    createSnapshots(engine, [{ thin: two, origin: one }, { thin: thinId(3), origin: one }], { tick: true })
  );
  assertEquals(pool.engine.time, 1);
  assertEquals(pool.engine.device(thinId(3)), {
    mappedBlocks: 3,
    transactionId: 0n,
    creationTime: 1,
    snapshottedTime: 1,
  });
  assertThrows(() =>
    createSnapshots(pool.engine, [{ thin: thinId(4), origin: one }, { thin: two, origin: one }], {
      tick: true,
    })
  );
  assertEquals(pool.engine.thinIds(), [one, two, thinId(3)]);
  assertEquals(pool.engine.time, 1);
  committed(pool);
});

Deno.test("a change makes devices, snapshots and the transaction id durable together", () => {
  const pool = makeMapped(1);
  pool.run((engine) =>
    engine.change({
      create: [thinId(0xff_ffff)],
      snapshots: [{ thin: thinId(0), origin: one }],
      tick: false,
      transactionId: 0xffff_ffff_ffff_ffffn,
    })
  );
  assertEquals(pool.engine.time, 0);
  pool.commit();
  pool.reopen();
  assertEquals(pool.engine.transactionId, 0xffff_ffff_ffff_ffffn);
  assertEquals(pool.engine.thinIds(), [thinId(0), one, thinId(0xff_ffff)]);
});

Deno.test("the clock stops at its 24 bits, and the last tick still works", () => {
  const pool = makeMapped(1);
  const late = { ...superblockOf(pool), time: 0xff_fffe };
  packSuperblock(late, pool.image.subarray(0, metadataBlockSizeBytes));
  pool.reopen();
  pool.run((engine) => createSnapshots(engine, [{ thin: two, origin: one }], { tick: true }));
  pool.run((engine) => engine.insert(one, vblock(0), dblock(10)));
  const fault = faultOf(() =>
    createSnapshots(pool.engine, [{ thin: thinId(3), origin: one }], { tick: true })
  );
  assertEquals(fault, { kind: "clockExhausted" });
  assertEquals(committed(pool).devices.get(1)!.get(0), [10, 0xff_ffff]);
});

Deno.test("foreign metadata that maps one data block twice at one time calls it shared", () => {
  const pool = makeMapped(2);
  pool.run((engine) => createSnapshots(engine, [{ thin: two, origin: one }], { tick: false }));
  // The path to the mapping is shared although the times say otherwise.
  assertEquals(pool.run((engine) => engine.lookup(one, vblock(0))), {
    kind: "provisioned",
    dblock: dblock(0),
    shared: true,
    isOld: false,
  });
  pool.run((engine) => engine.insert(one, vblock(1), dblock(9)));
  // Now each has a leaf of its own, and only the data count tells.
  assertEquals(pool.run((engine) => engine.lookup(two, vblock(0))), {
    kind: "provisioned",
    dblock: dblock(0),
    shared: true,
    isOld: false,
  });
  pool.run((engine) => engine.deleteThin(one, 10));
  assertEquals(pool.run((engine) => engine.lookup(two, vblock(0))), {
    kind: "provisioned",
    dblock: dblock(0),
    shared: false,
    isOld: false,
  });
});

Deno.test("runs are cut where vblocks, data blocks or the sharing answer break, and at their number", () => {
  const pool = makeMapped(10);
  pool.run((engine) => createSnapshots(engine, [{ thin: two, origin: one }], { tick: true }));
  pool.run((engine) => engine.insert(one, vblock(4), dblock(20)));
  pool.run((engine) => engine.insert(one, vblock(5), dblock(21)));
  pool.run((engine) => engine.removeRange(one, vblock(8), vblock(9)));
  const shape = (begin: number, end: number, runsMax: number) => {
    const { runs, next } = pool.run((engine) => engine.lookupRange(one, vblock(begin), vblock(end), runsMax));
    return [...runs.map((run) => [run.vblockBegin, run.length, run.dblockBegin, run.shared]), next];
  };
  assertEquals(shape(1, 100, 10), [
    [1, 3, 1, true],
    [4, 2, 20, false],
    [6, 2, 6, true],
    [9, 1, 9, true],
    100,
  ]);
  assertEquals(shape(1, 100, 2), [[1, 3, 1, true], [4, 2, 20, false], 6]);
  assertEquals(shape(3, 4, 2), [[3, 1, 3, true], 4]);
  assertEquals(shape(50, 60, 2), [60]);
});

Deno.test("mapping a block to where it is already mapped changes its time and no count", () => {
  const pool = makeMapped(1);
  pool.run((engine) => createSnapshots(engine, [{ thin: two, origin: one }], { tick: true }));
  pool.run((engine) => engine.insert(one, vblock(0), dblock(0)));
  const recount = committed(pool);
  assertEquals(recount.devices.get(1)!.get(0), [0, 1]);
  assertEquals(recount.dataCounts.get(0), 2);
  assertEquals(pool.engine.takeFreed(), []);
});

Deno.test("a data block in use is never given to a second mapping", () => {
  const pool = makeMapped(1);
  const fault = faultOf(() => pool.engine.insert(one, vblock(5), dblock(0)));
  assertEquals(fault.kind === "damaged" && fault.reason, "free data block 0 has a reference by now");
  assertEquals(pool.run((engine) => engine.lookup(one, vblock(5))), { kind: "unprovisioned" });
  committed(pool);
});

Deno.test("removing a long hole takes one call and dirties nothing", () => {
  const pool = makeMapped(1);
  assertEquals(pool.run((engine) => engine.removeRange(one, vblock(1), vblock(2 ** 40))), {
    next: vblock(2 ** 40),
    removedBlocks: 0,
  });
  assertEquals(pool.engine.isDirty, false);
});

Deno.test("freed data blocks are told once, in runs, however they were freed", () => {
  const pool = makeMapped(10);
  for (const at of [7, 2, 3]) pool.run((engine) => engine.removeRange(one, vblock(at), vblock(at + 1)));
  assertEquals(pool.engine.takeFreed(), [{ begin: dblock(2), length: 2 }, { begin: dblock(7), length: 1 }]);
  assertEquals(pool.engine.takeFreed(), []);
  assertEquals(pool.engine.dataFree, 40_000 - 7);
});

Deno.test("what a commit freed is allocated only after it is durable", () => {
  const pool = makeMapped(300);
  const durable = new Recount(pool.image).metadataCounts;
  pool.run((engine) => engine.removeRange(one, vblock(0), vblock(300)));
  const plan = pool.engine.beginCommit();
  const written = new Set(plan.blocks.map(({ block }) => block as number));
  for (const block of durable.keys()) {
    assert(!written.has(block), "a block of the durable state was overwritten");
  }
  pool.run((engine) => engine.insert(one, vblock(1), dblock(2000)));
  pool.write(plan);
  pool.engine.commitDurable();
  const second = pool.engine.beginCommit();
  for (const { block } of second.blocks) {
    assert(!written.has(block), "a block of the commit before was overwritten");
  }
});

Deno.test("a view keeps every block of its commit until it is released", () => {
  const pool = makeMapped(1000);
  const view = pool.engine.holdCommit();
  const held = pool.image.slice();
  for (let round = 0; round < 20; round++) {
    pool.run((engine) => engine.insert(one, vblock(round * 40), dblock(2000 + round)));
    pool.commit();
  }
  for (const block of new Recount(held).metadataCounts.keys()) {
    if (block === 0) continue;
    const begin = block * metadataBlockSizeBytes;
    assertEquals(pool.image.subarray(begin, begin + 4096), held.subarray(begin, begin + 4096));
  }
  assertEquals(view.superblock, held.slice(0, metadataBlockSizeBytes));
  view.release();
  assertThrows(() => view.release());
  for (let round = 0; round < 300; round++) {
    pool.run((engine) => engine.insert(one, vblock(round), dblock(3000 + round)));
    pool.commit(); // 300 commits do not fit unless the blocks come back
  }
  committed(pool);
});

Deno.test("data and metadata grow across bitmap boundaries, and the new space is used", () => {
  const pool = makePool(100, 16_000);
  const grown = new Uint8Array(20_000 * metadataBlockSizeBytes);
  grown.set(pool.image);
  pool.replaceImage(grown);
  pool.run((engine) => engine.growth.growMetadata(20_000));
  pool.run((engine) => engine.growth.growData(16_320));
  pool.run((engine) => engine.growth.growData(50_000));
  pool.run((engine) => createThin(engine, one));
  pool.run((engine) => engine.insert(one, vblock(0), dblock(49_999)));
  committed(pool);
  pool.reopen();
  assertEquals([pool.engine.metadataBlocks, pool.engine.dataBlocks], [20_000, 50_000]);
  assertEquals(pool.engine.notes, []);
});

Deno.test("needs_check is set on the last durable superblock, and then refuses writing", () => {
  const pool = makeMapped(5);
  pool.run((engine) => createThin(engine, two));
  pool.engine.beginCommit();
  pool.image.set(pool.engine.needsCheckSuperblock(), 0);
  const error = assertThrows(() => pool.reopen());
  assert(error instanceof OpenRefused && error.message.includes("needing a check"));
  pool.reopen(true);
  assertEquals([superblockOf(pool).flags, pool.engine.thinIds()], [flagNeedsCheck, [one]]);
});
