/** Sizes as people write them: `512`, `10G` and `10GiB` (powers of 1024), `10GB` (powers of 1000), `1.5T`. */
import { UsageError } from "./errors.ts";
import { metadataBlockSizeBytes } from "./ids.ts";

const prefixes = "KMGTPE";
const sizePattern = /^(\d{1,20})(?:\.(\d{1,20}))?(?:([KMGTPE])(iB|B)?|B)?$/i;

/**
 * Bytes from a size. Upper and lower case are the same; a bare number is bytes; a fraction is exact, and what is left of a
 * byte counts as one. At least 1 and at most 2^53 - 1. Throws {@linkcode UsageError}.
 */
export function parseSize(text: string): number {
  const match = sizePattern.exec(text);
  if (match === null) {
    throw new UsageError(
      `${
        JSON.stringify(text.slice(0, 100))
      } is not a size. Write a number of bytes, or one such as 10G, 1.5GiB or 10GB.`,
    );
  }
  const [, whole = "", fraction = "", prefix, suffix = ""] = match;
  const step = suffix.toLowerCase() === "b" ? 1000n : 1024n;
  const power = prefix === undefined ? 0 : prefixes.indexOf(prefix.toUpperCase()) + 1;
  const divisor = 10n ** BigInt(fraction.length);
  const bytes = (BigInt(whole + fraction) * step ** BigInt(power) + divisor - 1n) / divisor;
  if (bytes === 0n) throw new UsageError(`A size of ${text} is nothing. Give a positive one.`);
  if (bytes > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new UsageError(
      `A size of ${text} is more than the 8 PiB that can be addressed. Give a smaller one.`,
    );
  }
  return Number(bytes);
}

/** A size for people: exact if it is a whole number of KiB, MiB and so on, else with one digit after the point. */
export function formatSize(bytes: number): string {
  let power = 0;
  // 1023.95 and above would print as 1024.0.
  while (power < prefixes.length && bytes / 1024 ** power >= (power === 0 ? 1024 : 1023.95)) power += 1;
  if (power === 0) return `${bytes} B`;
  const value = bytes / 1024 ** power;
  const digits = Number.isInteger(value) ? String(value) : value.toFixed(1);
  return `${digits} ${prefixes[power - 1]}iB`;
}

/** `bytes` rounded up to a multiple of `unitBytes`. */
export function roundUp(bytes: number, unitBytes: number): number {
  return Math.ceil(bytes / unitBytes) * unitBytes;
}

/** `bytes` rounded down to a multiple of `unitBytes`. */
export function roundDown(bytes: number, unitBytes: number): number {
  return Math.floor(bytes / unitBytes) * unitBytes;
}

/** Smallest metadata device that is made: what the kernel's documentation recommends at least (Documentation/admin-guide/device-mapper/thin-provisioning.rst). */
export const metadataBytesMin = 2 << 20;
/** Largest metadata device that is used: 255 index entries of 16,320 blocks (`THIN_METADATA_MAX_SECTORS`, drivers/md/dm-thin-metadata.h), 15.875 GiB. */
export const metadataBytesMax = 255 * 16_320 * metadataBlockSizeBytes;

/**
 * Bytes of metadata for a data device of so many dblocks: 48 a dblock (the kernel documentation's thin-provisioning.rst) hold each dblock once; twice that, and
 * at least 16 MiB, leaves room for the snapshots, which map the same dblocks again in nodes of their own.
 */
export function defaultMetadataBytes(dataBlockCount: number): number {
  const wanted = Math.max(2 * 48 * dataBlockCount, 16 << 20);
  return Math.min(roundUp(wanted, metadataBlockSizeBytes), metadataBytesMax);
}
