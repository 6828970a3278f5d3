/**
 * How long one send may hold the thread: what a round of sends may take, shared by those who have lately sent. A client
 * alone has its megabyte sent while it reads it; beside others that would be their wait, once for each.
 */
import type { Kernel } from "../kernel/kernel.ts";
import { recentSocketMs, sendRoundMsMax } from "../knobs.ts";

const shares = new WeakMap<Kernel, SendShare>();

export class SendShare {
  #periodEndMs = -Infinity;
  #senders = new Set<object>();
  #sendersBefore = 0;

  /** The one of all sockets that a kernel serves. */
  static of(kernel: Kernel): SendShare {
    let share = shares.get(kernel);
    if (share === undefined) shares.set(kernel, share = new SendShare());
    return share;
  }

  /** Milliseconds that the sender may take, from now on. */
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
