/**
 * Which sockets have lately received something, and when the event loop had its turn. Waiting on this thread for one socket is
 * allowed only while no other socket receives: it delays all others.
 */
import { recentSocketMs, restTurnMsMax } from "../knobs.ts";

/** One for all sockets that a kernel serves (socket_group.ts). */
export class HeardLately {
  #last: object | undefined;
  /** When the last one was first heard after another one. */
  #changedMs = -Infinity;
  #turnMs = -Infinity;

  /** Something came from the socket; by the event loop, or without it. */
  note(socket: object, byEventLoop: boolean): void {
    if (socket === this.#last && !byEventLoop) return;
    const nowMs = performance.now();
    if (socket !== this.#last) this.#changedMs = nowMs;
    if (byEventLoop) this.#turnMs = nowMs;
    this.#last = socket;
  }

  /** Until when this thread may wait for the socket: not at all if anything came from another one in the last 10 ms. */
  waitEndMs(socket: object, nowMs: number): number {
    const isAlone = socket === this.#last && nowMs >= this.#changedMs + recentSocketMs;
    return isAlone ? this.#turnMs + restTurnMsMax : -Infinity;
  }
}
