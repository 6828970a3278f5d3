/** Every operation of every device fails once, in a run of its own. */
import { assert, assertEquals } from "@std/assert";
import { Defect } from "../../storage/base/assert.ts";
import { type IoResult, readInto } from "../../storage/device/port.ts";
import { superblockLocation } from "../../storage/format/superblock.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { Random } from "../support/world.ts";
import { CrashReplay, cutStyles, pinSnapshots, rereadAfter } from "./crash_points.ts";
import { type Images, newImages } from "./images.ts";
import { RecordedRun } from "./recorded_run.ts";
import type { DeviceName, RunLog } from "./recording_device.ts";
import { needsCheck, problemOfCrash, readPool, reopen } from "./recovery.ts";
import { FaultPlan } from "./simulated_device.ts";
import { runWorkload } from "./workload.ts";

const ioError: IoResult = { kind: "ioError", reason: "the test's error" };
const noSpace: IoResult = { kind: "noSpace" };

/** Small enough that clients often find it full: some wait for a commit when it fails. */
const dataBlocks = 8;
const actions = 45;

/** More than CI has time for: `GOSSAMER_FAULT_SEEDS=20`. */
const seeds = Number(Deno.env.get("GOSSAMER_FAULT_SEEDS") ?? 1);

/** All that a request may be answered when one operation of a device has failed. */
const statusesExpected = new Set([
  "ok",
  "hole",
  "noDataSpace",
  "ioError",
  "outOfRange",
  "readOnly",
  "poolFailed",
]);

for (const device of ["metadata", "data", "journal"] as const) {
  for (const result of [ioError, noSpace]) {
    Deno.test(`each operation of the ${device} device may fail with ${result.kind}`, () => {
      for (let seed = 11; seed < 11 + seeds; seed += 1) failEach(device, result, seed);
    });
  }
}

/** Fails everything on its device once it is told to. */
class SuddenFault extends FaultPlan {
  isArmed = false;

  override next(device: DeviceName): IoResult | undefined {
    return this.isArmed && device === this.device ? this.result : undefined;
  }
}

Deno.test("a write that waits for space out of a commit is answered when that commit fails", () => {
  const faults = new SuddenFault("metadata", 0, ioError);
  const run = new RecordedRun(1, newImages(4, 96), { faults, isOrdered: true });
  const blockSectors = 128;
  run.admin({ verb: "create", name: "a", sizeBytes: 8 * 65536 });
  run.drain();
  run.submit("a", "write", 0, 4 * blockSectors);
  run.drain();
  run.submit("a", "flush");
  run.drain();
  run.submit("a", "discard", 0, blockSectors);
  run.drain();
  // This commit will free the block; it has begun, and no other one is needed for the write that comes now.
  run.submit("a", "flush");
  run.step(0);
  run.submit("a", "write", 5 * blockSectors, 8);
  run.step(0);
  assertEquals(run.unanswered, 2);
  faults.isArmed = true;
  run.drain();
  assertEquals([run.unanswered, run.pool.kernel.tasksInFlight()], [0, []]);
  assertEquals([run.statuses.get("write noDataSpace"), run.statuses.get("flush poolFailed")], [1, 1]);
});

/** Of a run that makes two volumes; the flush of the second one's superblock fails if it is told to. */
function twoVolumes(ordinal: number): { readonly run: RecordedRun; readonly faults: FaultPlan } {
  const faults = new FaultPlan("metadata", ordinal, ioError);
  const run = new RecordedRun(1, newImages(4, 96), { faults, isOrdered: true });
  for (const name of ["kept", "lost"]) {
    run.admin({ verb: "create", name, sizeBytes: 65536 });
    run.drain();
  }
  return { run, faults };
}

Deno.test("after a failed flush of a superblock the host's memory has a volume that no power cut leaves, and opening does not", () => {
  // Its last operation on the metadata is that flush.
  const ordinal = twoVolumes(Infinity).faults.count - 1;
  const { run } = twoVolumes(ordinal);
  // The process ends before it can set needs_check.
  const count = run.log.records.findIndex(({ kind }) => kind === "flushFailed") + 1;
  assert(count > 0);
  const replay = new CrashReplay(run.images, run.log);
  replay.advance(count);
  const names = (images: Images) => readPool(reopen(images)).map(({ name }) => name).sort();
  const [lost] = cutStyles;
  assertEquals(names(replay.killed()), ["kept", "lost"]);
  assertEquals(names(replay.cut(lost!, new Random(1))), ["kept"]);
  assertEquals(names(rereadAfter(run, count, lost!, new Random(1))), ["kept"]);
});

function failEach(device: DeviceName, result: IoResult, seed: number): void {
  let ordinal = 0;
  while (failAt(device, ordinal, result, seed)) ordinal += 1;
  // Otherwise nothing was tried.
  assert(ordinal >= 10, `only ${ordinal} operations`);
}

