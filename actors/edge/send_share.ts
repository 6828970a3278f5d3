/**
 * How long one send may use the thread: the time of one round of sends, divided by the sockets that have sent lately. One
 * client alone gets a reply of a megabyte while it reads it. With several, each would wait for the sends of all others.
 */
import { recentSocketMs, sendRoundMsMax } from "../knobs.ts";

/** One for all sockets that a kernel serves (socket_group.ts). */
export class SendShare {
  #periodEndMs = -Infinity;
  #senders = new Set<object>();
  #sendersBefore = 0;

  /** Milliseconds that the sender may use, from now on. */
  take(sender: object, nowMs: number): number {
    if (nowMs >= this.#periodEndMs) {
      const isNext = nowMs < this.#periodEndMs + recentSocketMs;
      this.#sendersBefore = isNext ? this.#senders.size : 0;
      this.#senders.clear();
      this.#periodEndMs = nowMs + recentSocketMs;
    }
    this.#senders.add(sender);
    return sendRoundMsMax / Math.max(this.#senders.size, this.#sendersBefore);
  }
}
