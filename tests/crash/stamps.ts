/** Bytes that tell where they come from: every 512 bytes name their volume, sector and write, or the free block they lie in. */

const sectorWords = 128;
const stampMagic = 0x7374616d;
const poisonMagic = 0x706f6973;

/** The payload of a write: which volume, which of its sectors, which write. */
export function stamped(volume: number, sectorBegin: number, sectors: number, sequence: number): Uint8Array {
  const words = new Uint32Array(sectors * sectorWords);
  for (let at = 0; at < words.length; at += 4) {
    words[at] = stampMagic;
    words[at + 1] = volume;
    words[at + 2] = sectorBegin + Math.floor(at / sectorWords);
    words[at + 3] = sequence;
  }
  return new Uint8Array(words.buffer);
}

/** What a free data block holds before anybody has written it. */
export function poisoned(sizeBytes: number): Uint8Array {
  const words = new Uint32Array(sizeBytes / 4);
  for (let at = 0; at < words.length; at += 2) {
    words[at] = poisonMagic;
    words[at + 1] = Math.floor(at / sectorWords);
  }
  return new Uint8Array(words.buffer);
}

/** For a person: whose bytes these are. */
export function describeSector(words: Uint32Array, sector: number): string {
  const at = sector * sectorWords;
  if (hashSector(words, sector) === 0) return "zeroes";
  if (words[at] === poisonMagic) {
    return `what lay in a free block (sector ${words[at + 1]} of the data device)`;
  }
  if (words[at] !== stampMagic) return `unknown bytes (${words[at]?.toString(16)})`;
  return `write ${words[at + 3]} of sector ${words[at + 2]} of volume number ${words[at + 1]}`;
}

/** A number that stands for the content of a sector; 0 only for zeroes. */
export function hashSector(words: Uint32Array, sector: number): number {
  let mixed = 0;
  let sum = 0;
  const end = (sector + 1) * sectorWords;
  for (let at = sector * sectorWords; at < end; at += 1) {
    const word = words[at]!;
    mixed = Math.imul(mixed ^ word, 0x9e3779b1);
    mixed ^= mixed >>> 15;
    sum = (sum + word) | 0;
  }
  return (mixed >>> 0) * 0x20_0000 + ((sum >>> 0) & 0x1f_ffff);
}
