/** What each counter counts, on a pool in memory. */
import { assertEquals } from "@std/assert";
import { TestServer } from "../tests/nbd/simulated_server.ts";
import { makeTestingFiles, testingBlockSizeBytes as bs, TestingPool } from "../tests/support/pool.ts";
import { counters, CounterSums } from "./counters.ts";
import { connectionsMax } from "./limits.ts";

/** A pool with a volume "a", and its counters. */
function countedPool() {
  const sums = new CounterSums();
  const pool = new TestingPool(makeTestingFiles(), { counters: sums });
  pool.admin({ verb: "create", name: "a", sizeBytes: 16 * bs });
  return { sums, pool, volume: pool.attach("a") };
}

Deno.test("provisions and breaks of sharing are counted, and of the latter what was copied", () => {
  const { sums, pool, volume } = countedPool();
  volume.write(0, new Uint8Array(3 * bs));
  volume.write(0, new Uint8Array(512));
  assertEquals([sums.of("provisions"), sums.of("sharingBroken")], [3, 0]);
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  // The first block is copied, the second is covered.
  volume.write(0, new Uint8Array(512));
  volume.write(bs, new Uint8Array(bs));
  volume.write(0, new Uint8Array(512));
  assertEquals([sums.of("provisions"), sums.of("sharingBroken"), sums.of("copiedBytes")], [3, 2, bs]);
});

Deno.test("a write that fails provisions nothing", () => {
  const sums = new CounterSums();
  const pool = new TestingPool(makeTestingFiles(2), { counters: sums });
  pool.admin({ verb: "create", name: "a", sizeBytes: 16 * bs });
  assertEquals(pool.attach("a").write(0, new Uint8Array(3 * bs)).status, "noDataSpace");
  assertEquals(sums.of("provisions"), 2);
});

Deno.test("a flush with a change is a commit of three device flushes, one without is one device flush", () => {
  const { sums, volume } = countedPool();
  volume.write(0, new Uint8Array(bs));
  const before = [sums.of("commits"), sums.of("deviceFlushes")];
  volume.perform("flush", 0, 0);
  assertEquals([sums.of("commits"), sums.of("deviceFlushes")], [before[0]! + 1, before[1]! + 3]);
  volume.perform("flush", 0, 0);
  assertEquals([sums.of("commits"), sums.of("deviceFlushes")], [before[0]! + 1, before[1]! + 4]);
});

Deno.test("a look-up that waits for the device is a miss, one that finds its blocks in memory is none", () => {
  const { pool, volume } = countedPool();
  volume.write(0, new Uint8Array(bs));
  volume.perform("flush", 0, 0);
  pool.kernel.stop();
  const sums = new CounterSums();
  const opened = new TestingPool(pool.files, { counters: sums }).attach("a");
  opened.read(0, 512);
  const misses = sums.of("lookupMisses");
  assertEquals(misses > 0, true);
  opened.read(0, 512);
  assertEquals(sums.of("lookupMisses"), misses);
});

Deno.test("the bytes of the catalogue's journal are those of its lines and of what replaced them", () => {
  const { sums, pool } = countedPool();
  const { journal } = pool.files;
  const [textBefore, sumBefore] = [journal.text.length, sums.of("journalBytes")];
  pool.admin({ verb: "create", name: "b", sizeBytes: bs });
  assertEquals(sums.of("journalBytes") - sumBefore, journal.text.length - textBefore);
  journal.changesCharsMax = -Infinity;
  const appended = sums.of("journalBytes");
  pool.admin({ verb: "create", name: "c", sizeBytes: bs });
  assertEquals(journal.text, journal.rewritten);
  assertEquals(sums.of("journalBytes") - appended > journal.text.length, true);
});

Deno.test("a connection for which there is no place is counted as refused", () => {
  const sums = new CounterSums();
  const server = new TestServer(undefined, undefined, sums);
  for (let client = 0; client < connectionsMax; client += 1) server.attach();
  assertEquals(sums.of("connectionsRefused"), 0);
  assertEquals([server.connect().closed, server.connect().closed], [true, true]);
  assertEquals(sums.of("connectionsRefused"), 2);
});

Deno.test("every counter has a unit and a help text, and begins with 0", () => {
  const sums = new CounterSums();
  for (const [name, { unit, help }] of Object.entries(counters)) {
    assertEquals(sums.of(name as keyof typeof counters), 0);
    assertEquals(unit === "bytes", name.endsWith("Bytes"));
    assertEquals(/^[a-z].*[^.]$/.test(help), true, `${name}: ${help}`);
  }
});
