/** The timers of a kernel: a list sorted by time, because a pool has few. */

import { assert } from "../../storage/base/assert.ts";
import type { ClockPort } from "./ports.ts";

/** A function to be called at a time, in milliseconds of the kernel's clock, or later. */
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

  /** Timers with equal times fire in the order in which they were added, so that a simulation repeats exactly. */
  add(timer: Timer): void {
    assert(!Number.isNaN(timer.atMs), "a timer has no time");
    let index = this.#timers.length;
    while (index > 0 && this.#timers[index - 1]!.atMs > timer.atMs) index -= 1;
    this.#timers.splice(index, 0, timer);
  }

  cancel(timer: Timer): void {
    const index = this.#timers.indexOf(timer);
    if (index >= 0) this.#timers.splice(index, 1);
  }

  /** Calls every timer that is due, also one that is added meanwhile. */
  fireDue(nowMs: number): void {
    for (let timer = this.takeDue(nowMs); timer !== undefined; timer = this.takeDue(nowMs)) timer.fire();
  }

  /** Takes the earliest timer if it is due. */
  takeDue(nowMs: number): Timer | undefined {
    const first = this.#timers[0];
    if (first === undefined || first.atMs > nowMs) return undefined;
    this.#timers.shift();
    assert((this.nextMs ?? Infinity) >= first.atMs, "timers are not in the order of their times");
    return first;
  }
}

/** The clock's one alarm, set again only when its time changes. */
export class Alarm {
  readonly #clock: ClockPort;
  readonly #ring: () => void;
  #atMs: number | undefined;

  constructor(clock: ClockPort, ring: () => void) {
    this.#clock = clock;
    this.#ring = ring;
  }

  /** Calls `ring` once, not before `atMs`; undefined clears the alarm. */
  set(atMs: number | undefined): void {
    if (atMs === this.#atMs) return;
    this.#atMs = atMs;
    if (atMs === undefined) return this.#clock.clearAlarm();
    this.#clock.setAlarm(atMs, () => {
      this.#atMs = undefined;
      this.#ring();
    });
  }
}
