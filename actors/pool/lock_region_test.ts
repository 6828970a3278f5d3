import { assertEquals, assertThrows } from "@std/assert";
import { Defect } from "../../storage/base/assert.ts";
import { LockBench } from "../../tests/support/locks.ts";
import type { LockRegionMessage } from "./region_locks.ts";

type Mode = "read" | "write" | "excludeWriters" | "promoted" | "fresh" | "range";

/** Brings a task into a mode of block 5. */
function take(bench: LockBench, name: string, mode: Mode): void {
  switch (mode) {
    case "read":
    case "write":
      return bench.block(name, 5, mode);
    case "fresh":
      return bench.block(name, 5, "exclusive");
    case "range":
      return bench.range(name, 3, 7);
    default:
      bench.block(name, 5, "write");
      bench.say(name, "upgrade");
      if (mode === "promoted") bench.say(name, "promote");
  }
}

const modesTaken: readonly Mode[] = ["read", "write", "fresh", "range"];
const grantedBeside: readonly [held: Mode, granted: readonly Mode[]][] = [
  ["read", ["read", "write"]],
  ["write", ["read", "write"]],
  ["excludeWriters", ["read"]],
  ["promoted", []],
  ["fresh", []],
  ["range", []],
];

for (const [held, granted] of grantedBeside) {
  for (const wanted of modesTaken) {
    const expected = granted.includes(wanted) ? "in" : "waits";
    Deno.test(`while ${held} is held, a request for ${wanted} ${expected === "in" ? "is granted" : expected}`, () => {
      const bench = new LockBench();
      take(bench, "holder", held);
      take(bench, "wanter", wanted);
      assertEquals(bench.progressOf("wanter"), expected);
      bench.say("holder", "release");
      assertEquals(bench.state("holder", "wanter"), "holder gone, wanter in");
      bench.say("wanter", "release");
      bench.end();
    });
  }
}

Deno.test("an upgrade is granted beside readers and waits for the last other writer", () => {
  const bench = new LockBench();
  bench.block("reader", 5, "read");
  for (const name of ["a", "b", "c"]) bench.block(name, 5, "write");
  bench.say("a", "upgrade");
  assertEquals(bench.state("a"), "a upgrades");
  bench.say("b", "release");
  assertEquals(bench.state("a"), "a upgrades");
  bench.say("c", "release");
  assertEquals(bench.state("a", "reader"), "a excludes, reader in");
});

Deno.test("two writers that both upgrade do not wait for each other; the first to ask is first", () => {
  const bench = new LockBench();
  for (const name of ["a", "b"]) bench.block(name, 5, "write");
  bench.say("b", "upgrade");
  bench.say("a", "upgrade");
  assertEquals(bench.state("a", "b"), "a upgrades, b excludes");
  bench.say("b", "release");
  assertEquals(bench.state("a"), "a excludes");
  bench.say("a", "release");
  bench.end();
});

Deno.test("an upgrade says whether no other writer can have changed anything since the lock was granted", () => {
  const bench = new LockBench();
  bench.block("reader", 5, "read");
  for (const name of ["a", "b"]) bench.block(name, 5, "write");
  bench.say("a", "upgrade");
  bench.say("b", "upgrade");
  bench.say("a", "release");
  bench.say("b", "release");
  bench.block("c", 5, "write");
  bench.say("c", "upgrade");
  assertEquals([...bench.alone], ["c"]);
});

Deno.test("upgrades go ahead of writers that wait, and in order among themselves", () => {
  const bench = new LockBench();
  for (const name of ["a", "b", "c", "d"]) bench.block(name, 5, "write");
  bench.say("a", "upgrade");
  bench.block("late", 5, "write");
  for (const name of ["c", "b"]) bench.say(name, "upgrade");
  bench.say("d", "release");
  for (const name of ["a", "c", "b"]) {
    assertEquals(bench.state(name, "late"), `${name} excludes, late waits`);
    bench.say(name, "release");
  }
  assertEquals(bench.state("late"), "late in");
});

Deno.test("an upgrade that waits keeps new writers out and lets readers in", () => {
  const bench = new LockBench();
  for (const name of ["a", "b"]) bench.block(name, 5, "write");
  bench.say("a", "upgrade");
  bench.block("writer", 5, "write");
  bench.block("reader", 5, "read");
  assertEquals(bench.state("writer", "reader"), "writer waits, reader in");
});

Deno.test("writers that waited enter together, in the order they came", () => {
  const bench = new LockBench();
  take(bench, "holder", "excludeWriters");
  for (const name of ["a", "b", "c"]) bench.block(name, 5, "write");
  bench.log.length = 0;
  bench.say("holder", "release");
  assertEquals(bench.log, ["holder gone", "a in", "b in", "c in"]);
});

