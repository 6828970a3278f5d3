/**
 * Every pair of requests on one block, in every state, in every schedule that differs, with crashes; and every triple of
 * those that make nothing durable. `main.ts` does the rest.
 */
import { assert, assertEquals } from "@std/assert";
import { clones, growths, inBatches, leavings, pairs, rollbacks, sliced, tight, triples } from "./cases.ts";
import { compareBatches } from "./compare.ts";
import { explore, newCrashes } from "./explore.ts";
import { nameOf, type Scenario, states } from "./scenario.ts";

/** Every schedule of the scenarios, with a power cut anywhere. */
function standEveryCrash(scenarios: readonly Scenario[], schedulesMin = 150): void {
  const crashes = newCrashes();
  let schedules = 0;
  for (const scenario of scenarios) {
    const { counts, problem, schedule } = explore(scenario, 4000, crashes);
    assertEquals(problem, undefined, `${nameOf(scenario)}\n${schedule.join("\n")}`);
    assert(counts.isComplete, nameOf(scenario));
    schedules += counts.schedules;
  }
  const { points, outcomes, replays } = crashes.counts;
  console.log(`${schedules} schedules, ${outcomes} crashes at ${points} points, ${replays} replays`);
  assert(schedules > schedulesMin && outcomes > 1500, "the search has become small");
}

for (const state of states) {
  Deno.test(`every pair on one ${state} block stands every schedule and a power cut anywhere`, () => {
    standEveryCrash(pairs("one block").filter((scenario) => scenario.state === state));
  });
}

for (const state of ["left", "cloned"] as const) {
  Deno.test(`every write where the block was ${state} by others stands every schedule and a power cut`, () => {
    standEveryCrash(leavings().filter((scenario) => scenario.state === state));
  });
}

/** It takes longest. */
function isFuaTwice({ kinds }: Scenario): boolean {
  return kinds.every((kind) => kind === "FUA write");
}

Deno.test("pairs that come together and go in batches stand every schedule and a power cut anywhere", () => {
  standEveryCrash([...pairs("apart"), ...pairs("one block").filter(isFuaTwice)].flatMap(inBatches));
});

Deno.test("pairs that go in batches stand every crash, and show clients nothing that batches of one do not show", () => {
  const crashes = newCrashes();
  let views = 0;
  for (const scenario of pairs("one block").filter((pair) => !isFuaTwice(pair))) {
    const { parts, viewsTogether } = compareBatches(scenario, 4000, crashes);
    for (const { scenario, explored: { counts, problem, schedule } } of parts) {
      assertEquals(problem, undefined, `${nameOf(scenario)}\n${schedule.join("\n")}`);
      assert(counts.isComplete, nameOf(scenario));
    }
    views += viewsTogether;
  }
  assert(views > 250, "what is compared has become little");
});

Deno.test("a growth beside a request on one mapped block stands every schedule and a power cut anywhere", () => {
  standEveryCrash(growths().filter(({ state }) => state === "mapped").map(tight), 50);
});

Deno.test("a rollback beside a write or a discard stands every schedule and a power cut anywhere", () => {
  const beside = ["partial write", "discard"];
  standEveryCrash(rollbacks().filter(({ kinds }) => beside.includes(kinds[1]!)), 50);
});

Deno.test("a client that attaches to a clone at any time and writes loses nothing in any schedule", () => {
  standEveryCrash(clones().filter(({ kinds }) => kinds.length === 2), 30);
});

Deno.test("a command in slices beside what could commit a part of it stands every schedule and a power cut", () => {
  const beside = ["flush", "FUA write", "covering write"];
  standEveryCrash(
    sliced().filter(({ state, kinds, failingFlush }) =>
      state === "mapped" && kinds.length === 2 && failingFlush === undefined && beside.includes(kinds[1]!)
    ),
  );
});

function commits({ kinds }: Scenario): boolean {
  return kinds.some((kind) => kind === "flush" || kind === "FUA write" || kind === "snapshot");
}

for (const state of states) {
  Deno.test(`every triple of reads, writes and discards on one ${state} block stands every schedule`, () => {
    let schedules = 0;
    for (const scenario of triples(state).filter((scenario) => !commits(scenario))) {
      const { counts, problem, schedule } = explore(scenario, 4000, undefined);
      assertEquals(problem, undefined, `${nameOf(scenario)}\n${schedule.join("\n")}`);
      assert(counts.isComplete && counts.cutShort === 0, nameOf(scenario));
      schedules += counts.schedules;
    }
    console.log(`${schedules} schedules`);
    assert(schedules > 500, "the search has become small");
  });
}
