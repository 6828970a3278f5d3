/**
 * `deno task bench`: ours and every installed peer under the same fio jobs, in turns. See README.md beside this file.
 *
 *   --json             all samples as JSON on stdout; tables go to stderr then
 *   --rounds N         runs of each workload on each server (3)
 *   --seconds S        seconds of one run (1)
 *   --size S           bytes of each server's image (512M)
 *   --only A,B         only workloads whose name contains one of these
 *   --servers A,B      only servers that have one of these as their name, or in it
 *   --list             names the workloads and servers
 */
import { parseArgs } from "@std/cli/parse-args";
import { parseSize } from "../../mod.ts";
import { type HoldResult, holdTable, measureHold } from "./hold.ts";
import { type Effort, measureState, type Result, tableOf } from "./measure.ts";
import { ourKinds } from "./ours.ts";
import { peerKinds, versions } from "./peers.ts";
import { Place } from "./place.ts";
import { machine } from "./proc.ts";
import type { SubjectKind } from "./subject.ts";
import { type Workload, workloads } from "./workloads.ts";

const holdName = "hold by snapshots and clones";

interface Options {
  readonly json: boolean;
  readonly list: boolean;
  readonly effort: Effort;
  readonly only: readonly string[];
  readonly servers: readonly string[];
}

function parseOptions(args: readonly string[]): Options {
  const flags = parseArgs(args, {
    boolean: ["json", "list"],
    string: ["rounds", "seconds", "size", "only", "servers"],
    unknown: (name: string) => {
      throw new Error(`There is no option ${name}; the head of tests/bench/main.ts has them all.`);
    },
  }) as Record<string, string | boolean | undefined>;
  const number = (name: string, otherwise: number) => {
    const value = Number(flags[name] ?? otherwise);
    if (!(value > 0)) throw new Error(`--${name} takes a positive number.`);
    return value;
  };
  const words = (name: string) => String(flags[name] ?? "").split(",").filter((word) => word !== "");
  return {
    json: flags.json === true,
    list: flags.list === true,
    effort: {
      rounds: number("rounds", 3),
      seconds: number("seconds", 1),
      imageBytes: parseSize(String(flags.size ?? "512M")),
    },
    only: words("only"),
    servers: words("servers"),
  };
}

function isChosen(name: string, parts: readonly string[]): boolean {
  return parts.length === 0 || parts.some((part) => name.includes(part));
}

/** Servers by part of their name; a whole name means that one alone, for one is called `ours`, another `ours plain`. */
function chosenKinds(parts: readonly string[]): SubjectKind[] {
  const kinds = [...ourKinds, ...peerKinds];
  const isWhole = (part: string) => kinds.some(({ name }) => name === part);
  return kinds.filter(({ name }) =>
    parts.length === 0 || parts.some((part) => isWhole(part) ? name === part : name.includes(part))
  );
}

/** Workloads with the same state of the image, in the order of the list. */
function byState(chosen: readonly Workload[]): Workload[][] {
  return [...Map.groupBy(chosen, ({ image }) => JSON.stringify(image)).values()];
}

/** Parts of names that nothing has. */
function unknownParts({ only, servers }: Options): string[] {
  const names = [...workloads, { name: holdName }].map(({ name }) => name);
  const kinds = [...ourKinds, ...peerKinds].map(({ name }) => name);
  const isNone = (all: readonly string[]) => (part: string) => !all.some((name) => name.includes(part));
  return [...only.filter(isNone(names)), ...servers.filter(isNone(kinds))];
}

async function main(): Promise<void> {
  const options = parseOptions(Deno.args);
  const unknown = unknownParts(options);
  if (unknown.length > 0) {
    throw new Error(
      `Nothing is called "${unknown.join('", "')}"; deno task bench --list names all there is.`,
    );
  }
  const say = options.json ? console.error : console.log;
  const all = chosenKinds(options.servers);
  if (options.list) {
    for (const { name } of workloads) say(name);
    say(`${holdName}\n\nservers: ${all.map(({ name }) => name).join(", ")}`);
    return;
  }
  await using place = await Place.make();
  const begin = performance.now();
  const facts = [machine(place.folder), ...await versions()];
  const skipped = all.filter((kind) => kind.missing() !== undefined)
    .map((kind) => `${kind.name}: skipped, ${kind.missing()} is not installed`);
  const { rounds, seconds, imageBytes } = options.effort;
  say([
    ...facts,
    ...skipped,
    `${rounds} rounds of ${seconds} s, images of ${imageBytes / 2 ** 20} MiB, servers in turns\n`,
  ].join("\n"));
  const kinds = all.filter((kind) => kind.missing() === undefined);
  const results = await measureAll(place, kinds, options, say);
  const holds = await holdsOf(place, kinds, options);
  if (holds.length > 0) say(`${holdTable(holds)}\n`);
  say(`took ${Math.round((performance.now() - begin) / 1000)} s`);
  if (options.json) console.log(JSON.stringify({ facts, skipped, effort: options.effort, results, holds }));
}

async function measureAll(
  place: Place,
  kinds: readonly SubjectKind[],
  options: Options,
  say: (text: string) => void,
): Promise<Result[]> {
  const results: Result[] = [];
  for (const chosen of byState(workloads.filter(({ name }) => isChosen(name, options.only)))) {
    await measureState(place, chosen[0]!.image, chosen, kinds, options.effort, (result) => {
      results.push(result);
      say(`${tableOf(result)}\n`);
    });
  }
  return results;
}

async function holdsOf(place: Place, kinds: readonly SubjectKind[], options: Options): Promise<HoldResult[]> {
  if (!isChosen(holdName, options.only) || !kinds.some(({ name }) => name === "ours")) return [];
  return await measureHold(place, options.effort.imageBytes, 3 * options.effort.seconds);
}

try {
  await main();
} catch (error) {
  // What is wrong with the options or the machine is a sentence; all else is a defect, with its stack.
  if (!(error instanceof Error) || error.constructor !== Error) throw error;
  console.error(error.message);
  Deno.exit(1);
}
