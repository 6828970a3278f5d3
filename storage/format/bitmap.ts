/**
 * A space map bitmap: 16,320 counts of two bits each; 3 means "3 or more, see the overflow tree" (`sm_lookup_bitmap`,
 * drivers/md/persistent-data/dm-space-map-common.c). The lower bit of a field is the HIGH bit of the count, so the two
 * bits of a field must be swapped.
 */

/** Counts in one bitmap. */
export const bitmapEntries = 16_320;
/** Where the counts begin in the block. */
const bitmapPayloadOffset = 16;
/** The field value that refers to the overflow tree. */
export const countOverflows = 3;

/** Swaps the two bits of a field. Applied twice, it changes nothing. */
function swapBits(field: number): number {
  return ((field & 1) << 1) | (field >>> 1);
}

/** The count of entry `index`: 0, 1, 2, or 3 for "three or more". */
export function bitmapCount(bytes: Uint8Array, index: number): number {
  const field = (bytes[bitmapPayloadOffset + (index >>> 2)]! >>> ((index & 3) * 2)) & 3;
  return swapBits(field);
}

/** Sets the count of entry `index` to 0, 1, 2, or 3 for "three or more". */
export function setBitmapCount(bytes: Uint8Array, index: number, count: number): void {
  const at = bitmapPayloadOffset + (index >>> 2);
  const shift = (index & 3) * 2;
  bytes[at] = (bytes[at]! & ~(3 << shift)) | (swapBits(count) << shift);
}

/** Sets the counts of all entries from `begin` on to 0, to the end of the block. */
export function clearBitmapFrom(bytes: Uint8Array, begin: number): void {
  const wholeBegin = Math.ceil(begin / 4);
  for (let index = begin; index < wholeBegin * 4; index++) setBitmapCount(bytes, index, 0);
  bytes.fill(0, bitmapPayloadOffset + wholeBegin);
}

/** Writes the counts into a bitmap that is all zeroes; 3 and above become 3. Returns how many counts are not 0. */
export function packBitmap(bytes: Uint8Array, counts: Uint32Array): number {
  let used = 0;
  for (let index = 0; index < counts.length; index++) {
    const count = counts[index]!;
    if (count === 0) continue;
    used++;
    bytes[bitmapPayloadOffset + (index >>> 2)]! |= swapBits(Math.min(count, countOverflows)) <<
      ((index & 3) * 2);
  }
  return used;
}

/** Number of entries in `[0, entries)` whose count is not zero. */
export function bitmapUsed(bytes: Uint8Array, entries: number): number {
  let used = 0;
  const wholeEnd = bitmapPayloadOffset + (entries >>> 2);
  for (let at = bitmapPayloadOffset; at < wholeEnd; at++) used += usedInByte[bytes[at]!]!;
  for (let index = entries & ~3; index < entries; index++) if (bitmapCount(bytes, index) !== 0) used++;
  return used;
}

/** The first entry in `[from, entries)` with count zero, or `entries` if there is none. */
export function bitmapNextFree(bytes: Uint8Array, from: number, entries: number): number {
  let index = from;
  while (index < entries) {
    if ((index & 3) === 0 && usedInByte[bytes[bitmapPayloadOffset + (index >>> 2)]!] === 4) index += 4;
    else if (bitmapCount(bytes, index) === 0) return index;
    else index++;
  }
  return entries;
}

/** The first entry in `[from, entries)` with a count above zero, or `entries` if there is none. */
export function bitmapNextUsed(bytes: Uint8Array, from: number, entries: number): number {
  let index = from;
  while (index < entries) {
    if ((index & 3) === 0 && bytes[bitmapPayloadOffset + (index >>> 2)] === 0) index += 4;
    else if (bitmapCount(bytes, index) !== 0) return index;
    else index++;
  }
  return entries;
}

/** By value of a byte: how many of its four fields are not 0. */
const usedInByte = makeUsedInByte();

function makeUsedInByte(): Uint8Array {
  const used = new Uint8Array(256);
  for (let byte = 0; byte < 256; byte++) {
    for (let shift = 0; shift < 8; shift += 2) if (((byte >>> shift) & 3) !== 0) used[byte]!++;
  }
  return used;
}
