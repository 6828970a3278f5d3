/** Sizes on the command line: `512`, `10G` and `10GiB` (powers of 1024), `10GB` (powers of 1000), `1.5T`. */
import { UsageError } from "./errors.ts";
import { metadataBlockSizeBytes } from "./ids.ts";

const prefixes = "KMGTPE";
const sizePattern = /^(\d{1,20})(?:\.(\d{1,20}))?(?:([KMGTPE])(iB|B)?|B)?$/i;

/**
 * Parses a size; the result is bytes. Upper and lower case are the same, and a number without a unit is bytes. A
 * fraction is computed exactly and rounded up to a whole byte. The result is at least 1 and at most 2^53 - 1. Throws
 * {@linkcode UsageError}.
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

/** A new size, or what is added to the present one. */
export interface SizeChange {
  /** The new size, or what is added. */
  readonly bytes: number;
  /** Whether `bytes` are added to what is there. */
  readonly added: boolean;
}

/** Parses `10G`, the new size, or `+10G`, what is added. Throws {@linkcode UsageError}. */
export function parseSizeChange(text: string): SizeChange {
  const added = text.startsWith("+");
  return { bytes: parseSize(added ? text.slice(1) : text), added };
}

/** A size for output: exact if it is a whole number of KiB, MiB and so on, else with one digit after the point. */
export function formatSize(bytes: number): string {
  let power = 0;
  // 1023.95 and above would print as 1024.0.
  while (power < prefixes.length && bytes / 1024 ** power >= (power === 0 ? 1024 : 1023.95)) power += 1;
  if (power === 0) return `${bytes} B`;
  const value = bytes / 1024 ** power;
  const digits = Number.isInteger(value) ? String(value) : value.toFixed(1);
  return `${digits} ${prefixes[power - 1]}iB`;
}

/** A size for output, exact: in the largest unit of which it is a whole number. */
export function formatExactSize(bytes: number): string {
  let power = 0;
  while (power < prefixes.length && bytes > 0 && bytes % 1024 ** (power + 1) === 0) power += 1;
  return power === 0 ? `${bytes} B` : `${bytes / 1024 ** power} ${prefixes[power - 1]}iB`;
}

/** `bytes` rounded up to a multiple of `unitBytes`. */
export function roundUp(bytes: number, unitBytes: number): number {
  return Math.ceil(bytes / unitBytes) * unitBytes;
}

/** `bytes` rounded down to a multiple of `unitBytes`. */
export function roundDown(bytes: number, unitBytes: number): number {
  return Math.floor(bytes / unitBytes) * unitBytes;
}

/**
 * Bytes of the smallest metadata device that a new pool gets: the minimum that the kernel documents
 * (Documentation/admin-guide/device-mapper/thin-provisioning.rst).
 */
export const metadataBytesMin = 2 << 20;
/**
 * Bytes of the metadata device that can be used: 255 index entries of 16,320 blocks (`THIN_METADATA_MAX_SECTORS`,
 * drivers/md/dm-thin-metadata.h), 15.875 GiB.
 */
export const metadataBytesMax = 255 * 16_320 * metadataBlockSizeBytes;

/**
 * Bytes of metadata for a data device of `dataBlockCount` dblocks. 48 bytes a dblock hold one mapping of each (the
 * kernel's thin-provisioning.rst). Twice that, and at least 16 MiB, leaves space for snapshots, which map the same
 * dblocks in nodes of their own.
 */
export function defaultMetadataBytes(dataBlockCount: number): number {
  const wanted = Math.max(2 * 48 * dataBlockCount, 16 << 20);
  return Math.min(roundUp(wanted, metadataBlockSizeBytes), metadataBytesMax);
}

/** Bytes of a block unless said otherwise: 64 KiB. */
export const defaultBlockSizeBytes = 65536;
