/**
 * Polls the sockets of clients that have one request under way: in turn, right after the kernel has sent its replies, and
 * again without a pause for up to `pollSpinUsMax` if clients have lately been that fast. Then they go to epoll.
 *
 * Such a client sends its next request some 20 us after a reply. To sleep that long and be woken costs both sides more:
 * polling doubles the throughput of one such client, with less CPU
 * time for each request. Clients with several requests under way are not polled: serving is cheaper when several have come.
 */
import { assert } from "../../storage/base/assert.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { queues } from "../queues.ts";
import {
  pollBriefMsMax,
  pollBusyTurnMsMax,
  pollSpinUsMax,
  pollSpinUsMin,
  pollTurnMsMax,
  recentSocketMs,
} from "../knobs.ts";

/** A socket that waits to receive. */
export interface Polled {
  /** Receives, and tells its connection. False if nothing has come. */
  poll(): boolean;
  /** Waits in the event loop, and calls `waited` on the poll when something came. */
  wait(): void;
}

/** One for all sockets that a kernel serves (socket_group.ts). */
export class SocketPoll {
  readonly #kernel: Kernel;
  #waiting: Polled[] = [];
  #isAwake = false;
  #spinUs = 0;
  /** Until then, clients that are not polled are expected in epoll. */
  #othersUntilMs = -Infinity;
  /** Polled sockets that wait in epoll, and when the last of them began to. */
  #asleep = 0;
  #sleptMs = -Infinity;
  /** With one processor, no client could send while this thread polls. */
  readonly #spinUsMax = navigator.hardwareConcurrency > 1 ? pollSpinUsMax : 0;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** Polls the socket after this drain of the kernel. */
  add(socket: Polled): void {
    assert(this.#waiting.length < queues.clients, "more sockets are polled than there are clients");
    this.#waiting.push(socket);
    if (this.#isAwake) return;
    this.#isAwake = true;
    queueMicrotask(() => this.#run());
  }

  /** The socket, which is polled, is closed. */
  remove(socket: Polled): void {
    const index = this.#waiting.indexOf(socket);
    assert(index >= 0, "a socket is removed that is not polled");
    this.#waiting.splice(index, 1);
  }

  /** A socket waited in epoll for `forMs`. If that was short, polling for longer would have been better. */
  waited(forMs: number): void {
    assert(this.#asleep > 0, "more sockets woke than were asleep");
    this.#asleep -= 1;
    if (forMs * 1000 <= 2 * this.#spinUsMax) {
      this.#spinUs = Math.min(this.#spinUsMax, Math.max(pollSpinUsMin, 2 * this.#spinUs));
    } else {
      this.#spinUs = this.#spinUs > pollSpinUsMin ? this.#spinUs / 2 : 0;
    }
  }

  /** Epoll has reported a client that is not polled, or the end of one. */
  heardOther(): void {
    this.#othersUntilMs = performance.now() + recentSocketMs;
  }

  #run(): void {
    const beginMs = performance.now();
    let spinEndMs = beginMs + this.#spinUs / 1000;
    for (;;) {
      const hasHeard = this.#askAll(beginMs + pollBusyTurnMsMax);
      const nowMs = performance.now();
      if (this.#waiting.length === 0) break;
      // Something waits that only the event loop can deliver: the answer of a thread, a yield, or a client that is not polled.
      if (this.#kernel.tasksRunning > 0 || this.#kernel.hasYielded || nowMs < this.#othersUntilMs) {
        return this.#sleep();
      }
      const forMs = nowMs - beginMs;
      if (hasHeard) spinEndMs = nowMs + this.#spinUs / 1000;
      else if (nowMs >= spinEndMs || forMs >= pollTurnMsMax) return this.#sleep();
      if (forMs >= pollBusyTurnMsMax) return this.#kernel.clock.yield(() => this.#run());
      if (forMs >= pollBriefMsMax && this.#areOthersAsleep(nowMs)) return this.#sleep();
    }
    this.#isAwake = false;
  }

  /** One pass over the sockets; true if one has received. A socket that waits again comes last, also if time ends the pass. */
  #askAll(endMs: number): boolean {
    let hasHeard = false;
    for (let count = this.#waiting.length; count > 0; count -= 1) {
      const socket = this.#waiting.shift();
      if (socket === undefined) break;
      if (!socket.poll()) {
        this.#waiting.push(socket);
        continue;
      }
      hasHeard = true;
      // Serving one socket may have taken a whole drain of the kernel.
      if (performance.now() >= endMs) break;
    }
    return hasHeard;
  }

  /** Whether sockets that were polled a moment ago wait in epoll, and are expected soon. */
  #areOthersAsleep(nowMs: number): boolean {
    return this.#asleep > 0 && nowMs < this.#sleptMs + recentSocketMs;
  }

  #sleep(): void {
    this.#isAwake = false;
    const waiting = this.#waiting;
    assert(waiting.length > 0 && this.#asleep >= 0, "no socket is put to sleep");
    this.#asleep += waiting.length;
    this.#sleptMs = performance.now();
    this.#waiting = [];
    for (const socket of waiting) socket.wait();
  }
}
