/**
 * Little-endian fields of a metadata block. 64-bit values are read as two halves, without BigInt, except opaque ones.
 */

const twoTo32 = 0x1_0000_0000;

/** 2^53: numbers below it are exact in a double. */
export const exactNumberEnd = 0x20_0000_0000_0000;

/** A DataView of exactly these bytes. */
export function viewOf(bytes: Uint8Array): DataView<ArrayBufferLike> {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The u32 at `offset`. */
export function readU32(view: DataView, offset: number): number {
  return view.getUint32(offset, true);
}

/** Writes a u32 at `offset`. */
export function writeU32(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value, true);
}

/**
 * A u64 as a number. From 2^53 on the low bits are lost, but the result is still above every bound that it is compared
 * with.
 */
export function readU64(view: DataView, offset: number): number {
  return view.getUint32(offset + 4, true) * twoTo32 + view.getUint32(offset, true);
}

/** Writes a whole number below 2^53 as a u64. */
export function writeU64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value, true); // DataView keeps the low 32 bits
  view.setUint32(offset + 4, Math.floor(value / twoTo32), true);
}

/** A u64 of which all 64 bits must be kept, such as the transaction id. */
export function readOpaqueU64(view: DataView, offset: number): bigint {
  return view.getBigUint64(offset, true);
}

/** Writes a u64 of which all 64 bits must be kept. */
export function writeOpaqueU64(view: DataView, offset: number, value: bigint): void {
  view.setBigUint64(offset, value, true);
}
