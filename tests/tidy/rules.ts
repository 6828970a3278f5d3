/** The style rules that hold for one file at a time. A rule returns what it finds, as `file:line: what to do`. */
import { closingOf, type Source } from "./source.ts";

/** A rule about one file. */
export type FileRule = (source: Source) => string[];

const functionLinesMax = 70;
/** Of product code and of tests, without exceptions. */
const fileLinesMax = 400;

/** What the core must not know of, and what to use there. */
const banned: readonly (readonly [word: RegExp, instead: string])[] = [
  [/\bDate\b/g, "Date: ask the clock port for the time"],
  [/\bperformance\b/g, "performance: ask the clock port for the time"],
  [/\bMath\.random\b/g, "Math.random: ask the random port"],
  [/\bcrypto\b/g, "crypto: ask the random port"],
  [/\bset(Timeout|Interval)\b/g, "timer of the platform: use sleep() or tellLater()"],
  [/\bqueueMicrotask\b/g, "queueMicrotask: send a message"],
  [/\bPromise\b/g, "Promise: ask, and wait for the answer"],
  [/\basync\b/g, "async: write a task"],
  [/\bawait\b/g, "await: use yield*"],
  [/\bDeno\./g, "Deno: go through a port, with its adapter in actors/edge/"],
  [/\bconsole\./g, "console: return the sentence, the command line prints it"],
];

function isCode(source: Source): boolean {
  return source.path.endsWith(".ts");
}

/** Code that must be the same in a simulator: everything but the edges, the entry points and the tests. */
function isCore(source: Source): boolean {
  return isCode(source) && !source.isTest && /^(storage|actors)\//.test(source.path) &&
    !source.path.startsWith("actors/edge/");
}

/** No clock, no chance, no promise and no host in the core. */
export function ruleBannedWords(source: Source): string[] {
  if (!isCore(source)) return [];
  return banned.flatMap(([word, instead]) =>
    [...source.code.matchAll(word)].map((match) => source.finding(match.index, `no ${instead}`))
  );
}

/** Generators are declared: an inline one costs ten times as much per step. */
export function ruleInlineGenerators(source: Source): string[] {
  if (!isCore(source)) return [];
  return [...source.code.matchAll(/\bfunction\s*\*/g)]
    .filter((match) => !/(^|\n)(export )?$/.test(source.code.slice(0, match.index)))
    .map((match) => source.finding(match.index, "no inline function*: declare it at the top level"));
}

/** A function fits on a screen. */
export function ruleFunctionLength(source: Source): string[] {
  return isCode(source) ? source.functions.flatMap((text) => tooLong(source, text)) : [];
}

function tooLong(source: Source, text: { name: string; begin: number; bodyEnd: number }): string[] {
  const lines = source.lineOf(text.bodyEnd) - source.lineOf(text.begin) + 1;
  if (lines <= functionLinesMax) return [];
  return [
    source.finding(text.begin, `${text.name} has ${lines} lines: split it, at most ${functionLinesMax}`),
  ];
}

/** A file is read in one sitting. */
export function ruleFileLength(source: Source): string[] {
  if (!isCode(source) || source.linesCount <= fileLinesMax) return [];
  return [`${source.path}:${source.linesCount}: split the file, at most ${fileLinesMax} lines`];
}

/** Work to be done is an issue, not a comment. */
export function ruleLeftovers(source: Source): string[] {
  return [...source.text.matchAll(/\b(TO[D]O|FIX[M]E|XX[X])\b/g)]
    .map((match) => source.finding(match.index, `no ${match[0]}: do it, or write an issue`));
}

const exported =
  /^export (?:default |abstract |declare )*(function\*?|class|interface|type|const|let|enum) (\w+)/gm;

/**
 * Every exported symbol says what it is. Lines that follow each other without a gap share what is said above the first,
 * for constants in a line comment too. The head of a file speaks for the symbol that has the file's name, its folder's before it or not, and for its
 * only class, and the messages of an actor, each with its own comment, for their union.
 */
export function ruleDocComments(source: Source): string[] {
  if (!isCode(source) || source.isTest) return [];
  const found: string[] = [];
  const named = source.path.replace(/^.*\/|\.ts$/g, "").replaceAll("_", "").toLowerCase();
  const folder = /(\w+)\/[^/]*$/.exec(source.path)?.[1] ?? "";
  const hasHead = source.text.startsWith("/**");
  const classesCount = source.code.match(/^export (abstract )?class /gm)?.length;
  const documented = new Set<string>();
  let shared = -1;
  for (const match of source.code.matchAll(exported)) {
    const [, kind, name] = match as unknown as [string, string, string];
    const above = source.text.slice(0, match.index);
    const isDocumented = /\/\*\*(?:[^*]|\*(?!\/))*\*\/\n$/.test(above) ||
      (kind === "const" && /(^|\n)\/\/[^\n]*\n$/.test(above)) || source.lineOf(match.index) === shared ||
      documented.has(name) ||
      (hasHead &&
        ([named, folder + named].includes(name.toLowerCase()) || (kind === "class" && classesCount === 1))) ||
      (kind === "type" && /(Message|Request)$/.test(name));
    if (isDocumented) {
      shared = endLine(source, match) + 1;
      documented.add(name);
    } else {found.push(
        source.finding(match.index, `${name} is exported: say what it is in a /** comment above`),
      );}
  }
  return found;
}

