/** The commits that readers hold, by number. Part of the Metadata actor. */
import { assert, present } from "../../storage/base/assert.ts";
import type { ThinMetadata } from "../../storage/thin_metadata.ts";
import { queues } from "../queues.ts";
import type { CommitHandle } from "./commit_messages.ts";

/** See the head of this file. */
export class HeldCommits {
  readonly #engine: ThinMetadata;
  readonly #held = new Map<number, { release(): void }>();
  #holdLast = 0;

  constructor(engine: ThinMetadata) {
    this.#engine = engine;
  }

  /** Keeps the blocks of the last durable commit until {@linkcode release}. */
  hold(): CommitHandle {
    assert(this.#held.size < queues.heldCommits, "more commits are held than there are readers");
    this.#holdLast += 1;
    assert(!this.#held.has(this.#holdLast), "a number names two holds");
    const held = this.#engine.holdCommit();
    this.#held.set(this.#holdLast, held);
    const { superblock, transaction } = held;
    return { kind: "held", hold: this.#holdLast, superblock, transaction, geometry: this.#engine.geometry };
  }

  /** The reader is done with this commit. */
  release(hold: number): void {
    const held = present(this.#held.get(hold), "released a commit that is not held");
    this.#held.delete(hold);
    held.release();
  }
}
