/** The whole search, for the soak: prints a line for each case and a total, and exits with 1 at a problem. */
import { UsageError } from "../../../storage/base/errors.ts";
import { type Grammar, type Options, runProgram } from "../../support/command_options.ts";
import {
  clones,
  failures,
  fullIntents,
  growths,
  leavings,
  pairs,
  reuses,
  rollbacks,
  sliced,
  tight,
  triples,
  waitings,
  waitingsOfThree,
} from "./cases.ts";
import { batchFaults } from "./batch_faults.ts";
import { compareBatches, type Part } from "./compare.ts";
import type { Crashes } from "./crashes.ts";
import { explore, newCrashes } from "./explore.ts";
import { faults, findFault } from "./faults.ts";
import { intentFaults } from "./intent_faults.ts";
import { nameOf, type Scenario } from "./scenario.ts";

interface Group {
  readonly name: string;
  readonly scenarios: readonly Scenario[];
  readonly withCrashes: boolean;
}

const groups: readonly Group[] = [
  { name: "pairs on one block", scenarios: pairs("one block"), withCrashes: true },
  { name: "pairs on one block, no space", scenarios: pairs("one block").map(tight), withCrashes: true },
  { name: "pairs on two blocks", scenarios: pairs("two blocks"), withCrashes: true },
  { name: "pairs on two blocks, no space", scenarios: pairs("two blocks").map(tight), withCrashes: true },
  { name: "pairs on blocks apart", scenarios: pairs("apart"), withCrashes: true },
  { name: "pairs on blocks apart, no space", scenarios: pairs("apart").map(tight), withCrashes: true },
  { name: "pairs with a failing flush", scenarios: failures(), withCrashes: true },
  { name: "blocks used again", scenarios: reuses(), withCrashes: false },
  { name: "blocks left by others", scenarios: leavings(), withCrashes: true },
  { name: "writes that wait for space", scenarios: waitings(), withCrashes: true },
  { name: "three requests without space", scenarios: waitingsOfThree(), withCrashes: true },
  { name: "commands in slices", scenarios: sliced(), withCrashes: true },
  { name: "a full intent journal", scenarios: fullIntents(), withCrashes: true },
  { name: "rollbacks", scenarios: rollbacks(), withCrashes: true },
  { name: "clones", scenarios: clones(), withCrashes: true },
  { name: "growths", scenarios: growths(), withCrashes: true },
  { name: "growths, no space", scenarios: growths().map(tight), withCrashes: true },
  { name: "triples on one unmapped block", scenarios: triples("unmapped"), withCrashes: false },
  { name: "triples on one mapped block", scenarios: triples("mapped"), withCrashes: false },
  { name: "triples on one shared block", scenarios: triples("shared"), withCrashes: false },
];

interface Totals {
  schedules: number;
  crashes: number;
  problems: number;
  incomplete: number;
}

function runGroup(group: Group, schedulesMax: number, totals: Totals): void {
  const begunMs = performance.now();
  const crashes = group.withCrashes ? newCrashes() : undefined;
  const before = totals.schedules;
  for (const scenario of group.scenarios) {
    tell({ scenario, explored: explore(scenario, schedulesMax, crashes) }, totals);
  }
  compareGroup(group, schedulesMax, crashes, totals);
  const { points, outcomes, recoveries } = crashes?.counts ?? { points: 0, outcomes: 0, recoveries: 0 };
  totals.crashes += outcomes;
  const seconds = Math.round((performance.now() - begunMs) / 1000);
  console.log(
    `== ${group.name}: ${group.scenarios.length} cases, ${
      totals.schedules - before
    } schedules, ${outcomes} crashes at ` +
      `${points} points (${recoveries} different), ${seconds} s`,
  );
}

/** All that a group's clients see with larger batches, they could have seen with batches of one. */
function compareGroup(
  { name, scenarios }: Group,
  schedulesMax: number,
  crashes: Crashes | undefined,
  totals: Totals,
): void {
  const compared = scenarios.map((scenario) => {
    const result = compareBatches(scenario, schedulesMax, crashes);
    for (const part of result.parts) tell(part, totals);
    return result;
  }).filter(({ parts }) => parts.length > 0);
  if (compared.length === 0) return;
  const leftOut = compared.filter(({ parts }) => !parts[0]!.explored.counts.isComplete).length;
  const [alone, larger] = [
    sum(compared.map((one) => one.viewsAlone)),
    sum(compared.map((one) => one.viewsTogether)),
  ];
  console.log(
    `-- ${name}: ${compared.length} cases with batches of one and larger ones, clients see ${alone} and ${larger} things` +
      (leftOut === 0 ? "" : `; ${leftOut} cases not compared, as not all their schedules were run`),
  );
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

function tell({ scenario, explored }: Part, totals: Totals): void {
  const { counts, problem } = explored;
  totals.schedules += counts.schedules;
  if (!counts.isComplete) totals.incomplete += 1;
  const end = counts.isComplete ? "" : ", not all of them";
  console.log(`${nameOf(scenario)}: ${counts.schedules} schedules${end} (${counts.cutShort} cut short)`);
  if (problem === undefined) return;
  totals.problems += 1;
  console.log(`PROBLEM: ${problem}\n${explored.schedule.map((line) => `    ${line}`).join("\n")}`);
}

async function runFaults(totals: Totals): Promise<void> {
  for (const fault of [...faults, ...batchFaults, ...intentFaults]) {
    const { problem, schedule, counts } = await findFault(fault, 4000);
    if (problem === undefined) {
      totals.problems += 1;
      console.log(`NOT FOUND: ${fault.name}`);
      continue;
    }
    console.log(`fault "${fault.name}" found after ${counts.schedules} schedules: ${nameOf(fault.scenario)}`);
    console.log(`  ${problem}\n${schedule.map((line) => `    ${line}`).join("\n")}`);
  }
}

const faultsName = "faults";

const grammar: Grammar = {
  usage: `usage: deno task exhaustive [PART] [OPTION...]

Goes over the schedules of a few bios, and the crashes in them. All of it takes hours.
PART is a part of a group's name; the groups:

${[...groups.map(({ name }) => name), faultsName].map((name) => `  ${name}`).join("\n")}

  --max N            schedules of one case (100000)`,
  flags: [],
  values: ["max"],
  takesWords: true,
};

async function main(options: Options): Promise<void> {
  const wanted = options.words.join(" ");
  const chosen = groups.filter(({ name }) => name.includes(wanted));
  if (chosen.length === 0 && !faultsName.includes(wanted)) {
    throw new UsageError(`No group is called "${wanted}"; --help names them.`);
  }
  const schedulesMax = options.count("max", 100_000, 1_000_000_000);
  const totals: Totals = { schedules: 0, crashes: 0, problems: 0, incomplete: 0 };
  for (const group of chosen) runGroup(group, schedulesMax, totals);
  if (faultsName.includes(wanted)) await runFaults(totals);
  console.log(
    `${totals.schedules} schedules, ${totals.crashes} crashes, ${totals.problems} problems, ` +
      `${totals.incomplete} cases not finished`,
  );
  if (totals.problems > 0) Deno.exit(1);
}

await runProgram(grammar, main);
