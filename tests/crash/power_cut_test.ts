/** A pool in memory under random clients, crashed after every operation in many ways. */
import { assert, assertEquals } from "@std/assert";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { hasThinTools, mapAtOnce, runOnImage, type ThinToolsVersion } from "../support/thin_tools.ts";
import { type CrashCounts, CrashReplay, cutStyles, problemOfRun } from "./crash_points.ts";
import { newImages } from "./images.ts";
import { RecordedRun } from "./recorded_run.ts";
import { problemOfCrash, problemOfMetadata } from "./recovery.ts";
import { Random } from "../support/world.ts";
import { runWorkload } from "./workload.ts";

const metadataBlocks = 96;
/** The smaller, the sooner a freed block is used again; the smallest are often full. */
const dataBlocks = [10, 14, 28];

/** More than CI has time for: `GOSSAMER_CRASH_SEEDS=200`. */
const seeds = Number(Deno.env.get("GOSSAMER_CRASH_SEEDS") ?? 4);

function recordedRun(seed: number, actions: number, intentRecords?: number): RecordedRun {
  const images = newImages(dataBlocks[seed % dataBlocks.length]!, metadataBlocks);
  const run = new RecordedRun(seed, images, intentRecords === undefined ? {} : { intentRecords });
  runWorkload(run, actions);
  assertEquals([run.unanswered, run.pool.kernel.tasksInFlight()], [0, []]);
  return run;
}

for (let seed = 1; seed <= seeds; seed += 1) {
  Deno.test(`a power cut after any operation leaves what was flushed, and nobody else's bytes (run ${seed})`, () => {
    // An intent journal is kept in every second run; it must change nothing.
    const run = recordedRun(seed, 120, seed % 2 === 0 ? 20 : undefined);
    const counts: CrashCounts = { points: 0, crashes: 0 };
    assertEquals(problemOfRun(run, { chances: 1, seed }, counts), undefined);
    assert(counts.points > 200 && counts.crashes > 2 * counts.points, "the run is long enough");
  });
}

Deno.test("many runs, each in an order of its own, end with what was written and nobody else's bytes", () => {
  // Orders that hurt are rare: leasing a block that a late answer still calls free takes some fifty runs.
  for (let seed = 1000; seed < 1250; seed += 1) {
    const run = recordedRun(seed, 120);
    const count = run.log.records.length;
    const replay = new CrashReplay(run.images, run.log);
    replay.advance(count);
    const problem = problemOfCrash(replay.killed(), run.history, run.history.instantAfter(count));
    assertEquals(problem, undefined, `run ${seed}`);
  }
});

Deno.test("metadata flushed late, early or in part is accepted by the checker, restart or not", () => {
  const run = recordedRun(78, 60);
  const replay = new CrashReplay(run.images, run.log);
  const random = new Random(1);
  for (let count = 0; count <= run.log.records.length; count += 1) {
    replay.advance(count);
    if (run.log.records[count]?.device !== "metadata") continue;
    for (let round = 0; round < 8; round += 1) {
      const style = { ...cutStyles[4]!, metadata: (1 + random.below(9)) / 10 };
      assertEquals(problemOfMetadata(replay.cut(style, random).metadata), undefined, `operation ${count}`);
    }
  }
});

for (const version of ["0.9", "1.x"] as const) {
  Deno.test({
    name: `thin_check ${version} accepts every prefix of the metadata writes, and power cuts between them`,
    ignore: !hasThinTools(version),
    fn: () => assertThinCheckAccepts(version),
  });
}

async function assertThinCheckAccepts(version: ThinToolsVersion): Promise<void> {
  const run = recordedRun(79, 60);
  const replay = new CrashReplay(run.images, run.log);
  const random = new Random(2);
  const images: { readonly what: string; readonly metadata: Uint8Array }[] = [];
  for (let count = 0; count <= run.log.records.length; count += 1) {
    replay.advance(count);
    if (count > 0 && run.log.records[count - 1]!.device !== "metadata") continue;
    images.push({ what: `killed after operation ${count}`, metadata: replay.killed().metadata.slice() });
    if (count % 4 !== 0 || !replay.canLose("metadata")) continue;
    const { metadata } = replay.cut(cutStyles[4]!, random);
    images.push({ what: `power cut after operation ${count}`, metadata: metadata.slice() });
  }
  const results = await mapAtOnce(images, version === "0.9" ? 4 : 24, async ({ what, metadata }) => {
    const { status, stdout, stderr } = await runOnImage("thin_check", version, metadata);
    return status === 0 ? [] : [`${what}: ${stdout}${stderr}`];
  });
  assertEquals(results.flat(), []);
  assert(
    images.length > 50,
    `only ${images.length} images of ${metadataBlocks * metadataBlockSizeBytes} bytes`,
  );
}
