/** The rule that a command to a running server loads little: loading is most of what such a command costs. */
import { importsOf, resolve } from "./imports.ts";
import type { Source } from "./source.ts";

/** What opens or serves a pool. */
const heavy: readonly RegExp[] = [
  /^mod\.ts/,
  /^actors\/edge\/(?:pool_link|pool_offline|pool_files|run_unserved|serve|serve_options)\.ts/,
];

/** Follows what the command line loads before it knows that it needs more: all imports of values but the dynamic ones. */
export function ruleLightStart(sources: readonly Source[]): string[] {
  const files = new Map(sources.map((source) => [source.path, source]));
  const found: string[] = [];
  const seen = new Set(["cli.ts"]);
  for (const path of seen) {
    const source = files.get(path);
    if (source === undefined) continue;
    for (const { at, specifier, isTypeOnly } of importsOf(source)) {
      if (isTypeOnly || source.code.startsWith("import(", at)) continue;
      const target = specifier.startsWith(".") ? resolve(path, specifier) : specifier;
      if (specifier.startsWith("node:") || heavy.some((part) => part.test(target))) {
        found.push(source.finding(at, `loads ${target} for every command: import it where it is needed`));
      } else if (specifier.startsWith(".")) seen.add(target);
    }
  }
  return found;
}
