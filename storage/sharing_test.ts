/** When a block is a device's own though the time rule calls it shared: whoever shared it is gone, and durably so. */
import { assertEquals } from "@std/assert";
import { createSnapshots, createThin, MetadataDriver } from "../tests/support/metadata_driver.ts";
import { committed, makeMapped, one, two } from "../tests/support/small_pools.ts";
import { makeImage, run } from "../tests/support/metadata_image.ts";
import { dblock, type ThinId, thinId, vblock } from "./base/ids.ts";
import { recentlyUnsharedMax } from "./base/limits.ts";
import { RecentlyUnshared } from "./recently_unshared.ts";

const three = thinId(3);

/** Device 1 with so many blocks, and device 2, a snapshot of it; all of it committed. */
function makeShared(blocks: number): MetadataDriver {
  const pool = makeMapped(blocks);
  pool.run((engine) => createSnapshots(engine, [{ thin: two, origin: one }], { tick: true }));
  pool.commit();
  return pool;
}

/** "shared", "own" or "left": its own, but by the time rule. */
function sharingOf(pool: MetadataDriver, thin: ThinId, block: number): string {
  const mapping = pool.run((engine) => engine.lookup(thin, vblock(block)));
  if (mapping.kind !== "provisioned") throw new Error("it is not mapped");
  const range = pool.run((engine) => engine.lookupRange(thin, vblock(block), vblock(block + 1), 1));
  assertEquals(range.runs[0]!.shared, mapping.shared, "a look-up of a range says the same");
  if (mapping.shared) return "shared";
  return mapping.isOld ? "left" : "own";
}

Deno.test("an old block is its volume's own once the removal of its snapshot is durable", () => {
  const pool = makeShared(3);
  assertEquals(sharingOf(pool, one, 1), "shared");
  pool.run((engine) => engine.deleteThin(two, 10));
  assertEquals(sharingOf(pool, one, 1), "shared", "a crash would bring the snapshot back");
  const plan = pool.engine.beginCommit();
  assertEquals(sharingOf(pool, one, 1), "shared", "the commit may not come to its end");
  pool.write(plan);
  pool.engine.commitDurable();
  assertEquals(sharingOf(pool, one, 1), "left");
  pool.reopen();
  assertEquals(sharingOf(pool, one, 1), "left");
});

Deno.test("a block inserted again at the present time is own, counted once, until the next snapshot", () => {
  const pool = makeShared(600);
  pool.run((engine) => engine.deleteThin(two, 10));
  pool.commit();
  pool.run((engine) => engine.insert(one, vblock(1), dblock(1)));
  assertEquals(sharingOf(pool, one, 1), "own");
  assertEquals(sharingOf(pool, one, 599), "left");
  assertEquals(pool.run((engine) => engine.dataReferenceCount(dblock(1))), 1);
  assertEquals(pool.engine.takeFreed(), []);
  assertEquals(committed(pool).devices.get(1)!.get(1), [1, 1]);
  // Whoever is removed elsewhere, it stays so.
  pool.run((engine) => createThin(engine, three));
  pool.run((engine) => engine.deleteThin(three, 10));
  assertEquals([sharingOf(pool, one, 1), sharingOf(pool, one, 599)], ["own", "shared"]);
  pool.run((engine) => createSnapshots(engine, [{ thin: two, origin: one }], { tick: true }));
  assertEquals(sharingOf(pool, one, 1), "shared");
});

Deno.test("a block whose path another device has too is shared, though only one leaf holds it", () => {
  const pool = makeShared(3);
  pool.run((engine) => createSnapshots(engine, [{ thin: three, origin: one }], { tick: true }));
  pool.run((engine) => engine.deleteThin(three, 10));
  pool.commit();
  assertEquals(pool.run((engine) => engine.dataReferenceCount(dblock(1))), 1);
  assertEquals(sharingOf(pool, one, 1), "shared");
});

