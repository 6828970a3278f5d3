/** What the kernel asks of the world: time, a way to be called again, and whose turn it is. */

/** Monotonic time in milliseconds, and one alarm. */
export interface ClockPort {
  now(): number;
  /** Calls `ring` once, not before `atMs`; a second call replaces the first. */
  setAlarm(atMs: number, ring: () => void): void;
  clearAlarm(): void;
  /** Calls `run` soon, after the event loop has had its turn. */
  yield(run: () => void): void;
  /** Wall-clock time as RFC 3339 in UTC. For people and records, never for decisions. */
  wallTime(): string;
}

/**
 * Which of the ready actors and tasks runs next. Production takes the oldest; a simulator takes any, one
 * message a turn.
 */
export interface SchedulerPolicy {
  /** Messages an actor may take in one turn. */
  readonly messagesPerTurnMax: number;
  /** An index below `readyCount`, counted from the oldest. */
  choose(readyCount: number): number;
  /** A task that rests waits until nobody is ready; without this it is one of those to choose from. */
  readonly restsLast?: boolean;
}

/** First come, first served. */
export const fifo: SchedulerPolicy = { messagesPerTurnMax: 64, choose: () => 0, restsLast: true };
