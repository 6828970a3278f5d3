import { assertEquals } from "@std/assert";
import { TraceRecorder } from "../kernel/trace.ts";
import { MemoryDevice } from "../../tests/support/memory_device.ts";
import { makeTestingFiles, testingBlockSizeBytes as bs, TestingPool } from "../../tests/support/pool.ts";
import { assertSound, usedBlocks } from "../../tests/support/pool_checks.ts";

function filled(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

/** A pool with one volume of 16 blocks. */
function poolWithVolume(dataBlocks = 64) {
  const pool = new TestingPool(makeTestingFiles(dataBlocks));
  assertEquals(pool.admin({ verb: "create", name: "a", sizeBytes: 16 * bs }), { kind: "done" });
  return { pool, a: pool.attach("a") };
}

Deno.test("an unwritten block reads as a hole of zeroes", () => {
  const { a } = poolWithVolume();
  const read = a.perform("read", 0, 4096);
  assertEquals([read.status, read.holes[0], read.data], ["ok", 1, filled(4096, 0)]);
});

Deno.test("what was written is read back, and the rest of its block is zero", () => {
  const { pool, a } = poolWithVolume();
  a.write(bs + 512, filled(1024, 7));
  assertEquals(a.read(bs, 512), filled(512, 0));
  assertEquals(a.read(bs + 512, 1024), filled(1024, 7));
  assertEquals(a.read(bs + 1536, bs - 1536), filled(bs - 1536, 0));
  assertEquals(usedBlocks(pool), 1);
  assertSound(pool);
});

Deno.test("a write over several blocks is whole", () => {
  const { pool, a } = poolWithVolume();
  a.write(bs - 100, filled(2 * bs + 200, 3));
  assertEquals(a.read(bs - 100, 2 * bs + 200), filled(2 * bs + 200, 3));
  assertEquals(usedBlocks(pool), 4);
});

Deno.test("a snapshot keeps what its origin held while the origin changes", () => {
  const { pool, a } = poolWithVolume();
  a.write(0, filled(2 * bs, 1));
  assertEquals(pool.admin({ verb: "snapshot", names: ["a@s"] }), { kind: "done" });
  assertEquals(usedBlocks(pool), 2);
  a.write(100, filled(10, 2));
  assertEquals(usedBlocks(pool), 3);
  const s = pool.attach("a@s");
  assertEquals(s.read(0, 2 * bs), filled(2 * bs, 1));
  assertEquals(a.read(90, 30), new Uint8Array([...filled(10, 1), ...filled(10, 2), ...filled(10, 1)]));
  assertSound(pool);
});

Deno.test("a block whose snapshot is gone is written in place, in a full pool too", () => {
  const { pool, a } = poolWithVolume(2);
  a.write(0, filled(2 * bs, 1));
  assertEquals(pool.admin({ verb: "snapshot", names: ["a@s"] }), { kind: "done" });
  assertEquals(a.write(100, filled(10, 2)).status, "noDataSpace");
  assertEquals(pool.admin({ verb: "rm", names: ["a@s"], force: true, dryRun: false }), { kind: "done" });
  const recorder = new TraceRecorder();
  pool.kernel.trace = recorder;
  assertEquals(a.write(100, filled(10, 2)).status, "ok");
  assertEquals(a.write(100, filled(10, 3)).status, "ok");
  const asked = recorder.events.filter((event) => event.kind === "ask").map((event) => event.text);
  // The first write gives the mapping the present time, and the second finds nothing to do.
  assertEquals(asked.filter((text) => /^(insert|copy|allocate)/.test(text)), [
    "insert thin 1 vblock 0 dblock 0",
  ]);
  assertEquals(a.perform("writeZeroes", 0, 2 * bs, { noHole: true }).status, "ok");
  a.write(100, filled(10, 4));
  assertEquals(a.read(90, 30), new Uint8Array([...filled(10, 0), ...filled(10, 4), ...filled(10, 0)]));
  assertEquals(usedBlocks(pool), 2);
  assertSound(pool);
});

Deno.test("clones of one snapshot that is gone copy a block until one has it, which then does not", () => {
  const { pool, a } = poolWithVolume();
  a.write(0, filled(bs, 1));
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  const clones = ["b", "c"].map((name) => {
    assertEquals(pool.admin({ verb: "clone", source: "a@s", name }), { kind: "done" });
    return pool.attach(name);
  });
  assertEquals(pool.admin({ verb: "rm", names: ["a@s"], force: true, dryRun: false }), { kind: "done" });
  for (const [index, volume] of [a, ...clones].entries()) {
    volume.write(0, filled(10, 2 + index));
    // A crash could undo the copy; then the one before would find here what is written now.
    volume.perform("flush", 0, 0);
    assertEquals(usedBlocks(pool), Math.min(2 + index, 3));
  }
  for (const [index, volume] of [a, ...clones].entries()) {
    assertEquals(volume.read(0, 20), new Uint8Array([...filled(10, 2 + index), ...filled(10, 1)]));
  }
  assertSound(pool);
});

Deno.test("a discard gives whole blocks back and leaves the partial ends alone", () => {
  const { pool, a } = poolWithVolume();
  a.write(0, filled(4 * bs, 5));
  assertEquals(a.perform("discard", 100, 3 * bs).status, "ok");
  assertEquals(a.read(0, bs), filled(bs, 5));
  assertEquals(a.read(bs, 2 * bs), filled(2 * bs, 0));
  assertEquals(a.read(3 * bs, bs), filled(bs, 5));
  assertEquals(usedBlocks(pool), 2);
  assertSound(pool);
});

Deno.test("write-zeroes reads as zeroes to the byte", () => {
  const { pool, a } = poolWithVolume();
  a.write(0, filled(4 * bs, 5));
  assertEquals(a.perform("writeZeroes", 100, 3 * bs).status, "ok");
  assertEquals(a.read(0, 100), filled(100, 5));
  assertEquals(a.read(100, 3 * bs), filled(3 * bs, 0));
  assertEquals(a.read(3 * bs + 100, bs - 100), filled(bs - 100, 5));
  assertEquals(usedBlocks(pool), 2);
});

Deno.test("write-zeroes that must not leave a hole provisions every block", () => {
  const { pool, a } = poolWithVolume();
  assertEquals(a.perform("writeZeroes", 100, 3 * bs, { noHole: true }).status, "ok");
  assertEquals(usedBlocks(pool), 4);
  assertEquals(a.perform("read", 0, bs).holes, new Uint8Array(0));
});

Deno.test("a fast zero over part of a mapped block is refused and changes nothing", () => {
  const { a } = poolWithVolume();
  a.write(0, filled(3 * bs, 5));
  assertEquals(a.perform("writeZeroes", 100, 2 * bs, { fastZero: true }).status, "notSupported");
  assertEquals(a.read(0, 3 * bs), filled(3 * bs, 5));
});

Deno.test("a full pool answers no space, and goes on once something is discarded", () => {
  const { pool, a } = poolWithVolume(4);
  a.write(0, filled(4 * bs, 1));
  assertEquals(a.write(4 * bs, filled(10, 2)).status, "noDataSpace");
  assertEquals(a.write(5 * bs, filled(10, 2)).status, "noDataSpace");
  assertEquals(pool.logged.length, 1, "a full pool is said once");
  a.perform("discard", 0, bs);
  assertEquals(a.write(4 * bs, filled(10, 2)).status, "ok");
  assertEquals(a.read(bs, 3 * bs), filled(3 * bs, 1));
  assertEquals(a.read(4 * bs, 20), new Uint8Array([...filled(10, 2), ...filled(10, 0)]));
  assertSound(pool);
});

Deno.test("write-zeroes that must provision more than there is refuses before it provisions anything", () => {
  const { pool, a } = poolWithVolume(4);
  assertEquals(a.perform("writeZeroes", 0, 5 * bs, { noHole: true }).status, "noDataSpace");
  assertEquals(usedBlocks(pool), 0);
  assertEquals(a.perform("writeZeroes", 0, 4 * bs, { noHole: true }).status, "ok");
});

Deno.test("a flush makes everything survive a restart, and nothing else is needed", () => {
  const { pool, a } = poolWithVolume();
  a.write(3 * bs, filled(5000, 9));
  assertEquals(a.perform("flush", 0, 0).status, "ok");
  a.write(5 * bs, filled(5000, 9));
  const again = new TestingPool(pool.files);
  const b = again.attach("a");
  assertEquals(b.read(3 * bs, 5000), filled(5000, 9));
  assertEquals(b.read(5 * bs, 5000), filled(5000, 0));
  assertSound(again);
});

Deno.test("a write with FUA survives a restart together with its mapping", () => {
  const { pool, a } = poolWithVolume();
  a.write(bs - 10, filled(20, 9), { fua: true });
  const b = new TestingPool(pool.files).attach("a");
  assertEquals(b.read(bs - 10, 20), filled(20, 9));
});

Deno.test("removing the origin and the snapshot leaves a clone whole, and only its blocks in use", () => {
  const { pool, a } = poolWithVolume();
  a.write(0, filled(3 * bs, 1));
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  a.write(0, filled(2 * bs, 2));
  pool.admin({ verb: "clone", source: "a@s", name: "c" });
  a.detach();
  assertEquals(pool.admin({ verb: "rm", names: ["a"], force: false, dryRun: true }), {
    kind: "wouldFree",
    bytes: 2 * bs,
  });
  assertEquals(pool.admin({ verb: "rm", names: ["a"], force: false, dryRun: false }), { kind: "done" });
  assertEquals(pool.admin({ verb: "rm", names: ["a@s"], force: false, dryRun: false }), { kind: "done" });
  assertEquals(pool.attach("c").read(0, 3 * bs), filled(3 * bs, 1));
  assertEquals(usedBlocks(pool), 3);
  assertSound(pool);
});

Deno.test("a rollback gives an attached volume the snapshot's content", () => {
  const { pool, a } = poolWithVolume();
  a.write(0, filled(bs, 1));
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  a.write(0, filled(4 * bs, 2));
  assertEquals(pool.admin({ verb: "rollback", snapshot: "a@s", force: true }).kind, "rolledBack");
  pool.admin({ verb: "rm", names: ["a@before-rollback-1"], dryRun: false, force: false });
  assertEquals(a.read(0, bs), filled(bs, 1));
  assertEquals(a.read(bs, 3 * bs), filled(3 * bs, 0));
  assertEquals(usedBlocks(pool), 1);
  a.write(0, filled(10, 3));
  assertEquals(pool.attach("a@s").read(0, 10), filled(10, 1));
  assertSound(pool);
});

Deno.test("a volume that shrank and grew again shows no old bytes", () => {
  const { pool, a } = poolWithVolume();
  a.write(0, filled(4 * bs, 1));
  assertEquals(pool.admin({ verb: "resize", name: "a", sizeBytes: bs + 512, force: true }), { kind: "done" });
  assertEquals(a.perform("read", bs + 512, 1).status, "outOfRange");
  assertEquals(usedBlocks(pool), 2);
  assertEquals(pool.admin({ verb: "resize", name: "a", sizeBytes: 4 * bs, force: true }), { kind: "done" });
  assertEquals(a.read(0, bs + 512), filled(bs + 512, 1));
  assertEquals(a.read(bs + 512, 3 * bs - 512), filled(3 * bs - 512, 0));
  assertSound(pool);
});

Deno.test("a volume is not rolled back to a snapshot of an earlier volume of its name", () => {
  const { pool, a } = poolWithVolume();
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  a.detach();
  pool.admin({ verb: "rm", names: ["a"], force: false, dryRun: false });
  pool.admin({ verb: "create", name: "a", sizeBytes: bs });
  assertEquals(pool.admin({ verb: "rollback", snapshot: "a@s", force: true }).kind, "refused");
});

Deno.test("a data device that is not local serves everything: it maps nothing, knows of no holes, and takes no discards", () => {
  // Its blocks hold old bytes, of which none may be seen.
  const data = new MemoryDevice(new Uint8Array(8 * bs).fill(9));
  const files = { ...makeTestingFiles(8), data };
  const pool = new TestingPool(files);
  assertEquals(pool.admin({ verb: "create", name: "a", sizeBytes: 16 * bs }), { kind: "done" });
  const a = pool.attach("a");
  a.write(100, filled(10, 1));
  assertEquals(a.read(0, bs), new Uint8Array([...filled(100, 0), ...filled(10, 1), ...filled(bs - 110, 0)]));
  assertEquals(pool.admin({ verb: "snapshot", names: ["a@s"] }), { kind: "done" });
  a.write(0, filled(100, 2));
  assertEquals(a.read(99, 12), new Uint8Array([2, ...filled(10, 1), 0]));
  assertEquals(pool.attach("a@s").read(99, 12), new Uint8Array([0, ...filled(10, 1), 0]));
  a.perform("writeZeroes", bs, bs, { noHole: true });
  assertEquals(usedBlocks(pool), 3);
  // Full, and empty again: what is trimmed is allocated to other blocks, which show none of its bytes.
  a.write(2 * bs, filled(5 * bs, 3));
  assertEquals(a.write(8 * bs, filled(1, 4)).status, "noDataSpace");
  assertEquals(a.perform("discard", 2 * bs, 5 * bs).status, "ok");
  a.write(8 * bs + 7, filled(1, 4));
  assertEquals(a.read(8 * bs, bs), new Uint8Array([...filled(7, 0), 4, ...filled(bs - 8, 0)]));
  a.perform("flush", 0, 0);
  assertSound(pool);
  const again = new TestingPool(files).attach("a");
  assertEquals(again.read(0, 100), filled(100, 2));
  assertEquals(again.read(8 * bs + 7, 2), new Uint8Array([4, 0]));
});
