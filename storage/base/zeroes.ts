/** Whether bytes are all zero. */
import { wordsPerZeroTest } from "./limits.ts";

/** True if every byte is zero, also of none. Data ends the search at its first 64 bytes that are not. */
export function isZeroes(bytes: Uint8Array): boolean {
  const { buffer, byteOffset, length } = bytes;
  // Words begin at a multiple of four in the buffer. What is in front of them, and the first of them, tells for most data.
  const wordsBegin = Math.min(length, (4 - byteOffset % 4) % 4);
  const head = Math.min(length, wordsBegin + 4);
  for (let at = 0; at < head; at += 1) if (bytes[at] !== 0) return false;
  if (head === length) return true;
  const words = new Int32Array(buffer, byteOffset + wordsBegin, Math.floor((length - wordsBegin) / 4));
  const whole = words.length - words.length % wordsPerZeroTest;
  for (let at = 0; at < whole; at += wordsPerZeroTest) {
    let met = 0;
    for (let word = at; word < at + wordsPerZeroTest; word += 1) met |= words[word]!;
    if (met !== 0) return false;
  }
  for (let at = wordsBegin + whole * 4; at < length; at += 1) if (bytes[at] !== 0) return false;
  return true;
}
