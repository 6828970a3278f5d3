/**
 * That what the search leaves out is nothing: schedules drawn at random, without any reduction, come to no end that it
 * has not seen. An independence that is claimed wrongly, or a race that is overlooked, shows here.
 */
import { assert, assertEquals } from "@std/assert";
import { soakTest } from "../../support/server.ts";
import { Random } from "../../support/world.ts";
import { checkEnd } from "./oracle.ts";
import { HeldPool } from "./held_pool.ts";
import { nameOf, type Scenario } from "./scenario.ts";
import { runAnySchedule } from "./execution.ts";
import { Search } from "./search.ts";

/** What can be told apart at the end: answers, what reads and snapshots show, and what the volume holds. */
function endOf(pool: HeldPool): string {
  const answers = pool.ops.map((op) => `${op.status} ${op.kind === "read" ? hash(op.data) : ""}`);
  const found = checkEnd(pool);
  if (typeof found === "string") throw new Error(found);
  const volumes = [...found].map(([name, content]) => `${name} ${hash(new Uint8Array(content.buffer))}`);
  return [...answers, ...volumes].join(", ");
}

function hash(bytes: Uint8Array): number {
  let value = 0;
  for (const byte of bytes) value = (Math.imul(value, 31) + byte) | 0;
  return value;
}

const one = { layout: "one block", dataBlocks: 4 } as const;
const scenarios: readonly Scenario[] = [
  { ...one, state: "unmapped", kinds: ["partial write", "covering write"] },
  { ...one, state: "mapped", kinds: ["read", "covering write"] },
  { ...one, state: "mapped", kinds: ["discard", "partial write"], dataBlocks: 1 },
  { ...one, state: "shared", kinds: ["partial write", "partial write"] },
  { ...one, state: "shared", kinds: ["partial write", "snapshot"] },
  { ...one, state: "shared", kinds: ["read", "discard", "covering write"] },
  { ...one, state: "shared", kinds: ["rollback", "partial write"] },
  { ...one, state: "mapped", kinds: ["clone", "clone's write"] },
  { ...one, state: "mapped", kinds: ["two snapshots", "FUA write"], perSlice: 1 },
  { ...one, state: "mapped", kinds: ["discard", "covering write"], layout: "apart", dataBlocks: 1 },
  { ...one, state: "unmapped", kinds: ["read", "write-zeroes", "partial write"] },
  {
    ...one,
    state: "shared",
    kinds: ["snapshot", "snapshot"],
    failingFlush: { device: "metadata", ordinal: 1 },
  },
];

/** With a read beside the write that needs the block of the discard: 29,170 schedules, some two minutes. */
const long: Scenario = {
  ...one,
  state: "mapped",
  kinds: ["read", "discard", "covering write"],
  layout: "apart",
  dataBlocks: 1,
};

function compare(scenario: Scenario, schedulesMax: number): Deno.TestDefinition {
  const name = `the search has seen what random schedules show: ${nameOf(scenario)}`;
  const fn = () => {
    const seen = new Set<string>();
    const search = new Search(() => new HeldPool(scenario));
    search.findProblem(schedulesMax, (run) => {
      seen.add(endOf(run as HeldPool));
      return undefined;
    });
    assert(search.counts.isComplete);
    const random = new Random(17);
    const drawn = new Set<string>();
    for (let count = 0; count < 150; count += 1) {
      const pool = new HeldPool(scenario);
      runAnySchedule(pool, (below) => random.below(below));
      drawn.add(endOf(pool));
    }
    assertEquals([...drawn].filter((end) => !seen.has(end)), []);
  };
  return { name, fn };
}

/** With batches, beside a discard and beside each other. */
const inBatches: readonly Scenario[] = [
  { ...one, state: "mapped", kinds: ["discard", "read", "covering write"], together: 2 },
  { ...one, state: "shared", kinds: ["read", "partial write"], layout: "two blocks", together: 2 },
];

for (const scenario of scenarios) Deno.test(compare(scenario, 20_000));
for (const scenario of inBatches) soakTest(compare(scenario, 20_000));
soakTest(compare(long, 40_000));
