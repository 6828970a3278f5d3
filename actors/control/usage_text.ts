/** The help of the command line, from the tables of verbs and options. */
import { connectionsMax } from "../limits.ts";
import { type OptionName, optionNames, optionTable } from "./verb_options.ts";
import { optionsOf, type Verb, verbs, verbTable, wordsOf } from "./verbs.ts";

const lineWidth = 110;
/** Where the second column begins. */
const column = 28;

const head = `gossamer: thin volumes, snapshots and clones in one pool, served over NBD

usage: deno run -A cli.ts [--pool DIR] COMMAND
`;

const foot = `
ADDR is tcp:HOST:PORT or unix:PATH. Without any, serve takes the listening sockets that it was started with
(LISTEN_FDS, as systemd sets it), else tcp:127.0.0.1:10809; nbd.sock in the pool always; at most ${connectionsMax} clients.
Sizes are like 512, 10G, 1.5GiB (binary) or 10GB (decimal).
The pool is --pool, else $GOSSAMER_POOL, else ./pool.`;

/** Options of most verbs: their lines stand below, and the verbs' own lines are shorter without them. */
const common: readonly OptionName[] = ["timeout", "lock-wait"];

/** The whole help, without a newline at its end. */
export function usageText(): string {
  const options = optionNames.map((name) => row(writtenOption(name), optionTable[name].help));
  return [head, ...verbs.map(verbLines), "", ...options, foot].join("\n");
}

function verbLines(verb: Verb): string {
  const { summary, required = [] } = verbTable[verb];
  const options = optionsOf(verb).filter((name) => !common.includes(name)).map((name) =>
    required.includes(name) ? writtenOption(name) : bracketed(name)
  );
  return row([verb, ...wordsOf(verb), ...options].join(" "), summary);
}

/** `[-n]` or `[--listen ADDR]...`. */
function bracketed(name: OptionName): string {
  const { repeats, letter } = optionTable[name];
  const written = letter === undefined ? writtenOption(name) : `-${letter}`;
  return `[${written}]${repeats ? "..." : ""}`;
}

/** `-n, --dry-run` or `--listen ADDR`. */
function writtenOption(name: OptionName): string {
  const { value, letter } = optionTable[name];
  return `${letter === undefined ? "" : `-${letter}, `}--${name}${value === undefined ? "" : ` ${value}`}`;
}

/** Two columns; the second begins on a line of its own where the first is too long for it. */
function row(left: string, right: string): string {
  const first = folded(`  ${left}`);
  return first.length < column ? first.padEnd(column) + right : `${first}\n${" ".repeat(column)}${right}`;
}

/** Lines of at most {@linkcode lineWidth}, broken in front of an option. */
function folded(text: string): string {
  let line = "";
  const lines: string[] = [];
  for (const part of text.split(/ (?=\[-)/)) {
    if (line !== "" && line.length + 1 + part.length > lineWidth) {
      lines.push(line);
      line = `        ${part}`;
    } else line = line === "" ? part : `${line} ${part}`;
  }
  return [...lines, line].join("\n");
}
