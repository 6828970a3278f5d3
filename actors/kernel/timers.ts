/** What is due when: a list sorted by time, for the few timers a pool has. */

/** What is to happen, and not before when: milliseconds of the kernel's clock. */
export interface Timer {
  readonly atMs: number;
  readonly fire: () => void;
}

export class Timers {
  readonly #timers: Timer[] = [];

  /** The earliest due time, or undefined. */
  get nextMs(): number | undefined {
    return this.#timers[0]?.atMs;
  }

  get length(): number {
    return this.#timers.length;
  }

  /** Equal times fire in the order they were set, so that a run repeats exactly. */
  add(timer: Timer): void {
    let index = this.#timers.length;
    while (index > 0 && this.#timers[index - 1]!.atMs > timer.atMs) index -= 1;
    this.#timers.splice(index, 0, timer);
  }

  cancel(timer: Timer): void {
    const index = this.#timers.indexOf(timer);
    if (index >= 0) this.#timers.splice(index, 1);
  }

  /** Takes the earliest timer if it is due. */
  takeDue(nowMs: number): Timer | undefined {
    const first = this.#timers[0];
    if (first === undefined || first.atMs > nowMs) return undefined;
    return this.#timers.shift();
  }
}
