/**
 * The durable commits that readers hold, and the freed metadata blocks that wait for the end of a hold: a reader still finds
 * in them what the commit had.
 */
import { assert } from "./base/assert.ts";
import type { MetadataBlock } from "./base/ids.ts";

/** The blocks of a durable commit, which are not reused while a reader holds it. */
export interface HeldBlocks {
  /** One bit per block. */
  readonly bits: Uint8Array;
}

/** See the head of this file. */
export class MetadataHolds {
  readonly #holds = new Set<HeldBlocks>();
  #waiting: MetadataBlock[] = [];

  /** A reader begins to hold these blocks. */
  add(held: HeldBlocks): void {
    assert(!this.#holds.has(held), "a commit is held twice under one name");
    this.#holds.add(held);
  }

  /** Ends a hold. Answers with the blocks that have waited; those that another hold contains have to wait again. */
  delete(held: HeldBlocks): readonly MetadataBlock[] {
    assert(this.#holds.delete(held), "a held commit is released once");
    const waiting = this.#waiting;
    this.#waiting = [];
    return waiting;
  }

  /** Whether a held commit contains the block. */
  has(block: MetadataBlock): boolean {
    for (const hold of this.#holds) {
      // A commit that was held before the metadata grew has no bits for the new blocks.
      if (((hold.bits[block >>> 3] ?? 0) & (1 << (block & 7))) !== 0) return true;
    }
    return false;
  }

  /** A freed block that a held commit contains waits. */
  wait(block: MetadataBlock): void {
    assert(this.#holds.size > 0, "blocks wait for a hold, and there is none");
    this.#waiting.push(block);
  }
}
