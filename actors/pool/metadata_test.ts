/** What the metadata actor delays, what it tells its peers, and what it refuses. Flushes: metadata_flushes_test.ts. */
import { geometryOf } from "../../storage/base/geometry.ts";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { dblock, metadataBlockSizeBytes, thinId, vblock } from "../../storage/base/ids.ts";
import { bitmapEntries } from "../../storage/format/bitmap.ts";
import { flagNeedsCheck, type Superblock, unpackSuperblock } from "../../storage/format/superblock.ts";
import { MetadataDriver } from "../../tests/support/metadata_driver.ts";
import { MetadataBench } from "../../tests/support/metadata.ts";
import type { Steps } from "../kernel/task.ts";
import { defaultKnobs } from "../knobs.ts";
import type { MetadataStub } from "./metadata_messages.ts";
import type { Change } from "./thin_device_messages.ts";

const one = thinId(1);
const done = { kind: "done" };

/** A slice of a change that creates a thin device. */
function sliceOf(thin: number, hasMore: boolean): Omit<Change, "type" | "replyTo" | "reply"> {
  return { create: [thinId(thin)], snapshots: [], tick: false, transactionId: 1n, hasMore };
}

function lookup(bench: MetadataBench, at: number): { readonly kind: string }[] {
  return bench.ask(bench.stub.lookup(one, vblock(at)));
}

/** What was answered to each: "open" if nothing yet. */
function kindsOf(...answers: readonly { readonly kind: string }[][]): string[] {
  return answers.map((each) => each[0]?.kind ?? "open");
}

function superblockIn(bytes: Uint8Array): Superblock {
  const superblock = unpackSuperblock(bytes.slice());
  if (typeof superblock === "string") throw new Error(superblock);
  return superblock;
}

Deno.test("an operation that needs a block from the device is answered when the block is read", () => {
  const bench = MetadataBench.withMapped(1);
  bench.device.holds.add("read");
  const answer = lookup(bench, 0);
  assertEquals([kindsOf(answer), bench.device.heldCount], [["open"], 1]);
  while (bench.device.heldCount > 0) bench.finish(bench.device);
  assertEquals(answer, [{ kind: "provisioned", dblock: dblock(0), shared: false, isOld: false }]);
});

Deno.test("operations that need one block share one read, and are answered in the order they came", () => {
  const bench = MetadataBench.withMapped(3);
  bench.device.holds.add("read");
  const order: number[] = [];
  for (const at of [2, 0, 1]) bench.world.kernel.start("lookup", noteLookup(bench.stub, at, order));
  bench.world.runReady();
  assertEquals(bench.device.heldCount, 1);
  while (bench.device.heldCount > 0) bench.finish(bench.device);
  assertEquals(order, [2, 0, 1]);
});

function* noteLookup(metadata: MetadataStub, at: number, order: number[]): Steps<void> {
  yield* metadata.lookup(one, vblock(at));
  order.push(at);
}

Deno.test("commit requests that arrive before the freeze share one commit", () => {
  const bench = MetadataBench.withMapped(1);
  bench.insert(5);
  const answers = bench.world.runAll([bench.stub.commit(), bench.stub.commit(), bench.stub.commit()]);
  assertEquals(answers, [done, done, done]);
  assertEquals(bench.log.filter((line) => line === "metadata write 0").length, 1);
});

Deno.test("a commit request that arrives after the freeze waits for the next commit", () => {
  const bench = MetadataBench.withMapped(1);
  bench.insert(5);
  bench.data.holds.add("flush");
  const first = bench.commit();
  bench.insert(6);
  const second = bench.commit();
  bench.finish(bench.data, 1);
  assertEquals([kindsOf(first, second), bench.data.heldCount], [["done", "open"], 1]);
  bench.finish(bench.data);
  assertEquals(kindsOf(first, second), ["done", "done"]);
});

