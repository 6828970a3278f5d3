/** The rule that no module of product code has state: what can change belongs to an object that is made and passed on. */
import { closingOf, type Source } from "./source.ts";

/** What may stay, by file and name, and why. */
const allowed: Readonly<Record<string, string>> = {
  "cli.ts#log": "standard error is the process's, and so is the queue before it",
  "actors/edge/descriptors.ts#spareSets":
    "descriptors are the process's, whichever pool or listener holds them",
  "actors/edge/disk_calm.ts#vmstat": "memory for the arguments of one call",
  "actors/edge/disk_calm.ts#vmstatFd": "opened once, as /proc is the host's; the same ever after",
  "actors/edge/libc.ts#opened": "the loaded library, opened once; the same ever after",
  "actors/edge/private_socket.ts#umaskOfLibc": "the loaded library, opened once; the same ever after",
  "actors/edge/deno_clock.ts#nothingMuch": "memory for the arguments of one call",
  "actors/edge/file_writes.ts#oneByte": "memory for the arguments of one call",
  "actors/edge/stored_file.ts#zeroes": "a constant of bytes",
  "actors/nbd/client_request.ts#zeroes": "a constant of bytes",
  "actors/nbd/client_request.ts#noSegments": "a list of nothing, replaced before anything is put into a list",
  "storage/metadata_fault.ts#missing": "good until the next call, so nothing of a pool stays in it",
  "actors/nbd/client_request.ts#noBytes": "a constant of bytes, of which there are none",
  "actors/edge/memory_address.ts#addresses": "where a buffer lies is the same for all that ask",
  "actors/nbd/wire/handshake_codec.ts#noBytes": "a constant of bytes, of which there are none",
  "actors/nbd/wire/request.ts#noBytes": "a constant of bytes, of which there are none",
};

/** Their instances cannot change, or are all alike. */
const immutable: readonly string[] = ["RegExp", "TextDecoder", "TextEncoder", "URL"];

const instead = "pass an object on, or say in tests/tidy/module_state.ts why it may stay";

/** A module-level `let`, a mutable singleton, a list or object that is not read-only, a static field. Allowed names must be there. */
export function ruleModuleState(
  sources: readonly Source[],
  stays: Readonly<Record<string, string>> = allowed,
): string[] {
  const found: string[] = [];
  const unseen = new Set(Object.keys(stays));
  for (const source of sources.filter((each) => each.path.endsWith(".ts") && !each.isTest)) {
    for (const { at, name, what } of stateOf(source)) {
      if (!unseen.delete(`${source.path}#${name}`)) found.push(source.finding(at, `${what}: ${instead}`));
    }
  }
  const paths = new Set(sources.map((source) => source.path));
  for (const gone of unseen) {
    // A tree of a few files, as in the tests of the rule, has not all of them.
    const path = gone.replace(/#.*/, "");
    if (paths.has(path)) found.push(`${path}:1: ${gone} is allowed as state of a module and is not there`);
  }
  return found;
}

interface State {
  readonly at: number;
  readonly name: string;
  readonly what: string;
}

function stateOf(source: Source): State[] {
  const found: State[] = [];
  for (const match of source.code.matchAll(/^(?:export )?(?:let|var)\s+(\w+)/gm)) {
    found.push({ at: match.index, name: match[1]!, what: `${match[1]} can be set again` });
  }
  // Its type, if it is written, and the first word of its value.
  const constant = /^(?:export )?const\s+(\w+)\s*(?::\s*((?:=>|[^=])+?))?\s*=\s*(new\s+([\w.]+)|[[{]|\w+)/gm;
  for (const match of source.code.matchAll(constant)) {
    const [, name = "", type = "", begin = "", made] = match;
    const what = made === undefined ? mutableValue(source, match, type, begin) : mutableObject(type, made);
    if (what !== undefined) found.push({ at: match.index, name, what: `${name} ${what}` });
  }
  for (const match of source.code.matchAll(/^ {2}static (?!readonly\b)(?:override )?(#?\w+)\s*[=:;]/gm)) {
    found.push({ at: match.index, name: match[1]!, what: `the static field ${match[1]} can be set again` });
  }
  return found;
}

function mutableObject(type: string, made: string): string | undefined {
  return immutable.includes(made) || /^Readonly/.test(type) ? undefined : `is one ${made} for all`;
}

/** For lists and objects as they are written down: with a type they are as read-only as it says. */
function mutableValue(
  source: Source,
  match: RegExpExecArray,
  type: string,
  begin: string,
): string | undefined {
  if (begin !== "[" && begin !== "{") return undefined;
  if (begin === "{" ? type !== "" : /^readonly|^Readonly/.test(type)) return undefined;
  const close = closingOf(source.code, match.index + match[0].length - 1);
  // Something is made of the list.
  if (source.code[close + 1] === ".") return undefined;
  return /^\s*as const\b/.test(source.code.slice(close + 1)) ? undefined : "can be changed";
}
