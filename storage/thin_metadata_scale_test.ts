/** The engine with many mappings and many devices: node splits, merges, deep trees, deletion in slices. */
import { Random } from "../tests/support/world.ts";
import { createSnapshots, createThin } from "../tests/support/metadata_driver.ts";
import { assert, assertEquals } from "@std/assert";
import type { MetadataDriver } from "../tests/support/metadata_driver.ts";
import { committed, makeMapped, makePool, one, two } from "../tests/support/small_pools.ts";
import { dblock, thinId, vblock } from "./base/ids.ts";
import { bitmapEntries } from "./format/bitmap.ts";
import { MetadataSpaceMap } from "./space_map_metadata.ts";
import { MetadataFault } from "./thin_metadata.ts";

for (const order of ["ascending", "descending", "random"] as const) {
  Deno.test(`30,000 mappings in ${order} order fill legal nodes, and leave in another`, () => {
    const count = 30_000;
    const random = new Random(5);
    const shuffled = Array.from({ length: count }, (_, index) => index);
    for (let index = count - 1; index > 0; index--) {
      const other = random.below(index + 1);
      [shuffled[index], shuffled[other]] = [shuffled[other]!, shuffled[index]!];
    }
    const pool = makePool(1024);
    pool.run((engine) => createThin(engine, one));
    for (let index = 0; index < count; index++) {
      const key = order === "ascending"
        ? index
        : order === "descending"
        ? count - 1 - index
        : shuffled[index]!;
      pool.run((engine) => engine.insert(one, vblock(3 * key), dblock(key)));
    }
    const full = committed(pool);
    assertEquals(full.devices.get(1)!.size, count);
    // Sequential leaves are nearly full, random ones about two thirds.
    const leaves = Math.ceil(count / (order === "random" ? 150 : 245));
    assert(
      full.metadataCounts.size < leaves + 20,
      `${full.metadataCounts.size} blocks for ${count} mappings`,
    );
    const removals = order === "random" ? shuffled.map((_, index) => index) : shuffled;
    for (let index = 0; index < count - 1; index++) {
      const at = vblock(3 * removals[index]!);
      pool.run((engine) => engine.removeRange(one, at, vblock(at + 1)));
      if (index % 6000 === 0) committed(pool);
    }
    const left = committed(pool);
    assertEquals([...left.devices.get(1)!.keys()], [3 * removals[count - 1]!]);
    assertEquals(pool.engine.device(one)!.mappedBlocks, 1);
    pool.run((engine) => engine.removeRange(one, vblock(0), vblock(3 * count)));
    assertEquals(committed(pool).devices.get(1)!.size, 0);
    assertEquals(pool.engine.dataFree, 40_000);
  });
}

Deno.test("300,000 mappings are made, committed, found again and deleted in slices", () => {
  const count = 300_000;
  const pool = makePool(4096, count, 100);
  pool.run((engine) => createThin(engine, one));
  for (let at = 0; at < count; at++) {
    pool.run((engine) => engine.insert(one, vblock(at), dblock(at)));
    if (at % 50_000 === 0) pool.commit();
  }
  pool.commit();
  pool.reopen();
  for (let at = 0; at < count; at += 7) {
    const mapping = pool.run((engine) => engine.lookup(one, vblock(at)));
    assert(mapping.kind === "provisioned" && mapping.dblock === at && !mapping.shared, "a mapping is lost");
  }
  assertEquals(pool.run((engine) => engine.highestMapped(one)), vblock(count - 1));
  let slices = 0;
  while (!pool.run((engine) => engine.deleteThin(one, 32))) {
    slices++;
    if (slices % 20 === 0) committed(pool);
  }
  assert(slices > 20, "deletion was sliced");
  committed(pool);
  assertEquals([pool.engine.dataFree, pool.engine.thinIds().length], [count, 0]);
});

Deno.test("a thousand devices come, in no order, and go again", () => {
  const random = new Random(3);
  const pool = makePool(3000);
  const thins = new Set<number>();
  while (thins.size < 1000) thins.add(random.below(0x100_0000));
  for (const thin of thins) pool.run((engine) => createThin(engine, thinId(thin)));
  assertEquals(committed(pool).devices.size, 1000);
  pool.reopen();
  const ids = pool.engine.thinIds();
  assertEquals(ids, [...thins].sort((a, b) => a - b).map(thinId));
  for (const [index, thin] of [...thins].entries()) {
    if (index === 999) break;
    assertEquals(pool.run((engine) => engine.deleteThin(thinId(thin), 1)), true);
    if (index % 100 === 0) committed(pool);
  }
  assertEquals(committed(pool).devices.size, 1);
});

