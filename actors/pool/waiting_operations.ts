/**
 * The operations of the metadata actor that cannot be done yet, and why. Part of the Metadata actor.
 *
 * An operation waits for one of three things: a block that is read, the end of an operation that runs alone, or a commit
 * that makes room for more dirty blocks or gives back freed ones. Each list is taken whole, and its operations are tried again.
 */
import { assert } from "../../storage/base/assert.ts";
import type { MetadataBlock } from "../../storage/base/ids.ts";
import { queues } from "../queues.ts";
import type { Operation } from "./metadata_messages.ts";

/** An operation that is not answered, and how often a block that it needs was missing. */
export interface Attempt {
  readonly operation: Operation;
  misses: number;
}

export class WaitingOperations {
  /** By the block that is read for them. */
  readonly #missing = new Map<MetadataBlock, Attempt[]>();
  /** An operation that missed blocks so often that it runs alone: others could evict the blocks that it needs. */
  #alone: Attempt | undefined;
  #delayed: Attempt[] = [];
  #slowedDown: Attempt[] = [];
  /** An operation waits for blocks that a commit gives back. */
  isShort = false;
  /** Operations in all three lists. */
  #size = 0;
  readonly #missesBeforeAlone: number;

  constructor(missesBeforeAlone: number) {
    this.#missesBeforeAlone = missesBeforeAlone;
  }

  /** True if another operation runs alone. */
  mustWait(attempt: Attempt): boolean {
    return this.#alone !== undefined && this.#alone !== attempt;
  }

  /** True if this operation runs alone. */
  isAlone(attempt: Attempt): boolean {
    return this.#alone === attempt;
  }

  /** The operation waits until the one that runs alone is done. */
  delay(attempt: Attempt): void {
    assert(this.mustWait(attempt), "an operation waits, and none runs alone");
    this.#enter();
    this.#delayed.push(attempt);
  }

  /** The operation is done. If it ran alone: the operations that waited for it, to be tried again. */
  end(attempt: Attempt): readonly Attempt[] {
    assert(
      this.#alone !== undefined || this.#delayed.length === 0,
      "operations wait for one, and none runs alone",
    );
    if (this.#alone !== attempt) return noAttempts;
    this.#alone = undefined;
    const delayed = this.#delayed;
    this.#delayed = [];
    return this.#left(delayed);
  }

  /** The operation waits for the block. True if the block is not being read yet: the caller starts that. */
  miss(attempt: Attempt, block: MetadataBlock): boolean {
    this.#enter();
    attempt.misses += 1;
    if (attempt.misses > this.#missesBeforeAlone) this.#alone ??= attempt;
    const others = this.#missing.get(block);
    if (others === undefined) this.#missing.set(block, [attempt]);
    else others.push(attempt);
    return others === undefined;
  }

  /** The block was read, or could not be: the operations that waited for it. */
  takeMissing(block: MetadataBlock): readonly Attempt[] {
    const waiting = this.#missing.get(block);
    assert(waiting !== undefined, "fetched a block that no operation waits for");
    this.#missing.delete(block);
    return this.#left(waiting);
  }

  /**
   * The change waits for a commit, because there is no free block. If it ran alone, it lets the others go on, as the freeze of
   * the commit is one of them: the operations that waited for it, to be tried again.
   */
  waitForSpace(attempt: Attempt): readonly Attempt[] {
    const delayed = this.end(attempt);
    this.slowDown(attempt);
    this.isShort = true;
    return delayed;
  }

  /** The change waits for a commit, because there are too many dirty blocks or others wait for free ones. */
  slowDown(attempt: Attempt): void {
    assert(this.#alone !== attempt, "an operation that runs alone was slowed down");
    this.#enter();
    this.#slowedDown.push(attempt);
  }

  /** Changes that wait for a commit. */
  get slowedDown(): number {
    return this.#slowedDown.length;
  }

  /** Takes the changes that wait for a commit, to be tried again. */
  takeSlowedDown(): readonly Attempt[] {
    const slowedDown = this.#slowedDown;
    this.#slowedDown = [];
    return this.#left(slowedDown);
  }

  #enter(): void {
    assert(this.#size < queues.operations, "more operations of metadata wait than there can be");
    this.#size += 1;
  }

  #left(attempts: readonly Attempt[]): readonly Attempt[] {
    this.#size -= attempts.length;
    assert(this.#size >= 0, "more operations went on than have waited");
    return attempts;
  }
}

const noAttempts: readonly Attempt[] = [];