Deno.test("a promotion shuts out new readers at once and waits for the old ones", () => {
  const bench = new LockBench();
  take(bench, "a", "excludeWriters");
  for (const name of ["old", "older"]) bench.block(name, 5, "read");
  bench.say("a", "promote");
  bench.block("new", 5, "read");
  assertEquals(bench.state("a", "new"), "a promotes, new waits");
  bench.say("old", "release");
  assertEquals(bench.state("a", "new"), "a promotes, new waits");
  bench.say("older", "release");
  assertEquals(bench.state("a", "new"), "a promoted, new waits");
  bench.say("a", "release");
  assertEquals(bench.state("new"), "new in");
});

Deno.test("a promotion without readers is granted at once", () => {
  const bench = new LockBench();
  take(bench, "a", "promoted");
  assertEquals(bench.state("a"), "a promoted");
});

Deno.test("readers pass while writers are excluded, however many writers wait", () => {
  const bench = new LockBench();
  take(bench, "a", "excludeWriters");
  for (const name of ["w1", "w2"]) bench.block(name, 5, "write");
  for (const name of ["r1", "r2"]) bench.block(name, 5, "read");
  assertEquals(bench.state("w1", "w2", "r1", "r2"), "w1 waits, w2 waits, r1 in, r2 in");
});

Deno.test("blocks do not wait for each other", () => {
  const bench = new LockBench();
  take(bench, "a", "promoted");
  bench.block("other", 4, "exclusive");
  bench.range("range", 6, 9);
  assertEquals(bench.state("other", "range"), "other in, range in");
});

Deno.test("a range that waits lets in earlier requests and delays later ones", () => {
  const bench = new LockBench();
  take(bench, "holder", "excludeWriters");
  bench.block("earlier", 5, "write");
  bench.range("range", 3, 7);
  bench.block("later", 5, "read");
  bench.block("elsewhere", 6, "read");
  bench.block("outside", 7, "read");
  assertEquals(
    bench.state("later", "elsewhere", "outside"),
    "later waits, elsewhere waits, outside in",
  );
  bench.say("holder", "release");
  assertEquals(bench.state("earlier", "range", "later"), "earlier in, range waits, later waits");
  bench.say("earlier", "release");
  assertEquals(bench.state("range", "later", "elsewhere"), "range in, later waits, elsewhere waits");
  bench.say("range", "release");
  assertEquals(bench.state("later", "elsewhere"), "later in, elsewhere in");
  for (const name of ["later", "elsewhere", "outside"]) bench.say(name, "release");
  bench.end();
});

Deno.test("overlapping ranges are served in the order they came, disjoint ones at the same time", () => {
  const bench = new LockBench();
  bench.range("a", 0, 4);
  bench.range("b", 3, 6);
  bench.range("c", 5, 9);
  bench.range("d", 9, 10);
  assertEquals(bench.state("a", "b", "c", "d"), "a in, b waits, c waits, d in");
  bench.say("a", "release");
  assertEquals(bench.state("b", "c"), "b in, c waits");
  bench.say("b", "release");
  assertEquals(bench.state("c"), "c in");
  for (const name of ["c", "d"]) bench.say(name, "release");
  bench.end();
});

Deno.test("a range cannot overtake an earlier range that itself waits", () => {
  const bench = new LockBench();
  bench.block("holder", 0, "read");
  bench.range("first", 0, 5);
  bench.range("second", 4, 8);
  assertEquals(bench.state("first", "second"), "first waits, second waits");
  bench.say("holder", "release");
  assertEquals(bench.state("first", "second"), "first in, second waits");
});

Deno.test("an upgrade passes a range that waits, up to its promotion, and the range comes after it", () => {
  const bench = new LockBench();
  for (const name of ["a", "b"]) bench.block(name, 5, "write");
  bench.block("reader", 5, "read");
  bench.range("range", 3, 7);
  bench.say("a", "upgrade");
  bench.say("b", "upgrade");
  assertEquals(bench.state("a", "b", "range"), "a excludes, b upgrades, range waits");
  bench.say("a", "promote");
  bench.say("reader", "release");
  assertEquals(bench.state("a", "range"), "a promoted, range waits");
  bench.say("a", "release");
  assertEquals(bench.state("b", "range"), "b excludes, range waits");
  bench.say("b", "release");
  assertEquals(bench.state("range"), "range in");
});

Deno.test("a range waits for readers and is not starved by those that keep coming", () => {
  const bench = new LockBench();
  bench.block("r0", 5, "read");
  bench.range("range", 5, 6);
  for (let count = 1; count < 5; count += 1) bench.block(`r${count}`, 5, "read");
  bench.say("r0", "release");
  assertEquals(bench.state("range", "r1", "r4"), "range in, r1 waits, r4 waits");
});

Deno.test("a range over several regions takes them in ascending order and gives all of them back", () => {
  const bench = new LockBench({ regionsCount: 3 });
  bench.block("middle", 15, "write");
  bench.range("range", 8, 23);
  bench.block("low", 9, "read");
  bench.block("high", 22, "read");
  // It holds the first region, waits in the second, and has not come to the third.
  assertEquals(bench.state("range", "low", "high"), "range waits, low waits, high in");
  bench.say("middle", "release");
  assertEquals(bench.state("range"), "range waits");
  bench.say("high", "release");
  assertEquals(bench.state("range", "low"), "range in, low waits");
  bench.say("range", "release");
  bench.say("low", "release");
  bench.end();
});

