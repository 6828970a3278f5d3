/** A set of data blocks: a bitmap in chunks. A chunk exists only if a bit in it was set. */
import { assert } from "./base/assert.ts";
import { type DBlock, dblock } from "./base/ids.ts";

/** A run of data blocks: `length` blocks from `begin`. */
export interface DBlockRun {
  readonly begin: DBlock;
  readonly length: number;
}

const chunkBits = 2 ** 14;
const wordsPerChunk = chunkBits / 32;

/** See the head of this file. */
export class BlockSet {
  readonly #chunks = new Map<number, Uint32Array>();
  #size = 0;

  /** Blocks in the set. */
  get size(): number {
    return this.#size;
  }

  has(block: DBlock): boolean {
    const chunk = this.#chunks.get(Math.floor(block / chunkBits));
    if (chunk === undefined) return false;
    const bit = block % chunkBits;
    return (chunk[bit >>> 5]! & (1 << (bit & 31))) !== 0;
  }

  /** Adds a block that is not in the set. */
  add(block: DBlock): void {
    const index = Math.floor(block / chunkBits);
    let chunk = this.#chunks.get(index);
    if (chunk === undefined) {
      chunk = new Uint32Array(wordsPerChunk);
      this.#chunks.set(index, chunk);
    }
    const bit = block % chunkBits;
    const mask = 1 << (bit & 31);
    assert((chunk[bit >>> 5]! & mask) === 0, "a block was added to a set twice");
    chunk[bit >>> 5] = chunk[bit >>> 5]! | mask;
    this.#size += 1;
  }

  /** Removes a block that is in the set. */
  delete(block: DBlock): void {
    const chunk = this.#chunks.get(Math.floor(block / chunkBits));
    assert(chunk !== undefined, "a block was removed from a set that does not hold it");
    const bit = block % chunkBits;
    const mask = 1 << (bit & 31);
    assert((chunk[bit >>> 5]! & mask) !== 0, "a block was removed from a set that does not hold it");
    chunk[bit >>> 5] = chunk[bit >>> 5]! & ~mask;
    this.#size -= 1;
  }

  addRun(run: DBlockRun): void {
    for (let index = 0; index < run.length; index += 1) this.add(dblock(run.begin + index));
  }

  /** Moves all blocks of `other`, none of which is in this set, into this set. */
  takeAll(other: BlockSet): void {
    for (const [index, from] of other.#chunks) {
      const to = this.#chunks.get(index);
      if (to === undefined) this.#chunks.set(index, from);
      else {
        let inBoth = 0;
        for (let word = 0; word < wordsPerChunk; word += 1) {
          inBoth |= to[word]! & from[word]!;
          to[word]! |= from[word]!;
        }
        assert(inBoth === 0, "a block was added to a set twice");
      }
    }
    this.#size += other.#size;
    other.#chunks.clear();
    other.#size = 0;
  }

  /**
   * The set as runs in ascending order, none longer than `lengthMax` blocks. The set must not change during the
   * iteration.
   */
  *runs(lengthMax: number): IterableIterator<DBlockRun> {
    let begin = -1;
    let length = 0;
    const chunksInOrder = [...this.#chunks.keys()].sort((a, b) => a - b);
    for (const index of chunksInOrder) {
      const chunk = this.#chunks.get(index)!;
      for (let word = 0; word < wordsPerChunk; word += 1) {
        if (chunk[word] === 0) continue;
        for (let bit = 0; bit < 32; bit += 1) {
          if ((chunk[word]! & (1 << bit)) === 0) continue;
          const block = index * chunkBits + word * 32 + bit;
          if (begin + length === block && length > 0 && length < lengthMax) {
            length += 1;
            continue;
          }
          if (length > 0) yield { begin: dblock(begin), length };
          begin = block;
          length = 1;
        }
      }
    }
    if (length > 0) yield { begin: dblock(begin), length };
  }
}
