/**
 * Which data blocks lost a holder, and not their last one, since the last durable commit.
 *
 * A data block that has one holder now may have had two when the last commit was made durable, or in a commit that is
 * on its way. If we stopped then, the other one would be back, so nobody may have written the block in place.
 *
 * Say that in one of these states somebody besides its present holder reached a block. Then one operation since took
 * the last way but one to it. Either that way had a leaf of its own: an entry for the block was taken out or replaced
 * while the block's count was above 1, and the block is noted. Or the way was shared further up: a node with a count
 * above 1 was dropped, and every block counts as noted, since who is below it was not looked at. A copy of a shared
 * node takes no way: it gives all below it one count more. Nor do entries that move between nodes. So a block that is
 * not noted, and which one holder reaches now, had no other in any of these states.
 *
 * What an operation noted that was undone later stays noted, which costs a copy and nothing else.
 */
import type { DBlock } from "./base/ids.ts";

/** So many blocks are remembered for one transaction, in some 2 MiB; more count as all. */
export const partingsMax = 2 ** 16;

interface Noted {
  all: boolean;
  readonly blocks: Set<DBlock>;
}

/** See the head of this file. */
export class Partings {
  /** In the running transaction, and in the one whose commit is under way. */
  #now: Noted = { all: false, blocks: new Set() };
  #committing: Noted = { all: false, blocks: new Set() };

  /** A mapping of the block is gone, and another one is left. */
  note(block: DBlock): void {
    const { all, blocks } = this.#now;
    if (all) return;
    blocks.add(block);
    if (blocks.size > partingsMax) this.noteAll();
  }

  /** A way to many blocks is gone. */
  noteAll(): void {
    this.#now.all = true;
    this.#now.blocks.clear();
  }

  /** Whether the block may have another holder in a state that a crash can bring back. */
  has(block: DBlock): boolean {
    const [now, committing] = [this.#now, this.#committing];
    return now.all || committing.all || now.blocks.has(block) || committing.blocks.has(block);
  }

  /** The transaction has become a commit. */
  freeze(): void {
    const empty = this.#committing;
    this.#committing = this.#now;
    this.#now = empty;
  }

  /** That commit is durable. */
  durable(): void {
    this.#committing.all = false;
    this.#committing.blocks.clear();
  }
}
