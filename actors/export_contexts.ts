/** Which metadata contexts an export has. Pure: it reads the catalogue. */
import type { Catalogue, VolumeRecord } from "../storage/catalog.ts";
import { parseName } from "../storage/names.ts";
import type { ExportContext } from "./pool_messages.ts";

/**
 * `base:allocation`, and for every other snapshot of the family what differs from it. A snapshot of the volume itself goes
 * by what follows its "@", another by its whole name; as no part of a name has an "@", no two are the same.
 *
 * A snapshot of a volume that is gone may stand under the name of a new one, but it is of another family.
 */
export function contextsOf(catalogue: Catalogue, record: VolumeRecord): ExportContext[] {
  const contexts: ExportContext[] = [];
  const { volume } = parseName(record.name);
  for (const relative of familyOf(catalogue, record)) {
    const name = parseName(relative.name);
    if (name.snapshot === undefined || relative.deleting || relative.uid === record.uid) continue;
    const short = name.volume === volume ? name.snapshot : name.name;
    contexts.push({
      name: `qemu:dirty-bitmap:${short}`,
      source: { kind: "dirty", thinId: relative.thinId },
    });
  }
  contexts.sort((a, b) => a.name < b.name ? -1 : 1);
  return [{ name: "base:allocation", source: { kind: "allocation" } }, ...contexts];
}

/**
 * All records that what they were made from ties together, this one included. Where a record is gone, those that were made
 * from it still name it, and so each other; what it was made from itself is forgotten.
 */
function familyOf(catalogue: Catalogue, record: VolumeRecord): VolumeRecord[] {
  const madeFrom = new Map<string, VolumeRecord[]>();
  for (const each of catalogue.volumes()) {
    if (each.origin === null) continue;
    const siblings = madeFrom.get(each.origin);
    if (siblings === undefined) madeFrom.set(each.origin, [each]);
    else siblings.push(each);
  }
  const family: VolumeRecord[] = [];
  const met = new Set([record.uid]);
  // Grows while it is read.
  const uids = [record.uid];
  const meet = (uid: string | null): void => {
    if (uid === null || met.has(uid)) return;
    met.add(uid);
    uids.push(uid);
  };
  for (const uid of uids) {
    for (const made of madeFrom.get(uid) ?? []) meet(made.uid);
    const relative = catalogue.byUid(uid);
    if (relative === undefined) continue;
    family.push(relative);
    meet(relative.origin);
  }
  return family;
}