/** The last line of a declaration: of its braces if it has any, else of its statement. */
function endLine(source: Source, match: RegExpExecArray): number {
  const at = source.code.slice(match.index).search(/[{;]/) + match.index;
  return source.lineOf(source.code[at] === "{" ? closingOf(source.code, at) : at);
}

/** A message that is built costs thirty times the check itself. */
export function ruleAssertMessages(source: Source): string[] {
  if (!isCode(source) || source.isTest || source.path === "storage/base/assert.ts") return [];
  const found: string[] = [];
  for (const match of source.code.matchAll(/(?<![\w$.#])(assert|present)(<[^>(]*>)?\(/g)) {
    const open = match.index + match[0].length - 1;
    const message = lastArgument(source, open);
    if (/^"[^"\\]*"$/.test(message)) continue;
    found.push(source.finding(match.index, `${match[1]}: give it a constant string as its message`));
  }
  return found;
}

function lastArgument(source: Source, openAt: number): string {
  const close = closingOf(source.code, openAt);
  let depth = 0;
  let begin = openAt + 1;
  for (let at = openAt; at < close; at += 1) {
    const char = source.code[at]!;
    if ("([{".includes(char)) depth += 1;
    if (")]}".includes(char)) depth -= 1;
    const isLast = source.code.slice(at + 1, close).trim() === "";
    if (char === "," && depth === 1 && !isLast) begin = at + 1;
  }
  return source.text.slice(begin, close).trim().replace(/,$/, "");
}

/**
 * What is caught is thrown on or becomes the answer, or a comment says why going on is right: first thing in the
 * block, or beside a `.catch`.
 */
export function ruleCatch(source: Source): string[] {
  if (!isCode(source) || source.isTest) return [];
  const found: string[] = [];
  for (const match of source.code.matchAll(/(?<![.\w])catch\s*(?:\(\s*(\w+)[^)]*\))?\s*\{/g)) {
    const open = match.index + match[0].length - 1;
    const close = closingOf(source.code, open);
    if (passesOn(source.code.slice(open, close), match[1])) continue;
    if (/^\s*\/[/*]/.test(source.text.slice(open + 1, close))) continue;
    found.push(source.finding(match.index, "catch: throw on, or say in the next line why going on is right"));
  }
  for (const match of source.code.matchAll(/\.catch\((?:\(?(\w+)\)?\s*=>)?/g)) {
    const rest = source.code.slice(match.index + match[0].length, closingOf(source.code, match.index + 6));
    const line = source.lineOf(match.index);
    const near = source.text.split("\n").slice(line - 2, line + 1).join("\n");
    if (/\/\/|\*\//.test(near) || (match[1] !== undefined && new RegExp(`\\b${match[1]}\\b`).test(rest))) {
      continue;
    }
    found.push(source.finding(match.index, ".catch: say beside it why going on is right"));
  }
  return found;
}

/** What an edge waits for may fail: `then` says what follows from that too, or follows a `catch` that has done so. */
export function ruleThen(source: Source): string[] {
  if (!source.path.startsWith("actors/edge/") || !isCode(source) || source.isTest) return [];
  return [...source.code.matchAll(/\.then\(/g)].filter((match) => {
    const open = match.index + match[0].length - 1;
    const lineBegin = source.code.lastIndexOf("\n", match.index) + 1;
    if (source.code.slice(lineBegin, match.index).includes(".catch(")) return false;
    return lastArgument(source, open) === source.text.slice(open + 1, closingOf(source.code, open)).trim();
  }).map((match) => source.finding(match.index, "then: say in a second argument what a failure leads to"));
}

/** Whether the block throws, or returns something made of the error. */
function passesOn(block: string, error: string | undefined): boolean {
  if (/\bthrow\b/.test(block)) return true;
  return error !== undefined && new RegExp(`\\breturn\\b[^;]*\\b${error}\\b`).test(block);
}

/** Every rule about one file, by name. */
export const fileRules: readonly (readonly [name: string, rule: FileRule])[] = [
  ["the core knows no clock, chance, promise or host", ruleBannedWords],
  ["generators are declared at the top level", ruleInlineGenerators],
  ["functions have at most 70 lines", ruleFunctionLength],
  ["files have at most 400 lines", ruleFileLength],
  ["nothing is left to be done in a comment", ruleLeftovers],
  ["every exported symbol has a doc comment", ruleDocComments],
  ["messages of assertions are constant strings", ruleAssertMessages],
  ["what is caught is thrown on, or a comment says why not", ruleCatch],
  ["an edge says what follows when what it waits for fails", ruleThen],
];
