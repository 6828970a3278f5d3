/** The rooms of the house: every folder of product code has a place in one order, and imports go down only. */
import { importsOf, resolve } from "./imports.ts";
import type { Source } from "./source.ts";

/** From the top down. A file belongs to the longest entry that it begins with. */
export const rooms: readonly string[] = [
  "cli.ts",
  "mod.ts",
  "actors/edge/",
  "actors/assemble.ts",
  "actors/nbd/",
  "actors/nbd/wire/",
  "actors/control/",
  "actors/volume/",
  "actors/pool/",
  "actors/kernel/",
  "actors/queues.ts",
  "actors/mailboxes.ts",
  "actors/limits.ts",
  "actors/knobs.ts",
  "actors/counters.ts",
  "storage/",
  "storage/device/",
  "storage/format/",
  "storage/base/",
];

/** The room of a product file; undefined if it lies in none. */
export function roomOf(path: string): string | undefined {
  let found: string | undefined;
  for (const room of rooms) {
    const isInside = path === room || (room.endsWith("/") && path.startsWith(room));
    if (isInside && room.length > (found?.length ?? 0)) found = room;
  }
  return found;
}

/** Every product file lies in a room, and imports nothing from a room above its own. */
export function ruleRooms(sources: readonly Source[]): string[] {
  const found: string[] = [];
  for (const source of sources) {
    if (!source.path.endsWith(".ts") || source.isTest) continue;
    const room = roomOf(source.path);
    if (room === undefined) {
      found.push(
        `${source.path}:1: lies in no room: move it, or give its folder a place in tests/tidy/rooms.ts`,
      );
      continue;
    }
    for (const { at, specifier } of importsOf(source)) {
      if (!specifier.startsWith(".")) continue;
      const target = resolve(source.path, specifier);
      const targetRoom = roomOf(target);
      if (targetRoom === undefined || rooms.indexOf(targetRoom) >= rooms.indexOf(room)) continue;
      found.push(source.finding(at, `imports ${target}: ${room} lies below ${targetRoom}`));
    }
  }
  return found;
}

/** A failing test is found by the name of its file alone. */
export function ruleTestNames(sources: readonly Source[]): string[] {
  const found: string[] = [];
  const paths = new Map<string, string>();
  for (const { path } of sources) {
    if (!path.endsWith("_test.ts")) continue;
    const name = path.replace(/^.*\//, "");
    const other = paths.get(name);
    if (other === undefined) paths.set(name, path);
    else found.push(`${path}:1: ${other} has this name too`);
  }
  return found;
}

/** A test file registers its tests wherever it is imported, so they would run twice. What tests share is a helper. */
export function ruleTestImports(sources: readonly Source[]): string[] {
  const found: string[] = [];
  for (const source of sources) {
    if (!source.path.endsWith(".ts")) continue;
    for (const { at, specifier } of importsOf(source)) {
      if (!specifier.endsWith("_test.ts")) continue;
      found.push(source.finding(at, `imports ${specifier}: move what it needs to a helper`));
    }
  }
  return found;
}
