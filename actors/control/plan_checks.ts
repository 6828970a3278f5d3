/** Sizes and names that a plan checks, and the sentences that refuse them. */
import { sectorSizeBytes } from "../../storage/base/ids.ts";
import { volumeBytesMax, volumesMax } from "../limits.ts";
import type { Catalogue, VolumeRecord } from "../../storage/catalogue.ts";

/**
 * Bytes of a volume for a thin device that another program made. The metadata holds no size, so the volume ends where the
 * highest mapping ends, or at the largest size of a volume.
 */
export function adoptedSizeBytes(highestMapped: number | undefined, blockSizeBytes: number): number {
  return Math.min(((highestMapped ?? 0) + 1) * blockSizeBytes, volumeBytesMax);
}

/** The next step where a name is unknown. */
export const seeList = "`list` shows what is there.";

/**
 * Why a name cannot be given; undefined if it can.
 *
 * @param newNames how many names the command adds; 0 for a rename
 */
export function problemOfNewName(catalogue: Catalogue, name: string, newNames = 1): string | undefined {
  if (catalogue.byName(name) !== undefined) {
    return `"${name}" exists already. Choose another name, or remove it first.`;
  }
  if (newNames > 0 && catalogue.count + newNames > volumesMax) {
    return `a pool holds ${volumesMax} volumes and snapshots at most. Remove some first.`;
  }
  return undefined;
}

/** Why a volume cannot have a size, which the library and the control socket pass unchecked; undefined if it can. */
export function problemOfSize(sizeBytes: number): string | undefined {
  if (!Number.isInteger(sizeBytes) || sizeBytes <= 0) {
    return `a size of ${sizeBytes} bytes is no whole positive number. Give one that is.`;
  }
  if (sizeBytes > volumeBytesMax) {
    return `a volume has at most ${volumeBytesMax} bytes, 512 less than 8 PiB. Give a smaller size.`;
  }
  return undefined;
}

/** The refusal where all thin ids are in use. */
export function noThinIds(what: string): string {
  return `Cannot ${what}: all 16,777,216 device numbers are in use. Remove some volumes first.`;
}

/** The refusal where blocks beyond the end of a volume that became smaller are not removed yet. */
export function unfinishedTrim(what: string): string {
  return `Cannot ${what}: what lay beyond its end when it was made smaller could not be removed yet. ` +
    "Free some space and restart the pool, which finishes that first.";
}

/** Up to whole sectors. */
export function roundUpToSectors(sizeBytes: number): number {
  return Math.ceil(sizeBytes / sectorSizeBytes) * sectorSizeBytes;
}

/**
 * Whether the time rule calls all mappings of a volume shared, so that its clones need no tick of the clock. True for a
 * snapshot that gossamer took: its mappings are older than the tick at which it was taken, and it is never written. Not true
 * for every read-only volume: a thin device that another program made may hold mappings of the present time, which would
 * count as unshared.
 */
export function isOlderThanItsSnapshots(record: VolumeRecord): boolean {
  return record.readOnly && record.owner !== null;
}
