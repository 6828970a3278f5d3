/** How the fields of a command are read: from the words and options of the command line, and from JSON. */
import { parseDurationMs } from "../../storage/base/durations.ts";
import { UsageError, UserError } from "../../storage/base/errors.ts";
import { parseNamePattern } from "../../storage/base/name_pattern.ts";
import { parseName, parsePattern, parseSnapshotName, parseVolumeName } from "../../storage/base/names.ts";
import { parseSize, parseSizeChange, type SizeChange } from "../../storage/base/sizes.ts";
import { SliceEnd, type Slices } from "../../storage/slices.ts";
import type { OptionName } from "./verb_options.ts";

/** What JSON.parse made of a command: nothing in it was checked. */
export type JsonFields = Readonly<Record<string, unknown>>;

/** What the command line has for a command. */
export interface Words {
  /** The words behind the verb, taken from the front by one field after the other. */
  readonly words: string[];
  readonly options: Readonly<Record<string, unknown>>;
}

/** One field of a command, of type T. */
export interface Field<T> {
  /** Its place in the line of the verb, such as "NAME"; "NAME..." for one that takes all words left; undefined for an option. */
  readonly word?: string;
  /** The option that holds it. */
  readonly option?: OptionName;
  /** Its name in JSON. */
  readonly json: string;
  /** Throws {@linkcode UsageError}. */
  ofWords(words: Words): T;
  /** In slices of `perSlice` items, where it is a list. Throws {@linkcode UserError}. */
  ofJson(fields: JsonFields, perSlice: number): Slices<T>;
}

/** How one value is read. Both throw {@linkcode UserError}. */
interface Kind<T> {
  ofText(text: string): T;
  /** @param name of the field, for the sentence */
  ofValue(value: unknown, name: string): T;
}

function textKind(parse: (text: string) => string): Kind<string> {
  return {
    ofText: parse,
    ofValue: (value, name) => {
      if (typeof value !== "string") throw malformed(`"${name}" is not a string`);
      return parse(value);
    },
  };
}

/** The name of a volume that is no snapshot. */
export const volumeName: Kind<string> = textKind(parseVolumeName);
/** The name of a volume or snapshot. */
export const anyName: Kind<string> = textKind((text) => parseName(text).name);
/** A name, or a pattern for some. */
export const namePattern: Kind<string> = textKind(parsePattern);
/** VOL@SNAP. */
export const snapshotField: Kind<string> = textKind((text) => parseSnapshotName(text).name);

/** A positive number of bytes. */
export const size: Kind<number> = {
  ofText: parseSize,
  ofValue: (value, name) => {
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value <= 0) {
      throw malformed(`"${name}" is not a positive number of bytes`);
    }
    return value;
  },
};

/** A new size or what is added to it; in JSON an object, or null for none. */
export const sizeChange: Kind<SizeChange | null> = {
  ofText: parseSizeChange,
  ofValue: (value, name) => {
    if (value === null) return null;
    const { bytes, added } = (typeof value === "object" ? value : {}) as JsonFields;
    if (typeof added !== "boolean") throw malformed(`"${name}" has no "added" that is true or false`);
    return { bytes: size.ofValue(bytes, `${name}.bytes`), added };
  },
};

/** The number of a client, as `clients` shows it. */
export const clientNumber: Kind<number> = {
  ofText: (text) => {
    if (/^[1-9]\d{0,14}$/.test(text)) return Number(text);
    throw new UsageError(
      `${JSON.stringify(text.slice(0, 100))} is no client's number. \`clients\` shows them.`,
    );
  },
  ofValue: (value, name) => {
    if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
    throw malformed(`"${name}" is not a client's number`);
  },
};

/** A time, in milliseconds. */
export const durationMs: Kind<number> = {
  ofText: parseDurationMs,
  ofValue: (value, name) => {
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
    throw malformed(`"${name}" is not a number of milliseconds`);
  },
};

/** A positive whole number. */
export const count: Kind<number> = {
  ofText: (text) => {
    if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
    throw new UsageError(`${JSON.stringify(text.slice(0, 100))} is no number of volumes. Give 1 or more.`);
  },
  ofValue: (value, name) => {
    if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
    throw malformed(`"${name}" is not a positive whole number`);
  },
};

