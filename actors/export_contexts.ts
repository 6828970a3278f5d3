/** Which metadata contexts an export has. Pure: it reads the catalogue. */
import type { Catalogue, VolumeRecord } from "../storage/catalog.ts";
import type { ExportContext } from "./pool_messages.ts";

/**
 * `base:allocation`, and for every other snapshot of the family what differs from it. A snapshot of the volume itself goes
 * by what follows its "@", another by its whole name; as no part of a name has an "@", no two are the same.
 *
 * A snapshot of a volume that is gone may stand under the name of a new one, but it is of another family.
 */
export function contextsOf(catalogue: Catalogue, record: VolumeRecord): ExportContext[] {
  const contexts: ExportContext[] = [];
  const ownPrefix = `${record.name.split("@", 1)[0]}@`;
  for (const { uid, name, deleting, thinId } of catalogue.familyOf(record.uid)) {
    if (!name.includes("@") || deleting || uid === record.uid) continue;
    const short = name.startsWith(ownPrefix) ? name.slice(ownPrefix.length) : name;
    contexts.push({ name: `qemu:dirty-bitmap:${short}`, source: { kind: "dirty", thinId } });
  }
  contexts.sort((a, b) => a.name < b.name ? -1 : 1);
  return [{ name: "base:allocation", source: { kind: "allocation" } }, ...contexts];
}
