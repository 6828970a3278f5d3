/** The actors and tasks that have something to do, oldest first. Each stands in it at most once. */
import { assert } from "../../storage/base/assert.ts";

export class ReadyQueue {
  #ring = new Int32Array(1024);
  #head = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(who: number): void {
    if (this.#length === this.#ring.length) this.#grow();
    this.#ring[(this.#head + this.#length) & (this.#ring.length - 1)] = who;
    this.#length += 1;
  }

  /** Takes the one at `index`, counted from the oldest; the others keep their order. */
  take(index: number): number {
    assert(index >= 0 && index < this.#length, "the scheduler chose nobody");
    const mask = this.#ring.length - 1;
    const who = this.#ring[(this.#head + index) & mask]!;
    for (let at = index; at > 0; at -= 1) {
      this.#ring[(this.#head + at) & mask] = this.#ring[(this.#head + at - 1) & mask]!;
    }
    this.#head = (this.#head + 1) & mask;
    this.#length -= 1;
    return who;
  }

  #grow(): void {
    const ring = new Int32Array(this.#ring.length * 2);
    for (let index = 0; index < this.#length; index += 1) {
      ring[index] = this.#ring[(this.#head + index) & (this.#ring.length - 1)]!;
    }
    this.#ring = ring;
    this.#head = 0;
  }
}
