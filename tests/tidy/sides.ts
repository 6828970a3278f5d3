/** The rule that the main side of the border (actors/edge/border.ts) has no actors. */
import { importsOf, resolve } from "./imports.ts";
import type { Source } from "./source.ts";

/** Where the main side begins, and the one file in which the two sides meet. */
const mainSide = ["cli.ts", "mod.ts"];
const meeting = "actors/edge/direct_border.ts";

/** What owns a kernel, runs on one, or sends to actors. */
const poolSide: readonly RegExp[] = [
  /^actors\/kernel\/(?!boundary\.ts)/,
  /^actors\/(?:pool|volume)\//,
  /^actors\/nbd\/(?!wire\/)/,
  /^actors\/control\/(?:pool|catalogue_(?!room\.ts)|text_out|admin_(?!command\.ts))/,
  /^actors\/assemble\.ts/,
  /^actors\/edge\/(?:pool_process|pool_service|nbd_server|client_socket|socket_group)\.ts/,
];

/** Follows the imports of values from the command line and the library, but not through the file where the sides meet. */
export function ruleSides(sources: readonly Source[]): string[] {
  const files = new Map(sources.map((source) => [source.path, source]));
  const found: string[] = [];
  const seen = new Set(mainSide);
  for (const path of seen) {
    const source = files.get(path);
    if (source === undefined || path === meeting) continue;
    for (const { at, specifier, isTypeOnly } of importsOf(source)) {
      if (isTypeOnly || !specifier.startsWith(".")) continue;
      const target = resolve(path, specifier);
      if (poolSide.some((part) => part.test(target))) {
        found.push(source.finding(at, `imports ${target} on the main side: send a message (border.ts)`));
      } else seen.add(target);
    }
  }
  return found;
}
