/** `deno task bench:picture FILE`: draws what `deno task bench --json` has measured as one SVG, docs/bench.svg. */
import { UsageError, UserError } from "../../storage/base/errors.ts";
import { type Grammar, type Options, runProgram } from "../support/command_options.ts";
import type { LeanOutcome, LeanResult } from "./lean_measure.ts";
import { bestPeer, ratioToBest } from "./lean_table.ts";

/** What of the bench's JSON is drawn. */
export interface Measured {
  readonly facts: readonly string[];
  /** The machine's load before the bench began: above 1 its cores had other work. */
  readonly load: number;
  readonly effort: { readonly rounds: number; readonly seconds: number };
  readonly lean: readonly LeanResult[];
}

const grammar: Grammar = {
  usage: `usage: deno task bench:picture FILE [OPTION...]

Draws the lean client's rows of FILE, which deno task bench --json has printed, as ratios to the best peer.

  --out PATH         the picture (docs/bench.svg)`,
  flags: [],
  values: ["out"],
  takesWords: true,
};

// Pixels.
const width = 880;
const plotLeft = 250;
const plotRight = 640;
const rowHeight = 22;
const headHeight = 92;
const footHeight = 92;
/** The ends of the axis as powers of two, unless all lies closer. */
const exponentMin = -5;
const exponentMax = 5;

/** Colours of both kinds of screens; the picture has a background of its own, so it can be read on any page. */
const style = `
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 }
  .ratio { font-weight: 600 }
  .small { font-size: 11px; fill: #59636e }
  .busy { font-size: 11px; font-weight: 600 }
  .page { fill: #ffffff }
  .grid { stroke: #d1d9e0 }
  .one { stroke: #1f2328; stroke-width: 1.5 }
  .ahead { fill: #1a6fc4 }
  .behind { fill: #c2570c }
  .peer { fill: #818b98; stroke: #ffffff }
  .other { fill: none; stroke: #1f2328; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .small { fill: #9198a1 }
    .page { fill: #0d1117 }
    .grid { stroke: #30363d }
    .one { stroke: #e6edf3 }
    .ahead { fill: #58a6ff }
    .behind { fill: #f0883e }
    .peer { stroke: #0d1117 }
    .other { stroke: #e6edf3 }
  }`;

interface Bar {
  readonly name: string;
  readonly ratio: number;
  readonly best: string;
  readonly others: readonly { readonly name: string; readonly ratio: number }[];
}

/** The load from which a run says little. */
const loadMax = 1;

function busyText(load: number): string {
  return `The machine had other work when this was measured (load ${
    load.toFixed(1)
  }): these ratios say little.`;
}

/** Whether it is ours in another form: from another checkout, or with other options. */
function isOther(server: string): boolean {
  return server !== "ours" && server.startsWith("ours");
}

/** A row's bar; undefined where ours or every peer was left out. */
function barOf(result: LeanResult): Bar | undefined {
  const ours = result.outcomes.find(({ server }) => server === "ours");
  const best = bestPeer(result);
  if (ours === undefined || best === undefined) return undefined;
  const isShown = (outcome: LeanOutcome) => outcome.isPeer || isOther(outcome.server);
  const others = result.outcomes.filter(isShown)
    .map((outcome) => ({ name: outcome.server, ratio: ratioToBest(result, outcome)! }));
  return { name: result.row, ratio: ratioToBest(result, ours)!, best: best.server, others };
}

/** The axis: a logarithm, as half as much and twice as much are equally far from 1. */
class Axis {
  readonly #low: number;
  readonly #high: number;

  constructor(ratios: readonly number[]) {
    const exponents = ratios.map(Math.log2);
    this.#low = Math.max(exponentMin, Math.min(-1, Math.floor(Math.min(...exponents))));
    this.#high = Math.min(exponentMax, Math.max(1, Math.ceil(Math.max(...exponents))));
  }