Deno.test("a shared only child that becomes the root keeps its count (CVE-2026-46107)", () => {
  const pool = makeMapped(30_000, 1024);
  pool.run((engine) => createSnapshots(engine, [{ thin: two, origin: one }], { tick: true }));
  pool.commit();
  // All but one leaf of the snapshot's origin go; the last leaf is still the snapshot's too.
  for (let at = 0; at < 29_900;) {
    at = pool.run((engine) => engine.removeRange(one, vblock(at), vblock(29_900))).next;
    if (at % 40 === 0) committed(pool);
  }
  const recount = committed(pool);
  assertEquals([recount.devices.get(1)!.size, recount.devices.get(2)!.size], [100, 30_000]);
  for (let at = 200; at < 30_000;) {
    at = pool.run((engine) => engine.removeRange(two, vblock(at), vblock(30_000))).next;
  }
  assertEquals(committed(pool).devices.get(2)!.size, 200);
  pool.run((engine) => engine.insert(one, vblock(29_950), dblock(35_000)));
  while (!pool.run((engine) => engine.deleteThin(two, 3)));
  assertEquals(committed(pool).devices.get(1)!.size, 100);
});

Deno.test("a snapshot that hardly diverged is deleted in one slice without reading what it shares", () => {
  const pool = makeMapped(30_000, 1024);
  pool.run((engine) => createSnapshots(engine, [{ thin: two, origin: one }], { tick: true }));
  pool.run((engine) => engine.insert(two, vblock(5), dblock(39_000)));
  pool.commit();
  pool.reopen();
  const before = pool.misses;
  assertEquals(pool.run((engine) => engine.deleteThin(two, 8)), true);
  assert(pool.misses - before < 8, "shared leaves were read");
  assertEquals(pool.engine.takeFreed(), [{ begin: dblock(39_000), length: 1 }]);
  assertEquals(committed(pool).dataCounts.size, 30_000);
});

/** Runs a removal, committing whenever it is refused, as the pool does. Returns how often that was. */
function removeWithCommits(pool: MetadataDriver, remove: () => boolean): number {
  let refusals = 0;
  for (let isDone = false; !isDone;) {
    try {
      isDone = remove();
    } catch (error) {
      if (!(error instanceof MetadataFault) || error.fault.kind !== "noMetadataSpace") throw error;
      assert(refusals++ < 1000, "a removal after a commit gets on");
      committed(pool);
    }
  }
  return refusals;
}

for (const how of ["removed", "deleted"] as const) {
  Deno.test(`60 mappings in 60 bitmaps are ${how} bit by bit when space for their copies is short`, () => {
    const pool = makePool(100, 16_320 * 60);
    pool.run((engine) => createThin(engine, one));
    for (let ordinal = 0; ordinal < 60; ordinal++) {
      pool.run((engine) => engine.insert(one, vblock(ordinal), dblock(16_320 * ordinal)));
      if (ordinal % 2 === 0) pool.commit();
    }
    pool.commit();
    const refusals = removeWithCommits(pool, () => {
      if (how === "deleted") return pool.run((engine) => engine.deleteThin(one, 16));
      return pool.run((engine) => engine.removeRange(one, vblock(0), vblock(60))).next === 60;
    });
    assert(refusals > 0, "space was short");
    committed(pool);
    assertEquals(pool.engine.dataFree, 16_320 * 60);
  });
}

Deno.test("opening looks at every metadata count a few times, however many bitmaps the data have", () => {
  const metadataBlocks = 4096;
  const pool = makePool(metadataBlocks, 300 * bitmapEntries);
  const original = MetadataSpaceMap.prototype.count;
  let looks = 0;
  MetadataSpaceMap.prototype.count = function (block) {
    looks++;
    return original.call(this, block);
  };
  try {
    pool.reopen();
  } finally {
    MetadataSpaceMap.prototype.count = original;
  }
  assert(looks < 10 * metadataBlocks, `${looks} looks at ${metadataBlocks} counts`);
});
