/**
 * The loop of the I/O thread: it hands operations to the ring (uring.ts), waits in it for completions and timers, and lets the
 * kernel deliver all that came at once. Nothing else on this thread waits.
 *
 * Deno's own event loop has no turn while this one waits. What needs it (a promise of Deno's, a message of the other thread) is
 * announced: from {@linkcode RingLoop.beginTurns} to `endTurns` Deno has a turn after each pass, and passes wait
 * `ringTurnWaitMs` at most.
 */
import { setImmediate } from "node:timers";
import { assert } from "../../../storage/base/assert.ts";
import type { Kernel } from "../../kernel/kernel.ts";
import { ringSpinMs, ringTimerTurnMs, ringTurnWaitMs } from "../../knobs.ts";
import type { HostClock } from "../host_io.ts";
import type { EventLoopUse } from "../turns.ts";
import { addressOf } from "../memory_address.ts";
import { operation, type Uring } from "./uring.ts";

/** With one processor, no client could send while this thread looks again and again. */
const spinMs = navigator.hardwareConcurrency > 1 ? ringSpinMs : 0;

/** See the head of this file. It is the clock of the kernel that it delivers to. */
export class RingLoop implements HostClock, EventLoopUse {
  readonly ring: Uring;
  /** When the present pass began to deliver: a clock that costs nothing to look at. */
  passMs: number = performance.now();
  #kernel: Kernel | undefined;
  #alarm: { readonly atMs: number; readonly ring: () => void } | undefined;
  #yields: (() => void)[] = [];
  /** Callers that need turns of Deno's loop. */
  #turnsWanted = 0;
  #isEnded = false;
  /** Whether the last wait was so short that looking again would have been cheaper. */
  #isSpinning = false;
  #lastTimerTurnMs = -Infinity;
  /** What waits for a promise of ours may take more steps than one to go on. */
  #hasKept = false;

  constructor(ring: Uring) {
    this.ring = ring;
  }

  now(): number {
    return performance.now();
  }

  setAlarm(atMs: number, ring: () => void): void {
    this.#alarm = { atMs, ring };
  }

  clearAlarm(): void {
    this.#alarm = undefined;
  }

  yield(run: () => void): void {
    this.#yields.push(run);
  }

  /** Nothing rings any more. */
  close(): void {
    this.clearAlarm();
  }

  wallTime(afterMs = 0): string {
    return new Date(Date.now() + afterMs).toISOString();
  }

  /** The kernel that completions of one pass are delivered to in one run. */
  serve(kernel: Kernel): void {
    assert(this.#kernel === undefined || this.#kernel.stopped, "a loop serves one kernel at a time");
    this.#kernel = kernel;
  }

  /** Deno's event loop is needed from now on. */
  beginTurns(): void {
    this.#turnsWanted += 1;
  }

  /** One caller needs it no more. */
  endTurns(): void {
    assert(this.#turnsWanted > 0, "more turns end than began");
    this.#turnsWanted -= 1;
  }

  /**
   * To be called in a pass that keeps or breaks a promise. What waits for it may wait for others that follow from it, each of
   * which takes one more turn of the queue of promises; so all of them go on before the next wait.
   */
  keeps(): void {
    this.#hasKept = true;
  }

  /** Resolves after so many milliseconds. */
  pause(ms: number): Promise<void> {
    const time = BigInt64Array.of(BigInt(Math.floor(ms / 1000)), BigInt(Math.floor((ms % 1000) * 1e6)));
    const address = addressOf(new Uint8Array(time.buffer));
    return new Promise((resolve) =>
      void this.ring.push(
        { operation: operation.timeout, fd: -1, address, lengthBytes: 1 },
        () => {
          this.keeps();
          resolve();
        },
        time,
      )
    );
  }

  /** After this pass nothing is waited for any more. */
  end(): void {
    this.#isEnded = true;
  }

  /** Runs until `end`. Rejects with what a completion throws: a defect. */
  async run(): Promise<void> {
    while (!this.#isEnded) {
      this.#pass();
      const hasKept = this.#hasKept;
      this.#hasKept = false;
      if (this.#turnsWanted > 0) await this.#turn();
      else await (hasKept ? promisesKept() : undefined);
    }
  }

  #pass(): void {
    this.#wait();
    this.passMs = performance.now();
    if (this.ring.hasCompletions) this.#together(() => this.ring.reap());
    const alarm = this.#alarm;
    if (alarm !== undefined && this.passMs >= alarm.atMs) {
      this.#alarm = undefined;
      alarm.ring();
    }
    const yields = this.#yields;
    if (yields.length === 0) return;
    this.#yields = [];
    for (const run of yields) run();
  }

  #together(fill: () => void): void {
    if (this.#kernel === undefined) fill();
    else this.#kernel.together(fill);
  }

  /** Hands over what was pushed, and waits for a completion unless something else is to be done. */
  #wait(): void {
    if (this.#yields.length > 0) return this.ring.enter();
    const beginMs = performance.now();
    const waitMs = this.#waitMs(beginMs);
    if (this.#isSpinning && this.#spin(beginMs + Math.min(waitMs, spinMs))) return;
    this.ring.enter(waitMs);
    this.#isSpinning = performance.now() - beginMs <= 2 * spinMs;
  }

  /** Looks for completions again and again until `endMs`; true if there are some. */
  #spin(endMs: number): boolean {
    do {
      this.ring.enter();
      if (this.ring.hasCompletions) return true;
    } while (performance.now() < endMs);
    return false;
  }

  #waitMs(nowMs: number): number {
    const alarmMs = this.#alarm === undefined ? Infinity : Math.max(0, this.#alarm.atMs - nowMs);
    return this.#turnsWanted > 0 ? Math.min(ringTurnWaitMs, alarmMs) : alarmMs;
  }

  /**
   * A turn of Deno's event loop. It looks at sockets and timers of Deno's only where it would wait, and after setImmediate it does
   * not: so from time to time a turn is one that waits for a timer.
   */
  #turn(): Promise<void> {
    const nowMs = performance.now();
    if (nowMs < this.#lastTimerTurnMs + ringTimerTurnMs) return promisesKept();
    this.#lastTimerTurnMs = nowMs;
    return new Promise((resolve) => setTimeout(resolve, 0));
  }
}

/** Resolves in a turn of Deno's event loop, before which the queue of promises is empty. */
function promisesKept(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}
