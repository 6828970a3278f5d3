/** The clock of a real process: monotonic milliseconds, one timer, and the event loop's next turn. */
import type { ClockPort } from "../kernel/ports.ts";

export class DenoClock implements ClockPort {
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #channel = new MessageChannel();
  #waiting: (() => void)[] = [];

  constructor() {
    this.#channel.port1.onmessage = () => {
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const run of waiting) run();
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
    this.#channel.port2.postMessage(0);
  }

  wallTime(): string {
    return new Date().toISOString();
  }

  /** Lets the process end. */
  close(): void {
    this.clearAlarm();
    this.#channel.port1.close();
    this.#channel.port2.close();
  }
}
