import { assert, assertEquals, assertMatch } from "@std/assert";
import {
  makeTestingFiles,
  testingBlockSizeBytes as bs,
  type TestingFiles,
  TestingPool,
} from "../../tests/support/pool.ts";
import {
  assertSound,
  begin,
  createVolume,
  namesIn,
  reasonOf,
  usedBlocks,
} from "../../tests/support/pool_checks.ts";
import { FailingDevice } from "../../tests/support/devices.ts";
import { assert as require } from "../../storage/base/assert.ts";
import type { AdminCommand, AdminResult, PoolStatus } from "./admin_command.ts";

const done: AdminResult = { kind: "done" };
const blocks = 2000;
const removal = (more: { wait?: boolean } = {}): AdminCommand => {
  return { verb: "rm", names: ["a"], dryRun: false, force: false, ...more };
};

/** A pool with the volume `a`, whose mappings take some ten slices to remove. */
function makePool(files: TestingFiles = makeTestingFiles(blocks + 100)): TestingPool {
  const pool = new TestingPool(files, { knobs: { leavesPerDeleteSlice: 1 } });
  createVolume(pool, "a", blocks);
  createVolume(pool, "b", 4);
  const a = pool.attach("a");
  a.perform("writeZeroes", 0, blocks * bs, { noHole: true });
  a.detach();
  return pool;
}

function statusOf(result: AdminResult | undefined): PoolStatus {
  require(result?.kind === "status", "status answers with a status");
  return result.status;
}

/** Calls `then` when the removal has deleted so many slices. */
function afterSlices(pool: TestingPool, slices: number, then: () => void): void {
  let count = 0;
  pool.kernel.trace = {
    record: ({ kind, text }) => {
      if (kind !== "ask" || !text.startsWith("deleteSlice")) return;
      count += 1;
      if (count === slices) then();
    },
  };
}

Deno.test("rm is answered when the names are gone, and the space comes back behind it, between other commands", () => {
  const pool = makePool();
  const results: AdminResult[] = [];
  const looks: AdminResult[] = [];
  const snapshots: AdminResult[] = [];
  let wasAnswered = false;
  afterSlices(pool, 3, () => {
    wasAnswered = results.length === 1;
    begin(pool, { verb: "status" }, looks);
    begin(pool, { verb: "list" }, looks);
    begin(pool, { verb: "snapshot", names: ["b@s"] }, snapshots);
  });
  begin(pool, removal(), results);
  pool.drain();
  assertEquals([wasAnswered, results, snapshots], [true, [done], [done]]);
  const { volumes, removing, removing_bytes, data_used_bytes } = statusOf(
    looks.find(({ kind }) => kind === "status"),
  );
  assertEquals([volumes <= 2, removing], [true, 1]);
  assert(removing_bytes > 0 && removing_bytes < blocks * bs, `${removing_bytes} bytes to come`);
  assertEquals(removing_bytes, data_used_bytes);
  const listed = looks.find(({ kind }) => kind === "volumes");
  require(listed?.kind === "volumes", "list answers with volumes");
  assertEquals(listed.volumes.some(({ name }) => name === "a"), false);
  assertEquals(usedBlocks(pool), 0);
  assertEquals(statusOf(pool.admin({ verb: "status" })).removing, 0);
  assertSound(pool);
});

Deno.test("rm --wait is answered when the space is back, and holds up no other command", () => {
  const pool = makePool();
  const results: AdminResult[] = [];
  const others: AdminResult[] = [];
  let answeredBefore = -1;
  afterSlices(pool, 5, () => {
    begin(pool, { verb: "create", name: "c", sizeBytes: bs }, others);
    answeredBefore = results.length;
  });
  const order: string[] = [];
  const waits = begin(pool, removal({ wait: true }), results);
  for (let turn = 0; turn < 100_000 && waits.length === 0; turn += 1) {
    pool.kernel.run();
    if (others.length > 0 && order.length === 0) order.push("create");
    if (!pool.clock.runYields()) pool.files.journal.pending.shift()?.();
  }
  assertEquals([answeredBefore, order, results, others], [0, ["create"], [done], [done]]);
  assertEquals(usedBlocks(pool), 0);
});

Deno.test("a stop ends a removal between two slices, and the next start goes on with it", () => {
  const files = makeTestingFiles(blocks + 100);
  const pool = makePool(files);
  const results: AdminResult[] = [];
  const stops: AdminResult[] = [];
  let slices = 0;
  pool.kernel.trace = {
    record: ({ kind, text }) => {
      if (kind !== "ask" || !text.startsWith("deleteSlice")) return;
      slices += 1;
      if (slices === 3) pool.kernel.start("stop", collect(pool, stops));
    },
  };
  begin(pool, removal({ wait: true }), results);
  pool.drain();
  assertEquals(stops, [done]);
  assert(slices < 6, `${slices} slices`);
  assertMatch(
    reasonOf(results[0]!),
    /^The change is made, but not all space came back: the pool is being closed/,
  );
  const again = new TestingPool(files, { newUid: () => "later" });
  assertEquals([namesIn(again), usedBlocks(again)], [["b"], 0]);
  assertEquals(statusOf(again.admin({ verb: "status" })).removing, 0);
  assertSound(again);
});

function* collect(pool: TestingPool, results: AdminResult[]) {
  results.push(yield* pool.pool.stop());
}

Deno.test("several removals at once are all done, and each that waits is answered once", () => {
  const pool = makePool();
  for (let at = 0; at < 5; at += 1) createVolume(pool, `v${at}`, 4);
  const results: AdminResult[] = [];
  begin(pool, removal({ wait: true }), results);
  for (let at = 0; at < 5; at += 1) {
    begin(pool, { verb: "rm", names: [`v${at}`], dryRun: false, force: false, wait: at % 2 === 0 }, results);
  }
  pool.drain();
  assertEquals(results, Array(6).fill(done));
  assertEquals([namesIn(pool), usedBlocks(pool)], [["b"], 0]);
  assertSound(pool);
});

Deno.test("a removal that cannot go on is told in the log and to the command that waits, and the pool stops all the same", () => {
  const files = makeTestingFiles(blocks + 100);
  const metadata = new FailingDevice(files.metadata);
  const pool = makePool({ ...files, metadata });
  const results: AdminResult[] = [];
  afterSlices(pool, 3, () => metadata.failsWrites = true);
  begin(pool, removal({ wait: true }), results);
  pool.drain();
  const sentence = "The change is made, but its last step failed, and the next start repeats it: ";
  assertEquals(reasonOf(results[0]!).slice(0, sentence.length), sentence);
  assertEquals(pool.logged.filter((line) => line.startsWith(sentence)).length, 1);
  assertEquals(pool.ask(pool.pool.stop()).kind, "refused");
  const again = new TestingPool(files, { newUid: () => "later" });
  assertEquals([namesIn(again), usedBlocks(again)], [["b"], 0]);
});
