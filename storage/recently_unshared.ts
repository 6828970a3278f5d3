/**
 * Tracks data blocks whose reference count dropped but stayed above 0 since the last durable commit. Such a block must
 * not be overwritten in place: a crash could restore the other reference.
 *
 * If we stop before the running transaction is durable, the state after the restart is that of the last durable commit,
 * or that of the commit under way. A block that has one reference now may have two in either of them.
 *
 * Why the set is complete. Suppose that one of these states has a second path from a mapping root to a block that has
 * one path now. Then an operation since that state removed the path, in one of two ways:
 * - It removed or replaced a leaf entry, which decremented the block's count to a value above 0. The block is added.
 * - It dropped a reference to a shared node (count above 1) above the entry. The blocks below that node were not visited,
 *   so all blocks are added.
 * Other changes remove no path. Copying a shared node increments the counts of its children. Moving entries between
 * nodes leaves their number as it is.
 *
 * A block that was added by an operation which was then rolled back stays in the set. This costs one copy of the block,
 * and is safe.
 */
import { assert } from "./base/assert.ts";
import type { DBlock } from "./base/ids.ts";
import { recentlyUnsharedMax } from "./base/limits.ts";

interface Unshared {
  all: boolean;
  readonly blocks: Set<DBlock>;
}

/** See the head of this file. */
export class RecentlyUnshared {
  /** Of the running transaction, and of the one whose commit is under way. */
  #now: Unshared = { all: false, blocks: new Set() };
  #committing: Unshared = { all: false, blocks: new Set() };

  /** The count of the block dropped and stayed above 0. */
  add(block: DBlock): void {
    const { all, blocks } = this.#now;
    if (all) return;
    blocks.add(block);
    if (blocks.size > recentlyUnsharedMax) this.addAll();
    assert(this.has(block), "a block that has lost a reference is not known");
  }

  /** A reference to a shared node was dropped: this may concern any block. */
  addAll(): void {
    this.#now.all = true;
    this.#now.blocks.clear();
  }

  /** Whether the block may have a second reference in a state that a crash can restore. */
  has(block: DBlock): boolean {
    const [now, committing] = [this.#now, this.#committing];
    return now.all || committing.all || now.blocks.has(block) || committing.blocks.has(block);
  }

  /** The commit of the running transaction begins. */
  freeze(): void {
    const empty = this.#committing;
    assert(!empty.all && empty.blocks.size === 0, "one commit at a time");
    this.#committing = this.#now;
    this.#now = empty;
    assert(this.#now !== this.#committing, "what one commit has does not change with the next");
  }

  /** That commit is durable. */
  durable(): void {
    this.#committing.all = false;
    this.#committing.blocks.clear();
  }
}
