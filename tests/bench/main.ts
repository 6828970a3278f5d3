/** `deno task bench`: ours and every installed peer under the same fio jobs, in turns. See README.md beside this file. */
import fs from "node:fs";
import { UsageError, UserError } from "../../storage/base/errors.ts";
import { type Grammar, type Options as Words, runProgram } from "../support/command_options.ts";
import { formatSize, parseSize } from "../../mod.ts";
import { requireFio } from "./fio.ts";
import { type HoldResult, holdTable, measureHold } from "./hold.ts";
import { type Effort, measureState, type Result, tableOf } from "./measure.ts";
import { ourKinds } from "./ours.ts";
import { peerKinds, versions } from "./peers.ts";
import { Place } from "./place.ts";
import { machine } from "./proc.ts";
import type { SubjectKind } from "./subject.ts";
import { summaryOf } from "./summary.ts";
import { imageBytesOf, type Workload, workloads } from "./workloads.ts";

const holdName = "hold by snapshots and clones";
/** Less than that is no image to measure with: sequential runs would go around in it many times a second. */
const imageBytesMin = 2 ** 24;

interface Options {
  readonly json: boolean;
  readonly list: boolean;
  readonly effort: Effort;
  readonly only: readonly string[];
  readonly servers: readonly string[];
}

const grammar: Grammar = {
  usage: `usage: deno task bench [OPTION...]

Runs the same fio jobs against ours and every installed peer, in turns, and prints a table for each.

  --json             all samples as JSON on stdout; tables go to stderr then
  --rounds N         runs of each workload on each server (3)
  --seconds S        seconds of one run (1)
  --size S           bytes of each server's image (512M)
  --only A,B         only workloads whose name contains one of these
  --servers A,B      only servers that have one of these as their name, or in it
  --list             names the workloads and servers, those chosen, and ends`,
  flags: ["json", "list"],
  values: ["rounds", "seconds", "size", "only", "servers"],
  takesWords: false,
};

function optionsOf(words: Words): Options {
  const imageBytes = parseSize(words.text("size") ?? "512M");
  if (imageBytes < imageBytesMin) throw new UsageError("--size takes 16M or more.");
  const options: Options = {
    json: words.has("json"),
    list: words.has("list"),
    effort: {
      rounds: words.count("rounds", 3, 1000),
      seconds: words.positive("seconds", 1, 3600),
      imageBytes,
    },
    only: words.parts("only"),
    servers: words.parts("servers"),
  };
  const unknown = unknownParts(options);
  if (unknown.length > 0) {
    throw new UsageError(
      `Nothing is called "${unknown.join('", "')}"; deno task bench --list names all there is.`,
    );
  }
  return options;
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

/** What was chosen, by name. */
function listOf(options: Options): string {
  const names = [...workloads.map(({ name }) => name), holdName].filter((name) =>
    isChosen(name, options.only)
  );
  return `${names.join("\n")}\n\nservers: ${chosenKinds(options.servers).map(({ name }) => name).join(", ")}`;
}

async function main(words: Words): Promise<void> {
  const options = optionsOf(words);
  if (options.list) return console.log(listOf(options));
  const say = options.json ? console.error : console.log;
  const all = chosenKinds(options.servers);
  requireFio();
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
  if (kinds.length === 0) {
    throw new UserError("None of the servers that were chosen is installed: nothing to measure.");
  }
  requireRoom(place.folder, Math.max(kinds.length * imageBytes, imageBytesOf({ kind: "fresh" }, imageBytes)));
  const results = await measureAll(place, kinds, options, say);
  const summary = summaryOf(results);
  if (summary !== undefined) say(`${summary}\n`);
  const holds = await holdsOf(place, kinds, options);
  if (holds.length > 0) say(`${holdTable(holds)}\n`);
  say(`took ${Math.round((performance.now() - begin) / 1000)} s`);
  if (options.json) console.log(JSON.stringify({ facts, skipped, effort: options.effort, results, holds }));
}

/** Throws a UserError if the folder's disk has not so many bytes left. */
function requireRoom(folder: string, bytes: number): void {
  const { bavail, bsize } = fs.statfsSync(folder);
  if (bavail * bsize >= bytes) return;
  throw new UserError(
    `The images take ${formatSize(bytes)}, and ${folder} has ${formatSize(bavail * bsize)} left. ` +
      "Give a smaller --size, or another folder in TMPDIR.",
  );
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

await runProgram(grammar, main);
