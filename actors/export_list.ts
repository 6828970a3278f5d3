/** What the pool tells of its exports: a list of them, and a description of each. Pure. */
import type { Catalogue, VolumeRecord } from "../storage/catalog.ts";

/** A name of two parts is a snapshot's. */
export function isSnapshot(record: VolumeRecord): boolean {
  return record.name.includes("@");
}

/** For a person. */
export function descriptionOf(catalogue: Catalogue, record: VolumeRecord): string {
  if (isSnapshot(record)) return "thin snapshot";
  const origin = catalogue.nameOf(record.origin);
  return origin === null ? "thin volume" : `thin clone of ${origin}`;
}

/** The names of all exports, sorted, and a description of each; without those whose uids are `leaving`. */
export function listExports(
  catalogue: Catalogue,
  leaving: ReadonlySet<string>,
): { names: string[]; descriptions: string[] } {
  const records: VolumeRecord[] = [];
  for (const record of catalogue.volumes()) {
    if (!record.deleting && !leaving.has(record.uid)) records.push(record);
  }
  records.sort((a, b) => a.name < b.name ? -1 : 1);
  return {
    names: records.map(({ name }) => name),
    descriptions: records.map((record) => descriptionOf(catalogue, record)),
  };
}
