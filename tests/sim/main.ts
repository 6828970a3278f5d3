/**
 * The simulator's command line. It needs no permission.
 *
 *   deno task sim                 the fixed set of seeds
 *   deno task sim --seed N        one run again, made smaller, with its messages if it fails
 *   deno task sim --crashes N     new seeds until there were so many crashes
 *   deno task sim --soak 10m      new seeds for so long (s, m, h)
 *   ... --from N                  the first of the new seeds
 */
import { replay } from "./replay.ts";
import { fixedSeeds } from "./seeds.ts";
import { type RunResult, World } from "./world.ts";

interface Options {
  readonly seed?: number;
  readonly crashes?: number;
  readonly soakMs?: number;
  readonly from: number;
  readonly commit: string;
}

const unitsMs: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000 };

function parseOptions(args: readonly string[]): Options | string {
  const values = new Map<string, string>();
  for (let at = 0; at < args.length; at += 2) {
    const name = args[at]!;
    const value = args[at + 1];
    if (!["--seed", "--crashes", "--soak", "--from", "--commit"].includes(name) || value === undefined) {
      return `unknown or incomplete option ${name}`;
    }
    values.set(name, value);
  }
  const soak = /^(\d+)([smh])$/.exec(values.get("--soak") ?? "0s");
  const numbers = ["--seed", "--crashes", "--from"].map((name) => values.get(name));
  if (soak === null || numbers.some((value) => value !== undefined && !/^\d+$/.test(value))) {
    return "seeds and crashes are numbers, and a time is like 10m";
  }
  const number = (name: string) => Number(values.get(name));
  return {
    ...(values.has("--seed") ? { seed: number("--seed") } : {}),
    ...(values.has("--crashes") ? { crashes: number("--crashes") } : {}),
    ...(values.has("--soak") ? { soakMs: Number(soak[1]) * unitsMs[soak[2]!]! } : {}),
    from: values.has("--from") ? number("--from") : 1,
    commit: values.get("--commit") ?? "unknown",
  };
}

/** Seeds without end. */
function* seedsFrom(first: number): Generator<number> {
  for (let seed = first;; seed += 1) yield seed;
}

/** Runs the seeds until it is enough; false if one fails. */
function runMany(seeds: Iterable<number>, options: Options): boolean {
  const begunMs = performance.now();
  let [crashes, powerCuts, replays, schedules, answers, last] = [0, 0, 0, 0, 0, 0];
  let failed: RunResult | undefined;
  for (const seed of seeds) {
    const result = new World(seed).run();
    last = seed;
    schedules += 1;
    crashes += result.crashes;
    powerCuts += result.powerCuts;
    replays += result.replays;
    answers += result.answers;
    if (result.violation !== undefined) {
      failed = result;
      break;
    }
    if (crashes >= (options.crashes ?? Infinity)) break;
    if (performance.now() - begunMs >= (options.soakMs ?? Infinity)) break;
  }
  const seconds = (performance.now() - begunMs) / 1000;
  if (failed !== undefined) report(failed, options.commit);
  console.log(
    `${powerCuts} power cuts and ${
      crashes - powerCuts
    } kills, ${replays} replays, ${answers} requests and commands answered, in ` +
      `${seconds.toFixed(0)} s: ${(crashes / seconds).toFixed(0)} crashes a second`,
  );
  const violations = failed === undefined ? 0 : 1;
  console.log(`${crashes} crashes, ${schedules} schedules, ${violations} violations, seed ${last}`);
  return failed === undefined;
}

function report(result: RunResult, commit: string): void {
  console.log(`seed ${result.seed}, commit ${commit}: ${result.violation!.split("\n")[0]}`);
  console.log(`  again: deno task sim --seed ${result.seed}`);
}

function runOne(seed: number, commit: string): boolean {
  const result = new World(seed).run();
  if (result.violation === undefined) {
    console.log(`${result.crashes} crashes, 1 schedules, 0 violations, seed ${seed}`);
    return true;
  }
  report(result, commit);
  console.log(replay(result));
  return false;
}

function main(): boolean {
  const options = parseOptions(Deno.args);
  if (typeof options === "string") {
    console.error(`sim: ${options}`);
    return false;
  }
  if (options.seed !== undefined) return runOne(options.seed, options.commit);
  const isBounded = options.crashes !== undefined || options.soakMs !== undefined;
  return runMany(isBounded ? seedsFrom(options.from) : fixedSeeds(), options);
}

if (import.meta.main) Deno.exit(main() ? 0 : 1);
