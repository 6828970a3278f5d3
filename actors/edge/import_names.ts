/** Names and sizes for `import`: of the metadata of a pool of ours they are in the catalogue beside it. */
import fs from "node:fs";
import { dirname } from "node:path";
import { UserError } from "../../storage/base/errors.ts";
import type { ThinId } from "../../storage/base/ids.ts";
import type { VolumeRecord } from "../../storage/catalogue.ts";
import { ForeignFormatError } from "../../storage/catalogue_journal.ts";
import { CatalogueCopies } from "./catalogue_copies.ts";
import { pathIn, poolPaths } from "./pool_paths.ts";

/**
 * The records of the pool in whose directory the metadata lies, by thin id; empty if there is none, or if its catalogue does not
 * belong to this metadata. Throws {@linkcode UserError} if it has the format of another version.
 */
export function recordsBeside(metadataPath: string, transactionId: bigint): Map<ThinId, VolumeRecord> {
  const directory = dirname(metadataPath);
  const records = new Map<ThinId, VolumeRecord>();
  // The permission for the metadata alone is enough to import it.
  if (Deno.permissions.querySync({ name: "read", path: directory }).state !== "granted") return records;
  try {
    using copies = new CatalogueCopies(poolPaths(directory));
    if (!isSameFile(pathIn(directory, copies.settings.metadataPath), metadataPath)) return records;
    for (const record of copies.settle(transactionId).catalogue.volumes()) records.set(record.thinId, record);
  } catch (error) {
    // Without a catalogue the metadata is imported as that of any other program.
    if (error instanceof ForeignFormatError || !(error instanceof UserError)) throw error;
  }
  return records;
}

function isSameFile(one: string, other: string): boolean {
  const [first, second] = [one, other].map((path) => fs.statSync(path, { throwIfNoEntry: false }));
  return first !== undefined && first.dev === second?.dev && first.ino === second?.ino;
}