Deno.test("a block that another device has replaced or discarded is left to the first by the next commit", () => {
  for (const letGo of ["insert", "removeRange"] as const) {
    const pool = makeShared(600);
    pool.run((engine) => {
      if (letGo === "insert") engine.insert(two, vblock(1), dblock(700));
      else engine.removeRange(two, vblock(1), vblock(2));
    });
    assertEquals(pool.run((engine) => engine.dataReferenceCount(dblock(1))), 1);
    assertEquals(sharingOf(pool, one, 1), "shared", letGo);
    pool.commit();
    assertEquals([sharingOf(pool, one, 1), sharingOf(pool, one, 2)], ["left", "shared"], letGo);
  }
});

Deno.test("a block whose whole leaf another device has discarded is left to the first by the next commit", () => {
  const pool = makeShared(600);
  // The discard drops a leaf that both have, without looking into it.
  for (let next = vblock(0); next < 600;) {
    next = pool.run((engine) => engine.removeRange(two, next, vblock(600))).next;
  }
  assertEquals(sharingOf(pool, one, 1), "shared");
  pool.commit();
  assertEquals(sharingOf(pool, one, 1), "left");
});

Deno.test("where a device was looked up lately is no reason to call its blocks shared", () => {
  const pool = makeShared(600);
  assertEquals(sharingOf(pool, one, 1), "shared");
  pool.run((engine) => engine.deleteThin(two, 10));
  pool.commit();
  // The leaf that the look-up before found was shared then.
  const mapping = pool.run((engine) => engine.lookup(one, vblock(1)));
  assertEquals(mapping, { kind: "provisioned", dblock: dblock(1), shared: false, isOld: true });
});

Deno.test("with a block its neighbours become own that were left too, and no others", () => {
  const pool = makeShared(9);
  // 0 to 3 are left, the others shared.
  for (let at = 0; at < 4; at++) pool.run((engine) => engine.insert(two, vblock(at), dblock(20 + at)));
  pool.commit();
  // This one is left only after the next commit.
  pool.run((engine) => engine.insert(two, vblock(4), dblock(24)));
  pool.run((engine) => engine.insert(one, vblock(1), dblock(1)));
  const sharing = Array.from({ length: 9 }, (_, block) => sharingOf(pool, one, block));
  assertEquals(sharing, [..."0123"].map(() => "own").concat(Array(5).fill("shared")));
  assertEquals([...committed(pool).devices.get(1)!.values()].map(([, time]) => time), [
    ...[1, 1, 1, 1],
    ...[0, 0, 0, 0, 0],
  ]);
  assertEquals(sharingOf(pool, one, 4), "left");
});

Deno.test("while a metadata snapshot is held, an old block is shared whatever its counts", () => {
  const devices = [{ id: 1, leaves: [run(0, 0, 3)] }];
  const image = { metadataBlocks: 64, dataBlocks: 100, time: 9, devices };
  const free = new MetadataDriver(makeImage(image), 100);
  assertEquals(sharingOf(free, one, 1), "left");
  const held = new MetadataDriver(makeImage({ ...image, held: devices }), 100);
  assertEquals(sharingOf(held, one, 1), "shared");
});

Deno.test("above their limit all blocks are recently unshared, until the next commit is durable", () => {
  const unshared = new RecentlyUnshared();
  for (let block = 0; block < recentlyUnsharedMax; block++) unshared.add(dblock(block));
  assertEquals(unshared.has(dblock(recentlyUnsharedMax + 9)), false);
  unshared.add(dblock(recentlyUnsharedMax));
  assertEquals(unshared.has(dblock(recentlyUnsharedMax + 9)), true);
  unshared.freeze();
  assertEquals(unshared.has(dblock(0)), true);
  unshared.add(dblock(7));
  unshared.durable();
  assertEquals([unshared.has(dblock(0)), unshared.has(dblock(7))], [false, true]);
});
