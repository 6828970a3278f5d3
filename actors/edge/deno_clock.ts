/**
 * The clock of a real process: monotonic milliseconds, one timer, and the event loop's next turn.
 *
 * Deno looks at its sockets only every 61st turn of the event loop as long as anything is ready, and a message port
 * always is. Beside work that yields every 2 ms, seconds without a byte from any client were measured. When the loop has
 * to wait, it looks at the sockets first. So a turn is waited for through another thread, which takes 0.1 ms. That thread
 * can be back before Deno waits, so after {@linkcode clockBusyMsMax} without a wait a timer is used, which takes 1 ms.
 */
import { assert } from "../../storage/base/assert.ts";
import type { ClockPort } from "../kernel/ports.ts";
import { callOutside } from "./outside.ts";
import { clockBusyMsMax } from "../knobs.ts";

/** Any work that Deno gives to another thread, and that needs no permission. */
const nothingMuch = new Uint8Array(1);

/** See the head of this file. */
export class DenoClock implements ClockPort {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #waiting: (() => void)[] = [];
  #waitingTimer: ReturnType<typeof setTimeout> | undefined;
  /** Since when the event loop has had no rest, if it has none. */
  #busySinceMs: number | undefined;

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
    if (nowMs - this.#busySinceMs >= clockBusyMsMax) {
      this.#busySinceMs = undefined;
      this.#waitingTimer = setTimeout(() => this.#runWaiting(), 0);
    } else {
      const run = () => {
        this.#runWaiting();
        if (this.#waiting.length === 0) this.#busySinceMs = undefined;
      };
      // Without a thread there was no turn of the event loop, so a timer has to bring it.
      callOutside(() => crypto.subtle.digest("SHA-1", nothingMuch), run, () => {
        this.#waitingTimer = setTimeout(run, 0);
      });
    }
  }

  wallTime(afterMs = 0): string {
    return new Date(Date.now() + afterMs).toISOString();
  }

  /** Lets the process end. */
  close(): void {
    this.clearAlarm();
    if (this.#waitingTimer !== undefined) clearTimeout(this.#waitingTimer);
  }

  #runWaiting(): void {
    const waiting = this.#waiting;
    assert(waiting.length > 0, "a turn of the event loop came twice");
    this.#waiting = [];
    for (const run of waiting) run();
  }
}