Deno.test("operations go on while a commit writes", () => {
  const bench = MetadataBench.withMapped(1);
  bench.insert(5);
  bench.data.holds.add("flush");
  bench.commit();
  assertEquals(kindsOf(bench.insert(6), lookup(bench, 5)), ["done", "provisioned"]);
});

Deno.test("a freeze waits for the last slice of a change", () => {
  const bench = MetadataBench.withMapped(1);
  bench.ask(bench.stub.change(sliceOf(7, true)));
  const commit = bench.commit();
  assertEquals([kindsOf(commit), bench.log], [["open"], []]);
  bench.ask(bench.stub.change(sliceOf(8, false)));
  assertEquals([kindsOf(commit), bench.log.includes("metadata write 0")], [["done"], true]);
});

Deno.test("a freeze that waits for a slice goes on when a revoke was the last", () => {
  const bench = MetadataBench.withMapped(1);
  bench.ask(bench.stub.change(sliceOf(7, true)));
  const commit = bench.commit();
  bench.ask(bench.stub.revoke({ thins: [thinId(7)], transactionId: 0n, hasMore: false }));
  assertEquals([kindsOf(commit), bench.engine.thinIds()], [["done"], [one]]);
});

Deno.test("a freeze that waits for a slice is refused when damage ends the change, and nothing is written", () => {
  const bench = MetadataBench.withMapped(1);
  bench.ask(bench.stub.change(sliceOf(7, true)));
  const commit = bench.commit();
  bench.ask(bench.stub.reportMappedFree(dblock(3)));
  bench.ask(bench.stub.change(sliceOf(8, false)));
  assertEquals([kindsOf(commit), bench.log], [["readOnly"], []]);
});

Deno.test("the allocator is told of freed blocks before the commit begins, and that it is durable after its last flush", () => {
  const bench = MetadataBench.withMapped(4);
  bench.ask(bench.stub.removeRange(one, vblock(1), vblock(3)));
  bench.device.holds.add("flush");
  bench.commit();
  assertEquals(bench.allocator.take(), [
    { type: "freed", runs: [{ begin: dblock(1), length: 2 }] },
    { type: "frozen" },
  ]);
  bench.finish(bench.device);
  assertEquals(bench.allocator.types, []);
  bench.finish(bench.device);
  assertEquals(bench.allocator.types, ["durable"]);
});

Deno.test("a failed commit fails the pool: its requests and all later changes are refused", () => {
  const bench = MetadataBench.withMapped(1);
  bench.insert(5);
  bench.data.holds.add("flush");
  bench.data.fails.add("flush");
  const first = bench.commit();
  const second = bench.commit();
  bench.finish(bench.data);
  assertEquals(kindsOf(first, second, bench.insert(6), bench.commit()), Array(4).fill("poolFailed"));
});

Deno.test("after a failed commit what is in memory is read, the pool and the allocator are told, and needs_check is set", () => {
  const bench = MetadataBench.withMapped(1);
  bench.insert(5);
  bench.data.fails.add("flush");
  bench.commit();
  assertEquals(kindsOf(lookup(bench, 5)), ["provisioned"]);
  assertEquals(bench.pool.take(), [
    {
      type: "metadataTrouble",
      what: "commitFailed",
      reason: "flushing the data device: a fault of the test",
    },
  ]);
  assertEquals(bench.allocator.types, ["frozen", "notCommitted"]);
  const superblock = superblockIn(bench.device.bytes.slice(0, metadataBlockSizeBytes));
  assertEquals([superblock.flags, superblock.transactionId], [flagNeedsCheck, 0n]);
});

Deno.test("a block that cannot be read ends all changes, is told to the pool, and leaves reads of other blocks", () => {
  const bench = MetadataBench.withMapped(2000);
  lookup(bench, 0);
  bench.device.fails.add("read");
  const missing = lookup(bench, 1999);
  assertEquals(kindsOf(missing, bench.insert(5), bench.commit()), ["damaged", "readOnly", "readOnly"]);
  assertEquals(kindsOf(lookup(bench, 0)), ["provisioned"]);
  assertEquals(bench.pool.received.map((sent) => "what" in sent && sent.what), ["damaged"]);
});