/** False if the run ended before that operation. */
function failAt(device: DeviceName, ordinal: number, result: IoResult, seed: number): boolean {
  const faults = new FaultPlan(device, ordinal, result);
  const what = `operation ${ordinal} of ${device} in run ${seed}`;
  let run: RecordedRun;
  try {
    run = new RecordedRun(seed, newImages(dataBlocks, 96), { faults, intentRecords: 20 });
  } catch (error) {
    // The pool does not open, which is said and no defect.
    assert(error instanceof Error && !(error instanceof Defect) && faults.wasMet, String(error));
    return true;
  }
  try {
    runWorkload(run, actions);
    run.tick();
    run.drain();
    assertEquals(run.pool.kernel.tasksInFlight(), [], "nothing hangs");
    assertEquals(run.unanswered, 0, "everything is answered");
    assertStatuses(run);
    if (!faults.wasMet) return false;
    assertFlushesNotRetried(run.log);
    assertRecovers(run, ordinal);
    assertMode(run);
  } catch (error) {
    throw new Error(`after ${result.kind} of ${what}`, { cause: error });
  }
  return true;
}

function assertStatuses(run: RecordedRun): void {
  for (const what of run.statuses.keys()) {
    const [kind, status] = what.split(" ");
    if (["done", "rolledBack", "refused"].includes(status!)) continue;
    assert(statusesExpected.has(status!), `a ${kind} was answered ${status}`);
  }
}

/** The host may have dropped the pages: a second flush would say ok about data that is gone. */
function assertFlushesNotRetried(log: RunLog): void {
  const failed = log.records.findIndex((record) => record.kind === "flushFailed");
  if (failed === -1) return;
  const { device } = log.records[failed]!;
  const later = log.records.slice(failed + 1).filter((record) => record.device === device);
  const flushes = later.filter((record) => record.kind === "flush");
  // The journal's own file remembers that a flush of it has failed; see catalogue_file.ts.
  if (device === "journal") return;
  if (device !== "metadata") return assertEquals(flushes.length, 0, `the ${device} is flushed again`);
  // Only the mark that a commit failed is written and flushed after it.
  const writes = later.filter((record) =>
    record.kind === "write" && record.offsetBytes !== superblockLocation
  );
  assertEquals([writes.length, flushes.length], [0, 1], "only needs_check is written after a failed flush");
}

/** A pool that has failed refuses; one that has not goes on. */
function assertMode(run: RecordedRun): void {
  const { pool } = run;
  const answer = pool.admin({ verb: "status" });
  if (answer.kind !== "status") throw new Error(`status answered ${answer.kind}`);
  const { mode, trouble } = answer.status;
  const created = pool.admin({ verb: "create", name: "last", sizeBytes: 65536 });
  const superblock = new Uint8Array(metadataBlockSizeBytes);
  readInto(pool.files.metadata, superblock, 0, () => {});
  const isMarked = needsCheck({ metadata: superblock });
  assertEquals(isMarked, mode === "fail", "needs_check is set when a commit has failed");
  // The workload may have filled the pool, which ends without a restart.
  if (mode !== "read-only" && mode !== "fail") {
    assertEquals(trouble, null);
    return;
  }
  assert(trouble !== null && pool.logged.length > 0, "the operator is told");
  assertEquals(created.kind, "refused");
  for (const name of run.writable().slice(0, 1)) {
    const volume = pool.attach(name);
    assert(
      volume.write(0, new Uint8Array(512)).status !== "ok",
      "a pool that takes no changes takes no writes",
    );
    assert(volume.perform("flush", 0, 0).status !== "ok", "nor does it say that anything is durable");
  }
}

/** Whatever a crash leaves after it is sound, and has what was flushed. */
function assertRecovers(run: RecordedRun, ordinal: number): void {
  assertEquals(pinSnapshots(run), undefined);
  const replay = new CrashReplay(run.images, run.log);
  const random = new Random(ordinal);
  const count = run.log.records.length;
  replay.advance(count);
  const instant = run.history.instantAfter(count);
  for (const style of [cutStyles[0]!, cutStyles[1]!, cutStyles[2 + random.below(5)]!]) {
    const images = replay.cut(style, random);
    const problem = problemOfCrash(images, run.history, instant);
    if (problem !== undefined) throw new Error(`${style.name}: ${problem}`);
    // While the intent journal is kept no flush has failed, so reading again loses nothing that was answered.
    const seen = problemOfCrash(rereadAfter(run, count, style, random), run.history, instant, run.survivor);
    if (seen !== undefined) throw new Error(`restarted on the same host, ${style.name}: ${seen}`);
  }
  const killed = replay.killed();
  if (needsCheck(killed)) return assertRefusesToWrite(() => reopen(killed));
  if (ordinal % 3 > 0) return;
  const lost = problemOfCrash(killed, run.history, instant, run.survivor);
  if (lost !== undefined) throw new Error(`killed, what was ${run.survivor} is certain: ${lost}`);
}

function assertRefusesToWrite(open: () => unknown): void {
  try {
    open();
  } catch (error) {
    return assert(error instanceof Error && !(error instanceof Defect));
  }
  throw new Error("a pool that needs a check opens for writing");
}
