/** The help of the command line, from the tables of verbs and options. */
import { connectionsMax } from "../limits.ts";
import { type OptionName, optionNames, type OptionSpec, optionTable } from "./verb_options.ts";
import { optionsOf, verbs, verbTable, wordsOf } from "./verbs.ts";
import type { Verb } from "./verb_table.ts";

const lineWidth = 110;
/** Where the second column begins. */
const column = 28;

const program = "gossamer [--pool DIR]";

const head = `gossamer: thin volumes, snapshots and clones in one pool, served over NBD

usage: ${program} COMMAND
`;

/** What the help says below the options, and for which verbs. */
const notes: readonly { readonly text: string; readonly isAbout: (verb: Verb) => boolean }[] = [
  {
    text:
      `ADDR is tcp:HOST:PORT or unix:PATH. Without any, serve takes the listening sockets that it was started with
(LISTEN_FDS, as systemd sets it), else tcp:127.0.0.1:10809; nbd.sock in the pool always; at most ${connectionsMax} clients.`,
    isAbout: (verb) => optionsOf(verb).includes("listen"),
  },
  {
    text: "Sizes are like 512, 10G, 1.5GiB (binary) or 10GB (decimal); +10G is what is added.",
    isAbout: (verb) =>
      wordsOf(verb).some((label) => label.includes("SIZE")) ||
      optionsOf(verb).some((name) => /size$/.test(name)),
  },
  {
    text: "The pool is --pool, else $GOSSAMER_POOL, else ./pool.",
    isAbout: (verb) => verb !== "help" && verb !== "version",
  },
  {
    text: "Where gossamer is not installed, write `deno run -A cli.ts` in its place.",
    isAbout: () => true,
  },
];

/** Options of most verbs: their lines stand below, and the verbs' own lines are shorter without them. */
const common: readonly OptionName[] = ["timeout", "lock-wait"];

/** The help, without a newline at its end: the whole, or about one verb. */
export function usageText(verb?: Verb): string {
  if (verb !== undefined) return verbText(verb);
  const options = optionNames.flatMap((name) => [
    optionRow(name),
    ...verbs.filter((verb) => verbTable[verb].ownOptions?.[name] !== undefined).map((verb) =>
      optionRow(name, verb, `for ${verb}: `)
    ),
  ]);
  return [head, ...verbs.map(verbLines), "", ...options, "", ...notes.map(({ text }) => text)].join("\n");
}

/** The summary of a verb, its grammar, its options, the notes that concern it, and an example. */
function verbText(verb: Verb): string {
  const { summary, example } = verbTable[verb];
  const options = optionsOf(verb);
  const own = notes.filter(({ isAbout }) => isAbout(verb)).map(({ text }) => text);
  return [
    `${verb}: ${summary}`,
    "",
    folded(`usage: ${program} ${grammarOf(verb, options)}`),
    ...options.length === 0 ? [] : ["", ...options.map((name) => optionRow(name, verb))],
    ...own.length === 0 ? [] : ["", ...own],
    "",
    `example: gossamer ${example}`,
  ].join("\n");
}

function optionRow(name: OptionName, verb?: Verb, before = ""): string {
  return row(writtenOption(name, verb), before + optionOf(name, verb).help);
}

/** An option as a verb takes it; without a verb, as most do. */
export function optionOf(name: OptionName, verb?: Verb): OptionSpec {
  return { ...optionTable[name], ...(verb === undefined ? {} : verbTable[verb].ownOptions?.[name]) };
}

/** The verb with its words and these options of it: `rm NAME... [-n] [--force]`. */
export function grammarOf(verb: Verb, options: readonly OptionName[]): string {
  const { required = [], oneOf = [], ending } = verbTable[verb];
  const choice = oneOf.map((name) => writtenOption(name, verb)).join(" | ");
  const written = options.filter((name) => !oneOf.includes(name)).map((name) =>
    required.includes(name) ? writtenOption(name, verb) : bracketed(name, verb)
  );
  const words = [verb, ...wordsOf(verb), ...choice === "" ? [] : [`(${choice})`], ...written, ending ?? []];
  return words.flat().join(" ");
}

function verbLines(verb: Verb): string {
  const options = optionsOf(verb).filter((name) => !common.includes(name));
  return row(grammarOf(verb, options), verbTable[verb].summary);
}

/** `[-n]`, `[-o COLS]` or `[--listen ADDR]...`. */
function bracketed(name: OptionName, verb: Verb): string {
  const { repeats, letter, value } = optionOf(name, verb);
  const short = value === undefined ? `-${letter}` : `-${letter} ${value}`;
  const written = letter === undefined ? writtenOption(name, verb) : short;
  return `[${written}]${repeats ? "..." : ""}`;
}

/** `-n, --dry-run` or `--listen ADDR`, as a verb takes it. */
export function writtenOption(name: OptionName, verb?: Verb): string {
  const { letter, value } = optionOf(name, verb);
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