Deno.test("metadata opened read-only answers reads and refuses every change and commit", () => {
  const bench = MetadataBench.withMapped(1, { readOnly: true });
  const change = bench.ask(bench.stub.change(sliceOf(7, false)));
  const removed = bench.ask(bench.stub.removeRange(one, vblock(0), vblock(1)));
  const refused = kindsOf(change, removed, bench.insert(5), bench.commit());
  assertEquals(refused, Array(4).fill("readOnly"));
  assertEquals([kindsOf(lookup(bench, 0)), bench.log.some((line) => line.includes("write"))], [
    ["provisioned"],
    false,
  ]);
});

Deno.test("a data block that is leased as free and mapped is damage", () => {
  const bench = MetadataBench.withMapped(1);
  const reason = "the metadata counts data block 3 as free, and it is mapped";
  assertEquals(bench.ask(bench.stub.reportMappedFree(dblock(3))), [{ kind: "damaged", reason }]);
  assertEquals(bench.pool.take(), [{ type: "metadataTrouble", what: "damaged", reason }]);
});

Deno.test("a tick commits changes, and does nothing where there are none", () => {
  const bench = MetadataBench.withMapped(1);
  const tick = () => {
    bench.world.kernel.tell(bench.stub.address, { type: "tick" });
    bench.world.runReady();
  };
  tick();
  assertEquals(bench.log, []);
  bench.insert(5);
  tick();
  assertEquals(bench.log.slice(-2), ["metadata write 0", "metadata flush"]);
});

Deno.test("a command that finds no space is told to the space watch, and the next commit that has freed some", () => {
  const bench = MetadataBench.withMapped(1, { metadataBlocks: 40 });
  let thin = 10;
  const create = () => {
    const snapshots = Array.from({ length: 500 }, () => ({ thin: thinId(thin += 1), origin: one }));
    return kindsOf(bench.ask(bench.stub.change({ ...sliceOf(thin += 1, false), snapshots })))[0]!;
  };
  while (create() === "done") bench.commit();
  assertEquals(bench.space.take(), [{ type: "spaceRefused", need: "metadata" }]);
  bench.ask(bench.stub.change({ ...sliceOf(0, false), create: [] }));
  assertEquals(bench.space.take(), [], "a removal is admitted where nothing else is");
  for (let at = 11; at < 200; at += 1) bench.ask(bench.stub.deleteSlice(thinId(at)));
  assertEquals(bench.space.take(), [], "what was removed is not free before a commit");
  bench.commit();
  assertEquals(bench.space.take(), [{ type: "spaceCame", need: "metadata" }]);
  bench.insert(7);
  bench.commit();
  assertEquals(bench.space.take(), []);
});

Deno.test("a held commit is read as it was until it is released, whatever is committed meanwhile", () => {
  const bench = MetadataBench.withMapped(1, { metadataBlocks: 64 });
  const held = bench.world.run(bench.stub.holdCommit());
  const rootAt = superblockIn(held.superblock).mappingRoot * metadataBlockSizeBytes;
  const before = bench.device.bytes.slice(rootAt, rootAt + metadataBlockSizeBytes);
  for (let at = 1; at < 40; at += 1) {
    bench.insert(at);
    bench.commit();
  }
  assertEquals(bench.device.bytes.slice(rootAt, rootAt + metadataBlockSizeBytes), before);
  bench.stub.releaseCommit(held.hold);
  for (let at = 40; at < 80; at += 1) {
    bench.insert(at);
    bench.commit();
  }
  assert(bench.log.includes(`metadata write ${rootAt}`), "the block is used again after the release");
});

