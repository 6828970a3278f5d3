/**
 * Who is heard next: the sockets that want to receive are asked in turn, right after the kernel has sent its replies, and
 * for a moment again and again if clients have lately been that fast; then the event loop waits for them.
 *
 * A client that waits for each reply sends its next request some twenty microseconds after it. To sleep that long and be
 * woken costs both sides more than that: asking for it doubles what one such client gets, for less processor time a request.
 * Clients that have several requests under way are not here: they are served best when several have come.
 */
import type { Kernel } from "../kernel/kernel.ts";
import {
  pollBriefMsMax,
  pollBusyTurnMsMax,
  pollSpinUsMax,
  pollSpinUsMin,
  pollTurnMsMax,
  recentSocketMs,
} from "../knobs.ts";

/** A socket that wants to receive. */
export interface Polled {
  /** Receives, if something is there, and tells it. False if nothing is. */
  poll(): boolean;
  /** Waits in the event loop, and calls `waited` on the poll when something came. */
  wait(): void;
}

const polls = new WeakMap<Kernel, SocketPoll>();

export class SocketPoll {
  readonly #kernel: Kernel;
  #waiting: Polled[] = [];
  #isAwake = false;
  #spinUs = 0;
  /** Until when there are others to be heard by the event loop. */
  #othersUntilMs = -Infinity;
  /** Sockets from here that wait in the event loop, and when the last of them began. */
  #asleep = 0;
  #sleptMs = -Infinity;
  /** Where another thread cannot run meanwhile, nobody would send what is waited for. */
  readonly #spinUsMax = navigator.hardwareConcurrency > 1 ? pollSpinUsMax : 0;

  private constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** The one of all sockets that a kernel serves. */
  static of(kernel: Kernel): SocketPoll {
    let poll = polls.get(kernel);
    if (poll === undefined) polls.set(kernel, poll = new SocketPoll(kernel));
    return poll;
  }

  /** Asks the socket when the kernel is done with what it does. */
  add(socket: Polled): void {
    this.#waiting.push(socket);
    if (this.#isAwake) return;
    this.#isAwake = true;
    queueMicrotask(() => this.#run());
  }

  /** The socket wants nothing any more. */
  remove(socket: Polled): void {
    const index = this.#waiting.indexOf(socket);
    if (index >= 0) this.#waiting.splice(index, 1);
  }

  /** The event loop had to wait for a socket for so long: if that was short, asking for longer would have been better. */
  waited(forMs: number): void {
    this.#asleep -= 1;
    if (forMs * 1000 <= 2 * this.#spinUsMax) {
      this.#spinUs = Math.min(this.#spinUsMax, Math.max(pollSpinUsMin, 2 * this.#spinUs));
    } else {
      this.#spinUs = this.#spinUs > pollSpinUsMin ? this.#spinUs / 2 : 0;
    }
  }

  /** The event loop has heard a client that is not here, or that one is gone. */
  heardOther(): void {
    this.#othersUntilMs = performance.now() + recentSocketMs;
  }

  #run(): void {
    const beginMs = performance.now();
    let spinEndMs = beginMs + this.#spinUs / 1000;
    for (;;) {
      const anyone = this.#askAll(beginMs + pollBusyTurnMsMax);
      const nowMs = performance.now();
      if (this.#waiting.length === 0) break;
      // Somebody waits for what only the event loop can tell: a thread's answer, its turn, or a client that is not here.
      if (this.#kernel.tasksRunning > 0 || this.#kernel.hasYielded || nowMs < this.#othersUntilMs) {
        return this.#sleep();
      }
      const forMs = nowMs - beginMs;
      if (anyone) spinEndMs = nowMs + this.#spinUs / 1000;
      else if (nowMs >= spinEndMs || forMs >= pollTurnMsMax) return this.#sleep();
      if (forMs >= pollBusyTurnMsMax) return this.#kernel.clock.yield(() => this.#run());
      if (forMs >= pollBriefMsMax && this.#areOthersAsleep(nowMs)) return this.#sleep();
    }
    this.#isAwake = false;
  }

  /** True if anyone was heard. Who wants to receive again comes after all others, also where time is up before their turn. */
  #askAll(endMs: number): boolean {
    let anyone = false;
    for (let count = this.#waiting.length; count > 0; count -= 1) {
      const socket = this.#waiting.shift();
      if (socket === undefined) break;
      if (!socket.poll()) {
        this.#waiting.push(socket);
        continue;
      }
      anyone = true;
      // Serving one may have taken a whole run of the kernel.
      if (performance.now() >= endMs) break;
    }
    return anyone;
  }

  /** Whether some who were here a moment ago wait in the event loop, which should not take long to hear them. */
  #areOthersAsleep(nowMs: number): boolean {
    return this.#asleep > 0 && nowMs < this.#sleptMs + recentSocketMs;
  }

  #sleep(): void {
    this.#isAwake = false;
    const waiting = this.#waiting;
    this.#asleep += waiting.length;
    this.#sleptMs = performance.now();
    this.#waiting = [];
    for (const socket of waiting) socket.wait();
  }
}
