/**
 * The headers of the intent journal: one of the file, one of each segment, 4 KiB each. See FORMAT.md, "The intent journal".
 * What is read comes from a file, so nothing of it is asserted.
 */
import { crc32c } from "./format/crc32c.ts";
import { readOpaqueU64, readU32, viewOf, writeOpaqueU64, writeU32 } from "./format/fields.ts";
import { metadataBlockSizeBytes, sectorSizeBytes } from "./base/ids.ts";
import { assert } from "./base/assert.ts";
import type { IntentBinding } from "./device/intent_port.ts";

/** Bytes of each header: one page, so that a process that dies has written all of it or nothing. */
export const intentHeaderBytes = 4096;
/** The format that this program writes, and the highest that it reads. */
const intentFormat = 1;

const fileMagic = new TextEncoder().encode("GSINTENT");
const segmentMagic = new TextEncoder().encode("GSSEGMNT");
const bootIdBytes = 40;
const identityBytes = 64;
// Offsets in the header of the file.
const atFormat = 8;
const atChecksum = 12;
const atVoid = 16;
const atSegmentBytes = 20;
const atBootId = 24;
const atData = 64;
const atMetadata = 128;
const atFile = 192;
// Offsets in the header of a segment. The checksum is at the same place.
const atGeneration = 16;
const atFollows = 24;
const atFollowsRecords = 32;
const atBase = 40;
/** A checksum and a sector. */
const baseBytes = 4 + sectorSizeBytes;

/** The header of the file. */
export interface FileHeader {
  readonly isVoid: boolean;
  /** Bytes of one segment, its header included. */
  readonly segmentBytes: number;
  readonly binding: IntentBinding;
}

/** What the segment follows: the one whose transaction is committed while this one is filled. */
export interface Followed {
  readonly generation: bigint;
  /** Records of that segment. */
  readonly records: number;
}

/** The header of a segment. */
export interface SegmentHeader {
  readonly generation: bigint;
  readonly follows: Followed | undefined;
  /** See {@linkcode baseOf}. */
  readonly base: Uint8Array;
}

/** Packs the header of the file. */
export function packFileHeader({ isVoid, segmentBytes, binding }: FileHeader): Uint8Array {
  const bytes = new Uint8Array(intentHeaderBytes);
  const view = viewOf(bytes);
  bytes.set(fileMagic);
  writeU32(view, atFormat, intentFormat);
  writeU32(view, atVoid, isVoid ? 1 : 0);
  writeU32(view, atSegmentBytes, segmentBytes);
  setText(bytes, atBootId, bootIdBytes, binding.bootId);
  setText(bytes, atData, identityBytes, binding.data);
  setText(bytes, atMetadata, identityBytes, binding.metadata);
  setText(bytes, atFile, identityBytes, binding.file);
  writeU32(view, atChecksum, crc32c(bytes, atVoid));
  return bytes;
}

/** The header of the file; the number of a newer format; undefined if there is none, or it is not whole. */
export function unpackFileHeader(bytes: Uint8Array): FileHeader | number | undefined {
  if (bytes.length < intentHeaderBytes || !startsWith(bytes, fileMagic)) return undefined;
  const view = viewOf(bytes);
  // First: a newer format may have its checksum elsewhere.
  const format = readU32(view, atFormat);
  if (format > intentFormat) return format;
  if (readU32(view, atChecksum) !== crc32c(bytes, atVoid, intentHeaderBytes)) return undefined;
  return {
    isVoid: readU32(view, atVoid) !== 0,
    segmentBytes: readU32(view, atSegmentBytes),
    binding: {
      bootId: textAt(bytes, atBootId, bootIdBytes),
      data: textAt(bytes, atData, identityBytes),
      metadata: textAt(bytes, atMetadata, identityBytes),
      file: textAt(bytes, atFile, identityBytes),
    },
  };
}

/** Packs the header of a segment. */
export function packSegmentHeader({ generation, follows, base }: SegmentHeader): Uint8Array {
  assert(generation !== 0n, "a segment has a generation");
  const bytes = new Uint8Array(intentHeaderBytes);
  const view = viewOf(bytes);
  bytes.set(segmentMagic);
  writeU32(view, atFollowsRecords, follows?.records ?? 0);
  writeOpaqueU64(view, atGeneration, generation);
  writeOpaqueU64(view, atFollows, follows?.generation ?? 0n);
  bytes.set(base, atBase);
  writeU32(view, atChecksum, crc32c(bytes, atGeneration));
  return bytes;
}

/** The header of a segment; undefined if there is none, or it is not whole. */
export function unpackSegmentHeader(bytes: Uint8Array): SegmentHeader | undefined {
  if (bytes.length < intentHeaderBytes || !startsWith(bytes, segmentMagic)) return undefined;
  const view = viewOf(bytes);
  if (readU32(view, atChecksum) !== crc32c(bytes, atGeneration, intentHeaderBytes)) return undefined;
  const generation = readOpaqueU64(view, atGeneration);
  if (generation === 0n) return undefined;
  const followed = readOpaqueU64(view, atFollows);
  return {
    generation,
    follows: followed === 0n ? undefined : { generation: followed, records: readU32(view, atFollowsRecords) },
    base: bytes.slice(atBase, atBase + baseBytes),
  };
}

/**
 * What a segment keeps of the superblock on which its transaction builds: a checksum of the whole block, and its first sector,
 * in which all its fields are.
 */
export function baseOf(superblock: Uint8Array): Uint8Array {
  assert(superblock.length === metadataBlockSizeBytes, "a superblock is a metadata block");
  const base = new Uint8Array(baseBytes);
  writeU32(viewOf(base), 0, crc32c(superblock));
  base.set(superblock.subarray(0, sectorSizeBytes), 4);
  return base;
}

/** Whether two are the same, byte for byte. */
export function areSameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

function startsWith(bytes: Uint8Array, magic: Uint8Array): boolean {
  return areSameBytes(bytes.subarray(0, magic.length), magic);
}

function setText(bytes: Uint8Array, at: number, bytesMax: number, text: string): void {
  const encoded = new TextEncoder().encode(text);
  assert(encoded.length <= bytesMax, "an identity fits into its field");
  bytes.set(encoded, at);
}

function textAt(bytes: Uint8Array, at: number, bytesMax: number): string {
  const field = bytes.subarray(at, at + bytesMax);
  const end = field.indexOf(0);
  return new TextDecoder().decode(end < 0 ? field : field.subarray(0, end));
}
