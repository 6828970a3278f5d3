/** The border (border.ts) where the pool's side is a thread of its own (pool_worker.ts). */
import { UserError } from "../../storage/base/errors.ts";
import {
  type Border,
  type FromPool,
  type PlainError,
  plainOf,
  type TlsEnd,
  type TlsWanted,
  type ToPool,
} from "./border.ts";
import type { WorkerEnd, WorkerNews } from "./pool_worker.ts";
import type { TlsRelays } from "./tls_relay.ts";
import { closeEvents, wake } from "./ring/wake_ups.ts";

/** The way to a pool on a thread of its own. */
export function openWorkerBorder(heard: (message: FromPool) => void): Border {
  return new WorkerBorder(heard);
}

class WorkerBorder implements Border {
  readonly #heard: (message: FromPool) => void;
  readonly #worker = new Worker(import.meta.resolve("./pool_worker.ts"), { type: "module" });
  /** Until the thread is up. */
  #wakeFd: number | undefined;
  /** Messages that were sent before that. */
  #earlyMessages = 0;
  /** Requests that the thread has not answered. */
  readonly #unanswered = new Set<number>();
  #relays: Promise<TlsRelays> | undefined;
  /** Why nothing more is answered. */
  #failure: PlainError | undefined;
  #isClosed = false;

  constructor(heard: (message: FromPool) => void) {
    this.#heard = heard;
    this.#worker.addEventListener(
      "message",
      ({ data }: MessageEvent<FromPool | TlsWanted | TlsEnd | WorkerNews>) => {
        if (data.type === "tlsWanted" || data.type === "tlsEnd") this.#relayTls(data);
        else if (data.type === "up") this.#up(data.wakeFd);
        else if (data.type === "down") this.#refuseAll(plainOf(refusal(data.reason)));
        else if (data.type === "died") this.#died(data.error);
        // Nothing wakes a thread that is gone: the system soon gives the number to another file.
        else if (data.type === "gone") closeEvents(data.wakeFd);
        else this.#pass(data);
      },
    );
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#died({ name: "Error", message: event.message, stack: undefined, code: undefined });
    });
  }

  send(message: ToPool): void {
    // What only notifies is of no use any more.
    if (this.#isClosed) return;
    // Loaded now: when clients have taken all descriptors, no file can be opened.
    if (message.type === "listen" && message.settings.keys !== undefined) this.#loadRelays();
    if ("number" in message && message.type !== "textTaken") this.#unanswered.add(message.number);
    if (this.#failure === undefined) this.#post(message);
    else this.#refuseAll(this.#failure);
  }

  /** A thread that waits in the ring cannot be terminated from outside: it is asked to end. */
  close(): void {
    if (!this.#isClosed && this.#failure === undefined) this.#post({ type: "end" });
    this.#isClosed = true;
  }

  #post(message: ToPool | WorkerEnd): void {
    this.#worker.postMessage(message);
    if (this.#wakeFd === undefined) this.#earlyMessages += 1;
    else wake(this.#wakeFd);
  }

  #up(wakeFd: number): void {
    this.#wakeFd = wakeFd;
    for (; this.#earlyMessages > 0; this.#earlyMessages -= 1) wake(wakeFd);
  }

  /** Loaded where it is used: it brings node:tls. */
  #loadRelays(): Promise<TlsRelays> {
    const made = async () => new (await import("./tls_relay.ts")).TlsRelays((news) => this.send(news));
    return this.#relays ??= made();
  }

  async #relayTls(message: TlsWanted | TlsEnd): Promise<void> {
    const relays = await this.#loadRelays();
    if (message.type === "tlsWanted") relays.begin(message);
    else relays.end(message.relay);
  }

  #pass(message: FromPool): void {
    if ("number" in message && message.type !== "text") this.#unanswered.delete(message.number);
    this.#heard(message);
  }

  /** The program on the thread has failed. Its pool does nothing any more. */
  #died(error: PlainError): void {
    this.#heard({ type: "failed", error });
    this.#refuseAll(error);
  }

  #refuseAll(error: PlainError): void {
    this.#failure = error;
    const numbers = [...this.#unanswered];
    this.#unanswered.clear();
    for (const number of numbers) this.#heard({ type: "threw", number, error });
  }
}

function refusal(reason: string): UserError {
  return new UserError(`Cannot use io_uring: ${reason}. Leave out --io io_uring.`);
}
