/**
 * Names of volumes (`NAME`) and snapshots (`VOL@SNAP`). A part has 1 to 127 bytes: ASCII letters, digits, `.`, `_`,
 * `-`, and does not begin with `-`.
 */
import { UsageError } from "./errors.ts";
import { nameBytesMax } from "./limits.ts";

/** A parsed name. `snapshot` is absent for the name of a volume. */
export interface ParsedName {
  /** As given: the two parts with an `@` between them, or the volume alone. */
  readonly name: string;
  /** The part before the `@`. */
  readonly volume: string;
  /** The part behind it. */
  readonly snapshot?: string;
}

/** Parses `NAME` or `VOL@SNAP`. Throws {@linkcode UsageError}. */
export function parseName(text: string): ParsedName {
  const problem = problemOfName(text);
  if (problem !== undefined) throw new UsageError(problem);
  const at = text.indexOf("@");
  if (at === -1) return { name: text, volume: text };
  return { name: text, volume: text.slice(0, at), snapshot: text.slice(at + 1) };
}

/** Parses the name of a volume that is not a snapshot. Throws {@linkcode UsageError}. */
export function parseVolumeName(text: string): string {
  const { name, snapshot } = parseName(text);
  if (snapshot !== undefined) {
    throw new UsageError(`"${name}" names a snapshot, where a volume is needed. Leave out "@${snapshot}".`);
  }
  return name;
}

/** Parses the name of a snapshot. Throws {@linkcode UsageError}. */
export function parseSnapshotName(text: string): Required<ParsedName> {
  const { name, volume, snapshot } = parseName(text);
  if (snapshot === undefined) {
    throw new UsageError(
      `"${name}" names a volume, where a snapshot is needed. Write it as ${name}@SNAPSHOT.`,
    );
  }
  return { name, volume, snapshot };
}

/** The name of a snapshot from its parts. */
export function snapshotName(volume: string, snapshot: string): string {
  return `${volume}@${snapshot}`;
}

/**
 * Parses a name, or a pattern for some: `*` stands for any characters of a part, `?` for one. Throws
 * {@linkcode UsageError}.
 */
export function parsePattern(text: string): string {
  const problem = problemOfName(text.replace(/[*?]/g, "x"));
  if (problem !== undefined) throw new UsageError(problem);
  return text;
}

/** Whether a text that {@linkcode parsePattern} took is more than the name of one volume or snapshot. */
export function isPattern(text: string): boolean {
  return /[*?]/.test(text);
}

/**
 * Whether a name matches a pattern. A pattern without an `@` matches volumes, one with an `@` snapshots: `*` and `?` never
 * stand for the `@`. The time is at most proportional to both lengths: after a mismatch only the last `*` takes one
 * character more.
 */
export function matchesPattern(name: string, pattern: string): boolean {
  let [at, from] = [0, 0];
  let [starAt, starFrom] = [-1, 0];
  while (at < name.length) {
    const wanted = pattern[from];
    if (wanted === "*") {
      [starAt, starFrom] = [at, from];
      from += 1;
    } else if (wanted === name[at] || (wanted === "?" && name[at] !== "@")) {
      at += 1;
      from += 1;
    } else {
      if (starAt < 0 || name[starAt] === "@") return false;
      starAt += 1;
      [at, from] = [starAt, starFrom + 1];
    }
  }
  while (pattern[from] === "*") from += 1;
  return from === pattern.length;
}

/** The name under which a rollback keeps what it replaces: the first that is not taken. */
export function keptSnapshotName(volume: string, isTaken: (name: string) => boolean): string {
  for (let ordinal = 1;; ordinal += 1) {
    const name = snapshotName(volume, `before-rollback-${ordinal}`);
    if (!isTaken(name)) return name;
  }
}

/** What is wrong with a name, in sentences that end with what to do; undefined if the name is valid. */
export function problemOfName(text: string): string | undefined {
  const parts = text.split("@");
  if (parts.length > 2) {
    return `${cutQuoted(text)} is not a name: it has more than one "@". Write VOLUME@SNAPSHOT.`;
  }
  for (const part of parts) {
    const problem = problemOfPart(part, parts.length === 2);
    if (problem !== undefined) return `${cutQuoted(text)} is not a name: ${problem}`;
  }
  return undefined;
}

function problemOfPart(part: string, isOneOfTwo: boolean): string | undefined {
  if (part === "") {
    return isOneOfTwo
      ? `nothing stands on one side of the "@". Write VOLUME@SNAPSHOT.`
      : "it is empty. Give one.";
  }
  if (!/^[A-Za-z0-9._-]+$/.test(part)) return `only letters, digits, ".", "_" and "-" may be used.`;
  if (part.startsWith("-")) return `it may not start with "-". Put something before it.`;
  if (part.length > nameBytesMax) {
    return `a part of it has ${part.length} bytes, more than ${nameBytesMax}. Give a shorter one.`;
  }
  return undefined;
}

/** The text for a message: control characters escaped, and cut after 200 characters. */
function cutQuoted(text: string): string {
  return JSON.stringify(text.length <= 200 ? text : `${text.slice(0, 200)}...`);
}
