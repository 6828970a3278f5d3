/** The actors and tasks that are ready, oldest first, as numbers. Each is in it at most once. */
import { assert } from "../../storage/base/assert.ts";
import { slotsMax } from "./address.ts";

export class ReadyQueue {
  #ring = new Int32Array(1024);
  #head = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(ready: number): void {
    if (this.#length === this.#ring.length) this.#grow();
    this.#ring[(this.#head + this.#length) & (this.#ring.length - 1)] = ready;
    this.#length += 1;
  }

  /** Removes and returns the one at `index`, counted from the oldest; the others keep their order. */
  take(index: number): number {
    assert(index >= 0 && index < this.#length, "the scheduler chose an index that is not there");
    const mask = this.#ring.length - 1;
    const taken = this.#ring[(this.#head + index) & mask]!;
    for (let at = index; at > 0; at -= 1) {
      this.#ring[(this.#head + at) & mask] = this.#ring[(this.#head + at - 1) & mask]!;
    }
    this.#head = (this.#head + 1) & mask;
    this.#length -= 1;
    return taken;
  }

  #grow(): void {
    assert(this.#length < 2 * slotsMax, "more is ready than there are actors and tasks");
    const ring = new Int32Array(this.#ring.length * 2);
    for (let index = 0; index < this.#length; index += 1) {
      ring[index] = this.#ring[(this.#head + index) & (this.#ring.length - 1)]!;
    }
    this.#ring = ring;
    this.#head = 0;
  }
}