  get ticks(): number[] {
    return Array.from({ length: this.#high - this.#low + 1 }, (_, at) => 2 ** (this.#low + at));
  }

  /** What lies outside is drawn at the end. */
  x(ratio: number): number {
    const exponent = Math.min(this.#high, Math.max(this.#low, Math.log2(ratio)));
    const share = (exponent - this.#low) / (this.#high - this.#low);
    return Math.round((plotLeft + share * (plotRight - plotLeft)) * 10) / 10;
  }
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll(
    '"',
    "&quot;",
  );
}

const label = (x: number, y: number, text: string, more = "") =>
  `<text x="${x}" y="${y}"${more}>${escaped(text)}</text>`;
const small = ' class="small"';
const tickText = (ratio: number) => ratio >= 1 ? String(ratio) : `1/${1 / ratio}`;

function rowOf({ name, ratio, best, others }: Bar, y: number, axis: Axis): string[] {
  const middle = y + rowHeight / 2;
  const [one, end] = [axis.x(1), axis.x(ratio)];
  const marks = others.map((other) => {
    const isRing = isOther(other.name);
    const title = `<title>${escaped(other.name)} ${other.ratio.toFixed(2)}</title>`;
    const at = `cx="${axis.x(other.ratio)}" cy="${middle}"`;
    return `<circle class="${isRing ? "other" : "peer"}" ${at} r="${isRing ? 5 : 3.5}">${title}</circle>`;
  });
  const left = Math.min(one, end);
  const barWidth = Math.max(1, Math.round(Math.abs(end - one) * 10) / 10);
  const kind = ratio >= 1 ? "ahead" : "behind";
  return [
    label(plotLeft - 14, middle + 4, name, ' text-anchor="end"'),
    `<rect class="${kind}" x="${left}" y="${middle - 6}" width="${barWidth}" height="12" rx="2"/>`,
    ...marks,
    label(plotRight + 14, middle + 4, `${ratio.toFixed(2)}`, ' class="ratio"'),
    label(plotRight + 62, middle + 4, `of ${best}`, small),
  ];
}

function gridOf(axis: Axis, bottom: number): string[] {
  return axis.ticks.flatMap((tick) => {
    const x = axis.x(tick);
    const kind = tick === 1 ? "one" : "grid";
    return [
      `<line class="${kind}" x1="${x}" x2="${x}" y1="${headHeight}" y2="${bottom}"/>`,
      label(x, bottom + 16, tickText(tick), ' class="small" text-anchor="middle"'),
    ];
  });
}

/** The picture. Throws a UserError where nothing of ours can be compared with a peer. */
export function pictureOf({ facts, load, effort, lean }: Measured): string {
  const bars = lean.map(barOf).filter((bar) => bar !== undefined);
  if (bars.length === 0) {
    throw new UserError('No row has "ours" and a peer; run deno task bench --json with both.');
  }
  const axis = new Axis(bars.flatMap(({ ratio, others }) => [ratio, ...others.map((other) => other.ratio)]));
  const bottom = headHeight + bars.length * rowHeight;
  const height = bottom + footHeight;
  const rings = new Set(bars.flatMap(({ others }) => others.map(({ name }) => name)).filter(isOther));
  const ringText = rings.size === 0 ? "" : ` Rings: ${[...rings].join(", ")}.`;
  const marks = `Dots: the peers.${ringText} Above 1 is better, also in memory and time.`;
  const rounds = effort.rounds === 1 ? "One round" : `Medians of ${effort.rounds} rounds`;
  const run = `${rounds} of ${effort.seconds} s, all servers in turns.`;
  const [commit = "commit unknown", machine = ""] = facts;
  const lines = [
    `<rect class="page" width="${width}" height="${height}"/>`,
    label(20, 30, "gossamer beside other NBD servers", ' class="title"'),
    label(20, 52, "Bars: ours as a ratio to the best peer of the same run. 1 is the best peer.", small),
    label(20, 70, marks, small),
    ...gridOf(axis, bottom),
    ...bars.flatMap((bar, at) => rowOf(bar, headHeight + at * rowHeight, axis)),
    label(
      20,
      bottom + 40,
      `${commit}. ${run} tests/bench/README.md says what each row is.`,
      ' class="small"',
    ),
    label(20, bottom + 58, machine, small),
    ...load > loadMax ? [label(20, bottom + 76, busyText(load), ' class="busy"')] : [],
  ];
  const size = `width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"`;
  const title = "<title>gossamer beside other NBD servers, as ratios to the best of them</title>";
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} role="img">\n${title}\n<style>${style}\n</style>\n` +
    `${lines.join("\n")}\n</svg>\n`;
}

/** Takes a file of the bench apart. Throws a UserError for what is no such file. */
export function measuredOf(text: string, name: string): Measured {
  const unfit = new UserError(`${name} is not what deno task bench --json prints.`);
  let found: Partial<Measured> | null;
  try {
    found = JSON.parse(text);
  } catch {
    throw unfit;
  }
  const { facts, load, effort, lean } = found ?? {};
  if (!Array.isArray(facts) || !Array.isArray(lean) || effort === undefined || load === undefined) {
    throw unfit;
  }
  return { facts, load, effort, lean };
}

async function main(options: Options): Promise<void> {
  const [path, ...more] = options.words;
  if (path === undefined || more.length > 0) {
    throw new UsageError("Give one file; deno task bench --json prints what belongs into it.");
  }
  const text = await Deno.readTextFile(path).catch((error) => {
    throw new UserError(`Cannot read ${path}: ${error.message}`);
  });
  const out = options.text("out") ?? new URL("../../docs/bench.svg", import.meta.url).pathname;
  await Deno.writeTextFile(out, pictureOf(measuredOf(text, path)));
  console.log(`${out} is drawn.`);
}

if (import.meta.main) await runProgram(grammar, main);
