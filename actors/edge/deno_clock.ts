/** The clock of a real process: monotonic milliseconds, one timer, and the event loop's next turn. */
import type { ClockPort } from "../kernel/ports.ts";

/**
 * Milliseconds after which a turn of the event loop is waited for with a timer. A message port comes back at once, but
 * Deno looks at its sockets only every 61st turn as long as something is ready (measured: seconds without a byte from any
 * client beside a task that yields every 2 ms); when it has to wait, be it for a timer, it looks at them first.
 */
const busyMsMax = 4;

/** See the head of this file. */
export class DenoClock implements ClockPort {
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #channel = new MessageChannel();
  #waiting: (() => void)[] = [];
  #waitingTimer: ReturnType<typeof setTimeout> | undefined;
  /** Since when the event loop has had no rest, if it has none. */
  #busySinceMs: number | undefined;

  constructor() {
    this.#channel.port1.onmessage = () => {
      this.#runWaiting();
      if (this.#waiting.length === 0) this.#busySinceMs = undefined;
    };
  }

  now(): number {
    return performance.now();
  }

  setAlarm(atMs: number, ring: () => void): void {
    this.clearAlarm();
    this.#timer = setTimeout(ring, Math.max(0, atMs - performance.now()));
  }

  clearAlarm(): void {
    if (this.#timer !== undefined) clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  yield(run: () => void): void {
    this.#waiting.push(run);
    if (this.#waiting.length > 1) return;
    const nowMs = performance.now();
    this.#busySinceMs ??= nowMs;
    if (nowMs - this.#busySinceMs < busyMsMax) return this.#channel.port2.postMessage(0);
    this.#busySinceMs = undefined;
    this.#waitingTimer = setTimeout(() => this.#runWaiting(), 0);
  }

  wallTime(): string {
    return new Date().toISOString();
  }

  /** Lets the process end. */
  close(): void {
    this.clearAlarm();
    if (this.#waitingTimer !== undefined) clearTimeout(this.#waitingTimer);
    this.#channel.port1.close();
    this.#channel.port2.close();
  }

  #runWaiting(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const run of waiting) run();
  }
}
