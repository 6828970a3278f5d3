/** Command lines of the programs beside the tests: what they take, and a sentence for what they do not. */
import { parseArgs } from "@std/cli/parse-args";
import { UsageError, UserError } from "../../storage/base/errors.ts";

/** What a program's command line may hold, `--help` besides. */
export interface Grammar {
  /** How to call it, with a line for each option. */
  readonly usage: string;
  readonly flags: readonly string[];
  readonly values: readonly string[];
  /** Whether words may stand there that belong to no option. */
  readonly takesWords: boolean;
}

/** A command line, taken apart. */
export class Options {
  /** The words that belong to no option. */
  readonly words: readonly string[];
  readonly #found: Readonly<Record<string, unknown>>;

  constructor(words: readonly string[], found: Readonly<Record<string, unknown>>) {
    this.words = words;
    this.#found = found;
  }

  has(flag: string): boolean {
    return this.#found[flag] === true;
  }

  text(name: string): string | undefined {
    return this.#found[name] as string | undefined;
  }

  /** What stands between commas. */
  parts(name: string): string[] {
    return (this.text(name) ?? "").split(",").map((part) => part.trim()).filter((part) => part !== "");
  }

  /** A number above 0 and at most `max`, with a fraction or without. */
  positive(name: string, otherwise: number, max: number): number {
    const text = this.text(name);
    const value = text === undefined ? otherwise : decimal(text);
    if (value > 0 && value <= max) return value;
    throw new UsageError(`--${name} takes a number above 0 and at most ${max}, not "${text}".`);
  }

  /** A whole number from 1 to `max`. */
  count(name: string, otherwise: number, max: number): number {
    const text = this.text(name);
    return text === undefined ? otherwise : count(name, text, max);
  }

  /** Whole numbers from 1 to `max` with commas between them; nothing is none. */
  counts(name: string, otherwise: readonly number[], max: number): readonly number[] {
    if (this.text(name) === undefined) return otherwise;
    return this.parts(name).map((part) => count(name, part, max));
  }
}

function decimal(text: string): number {
  return /^\d+(\.\d+)?$/.test(text) ? Number(text) : NaN;
}

function count(name: string, text: string, max: number): number {
  const value = decimal(text);
  if (Number.isInteger(value) && value >= 1 && value <= max) return value;
  throw new UsageError(`--${name} takes whole numbers from 1 to ${max}, not "${text}".`);
}

/** The options, or `--help`. Throws a UsageError for what the grammar does not have. */
export function parseOptions(grammar: Grammar, args: readonly string[]): Options | "help" {
  const { flags, values, takesWords } = grammar;
  const found = parseArgs([...args], {
    boolean: [...flags, "help"],
    string: ["_", ...values],
    alias: { help: "h" },
    unknown: (arg: string, key?: string) => {
      if (key === undefined && takesWords) return true;
      throw new UsageError(
        key === undefined
          ? `"${arg}" belongs to no option; --help says what there is.`
          : `There is no option ${arg}; --help says what there is.`,
      );
    },
  }) as Record<string, unknown>;
  for (const name of values) {
    const times = args.filter((arg) => arg === `--${name}` || arg.startsWith(`--${name}=`)).length;
    if (times > 1) throw new UsageError(`--${name} is there more than once.`);
    if (found[name] === "" && !args.includes(`--${name}=`)) throw new UsageError(`--${name} needs a value.`);
  }
  return found.help === true ? "help" : new Options(found._ as string[], found);
}

/** Runs the program; what is wrong with its options or with the machine is a sentence, all else a defect with its stack. */
export async function runProgram(grammar: Grammar, main: (options: Options) => Promise<void>): Promise<void> {
  try {
    const options = parseOptions(grammar, Deno.args);
    if (options === "help") console.log(grammar.usage);
    else await main(options);
  } catch (error) {
    const isSentence = error instanceof UserError || error instanceof Error && error.constructor === Error;
    if (!isSentence) throw error;
    console.error(error.message);
    Deno.exit(error instanceof UserError ? error.exitStatus : 1);
  }
}
