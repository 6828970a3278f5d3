/**
 * A small deterministic world for unit tests of actors and tasks: a clock that moves when it is told to, a scheduler
 * that chooses by a seed and gives an actor one message a turn, and a kernel that throws its defect.
 */
import { Kernel, type KernelOptions } from "../../actors/kernel/kernel.ts";
import type { ClockPort, SchedulerPolicy } from "../../actors/kernel/ports.ts";
import { join, type Steps } from "../../actors/kernel/task.ts";
import { assert } from "../../storage/base/assert.ts";

/** Random numbers that repeat for the same seed (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** A whole number from 0 to below `bound`. */
  below(bound: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor(((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32 * bound);
  }

  /** True so often out of once. */
  chance(probability: number): boolean {
    return this.below(2 ** 32) < probability * 2 ** 32;
  }
}

/** Any of the ready ones, one message a turn. */
export class RandomPolicy implements SchedulerPolicy {
  readonly messagesPerTurnMax = 1;
  readonly #random: Random;

  constructor(seed: number) {
    this.#random = new Random(seed);
  }

  choose(readyCount: number): number {
    return this.#random.below(readyCount);
  }
}

/** Time that stands still until a test moves it. */
export class ManualClock implements ClockPort {
  nowMs = 0;
  /** How often the kernel has asked to let the event loop have its turn. */
  yieldsAsked = 0;
  /** How often the kernel has set the alarm. */
  alarmsSet = 0;
  #alarm: { readonly atMs: number; readonly ring: () => void } | undefined;
  #yields: (() => void)[] = [];

  now(): number {
    return this.nowMs;
  }

  setAlarm(atMs: number, ring: () => void): void {
    this.alarmsSet += 1;
    this.#alarm = { atMs, ring };
  }

  clearAlarm(): void {
    this.#alarm = undefined;
  }

  yield(run: () => void): void {
    this.yieldsAsked += 1;
    this.#yields.push(run);
  }

  wallTime(afterMs = 0): string {
    return new Date(this.nowMs + afterMs).toISOString();
  }

  /** When the alarm is set to ring, if it is. */
  get alarmMs(): number | undefined {
    return this.#alarm?.atMs;
  }

  /** Moves the time in one jump and rings what is due, once. */
  advance(ms: number): void {
    this.nowMs += ms;
    const alarm = this.#alarm;
    if (alarm === undefined || alarm.atMs > this.nowMs) return;
    this.#alarm = undefined;
    alarm.ring();
  }

  /** Gives back the turns that the kernel has let the event loop have; false if there were none. */
  runYields(): boolean {
    const yields = this.#yields;
    this.#yields = [];
    for (const run of yields) run();
    return yields.length > 0;
  }

  /** Gives back turns until the kernel lets the event loop have none. */
  runAllYields(): void {
    while (this.runYields());
  }

  /** Moves the time through all that is due in these milliseconds: each alarm rings at its own time. */
  pass(ms: number): void {
    const endMs = this.nowMs + ms;
    for (let atMs = this.alarmMs; atMs !== undefined && atMs <= endMs; atMs = this.alarmMs) {
      this.advance(Math.max(atMs - this.nowMs, 0));
    }
    this.nowMs = endMs;
  }
}

/** A kernel with its clock. With a seed the schedule is random; without one it is first come, first served. */
export class World {
  readonly clock = new ManualClock();
  readonly kernel: Kernel;

  constructor(options: { readonly seed?: number } & Pick<KernelOptions, "onDefect" | "knobs"> = {}) {
    const { seed, ...rest } = options;
    this.kernel = new Kernel({
      clock: this.clock,
      ...(seed === undefined ? {} : { policy: new RandomPolicy(seed) }),
      ...rest,
    });
  }

  /** Delivers until nothing happens any more at this point of time. */
  runReady(): void {
    this.kernel.run();
    while (this.clock.runYields());
  }

  /** Runs the steps to their end, moving the clock to each alarm. Fails if they wait for what never comes. */
  run<T>(steps: Steps<T>): T {
    return this.runAll([steps])[0]!;
  }

  /** Runs them at the same time. */
  runAll<T>(steps: readonly Steps<T>[]): T[] {
    const ended: { answers?: T[] } = {};
    this.kernel.start("test", collect(steps, ended));
    this.runReady();
    while (ended.answers === undefined && this.clock.alarmMs !== undefined) {
      this.clock.advance(Math.max(0, this.clock.alarmMs - this.clock.nowMs));
      this.runReady();
    }
    if (ended.answers === undefined) {
      throw new Error(`nothing moves any more: ${this.kernel.tasksInFlight().join("; ")}`);
    }
    assert(!this.kernel.stopped, "the kernel has stopped");
    return ended.answers;
  }
}

function* collect<T>(steps: readonly Steps<T>[], ended: { answers?: T[] }): Steps<void> {
  ended.answers = yield* join("part", steps);
}
