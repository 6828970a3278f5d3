/**
 * Mapped segments of one file that are sent later than in the drain in which they were made: a client has no room for them yet.
 * Before bytes of the file change, whatever changes them, each segment that shows them is copied by what holds it. So a reply
 * shows what was there when it was read, and never what a block that was freed is used for next.
 */
import { assert } from "../../storage/base/assert.ts";
import { heldSegmentsMax } from "../limits.ts";

/** A segment that is held. */
export interface HeldRange {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** Copies the bytes, and gives up the hold, before it returns. */
  readonly copyNow: () => void;
}

/** See the head of this file. */
export class HeldSegments {
  readonly #held = new Set<HeldRange>();

  /** False if too many are held already: each change looks at all of them. */
  add(range: HeldRange): boolean {
    if (this.#held.size >= heldSegmentsMax) return false;
    this.#held.add(range);
    return true;
  }

  /** May be repeated. */
  remove(range: HeldRange): void {
    this.#held.delete(range);
  }

  /** These bytes are about to change. */
  beforeChange(offsetBytes: number, lengthBytes: number): void {
    if (this.#held.size === 0) return;
    for (const range of this.#held) {
      const isApart = range.offsetBytes + range.lengthBytes <= offsetBytes ||
        offsetBytes + lengthBytes <= range.offsetBytes;
      if (!isApart) this.#copy(range);
    }
  }

  /** The mapping of the file is about to end. */
  beforeUnmapping(): void {
    for (const range of this.#held) this.#copy(range);
  }

  #copy(range: HeldRange): void {
    range.copyNow();
    assert(!this.#held.has(range), "a segment is held whose bytes were copied");
  }
}
