/** What the kernel needs from outside: time, a call at a later time, a choice of what has the next turn, and a place for counters. */
import type { CounterName } from "../counters.ts";
import { noticesMax } from "../limits.ts";

/** Monotonic time in milliseconds, and one alarm. */
export interface ClockPort {
  now(): number;
  /** Calls `ring` once, not before `atMs`; a second call replaces the first. */
  setAlarm(atMs: number, ring: () => void): void;
  clearAlarm(): void;
  /** Calls `run` soon, after the event loop has had its turn. */
  yield(run: () => void): void;
  /** Wall-clock time as RFC 3339 in UTC, now or `afterMs` later, for logs and records. */
  wallTime(afterMs?: number): string;
}

/**
 * Where the actors' counters go (actors/counters.ts). It is called in the middle of turns, on the way of requests, so it adds a
 * number and does nothing else: no call to the outside, nothing that can fail.
 */
export interface CounterPort {
  add(name: CounterName, amount: number): void;
}

/**
 * Chooses which of the ready actors and tasks has the next turn. Production takes the oldest; a simulator takes any, with one
 * message each time.
 */
export interface SchedulerPolicy {
  /** Messages that an actor may receive before the next one is chosen. */
  readonly messagesPerTurnMax: number;
  /** An index below `readyCount`, counted from the oldest. */
  choose(readyCount: number): number;
  /** True: a resting task waits until nothing else is ready. Otherwise it is ready at once. */
  readonly restsLast?: boolean;
}

/** First come, first served. */
export const fifo: SchedulerPolicy = { messagesPerTurnMax: noticesMax, choose: () => 0, restsLast: true };
