/** A pool in memory under random clients, whose process dies after every operation while the host goes on. */
import { assert, assertEquals } from "@std/assert";
import { soak } from "../support/server.ts";
import { hasThinTools, mapAtOnce, runOnImage } from "../support/thin_tools.ts";
import { newImages } from "./images.ts";
import { type KillCounts, problemOfKills } from "./kill_points.ts";
import { RecordedRun } from "./recorded_run.ts";
import { runWorkload } from "./workload.ts";

/** By run: records for which a segment of the intent journal has room. In the smallest, one change waits for the next commit. */
const intentRecords = [20, 3, 200];
const seeds = soak ? 30 : 1;

for (let seed = 77; seed < 77 + seeds; seed += 1) {
  Deno.test(`a process killed after any operation has lost nothing acknowledged (run ${seed})`, async () => {
    const run = new RecordedRun(seed, newImages([14, 28, 10][seed % 3]!, 96), {
      intentRecords: intentRecords[(seed - 77) % intentRecords.length]!,
    });
    runWorkload(run, soak ? 150 : 60);
    assertEquals([run.unanswered, run.pool.kernel.tasksInFlight()], [0, []]);
    const replayed: { readonly what: string; readonly metadata: Uint8Array }[] = [];
    const counts: KillCounts = { points: 0, replays: 0, torn: 0 };
    const look = (metadata: Uint8Array, what: string) => {
      if (counts.replays % 16 === 1) replayed.push({ what, metadata: metadata.slice() });
    };
    assertEquals(problemOfKills(run, { seed, look }, counts), undefined);
    assert(counts.points > 100 && counts.replays > 20 && counts.torn > 10, JSON.stringify(counts));
    for (const version of ["0.9", "1.x"] as const) {
      if (hasThinTools(version)) await assertThinCheckAccepts(version, replayed);
    }
  });
}

async function assertThinCheckAccepts(
  version: "0.9" | "1.x",
  replayed: readonly { readonly what: string; readonly metadata: Uint8Array }[],
): Promise<void> {
  assert(replayed.length > 2, `only ${replayed.length} replays`);
  const results = await mapAtOnce(replayed, version === "0.9" ? 4 : 24, async ({ what, metadata }) => {
    const { status, stdout, stderr } = await runOnImage("thin_check", version, metadata);
    return status === 0 ? [] : [`${what}: ${stdout}${stderr}`];
  });
  assertEquals(results.flat(), []);
}
