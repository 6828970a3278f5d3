/** What is asked of the table of verbs (verb_table.ts): the words and options of a verb, and its command in words and as JSON. */
import type { AdminCommand, Command, ServerCommand } from "./admin_command.ts";
import { type Field, type JsonFields, malformed, type Words } from "./verb_fields.ts";
import type { OptionName } from "./verb_options.ts";
import {
  type CommandSpec,
  type CommandVerb,
  type Described,
  type FilesVerb,
  type LocalSpec,
  type Verb,
  verbSpecs,
} from "./verb_table.ts";
import { UsageError } from "../../storage/base/errors.ts";
import { type Slices, wholeOf } from "../../storage/slices.ts";

/** The entries, in the order of the help. */
export const verbTable: Readonly<
  Record<Verb, Described & Pick<LocalSpec, "required" | "oneOf" | "mayFollow" | "ending">>
> = verbSpecs;

/** All verbs, in the order of the help. */
export const verbs = Object.keys(verbSpecs) as readonly Verb[];
const commandVerbs = verbs.filter(isCommandVerb);

/** The verb that a word is; undefined for another one. */
export function verbOf(text: unknown): Verb | undefined {
  return typeof text === "string" && Object.hasOwn(verbSpecs, text) ? text as Verb : undefined;
}

/** Whether a verb has a command. */
export function isCommandVerb(verb: Verb): verb is CommandVerb {
  return verbSpecs[verb].fields !== undefined;
}

/** An entry and its fields, for what treats all verbs alike: the types of {@linkcode verbSpecs} have seen that they fit. */
function specOf(verb: CommandVerb): CommandSpec<Command> & { readonly fieldList: readonly NamedField[] } {
  const spec = verbSpecs[verb] as unknown as CommandSpec<Command>;
  const fields = Object.entries<Field<unknown>>(spec.fields as Readonly<Record<string, Field<unknown>>>);
  return { ...spec, fieldList: fields.map(([name, field]) => ({ name, field })) };
}

interface NamedField {
  /** In the command. */
  readonly name: string;
  readonly field: Field<unknown>;
}

function fieldsOf(verb: Verb): readonly NamedField[] {
  return isCommandVerb(verb) ? specOf(verb).fieldList : [];
}

/**
 * The words of a verb, as its help has them: "NAME SIZE". The last one may end in "...", for one or more, or stand in brackets
 * where it may be left out.
 */
export function wordsOf(verb: Verb): readonly string[] {
  const { mayFollow } = verbTable[verb];
  const words = fieldsOf(verb).flatMap(({ field }) => field.word ?? []);
  return mayFollow === undefined ? words : [...words, `[${mayFollow}]`];
}

/** The options of a verb: its own first. */
export function optionsOf(verb: Verb): readonly OptionName[] {
  return [...fieldsOf(verb).flatMap(({ field }) => field.option ?? []), ...verbSpecs[verb].options];
}

/** Whether a command changes nothing. Such a command need not wait for those that do, nor they for it. */
export function isLook(command: Command): boolean {
  const { isLook } = specOf(command.verb);
  return typeof isLook === "boolean" ? isLook : (isLook as (command: Command) => boolean)(command);
}

/** Whether a command is refused, wholly or in part, by what is owed to volumes with a reserve; that has to be known exactly then. */
const refusedByReserves: Readonly<Record<CommandVerb, boolean>> = {
  create: false,
  snapshot: true,
  clone: true,
  fork: true,
  rollback: true,
  rename: false,
  resize: true,
  quota: false,
  reserve: true,
  rm: false,
  grow: false,
  rescan: false,
  list: false,
  tree: false,
  df: false,
  status: false,
  check: false,
  dump: false,
  clients: false,
  kick: false,
};

/**
 * Whether a pool that is opened for this command alone first walks all mappings, where a volume with a reserve may share some.
 * Without that, all that it shares or may share counts as owed, which is never too little.
 */
export function needsOwnCounted({ verb }: Command): boolean {
  return refusedByReserves[verb];
}

/** The verb of a command that without a server only reads the pool's files; undefined for the others. */
export function filesVerbOf({ verb }: AdminCommand): FilesVerb | undefined {
  return verbSpecs[verb].offline === "files" ? verb as FilesVerb : undefined;
}

/** The commands that the control API carries out for a GET, by path. */
export const commandOfPath: ReadonlyMap<string, Command> = new Map(
  commandVerbs.flatMap((verb) => {
    const { path } = specOf(verb);
    return path === undefined ? [] : [[path, wholeOf(commandSlices({ verb }, Infinity))]];
  }),
);

/** Whether a command is for the server of a pool alone. */
export function isServerCommand(command: Command): command is ServerCommand {
  return verbSpecs[command.verb].offline === "never";
}

/** The command of a line with as many words as the grammar wants. Throws {@linkcode UsageError}. */
export function commandOfWords(verb: CommandVerb, { words, options }: Words): Command {
  const left = { words: [...words], options };
  const { fieldList, misuse } = specOf(verb);
  const values = fieldList.map(({ name, field }) => [name, field.ofWords(left)]);
  const command = { verb, ...Object.fromEntries(values) } as Command;
  const sentence = misuse?.(command);
  if (sentence !== undefined) throw new UsageError(sentence);
  return command;
}

/** A command from JSON that nothing has checked, in slices of `perSlice` names. Throws {@linkcode UserError}, in the words of names.ts where it is a name. */
export function* commandSlices(json: unknown, perSlice: number): Slices<Command> {
  if (typeof json !== "object" || json === null) throw malformed("it is not an object");
  const given = json as JsonFields;
  const verb = verbOf(given.verb);
  if (verb === undefined || !isCommandVerb(verb)) {
    throw malformed(`"verb" is none of ${commandVerbs.join(", ")}`);
  }
  const { fieldList } = specOf(verb);
  // A key that is misspelt, as "dryRun" for "dry_run", must not change what the command does.
  const unknown = Object.keys(given).find((key) =>
    key !== "verb" && !fieldList.some(({ field }) => field.json === key)
  );
  if (unknown !== undefined) throw malformed(`${verb} has no "${unknown.slice(0, 100)}"`);
  const values: [string, unknown][] = [];
  for (const { name, field } of fieldList) {
    values.push([name, yield* field.ofJson(given, perSlice)]);
  }
  return { verb, ...Object.fromEntries(values) } as Command;
}

/** A command as {@linkcode commandSlices} takes it. */
export function jsonOfCommand(command: Command): unknown {
  const values = command as unknown as Readonly<Record<string, unknown>>;
  const fields = specOf(command.verb).fieldList;
  return {
    verb: command.verb,
    ...Object.fromEntries(fields.map(({ name, field }) => [field.json, values[name]])),
  };
}
