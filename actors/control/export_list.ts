/** Lists of exports and of their metadata contexts, made in slices, because there may be thousands. Reads the catalogue. */
import type { Catalogue, VolumeRecord } from "../../storage/catalogue.ts";
import { SliceEnd, type Slices, sortedSlices } from "../../storage/slices.ts";
import { rest, type Steps } from "../kernel/task.ts";
import type { PoolStub } from "./pool_messages.ts";
import type { ExportContext, ExportList } from "./export_messages.ts";

/** The names of all exports but those that `isLeaving` names by uid, sorted, and a description of each. */
export function* exportListSlices(
  catalogue: Catalogue,
  isLeaving: (uid: string) => boolean,
  perSlice: number,
): Slices<ExportList> {
  // Records are never changed in place, so this is the catalogue of one instant.
  const all = [...catalogue.volumes()];
  const end = new SliceEnd(perSlice);
  const records: VolumeRecord[] = [];
  for (const record of all) {
    if (end.isDue()) yield;
    if (!record.deleting && !isLeaving(record.uid)) records.push(record);
  }
  const names: string[] = [];
  const descriptions: string[] = [];
  for (const record of yield* sortedSlices(records, ({ name }) => name, perSlice)) {
    if (end.isDue()) yield;
    names.push(record.name);
    descriptions.push(descriptionOf(catalogue, record));
  }
  return { names, descriptions };
}

/** The description of an export, for a human reader. */
export function descriptionOf(catalogue: Catalogue, record: VolumeRecord): string {
  if (isSnapshot(record)) return "thin snapshot";
  const origin = catalogue.nameOf(record.origin);
  return origin === null ? "thin volume" : `thin clone of ${origin}`;
}

/** Whether it has the name of a snapshot. */
export function isSnapshot(record: VolumeRecord): boolean {
  return record.name.includes("@");
}

/**
 * `base:allocation`, and for every other snapshot of the family what differs from it. A snapshot of the volume itself goes
 * by what follows its "@", another by its whole name; as no part of a name has an "@", no two are the same.
 *
 * A snapshot whose volume was removed may have the name of a new volume in its own; it is of another family all the same.
 */
export function* contextSlices(
  catalogue: Catalogue,
  record: VolumeRecord,
  perSlice: number,
): Slices<ExportContext[]> {
  const contexts: ExportContext[] = [];
  const ownPrefix = `${record.name.split("@", 1)[0]}@`;
  const end = new SliceEnd(perSlice);
  for (const { uid, name, deleting, thinId } of yield* catalogue.familySlices(record.uid, perSlice)) {
    if (end.isDue()) yield;
    if (!name.includes("@") || deleting || uid === record.uid) continue;
    const short = name.startsWith(ownPrefix) ? name.slice(ownPrefix.length) : name;
    contexts.push({ name: `qemu:dirty-bitmap:${short}`, source: { kind: "dirty", thinId } });
  }
  const sorted = yield* sortedSlices(contexts, ({ name }) => name, perSlice);
  return [{ name: "base:allocation", source: { kind: "allocation" } }, ...sorted];
}

/** Drives a piece of the pool's work: between slices all other turns go first. */
export function* longAnswer(pool: PoolStub, work: number): Steps<void> {
  while ((yield* pool.workOn(work)) === "more") yield* rest();
}
