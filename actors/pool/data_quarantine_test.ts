/** The steps of a data block from the loss of its last mapping to its next lease. */
import { assertEquals } from "@std/assert";
import { dblock } from "../../storage/base/ids.ts";
import { AllocatorBench } from "../../tests/support/allocator.ts";

Deno.test("a freed block is not leased before the commit that frees it is durable and its range is discarded", () => {
  const bench = AllocatorBench.withFreedBlock();
  bench.device.holds.add("discard");
  assertEquals(bench.allocate(), "noDataSpace", "when it is freed");
  bench.commit("frozen");
  assertEquals(bench.allocate(), "noDataSpace", "when the commit has begun");
  bench.commit("durable");
  assertEquals(bench.allocate(), "noDataSpace", "while it is discarded");
  bench.device.finish();
  bench.world.runReady();
  assertEquals(bench.allocate(), 0);
});

Deno.test("a freed block is not discarded before the commit that frees it is durable", () => {
  const bench = AllocatorBench.withFreedBlock();
  assertEquals(bench.discarded(), []);
  bench.commit("frozen");
  assertEquals(bench.discarded(), []);
  bench.commit("durable");
  assertEquals(bench.discarded(), [0]);
});

Deno.test("a block that is freed while a commit is under way waits for the next commit", () => {
  const bench = new AllocatorBench(2);
  for (const block of bench.lease(2)) bench.map(block as number);
  bench.free(0);
  bench.commit("frozen");
  bench.free(1);
  bench.commit("durable");
  assertEquals([bench.discarded(), bench.lease(2)], [[0], [0, "noDataSpace"]]);
  bench.commit("frozen");
  bench.commit("durable");
  assertEquals([bench.discarded(), bench.allocate()], [[1], 1]);
});

Deno.test("blocks that become durable while others are discarded are discarded after them", () => {
  const bench = new AllocatorBench(2);
  for (const block of bench.lease(2)) bench.map(block as number);
  bench.device.holds.add("discard");
  for (const block of [0, 1]) {
    bench.free(block);
    bench.commit("frozen");
    bench.commit("durable");
  }
  assertEquals([bench.discarded(), bench.allocate()], [[0], "noDataSpace"]);
  bench.device.finish();
  bench.world.runReady();
  assertEquals([bench.discarded(), bench.lease(2)], [[1], [0, "noDataSpace"]]);
});

Deno.test("the end of a discard does not let blocks of a commit that is not durable yet be discarded", () => {
  const bench = new AllocatorBench(2);
  for (const block of bench.lease(2)) bench.map(block as number);
  bench.device.holds.add("discard");
  bench.free(0);
  bench.commit("frozen");
  bench.commit("durable");
  bench.free(1);
  bench.commit("frozen");
  bench.device.finish();
  bench.world.runReady();
  assertEquals([bench.discarded(), bench.lease(2)], [[0], [0, "noDataSpace"]]);
});

Deno.test("blocks of a commit that fails are never leased again, nor discarded", () => {
  const bench = AllocatorBench.withFreedBlock();
  bench.commit("frozen");
  bench.commit("notCommitted");
  assertEquals([bench.allocate(), bench.discarded()], ["noDataSpace", []]);
});

Deno.test("a block whose discard fails is free all the same", () => {
  const bench = AllocatorBench.withFreedBlock();
  bench.device.fails.add("discard");
  bench.commit("frozen");
  bench.commit("durable");
  assertEquals(bench.allocate(), 0);
});

Deno.test("a device that does not discard is not asked to, and the block is free when the commit is durable", () => {
  const bench = AllocatorBench.withFreedBlock(false);
  bench.commit("frozen");
  bench.commit("durable");
  assertEquals([bench.discarded(), bench.allocate()], [[], 0]);
});

Deno.test("a block is not discarded while a copy from it holds its data lock", () => {
  const bench = AllocatorBench.withFreedBlock();
  const lock = bench.world.run(bench.locks.source(dblock(0)));
  bench.commit("frozen");
  bench.commit("durable");
  assertEquals(bench.discarded(), []);
  lock[Symbol.dispose]();
  bench.world.runReady();
  assertEquals(bench.discarded(), [0]);
});

Deno.test("a reclaim asks for a commit where blocks wait for one, and is answered when they are free", () => {
  const bench = AllocatorBench.withFreedBlock();
  const answers = bench.reclaim();
  bench.commit("frozen");
  bench.device.holds.add("discard");
  bench.commit("durable");
  bench.answerCommit("done");
  assertEquals(answers, []);
  bench.device.finish();
  bench.world.runReady();
  assertEquals([answers, bench.allocate()], [[true], 0]);
});

Deno.test("a reclaim of blocks in a commit under way asks for no other commit", () => {
  const bench = AllocatorBench.withFreedBlock();
  bench.commit("frozen");
  const answers = bench.reclaim();
  assertEquals(bench.metadata.types, []);
  bench.commit("durable");
  assertEquals(answers, [true]);
});

Deno.test("a reclaim is answered no where its commit is refused, and every later one at once", () => {
  const bench = AllocatorBench.withFreedBlock();
  const first = bench.reclaim();
  bench.answerCommit("readOnly");
  assertEquals([first, bench.reclaim(), bench.metadata.types], [[false], [false], []]);
});

Deno.test("a device is not told to be full while blocks are in quarantine", () => {
  const bench = AllocatorBench.withFreedBlock();
  assertEquals([bench.allocate(), bench.refusals.take()], ["noDataSpace", []]);
});

Deno.test("a reclaim does not wait for blocks of a later commit", () => {
  const bench = new AllocatorBench(2);
  for (const block of bench.lease(2)) bench.map(block as number);
  bench.device.holds.add("discard");
  bench.free(0);
  bench.commit("frozen");
  const answers = bench.reclaim();
  bench.commit("durable");
  bench.free(1);
  bench.commit("frozen");
  bench.commit("durable");
  assertEquals(answers, []);
  bench.device.finish();
  bench.world.runReady();
  assertEquals([answers, bench.device.heldCount], [[true], 1]);
});
