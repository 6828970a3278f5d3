/**
 * The commit requests that are not answered, by what they wait for. Part of the Metadata actor.
 *
 * A request is in one place at a time: it waits for the next commit; then for the commit in progress or, where there was
 * nothing to commit, for a flush of the data device. Every list is taken once, by the code that answers it.
 */
import { assert, present } from "../../storage/base/assert.ts";
import { queues } from "../queues.ts";
import type { Commit } from "./commit_messages.ts";

export class CommitRequests {
  #next: Commit[] = [];
  #now: readonly Commit[] = [];
  readonly #flushes = new Map<number, readonly Commit[]>();
  #flushLast = 0;

  /** Requests that wait for the next commit. */
  get waiting(): number {
    return this.#next.length;
  }

  /** Flushes in progress that found nothing to commit. */
  get flushes(): number {
    return this.#flushes.size;
  }

  /** True if the next commit is the last before the devices are closed. */
  get isLastNext(): boolean {
    return this.#next.some(({ isLast }) => isLast);
  }

  push(request: Commit): void {
    assert(this.#next.length < queues.commits, "more tasks wait for a commit than there can be");
    this.#next.push(request);
  }

  /** The waiting requests wait for the commit that begins now. */
  beginCommit(): void {
    assert(this.#now.length === 0, "a commit began beside another");
    assert(this.#flushes.size === 0, "a commit began beside a flush");
    this.#now = this.takeNext();
  }

  /** The commit has ended: its requests, to be answered. */
  endCommit(): readonly Commit[] {
    const ended = this.#now;
    this.#now = [];
    return ended;
  }

  /** The waiting requests wait for a flush that begins now; its number. */
  beginFlush(): number {
    assert(this.#now.length === 0, "a flush began beside a commit");
    this.#flushLast += 1;
    assert(!this.#flushes.has(this.#flushLast), "a flush has a number of its own");
    this.#flushes.set(this.#flushLast, this.takeNext());
    return this.#flushLast;
  }

  /** The flush has ended: its requests, to be answered. */
  endFlush(flush: number): readonly Commit[] {
    const ended = present(this.#flushes.get(flush), "a flush ended twice");
    this.#flushes.delete(flush);
    return ended;
  }

  /** Takes the requests that wait for the next commit, to be answered without one. */
  takeNext(): readonly Commit[] {
    const taken = this.#next;
    this.#next = [];
    return taken;
  }
}