Deno.test("a range of more blocks than there are cells is found by its cells", () => {
  const bench = new LockBench();
  bench.block("inside", 9, "read");
  bench.range("all", 0, 10);
  assertEquals(bench.state("all"), "all waits");
  bench.say("inside", "release");
  assertEquals(bench.state("all"), "all in");
});

Deno.test("a region that retires waits for the locks still held and waited for", () => {
  const bench = new LockBench();
  const { kernel } = bench.world;
  const region = bench.regions[0]!;
  for (const name of ["a", "b"]) bench.block(name, 5, "write");
  bench.range("range", 4, 6);
  region.retire();
  bench.world.runReady();
  bench.say("a", "upgrade");
  bench.say("b", "release");
  bench.say("a", "promote");
  bench.say("a", "release");
  assertEquals(bench.state("a", "range"), "a gone, range in");
  assertEquals(kernel.mailboxHighWater().has("region 0"), true);
  bench.say("range", "release");
  assertEquals(kernel.mailboxHighWater().has("region 0"), false);
});

Deno.test("a region that retires ends with the last block lock too, and at once if it is empty", () => {
  const bench = new LockBench({ regionsCount: 2 });
  const { kernel } = bench.world;
  bench.block("a", 5, "read");
  for (const region of bench.regions) region.retire();
  bench.world.runReady();
  assertEquals([...kernel.mailboxHighWater().keys()], ["gate", "region 0"]);
  bench.say("a", "release");
  assertEquals([...kernel.mailboxHighWater().keys()], ["gate"]);
});

for (const [held, granted] of grantedBeside) {
  for (const access of ["read", "write"] as const) {
    const isGranted = granted.includes(access);
    Deno.test(`while ${held} is held, a batch that wants the block for ${access} ${isGranted ? "takes" : "leaves"} it`, () => {
      const bench = new LockBench();
      take(bench, "holder", held);
      assertEquals(bench.free("batch", [5, 9], access), isGranted ? [5, 9] : [9]);
      bench.say("batch", "release");
      bench.say("holder", "release");
      bench.end();
    });
  }
}

Deno.test("a batch overtakes nothing that waits for the block, and leaves no trace where it took nothing", () => {
  const bench = new LockBench();
  bench.block("reader", 5, "read");
  bench.range("range", 4, 6);
  assertEquals(bench.free("batch", [4, 5], "read"), []);
  bench.say("batch", "release");
  bench.say("reader", "release");
  assertEquals(bench.state("range"), "range in");
  bench.say("range", "release");
  bench.end();
});

Deno.test("a range lock waits for what a batch holds, also where it holds a block twice", () => {
  const bench = new LockBench();
  assertEquals(bench.free("batch", [5, 5], "read"), [5, 5]);
  bench.range("range", 3, 7);
  assertEquals(bench.state("range"), "range waits");
  bench.say("batch", "release");
  assertEquals(bench.state("range"), "range in");
  bench.say("range", "release");
  bench.end();
});

const defects: readonly (readonly [what: string, message: LockRegionMessage, reason: string])[] = [
  ["a read lock", { type: "unlock", block: 5, held: "read" }, "released a read lock that is not held"],
  ["an exclusive lock", { type: "unlock", block: 5, held: "exclusive" }, "released an exclusive lock"],
  ["a block that is not locked", { type: "unlock", block: 4, held: "read" }, "not held"],
  ["a range", { type: "unlockRange", begin: 5, end: 6 }, "released a range lock that is not held"],
];

for (const [what, message, reason] of defects) {
  Deno.test(`releasing ${what} that is not held is a defect`, () => {
    const bench = new LockBench();
    bench.block("writer", 5, "write");
    assertThrows(() => bench.world.kernel.post(bench.regions[0]!.address, message), Defect, reason);
  });
}

Deno.test("releasing a lock at another level than it is held is a defect", () => {
  const bench = new LockBench();
  take(bench, "a", "excludeWriters");
  const message: LockRegionMessage = { type: "unlock", block: 5, held: "exclusive" };
  assertThrows(() => bench.world.kernel.post(bench.regions[0]!.address, message), Defect, "another level");
});

Deno.test("asking a region that retires for a lock is a defect", () => {
  const bench = new LockBench();
  bench.block("holder", 5, "read");
  bench.regions[0]!.retire();
  bench.world.runReady();
  assertThrows(() => bench.block("late", 6, "read"), Defect, "asked a retiring region for a lock");
});

Deno.test("only a shared write lock can be upgraded, and only an upgraded one promoted", () => {
  const reading = new LockBench();
  reading.block("reader", 5, "read");
  assertThrows(() => reading.say("reader", "upgrade"), Defect, "not a shared write lock");
  const writing = new LockBench();
  writing.block("writer", 5, "write");
  assertThrows(() => writing.say("writer", "promote"), Defect, "does not exclude writers");
});