/** A name of a volume with a number to fill in, such as vm-%03d. */
export const numberedName: Kind<string> = textKind(parseNamePattern);

/** A positive number of bytes, or `none`: null. */
export const sizeOrNone: Kind<number | null> = {
  ofText: (text) => text === "none" ? null : parseSize(text),
  ofValue: (value, name) => value === null ? null : size.ofValue(value, name),
};

/** What may be absent: null in JSON. */
export function orNone<T>(kind: Kind<T>): Kind<T | null> {
  return {
    ofText: (text) => kind.ofText(text),
    ofValue: (value, name) => value === null ? null : kind.ofValue(value, name),
  };
}

/** A field that is one word. */
export function word<T>(label: string, json: string, kind: Kind<T>): Field<T> {
  return {
    word: label,
    json,
    ofWords: ({ words }) => kind.ofText(words.shift() ?? ""),
    *ofJson(fields) {
      return kind.ofValue(fields[json], json);
    },
  };
}

/** A field that is one word, which may be left out. No word may follow it. */
export function optionalWord<T>(label: string, json: string, kind: Kind<T>, otherwise: T): Field<T> {
  return {
    word: `[${label}]`,
    json,
    ofWords: ({ words }) => words.length === 0 ? otherwise : kind.ofText(words.shift() ?? ""),
    *ofJson(fields) {
      return fields[json] === undefined ? otherwise : kind.ofValue(fields[json], json);
    },
  };
}

/** A field that is the list of all words left, at least one. */
export function wordList(label: string, json: string, kind: Kind<string>): Field<readonly string[]> {
  return {
    word: `${label}...`,
    json,
    ofWords: ({ words }) => words.splice(0).map(kind.ofText),
    *ofJson(fields, perSlice) {
      const texts = fields[json];
      if (!Array.isArray(texts) || texts.length === 0) throw malformed(`"${json}" is not a list of strings`);
      return yield* listSlices(texts, json, kind, perSlice);
    },
  };
}

/** A field that is the list of all words left, which may be none. */
export function optionalWordList(label: string, json: string, kind: Kind<string>): Field<readonly string[]> {
  return {
    word: `[${label}...]`,
    json,
    ofWords: ({ words }) => words.splice(0).map(kind.ofText),
    *ofJson(fields, perSlice) {
      const texts = fields[json] ?? [];
      if (!Array.isArray(texts)) throw malformed(`"${json}" is not a list of strings`);
      return yield* listSlices(texts, json, kind, perSlice);
    },
  };
}

function* listSlices(
  texts: readonly unknown[],
  json: string,
  kind: Kind<string>,
  perSlice: number,
): Slices<string[]> {
  const parsed: string[] = [];
  const end = new SliceEnd(perSlice);
  for (const text of texts) {
    if (end.isDue()) yield;
    if (typeof text !== "string") throw malformed(`"${json}" is not a list of strings`);
    parsed.push(kind.ofText(text));
  }
  return parsed;
}

/** A field that an option with a value sets. */
export function value<T>(option: OptionName, json: string, kind: Kind<T>, otherwise: T): Field<T> {
  return {
    option,
    json,
    ofWords: ({ options }) => {
      const text = options[option];
      return typeof text === "string" ? kind.ofText(text) : otherwise;
    },
    *ofJson(fields) {
      return fields[json] === undefined ? otherwise : kind.ofValue(fields[json], json);
    },
  };
}

/** A field that an option without a value sets. False if absent. Anything in JSON but a boolean is refused: with a `dry_run` that does not count, `rm` would remove volumes. */
export function flag(option: OptionName, json: string): Field<boolean> {
  return {
    option,
    json,
    ofWords: ({ options }) => options[option] === true,
    *ofJson(fields) {
      const value = fields[json] ?? false;
      if (typeof value !== "boolean") throw malformed(`"${json}" is neither true nor false`);
      return value;
    },
  };
}

/** Bad input of a client of the control API. */
export function malformed(what: string): UserError {
  return new UserError(`The request is no command: ${what}.`);
}
