/** The rules that what is exported is imported somewhere, and that one name is one type and one exported function. */
import { importsOf, resolve } from "./imports.ts";
import type { Source } from "./source.ts";

const exported =
  /^export (?:default |abstract |declare )*(function\*?|class|interface|type|const|let|enum) (\w+)/gm;

/**
 * Finds exports of product code that no other file imports. A type may be exported for its file's other exports, which
 * name it; the numbers of the NBD protocol stand complete, used or not. What mod.ts passes on is for
 * its users, and limits.ts is a table.
 */
export function ruleUsedExports(sources: readonly Source[]): string[] {
  const code = sources.filter((source) => source.path.endsWith(".ts"));
  const named = new Map<string, Set<string>>();
  for (const source of code) {
    for (const { at, specifier } of importsOf(source)) {
      if (!specifier.startsWith(".")) continue;
      const target = resolve(source.path, specifier);
      const names = named.get(target) ?? new Set<string>();
      named.set(target, names);
      for (const name of namesAt(source, at)) names.add(name);
    }
  }
  const found: string[] = [];
  for (
    const source of code.filter((each) => !each.isTest && !["mod.ts", "actors/limits.ts"].includes(each.path))
  ) {
    const names = named.get(source.path);
    for (const match of source.code.matchAll(exported)) {
      const [, kind, name] = match as unknown as [string, string, string];
      if (names?.has(name) || names?.has("*") || name.startsWith("NBD_")) continue;
      const isType = kind === "interface" || kind === "type";
      if (isType && source.code.match(new RegExp(`\\b${name}\\b`, "g"))!.length > 1) continue;
      found.push(source.finding(match.index, `${name} is exported, and nothing imports it`));
    }
  }
  return found;
}

/** The names that an import or re-export takes; `*` for all of them. */
function namesAt(source: Source, at: number): string[] {
  const statement = source.code.slice(at, source.code.indexOf("\n", source.code.indexOf("from", at)));
  const braces = /\{([^}]*)\}/.exec(statement);
  if (braces === null || source.code.startsWith("import(", at)) return ["*"];
  return braces[1]!.split(",").map((name) => name.replace(/^\s*type\s+/, "").trim().split(/\s+as\s+/)[0]!);
}

const declared = /^(?:export )?(?:default |abstract |declare )*(?:class|interface|type|enum) (\w+)/gm;

/** Finds type names that product code declares in two places, whether they are exported or not: one name is one thing. */
export function ruleTypeNames(sources: readonly Source[]): string[] {
  const first = new Map<string, string>();
  const found: string[] = [];
  for (const source of productOf(sources)) {
    for (const match of source.code.matchAll(declared)) {
      const [, name] = match as unknown as [string, string];
      const other = first.get(name);
      if (other === undefined) first.set(name, placeOf(source, match.index));
      else found.push(source.finding(match.index, `${name} is a type at ${other} already: ${another}`));
    }
  }
  return found;
}

const declaredFunction = /^(export )?(?:default )?(?:(?:async )?function\*? ?(\w+)|(?:const|let) (\w+)\b)/gm;

/**
 * Finds functions and constants that one file exports and another declares too, at its top level: in the second file the name
 * would be taken for the first one's. Names that no file exports may recur.
 */
export function ruleFunctionNames(sources: readonly Source[]): string[] {
  const places = new Map<string, { readonly at: string; readonly isExported: boolean }[]>();
  for (const source of productOf(sources)) {
    if (source.path === "mod.ts") continue;
    for (const match of source.code.matchAll(declaredFunction)) {
      const [, exporting, ofFunction, ofConstant] = match;
      const name = (ofFunction ?? ofConstant)!;
      const known = places.get(name) ?? [];
      known.push({ at: placeOf(source, match.index), isExported: exporting !== undefined });
      places.set(name, known);
    }
  }
  const found: string[] = [];
  for (const [name, known] of places) {
    const owner = known.find(({ isExported }) => isExported);
    if (owner === undefined) continue;
    for (const { at } of known) {
      if (at !== owner.at) found.push(`${at}: ${name} is exported at ${owner.at} already: ${another}`);
    }
  }
  return found;
}

const another = "give one of them another name";

function productOf(sources: readonly Source[]): readonly Source[] {
  return sources.filter((each) => each.path.endsWith(".ts") && !each.isTest);
}

function placeOf(source: Source, at: number): string {
  return source.finding(at, "").replace(/: $/, "");
}
