/**
 * Address kinds as distinct types, so that a data block cannot be used where a virtual block is expected.
 * All are non-negative integers below 2^53. Only the functions below cast to them.
 */

declare const kind: unique symbol;
type Branded<Kind extends string> = number & { readonly [kind]: Kind };

/** The 24-bit number of a thin device in the metadata. */
export type ThinId = Branded<"ThinId">;
/** Virtual block: an index into a volume, in blocks of the pool's block size. */
export type VBlock = Branded<"VBlock">;
/** Data block: an index into the data device, in blocks of the pool's block size. 40 bits on disk. */
export type DBlock = Branded<"DBlock">;
/** A 4096-byte block of the metadata device. */
export type MetadataBlock = Branded<"MetadataBlock">;

/** The casts. The caller is responsible for the kind of the number. */
export function thinId(value: number): ThinId {
  return value as ThinId;
}
export function vblock(value: number): VBlock {
  return value as VBlock;
}
export function dblock(value: number): DBlock {
  return value as DBlock;
}
export function metadataBlock(value: number): MetadataBlock {
  return value as MetadataBlock;
}

/** Largest legal {@linkcode ThinId}: 24 bits. */
export const thinIdMax = 0xff_ffff;
/** Bytes of a metadata block, always. */
export const metadataBlockSizeBytes = 4096;
/** Bytes of a sector, the unit of power-cut atomicity. */
export const sectorSizeBytes = 512;
