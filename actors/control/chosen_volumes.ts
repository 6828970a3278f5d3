/** The volumes and snapshots that a command names, by name or by pattern. */
import type { VolumeRecord } from "../../storage/catalogue.ts";
import { isPattern, matchesPattern } from "../../storage/base/names.ts";
import { naturalKey } from "../../storage/base/natural_order.ts";
import { SliceEnd, type Slices, sortedSlices } from "../../storage/slices.ts";

/** A name of which there is no volume and no snapshot. A pattern that matches none is no mistake. */
export interface NoSuchName {
  readonly kind: "noSuchName";
  readonly name: string;
}

/**
 * The records with these names or matching these patterns, each once, in natural order; all if there is no name. Records that
 * are being deleted have no name any more.
 */
export function* chosenVolumes(
  records: readonly VolumeRecord[],
  names: readonly string[],
  perSlice: number,
): Slices<VolumeRecord[] | NoSuchName> {
  const end = new SliceEnd(perSlice);
  const missing = new Set<string>();
  const patterns: string[] = [];
  for (const name of names) {
    if (end.isDue()) yield;
    if (isPattern(name)) patterns.push(name);
    else missing.add(name);
  }
  const wanted = new Set(missing);
  const chosen: VolumeRecord[] = [];
  for (const record of records) {
    if (record.deleting) continue;
    let isChosen = names.length === 0 || wanted.has(record.name);
    missing.delete(record.name);
    for (const pattern of patterns) {
      if (isChosen) break;
      if (end.isDue()) yield;
      isChosen = matchesPattern(record.name, pattern);
    }
    if (end.isDue()) yield;
    if (isChosen) chosen.push(record);
  }
  for (const name of missing) return { kind: "noSuchName", name };
  return yield* sortedSlices(chosen, ({ name }) => naturalKey(name), perSlice);
}
