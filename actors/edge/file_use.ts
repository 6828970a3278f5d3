/**
 * How many operations of one file are under way. A thread knows only the number of a descriptor: if the file were closed
 * earlier, that number could be another file by then. So the handles are closed when the last operation has ended.
 */
import { assert } from "../../storage/base/assert.ts";

/** See the head of this file. */
export class FileUse {
  #pendingCount = 0;
  #isClosed = false;
  #idle: PromiseWithResolvers<void> | undefined;
  readonly #closeHandles: () => void;

  /** @param closeHandles called once, when the device is closed and nothing is under way */
  constructor(closeHandles: () => void) {
    this.#closeHandles = closeHandles;
  }

  /** Whether operations are under way. */
  get isBusy(): boolean {
    return this.#pendingCount > 0;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** An operation answers later. */
  begin(): void {
    assert(!this.#isClosed || this.#pendingCount > 0, "an operation begins after the handles were closed");
    this.#pendingCount += 1;
  }

  /** It has answered. */
  end(): void {
    assert(this.#pendingCount > 0, "an operation of a file ended twice");
    this.#pendingCount -= 1;
    if (this.#pendingCount > 0) return;
    if (this.#isClosed) this.#closeHandles();
    this.#idle?.resolve();
    this.#idle = undefined;
  }

  /** Resolves when nothing is under way: an operation that follows from the last one may have begun when that has ended. */
  async idle(): Promise<void> {
    while (this.#pendingCount > 0) await (this.#idle ??= Promise.withResolvers()).promise;
  }

  /** Nothing may begin any more. */
  close(): void {
    assert(!this.#isClosed, "a device is closed once");
    this.#isClosed = true;
    if (this.#pendingCount === 0) this.#closeHandles();
  }
}
