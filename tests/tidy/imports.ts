/** The rules about who may import whom, for all files together. */
import type { Source } from "./source.ts";

/** One import or re-export. */
export interface Import {
  readonly at: number;
  readonly specifier: string;
  readonly isTypeOnly: boolean;
}

const clause = String.raw`(?:\{[^}]*\}|\*(?:\s+as\s+\w+)?|\w+(?:\s*,\s*(?:\{[^}]*\}|\*\s+as\s+\w+))?)`;
const statement = new RegExp(String.raw`^(?:import|export)\s+(type\s+)?(${clause})\s*from\s*["']`, "gm");

/** The imports of a file, dynamic ones too. */
export function importsOf(source: Source): Import[] {
  const found: Import[] = [];
  const add = (at: number, quoteAt: number, isTypeOnly: boolean): void => {
    const end = source.text.indexOf(source.text[quoteAt]!, quoteAt + 1);
    found.push({ at, specifier: source.text.slice(quoteAt + 1, end), isTypeOnly });
  };
  for (const match of source.code.matchAll(statement)) {
    const names = /^\{([^}]*)\}$/.exec(match[2]!)?.[1]?.split(",").map((name) => name.trim()).filter(Boolean);
    const isTypeOnly = match[1] !== undefined || (names?.every((name) => name.startsWith("type ")) ?? false);
    add(match.index, match.index + match[0].length - 1, isTypeOnly);
  }
  for (const match of source.code.matchAll(/(?:^import\s*|\bimport\(\s*)["']/gm)) {
    add(match.index, match.index + match[0].length - 1, false);
  }
  return found;
}

/** The path that a relative specifier names. */
export function resolve(from: string, specifier: string): string {
  return new URL(specifier, `file:///${from}`).pathname.slice(1);
}

const layers = ["storage", "actors", "mod.ts", "cli.ts"];

function layerOf(path: string): number {
  return layers.findIndex((layer) => path === layer || path.startsWith(`${layer}/`));
}

/** Imports go cli.ts -> mod.ts -> actors/ -> storage/, and nothing but a test imports a test. */
export function ruleImportDirection(sources: readonly Source[]): string[] {
  const found: string[] = [];
  for (const source of sources.filter((each) => each.path.endsWith(".ts") && !each.isTest)) {
    const layer = layerOf(source.path);
    for (const { at, specifier } of importsOf(source)) {
      if (!specifier.startsWith(".")) continue;
      const target = resolve(source.path, specifier);
      if (/^tests\/|_(test|testing)\.ts$/.test(target)) {
        found.push(source.finding(at, `imports ${target}: nothing but a test imports a test`));
      } else if (layerOf(target) > layer || layerOf(target) < 0) {
        found.push(
          source.finding(at, `imports ${target}: imports go cli.ts -> mod.ts -> actors/ -> storage/`),
        );
      } else if (source.path.startsWith("actors/") && !source.path.startsWith("actors/edge/")) {
        if (!target.startsWith("actors/edge/")) continue;
        found.push(
          source.finding(at, `imports ${target}: the core is given a port, it does not know its adapter`),
        );
      }
    }
  }
  return found;
}

const named = new Set(["@std/assert", "@std/cli/parse-args", "nanoid"]);

/** Three dependencies; the platform's own modules only at the edges; assertions for tests only in tests. */
export function ruleDependencies(sources: readonly Source[]): string[] {
  const found: string[] = [];
  for (const source of sources) {
    if (source.path === "deno.json") found.push(...undeclared(source));
    if (!source.path.endsWith(".ts")) continue;
    const isCore = /^(storage|actors)\/(?!edge\/)/.test(source.path) && !source.isTest;
    for (const { at, specifier } of importsOf(source)) {
      if (specifier.startsWith(".")) continue;
      const isPlatform = specifier.startsWith("node:");
      if (!isPlatform && !named.has(specifier)) {
        found.push(source.finding(at, `imports ${specifier}: only ${[...named].join(", ")} may be used`));
      } else if (isCore) {
        found.push(
          source.finding(at, `imports ${specifier}: the core uses nothing from outside; use a port`),
        );
      } else if (specifier === "@std/assert" && !source.isTest) {
        found.push(source.finding(at, "imports @std/assert: use storage/base/assert.ts outside tests"));
      }
    }
  }
  return found;
}

function undeclared(source: Source): string[] {
  const names = Object.keys(JSON.parse(source.text).imports ?? {});
  return names.filter((name) => !named.has(name)).map((name) =>
    source.finding(
      source.text.indexOf(`"${name}"`),
      `${name}: only ${[...named].join(", ")} may be depended on`,
    )
  );
}

/** Modules that need each other are one module in two files. In tests that is allowed for types. */
export function ruleImportCycles(sources: readonly Source[]): string[] {
  const edges = new Map<string, string[]>();
  for (const source of sources.filter((each) => each.path.endsWith(".ts"))) {
    const own = importsOf(source).filter((each) =>
      each.specifier.startsWith(".") && !(source.isTest && each.isTypeOnly)
    );
    edges.set(source.path, own.map((each) => resolve(source.path, each.specifier)));
  }
  const found: string[] = [];
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (file: string): void => {
    const begin = path.indexOf(file);
    if (begin >= 0) {
      const cycle = [...path.slice(begin), file].join(" -> ");
      found.push(`${file}:1: a cycle of imports: ${cycle}; move what both need into a file of its own`);
      return;
    }
    if (done.has(file)) return;
    path.push(file);
    for (const target of edges.get(file) ?? []) visit(target);
    path.pop();
    done.add(file);
  };
  for (const file of edges.keys()) visit(file);
  return found;
}
