/** `deno task bench`: ours and every installed peer under the same jobs, in turns. See README.md beside this file. */
import fs from "node:fs";
import { UsageError, UserError } from "../../storage/base/errors.ts";
import { type Grammar, type Options as Words, runProgram } from "../support/command_options.ts";
import { formatSize, parseSize } from "../../mod.ts";
import { requireFio } from "./fio.ts";
import { type HoldResult, holdTable, measureHold } from "./hold.ts";
import { type LeanResult, measureLean, roomOf } from "./lean_measure.ts";
import { leanRows } from "./lean_rows.ts";
import { type LeanKind, leanKinds, oursFrom } from "./lean_servers.ts";
import { beforeName, leanSummaryOf, leanTableOf } from "./lean_table.ts";
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
  readonly rows: readonly string[];
  readonly servers: readonly string[];
  /** The checkout whose server takes part as "ours before". */
  readonly before: string | undefined;
}

const grammar: Grammar = {
  usage: `usage: deno task bench [OPTION...]

Runs the same jobs of fio and of the lean client against ours and every installed peer, in turns, and prints a
table for each.

  --json             all samples as JSON on stdout; tables go to stderr then
  --rows A,B         only rows whose name contains one of these
  --rounds N         runs of each row on each server (3)
  --seconds S        seconds of one run (1)
  --size S           bytes of each server's image (512M)
  --servers A,B      only servers that have one of these as their name, or in it
  --before DIR       another checkout, whose server takes part in the lean client's rows as "ours before"
  --list             names the rows and servers, those chosen, and ends`,
  flags: ["json", "list"],
  values: ["rows", "rounds", "seconds", "size", "servers", "before"],
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
    rows: words.parts("rows"),
    servers: words.parts("servers"),
    before: words.text("before"),
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
function chosenOf<Kind extends { readonly name: string }>(
  kinds: readonly Kind[],
  parts: readonly string[],
): Kind[] {
  const isWhole = (part: string) => kinds.some(({ name }) => name === part);
  return kinds.filter(({ name }) =>
    parts.length === 0 || parts.some((part) => isWhole(part) ? name === part : name.includes(part))
  );
}

const fioKinds: readonly SubjectKind[] = [...ourKinds, ...peerKinds];

/** The servers of the lean client's rows, with that of another checkout if one was named. */
function leanKindsOf({ before }: Pick<Options, "before">): LeanKind[] {
  const [ours, ...others] = leanKinds;
  return before === undefined
    ? [...leanKinds]
    : [ours!, oursFrom(beforeName, `${Deno.realPathSync(before)}/cli.ts`), ...others];
}

/** Workloads with the same state of the image, in the order of the list. */
function byState(chosen: readonly Workload[]): Workload[][] {
  return [...Map.groupBy(chosen, ({ image }) => JSON.stringify(image)).values()];
}

/** Parts of names that nothing has. */
function unknownParts(options: Options): string[] {
  const kinds = [...fioKinds, ...leanKindsOf(options)].map(({ name }) => name);
  const isNone = (all: readonly string[]) => (part: string) => !all.some((name) => name.includes(part));
  return [...options.rows.filter(isNone(rowNames)), ...options.servers.filter(isNone(kinds))];
}

const rowNames: readonly string[] = [...workloads, { name: holdName }, ...leanRows].map(({ name }) => name);

/** What was chosen, by name. */
function listOf(options: Options): string {
  const names = rowNames.filter((name) => isChosen(name, options.rows));
  const kinds = [...fioKinds, ...leanKindsOf(options)].map((kind) => ({ name: kind.name }));
  const servers = new Set(chosenOf(kinds, options.servers).map(({ name }) => name));
  return `${names.join("\n")}\n\nservers: ${[...servers].join(", ")}`;
}

async function main(words: Words): Promise<void> {
  const options = optionsOf(words);
  if (options.list) return console.log(listOf(options));
  const say = options.json ? console.error : console.log;
  const ofFio = workloads.filter(({ name }) => isChosen(name, options.rows));
  const isHold = isChosen(holdName, options.rows);
  const ofLean = leanRows.filter(({ name }) => isChosen(name, options.rows));
  if (ofFio.length > 0 || isHold) requireFio();
  await using place = await Place.make();
  const begin = performance.now();
  const [load] = Deno.loadavg();
  const facts = [`commit ${await commit()}`, machine(place.folder), ...await versions()];
  const kinds = chosenOf(fioKinds, options.servers).filter((kind) => kind.missing() === undefined);
  const lean = chosenOf(leanKindsOf(options), options.servers).filter((kind) => kind.missing() === undefined);
  const skipped = skippedOf(options);
  const { rounds, seconds, imageBytes } = options.effort;
  const effort = `${rounds} rounds of ${seconds} s, images of ${
    imageBytes / 2 ** 20
  } MiB, servers in turns\n`;
  say([...facts, ...skipped, effort].join("\n"));
  if (kinds.length + lean.length === 0) {
    throw new UserError("None of the servers that were chosen is installed: nothing to measure.");
  }
  requireRoom(
    place.folder,
    Math.max(
      ofFio.length > 0 ? kinds.length * imageBytes : 0,
      ofFio.length > 0 ? imageBytesOf({ kind: "fresh" }, imageBytes) : 0,
      ofLean.length > 0 ? roomOf(lean.length, imageBytes) : 0,
    ),
  );
  const results = await measureAll(place, ofFio, kinds, options, say);
  const summary = summaryOf(results);
  if (summary !== undefined) say(`${summary}\n`);
  const holds = isHold ? await holdsOf(place, kinds, options) : [];
  if (holds.length > 0) say(`${holdTable(holds)}\n`);
  const leanResults: LeanResult[] = [];
  await measureLean(place, ofLean, lean, options.effort, {
    report: (result) => {
      leanResults.push(result);
      say(`${leanTableOf(result)}\n`);
    },
    skip: (sentence) => {
      skipped.push(sentence);
      say(`${sentence}\n`);
    },
  });
  const leanSummary = leanSummaryOf(leanResults);
  if (leanSummary !== undefined) say(`${leanSummary}\n`);
  say(`took ${Math.round((performance.now() - begin) / 1000)} s`);
  const all = { facts, load, skipped, effort: options.effort, results, holds, lean: leanResults };
  if (options.json) console.log(JSON.stringify(all));
}

/** The commit that is measured, with a plus sign where the tree differs from it. */
async function commit(): Promise<string> {
  const cwd = new URL(".", import.meta.url).pathname;
  const git = async (...args: string[]) => {
    const output = await new Deno.Command("git", { args, cwd }).output().catch(() => undefined);
    return output?.success === true ? new TextDecoder().decode(output.stdout).trim() : undefined;
  };
  const head = await git("rev-parse", "--short", "HEAD");
  return head === undefined ? "unknown" : `${head}${await git("status", "--porcelain") === "" ? "" : "+"}`;
}

/** Servers that were chosen and are not installed, a sentence each. */
function skippedOf(options: Options): string[] {
  const kinds = [...chosenOf(fioKinds, options.servers), ...chosenOf(leanKindsOf(options), options.servers)];
  const sentences = kinds.map((kind) => [kind.name, kind.missing()] as const)
    .filter(([, missing]) => missing !== undefined)
    .map(([name, missing]) => `${name}: skipped, ${missing} is not installed`);
  return [...new Set(sentences)];
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
  all: readonly Workload[],
  kinds: readonly SubjectKind[],
  options: Options,
  say: (text: string) => void,
): Promise<Result[]> {
  const results: Result[] = [];
  for (const chosen of byState(all)) {
    await measureState(place, chosen[0]!.image, chosen, kinds, options.effort, (result) => {
      results.push(result);
      say(`${tableOf(result)}\n`);
    });
  }
  return results;
}

async function holdsOf(place: Place, kinds: readonly SubjectKind[], options: Options): Promise<HoldResult[]> {
  if (!kinds.some(({ name }) => name === "ours")) return [];
  return await measureHold(place, options.effort.imageBytes, 3 * options.effort.seconds);
}

await runProgram(grammar, main);
