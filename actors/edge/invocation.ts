/** A command line, taken apart by the table of verbs. */
import { parseArgs as untypedParseArgs } from "@std/cli/parse-args";
import { UsageError } from "../../storage/base/errors.ts";
import type { Command } from "../control/admin_command.ts";
import { usageText } from "../control/usage_text.ts";
import { optionNames, optionTable } from "../control/verb_options.ts";
import { commandOfWords, isCommandVerb, optionsOf, verbOf, verbTable, wordsOf } from "../control/verbs.ts";
import type { CommandVerb, Verb } from "../control/verb_table.ts";

/** What parseArgs answers; the packaged library comes without types. */
interface Arguments {
  readonly [option: string]: unknown;
  readonly _: string[];
}

const parseArgs = untypedParseArgs as (
  args: readonly string[],
  options: {
    readonly string: readonly string[];
    readonly boolean: readonly string[];
    readonly collect: readonly string[];
    readonly alias: Readonly<Record<string, string>>;
    readonly unknown: (name: string, key?: string) => boolean;
  },
) => Arguments;

/** A command line that follows the grammar. */
export interface Invocation {
  /** What is to be done. */
  readonly verb: Verb;
  /** The words behind the verb. */
  readonly words: readonly string[];
  /** The pool's directory; empty where no pool is meant. */
  readonly pool: string;
  /** By name: true, a text, or a list of texts. */
  readonly options: Readonly<Record<string, unknown>>;
}

const seeHelp = "Run with --help to see what there is.";
const valued = optionNames.filter((name) => optionTable[name].value !== undefined);
const flags = optionNames.filter((name) => optionTable[name].value === undefined);
const letters = optionNames.flatMap((name) => optionTable[name].letter ?? []);

/** Parses the arguments. Throws {@linkcode UsageError}. */
export function parseInvocation(args: readonly string[]): Invocation {
  const options = parseArgs(separated(args), {
    // "_" keeps the names as they are: 007 is a name, not 7.
    string: ["_", "pool", ...valued],
    boolean: [...flags, "help", "version"],
    collect: optionNames.filter((name) => optionTable[name].repeats),
    alias: {
      ...Object.fromEntries(letters.map((letter) => [letter, longFormOf(letter)])),
      h: "help",
    },
    unknown: (name, key) => {
      if (key === undefined) return true;
      if (/^-[\d.]/.test(name)) {
        throw new UsageError(`${name} is less than nothing. Give a positive number or size.`);
      }
      throw new UsageError(`There is no option ${name}. ${seeHelp}`);
    },
  });
  requireBareFlags(args);
  const [first, ...words] = options._;
  if (options.version === true) return { verb: "version", words: [], pool: "", options };
  if (options.help === true) return helpAbout(first === "help" ? words[0] : first, options);
  if (first === undefined) {
    throw new UsageError(args.length === 0 ? usageText() : `No command. ${seeHelp}`);
  }
  const verb = knownVerb(first);
  requireOptions(verb, options);
  requireWords(verb, words.length);
  if (verb === "help") return helpAbout(words[0], options);
  return { verb, words, pool: verb === "version" ? "" : poolOf(options.pool), options };
}

/** `--no-NAME=VALUE` as two arguments: as one, parseArgs takes it for the negation of an option NAME. */
function separated(args: readonly string[]): string[] {
  const wordsBegin = args.indexOf("--");
  return args.flatMap((arg, index) => {
    const [name = "", ...rest] = arg.split("=");
    const isOption = wordsBegin < 0 || index < wordsBegin;
    const isSplit = isOption && rest.length > 0 && name.startsWith("--no-") &&
      valued.some((option) => `--${option}` === name);
    return isSplit ? [name, rest.join("=")] : [arg];
  });
}

/** A flag with a value would count as given, or not, whatever the value says: `rm a -n=1` would remove. */
function requireBareFlags(args: readonly string[]): void {
  const wordsBegin = args.indexOf("--");
  for (const arg of wordsBegin < 0 ? args : args.slice(0, wordsBegin)) {
    const [, name, letter] = /^(?:--([^=]+)|-\w*(\w))=/.exec(arg) ?? [];
    const flag = name ?? (letter === undefined ? undefined : longFormOf(letter));
    if (flag === undefined || !flags.some((known) => known === flag)) continue;
    const written = arg.slice(0, arg.indexOf("="));
    throw new UsageError(`${written} takes no value. Write ${written} alone, or leave it out.`);
  }
}

function knownVerb(text: string): Verb {
  const verb = verbOf(text);
  if (verb === undefined) throw new UsageError(`There is no command "${text}". ${seeHelp}`);
  return verb;
}

/** The help about one verb, or about all. */
function helpAbout(text: string | undefined, options: Arguments): Invocation {
  return { verb: "help", words: text === undefined ? [] : [knownVerb(text)], pool: "", options };
}

function longFormOf(letter: string): string {
  return optionNames.find((name) => optionTable[name].letter === letter) ?? "";
}

/** Only the command's own options, each with a value. */
function requireOptions(verb: Verb, options: Arguments): void {
  const own = optionsOf(verb);
  for (const name of optionNames) {
    const value = options[name];
    const given = Array.isArray(value) ? value.length > 0 : value !== undefined && value !== false;
    if (given && !own.includes(name)) throw new UsageError(`${verb} has no option --${name}. ${seeHelp}`);
    if (value === "") throw new UsageError(`--${name} needs a value.`);
  }
}

function requireWords(verb: Verb, count: number): void {
  if (verbTable[verb].ending !== undefined) return;
  const words = wordsOf(verb);
  const last = words.at(-1) ?? "";
  const least = last.startsWith("[") ? words.length - 1 : words.length;
  if (count >= least && (count <= words.length || /\.\.\.\]?$/.test(last))) return;
  throw new UsageError(
    words.length === 0
      ? `${verb} takes options only, and nothing else. ${seeHelp}`
      : `${verb} was given ${count === 1 ? "one word" : `${count} words`}: ` +
        `write \`${[verb, ...words].join(" ")}\`. ${seeHelp}`,
  );
}

function poolOf(given: unknown): string {
  if (given === "") throw new UsageError("--pool needs a directory.");
  if (typeof given === "string") return given;
  const granted = Deno.permissions.querySync({ name: "env", variable: "GOSSAMER_POOL" }).state === "granted";
  return (granted ? Deno.env.get("GOSSAMER_POOL") : undefined) || "./pool";
}

/** The text that an invocation of `help` asks for, without a newline at its end. */
export function helpOf({ words: [about] }: Pick<Invocation, "words">): string {
  return usageText(verbOf(about));
}

/** The command that an invocation means; undefined for a verb without one. Throws {@linkcode UsageError}. */
export function commandOf({ verb, words, options }: Invocation): Command | undefined {
  if (!isCommandVerb(verb)) return undefined;
  return commandOfWords(verb satisfies CommandVerb, { words: [...words], options });
}

/** An option in seconds, as milliseconds; undefined if it was not given. */
export function millisecondsOf(
  options: Invocation["options"],
  option: "timeout" | "lock-wait" | "no-space-timeout",
): number | undefined {
  const value = options[option];
  if (typeof value !== "string") return undefined;
  const seconds = /^[0-9]+(\.[0-9]+)?$/.test(value) ? Number(value) : NaN;
  // A timer of more than 24 days would ring at once.
  if (seconds <= 1_000_000) return seconds * 1000;
  throw new UsageError(`--${option} takes seconds, such as 30 or 0.5, not "${value}".`);
}