Deno.test("releasing a commit that is not held is a defect", () => {
  const bench = MetadataBench.withMapped(1);
  bench.stub.releaseCommit(1);
  assertThrows(() => bench.world.runReady(), Error, "a commit that is not held");
});

/** Enough that one mapping in each makes more metadata blocks dirty than may be. */
const thinsCount = defaultKnobs.dirtyBlocksMax + 1000;

function metadataOfManyThins(): MetadataBench {
  const driver = MetadataDriver.format(geometryOf({
    metadataBlocks: 16_000,
    dataBlocks: 16_000,
    blockSizeBytes: 65536,
  }));
  const create = Array.from({ length: thinsCount }, (_, index) => thinId(index));
  driver.run((engine) => engine.change({ create, snapshots: [], tick: false, transactionId: 0n }));
  driver.commit();
  return new MetadataBench(driver, { cacheBlocks: 16_000 });
}

function* insertTask(metadata: MetadataStub, thin: number, block: number, answers: string[]): Steps<void> {
  const at = dblock(block * thinsCount + thin);
  answers.push((yield* metadata.insert(thinId(thin), vblock(block), at)).kind);
}

Deno.test("while a commit is slow, no more metadata gets dirty beside it than may", () => {
  const bench = metadataOfManyThins();
  const { world, stub, device, engine } = bench;
  device.holds.add("flush");
  const answers: string[] = [];
  for (let block = 0; block < 2; block += 1) {
    for (let thin = 0; thin < thinsCount; thin += 1) {
      world.kernel.start("insert", insertTask(stub, thin, block, answers));
    }
    world.runReady();
  }
  assert(answers.length < 2 * thinsCount, "no change waits for the commit");
  assert(engine.dirtyBlocks < defaultKnobs.dirtyBlocksMax + 100, `${engine.dirtyBlocks} blocks are dirty`);
  for (let turn = 0; turn < 20 && answers.length < 2 * thinsCount; turn += 1) bench.finish(device);
  assertEquals(answers.filter((kind) => kind === "done").length, 2 * thinsCount);
});

/** Thin 1 maps so many blocks, each counted in another bitmap that is not in memory; thin 2 one. */
function metadataOfScattered(blocks: number): MetadataBench {
  const cacheBlocks = 100;
  const bitmaps = blocks + cacheBlocks + 1;
  const driver = MetadataDriver.format(geometryOf({
    metadataBlocks: 2000,
    dataBlocks: bitmaps * bitmapEntries,
    blockSizeBytes: 65536,
  }));
  const create = [one, thinId(2)];
  driver.run((engine) => engine.change({ create, snapshots: [], tick: false, transactionId: 0n }));
  for (let at = 0; at < blocks; at += 1) {
    driver.run((engine) => engine.insert(one, vblock(at), dblock(at * bitmapEntries)));
  }
  driver.run((engine) => engine.insert(thinId(2), vblock(0), dblock((bitmaps - 1) * bitmapEntries)));
  driver.commit();
  const bench = new MetadataBench(driver, { cacheBlocks });
  bench.ask(bench.stub.lookup(thinId(2), vblock(0)));
  return bench;
}

Deno.test("a look-up whose blocks are in memory does not wait for an operation that misses a great many", () => {
  const scattered = defaultKnobs.missesBeforeAlone + 10;
  const bench = metadataOfScattered(scattered);
  const { stub, device } = bench;
  device.holds.add("read");
  const deleted = bench.ask(stub.deleteSlice(one));
  for (let miss = 0; miss < scattered - 1; miss += 1) {
    const found = bench.ask(stub.lookup(thinId(2), vblock(0)));
    assertEquals(kindsOf(found, deleted), ["provisioned", "open"], `beside miss ${miss}`);
    bench.finish(device);
  }
  while (deleted.length === 0) bench.finish(device);
  assertEquals(kindsOf(deleted), ["deleted"]);
});
