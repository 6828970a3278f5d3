/**
 * Little-endian fields of a metadata block. 64-bit values that are numbers to us are read as two halves,
 * without BigInt.
 */

const twoTo32 = 0x1_0000_0000;

/** First number that a double no longer counts exactly. */
export const exactNumberEnd = 0x20_0000_0000_0000;

/** A view of exactly these bytes. */
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
 * A u64 as a number. From 2^53 on the low bits are lost, but the result stays beyond every bound we check
 * against.
 */
export function readU64(view: DataView, offset: number): number {
  return view.getUint32(offset + 4, true) * twoTo32 + view.getUint32(offset, true);
}

/** Writes a whole number below 2^53 as a u64. */
export function writeU64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value, true); // DataView keeps the low 32 bits
  view.setUint32(offset + 4, Math.floor(value / twoTo32), true);
}

/** A u64 that is opaque to us, such as the transaction id. */
export function readOpaqueU64(view: DataView, offset: number): bigint {
  return view.getBigUint64(offset, true);
}

/** Writes a u64 that is opaque to us. */
export function writeOpaqueU64(view: DataView, offset: number, value: bigint): void {
  view.setBigUint64(offset, value, true);
}
