/** When a data block is leased, and how a lease ends. What becomes of freed blocks is in data_quarantine_test.ts. */
import { assertEquals, assertThrows } from "@std/assert";
import { Defect } from "../../storage/base/assert.ts";
import { type DBlock, dblock } from "../../storage/base/ids.ts";
import { retiredBlocksMax } from "../limits.ts";
import { AllocatorBench, blockSizeBytes } from "../../tests/support/allocator.ts";
import { Recorder, startCollecting } from "../../tests/support/stand_ins.ts";
import type { Steps } from "../kernel/task.ts";
import { World } from "../../tests/support/world.ts";
import { type Allocation, AllocatorStub, Lease } from "./allocator_messages.ts";

Deno.test("each free block is leased once, and then there is no space", () => {
  const bench = new AllocatorBench(4);
  assertEquals(bench.lease(6), [0, 1, 2, 3, "noDataSpace", "noDataSpace"]);
});

Deno.test("a block that metadata counts is not leased", () => {
  const bench = new AllocatorBench(4);
  bench.metadata.free.delete(1);
  assertEquals(bench.lease(4), [0, 2, 3, "noDataSpace"]);
});

function* noteAllocation(stub: AllocatorStub, name: string, notes: string[]): Steps<void> {
  const allocation = yield* stub.allocate();
  notes.push(`${name} ${allocation.kind === "allocated" ? allocation.dblock : allocation.kind}`);
}

Deno.test("bios that wait for one search are each given a block of their own, in the order they asked", () => {
  const bench = new AllocatorBench(4);
  bench.metadata.holds = true;
  const notes: string[] = [];
  for (const name of ["a", "b", "c"]) {
    bench.world.kernel.start(name, noteAllocation(bench.stub, name, notes));
  }
  bench.world.runReady();
  assertEquals(notes, []);
  bench.metadata.finish();
  assertEquals(notes, ["a 0", "b 1", "c 2"]);
});

Deno.test("a search passes the whole device, from where the last one ended and on from its begin", () => {
  const bench = new AllocatorBench(8);
  bench.metadata.passesMax = 3;
  for (const block of [0, 1, 2, 3, 4, 5]) bench.metadata.free.delete(block);
  assertEquals(bench.lease(2), [6, 7]);
  bench.metadata.free.add(1);
  assertEquals(bench.lease(2), [1, "noDataSpace"]);
});

Deno.test("a block that was mapped while a search was on its way is not leased for what the search found", () => {
  const bench = new AllocatorBench(1);
  assertEquals(bench.allocate(), 0);
  bench.metadata.holds = true;
  const answers: Allocation[] = [];
  startCollecting(bench.world.kernel, bench.stub.allocate(), answers);
  bench.world.runReady();
  bench.map(0);
  bench.metadata.finish();
  assertEquals(answers, [{ kind: "noDataSpace" }]);
});

Deno.test("a block that was given back is the next that is leased", () => {
  const bench = new AllocatorBench(4);
  bench.lease(2);
  bench.tell("giveBack", 0);
  assertEquals(bench.lease(2), [0, 2]);
});

Deno.test("a bio that waits is given the block that another gives back, without another search", () => {
  const bench = new AllocatorBench(1);
  bench.allocate();
  bench.metadata.holds = true;
  const answers: Allocation[] = [];
  startCollecting(bench.world.kernel, bench.stub.allocate(), answers);
  bench.world.runReady();
  bench.tell("giveBack", 0);
  assertEquals(answers, [{ kind: "allocated", dblock: dblock(0) }]);
});

Deno.test("a block that is not leased can neither be given back nor retired", () => {
  for (const type of ["giveBack", "retire"] as const) {
    assertThrows(() => new AllocatorBench(1).tell(type, 0), Error, "that is not leased");
  }
});

Deno.test("a lease that has ended cannot end again while other blocks are leased", () => {
  const ends = ["keep", "giveBack", "retire"] as const;
  for (const first of ends) {
    for (const second of ends) {
      const bench = new AllocatorBench(4);
      bench.lease(3);
      bench.tell(first, 1);
      assertThrows(
        () => bench.tell(second, 1),
        Defect,
        first === "giveBack" ? "given back before" : "that is not leased",
      );
    }
  }
});

Deno.test("a block that was given back can end its next lease, and not the one before", () => {
  const bench = new AllocatorBench(4);
  bench.lease(3);
  bench.tell("giveBack", 1);
  assertEquals(bench.allocate(), 1);
  bench.tell("giveBack", 1);
  assertThrows(() => bench.tell("giveBack", 1), Defect, "given back before");
});

Deno.test("where metadata cannot be read, the bios that wait are told, and the next one searches again", () => {
  const bench = new AllocatorBench(1);
  bench.metadata.fails = true;
  assertEquals(bench.allocate(), "failed");
  bench.metadata.fails = false;
  assertEquals(bench.allocate(), 0);
});

Deno.test("a reclaim with nothing to reclaim says whether blocks became free since the last refusal", () => {
  const bench = new AllocatorBench(1);
  bench.lease(2);
  assertEquals(bench.reclaim(), [false]);
  bench.tell("giveBack", 0);
  assertEquals(bench.reclaim(), [true]);
  assertEquals([bench.lease(2), bench.reclaim()], [[0, "noDataSpace"], [false]]);
});

Deno.test("the space watch is told of each block that becomes free", () => {
  const bench = new AllocatorBench(2);
  bench.lease(3);
  assertEquals(bench.space.take(), []);
  bench.tell("giveBack", 0);
  bench.tell("giveBack", 1);
  const came = { type: "spaceCame", need: "data" } as const;
  assertEquals(bench.space.take(), [came, came]);
});

Deno.test("the device is searched once for all bios that find nothing until a block becomes free", () => {
  const bench = new AllocatorBench(2);
  bench.lease(3);
  const { searches } = bench.metadata;
  assertEquals(bench.lease(5).every((found) => found === "noDataSpace"), true);
  assertEquals(bench.metadata.searches, searches);
  bench.tell("giveBack", 0);
  assertEquals(bench.lease(2), [0, "noDataSpace"]);
  assertEquals(bench.metadata.searches, searches + 1);
});

Deno.test("a block that could not be written is not leased again, and metadata and refusals are told where it is", () => {
  const bench = new AllocatorBench(3);
  bench.lease(2);
  bench.tell("retire", 1);
  assertEquals(bench.lease(2), [2, "noDataSpace"]);
  assertEquals(bench.metadata.take(), [{ type: "dataRetired", blocks: 1 }]);
  assertEquals(bench.refusals.received[0], {
    type: "blockRetired",
    offsetBytes: blockSizeBytes,
    blocks: 1,
  });
});

Deno.test("where too many blocks are retired already, the next is given back", () => {
  const bench = new AllocatorBench(retiredBlocksMax + 1);
  for (const block of bench.lease(retiredBlocksMax + 1)) bench.tell("retire", block as number);
  assertEquals(bench.metadata.take().length, retiredBlocksMax);
  assertEquals(bench.lease(2), [retiredBlocksMax, "noDataSpace"]);
});

/** What the allocator is told when a lease of block 3 ends so. */
function toldOf(end: (lease: Lease) => void): string[] {
  const world = new World();
  const allocator = new Recorder<{ type: string; dblock?: DBlock }>(world.kernel, "allocator");
  {
    using lease = new Lease(new AllocatorStub(world.kernel, allocator.address), dblock(3));
    end(lease);
  }
  world.runReady();
  return allocator.received.map(({ type, dblock }) => `${type} ${dblock}`);
}

Deno.test("a lease that is neither kept nor retired is given back when its scope ends", () => {
  assertEquals(toldOf(() => {}), ["giveBack 3"]);
  assertEquals(toldOf((lease) => lease.failed("noSpace")), ["giveBack 3"]);
});

Deno.test("a lease that is kept is not given back", () => {
  assertEquals(toldOf((lease) => lease.keep()), ["keep 3"]);
});

Deno.test("a lease whose block had an I/O error is retired and not given back", () => {
  assertEquals(toldOf((lease) => lease.failed("ioError")), ["retire 3"]);
});

Deno.test("a lease that ends twice is a defect", () => {
  assertThrows(
    () =>
      toldOf((lease) => {
        lease.keep();
        lease.keep();
      }),
    Error,
    "a lease ended twice",
  );
});

Deno.test("a device that grows while it is full gives its new blocks, to bios that were refused before too", () => {
  const bench = new AllocatorBench(2);
  assertEquals(bench.lease(3), [0, 1, "noDataSpace"]);
  assertEquals(bench.reclaim(), [false]);
  bench.grow(4);
  assertEquals(bench.reclaim(), [true]);
  assertEquals(bench.lease(3), [2, 3, "noDataSpace"]);
});

Deno.test("the space watch is told that a full pool has space again when it has grown", () => {
  const bench = new AllocatorBench(1);
  bench.lease(2);
  bench.space.take();
  bench.grow(2);
  assertEquals(bench.space.take(), [{ type: "spaceCame", need: "data" }]);
});

Deno.test("blocks of a growth that is not announced are not leased, though metadata finds them", () => {
  const bench = new AllocatorBench(2);
  bench.metadata.grow(4);
  assertEquals(bench.lease(3), [0, 1, "noDataSpace"]);
  bench.tellGeometry(4);
  assertEquals(bench.lease(3), [2, 3, "noDataSpace"]);
});

Deno.test("a search that was under way when the device grew finds the new blocks, wherever it was", () => {
  // The search begins at block 3, and has passed the old end and begun again at 0 when the device grows.
  const bench = new AllocatorBench(4);
  assertEquals(bench.lease(4), [0, 1, 2, 3]);
  for (const block of [0, 1, 2]) bench.map(block);
  bench.metadata.free.delete(3);
  bench.metadata.passesMax = 1;
  bench.metadata.holds = true;
  const answers: Allocation[] = [];
  startCollecting(bench.world.kernel, bench.stub.allocate(), answers);
  bench.world.runReady();
  bench.metadata.finish();
  assertEquals(answers, []);
  bench.grow(5);
  for (let step = 0; step < 10; step += 1) bench.metadata.finish();
  assertEquals(answers, [{ kind: "allocated", dblock: dblock(4) }]);
});

Deno.test("a growth keeps leases, retired blocks and the quarantine as they are", () => {
  const bench = new AllocatorBench(4);
  assertEquals(bench.lease(3), [0, 1, 2]);
  bench.tell("retire", 0);
  bench.map(1);
  bench.free(1);
  bench.grow(5);
  // 0 is retired, 1 in quarantine, 2 leased; 3 and the new 4 are free.
  assertEquals(bench.lease(3), [3, 4, "noDataSpace"]);
  bench.tell("giveBack", 2);
  assertEquals(bench.allocate(), 2);
  bench.commit("frozen");
  bench.commit("durable");
  assertEquals(bench.discarded(), [1]);
  assertEquals(bench.lease(2), [1, "noDataSpace"]);
});

Deno.test("an allocator is not told of a smaller device, and is not used before it is told of one", () => {
  const bench = new AllocatorBench(4);
  assertThrows(() => bench.tellGeometry(3), Defect, "the pool became smaller");
  const early = new AllocatorBench(4, true, false);
  assertThrows(() => early.allocate(), Defect, "before it knew the geometry");
});
