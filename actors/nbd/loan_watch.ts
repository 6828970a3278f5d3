/**
 * Whether one client is too slow for what it has borrowed. It is nobody's business how slow a client is while nobody
 * waits: a paused guest takes nothing for hours. While another client waits for what all borrow from, one that holds
 * some of it has to take its replies, or send its WRITE, at `loanPaceBytesMin` in each `loanPaceMs`.
 */
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Timer } from "../kernel/timers.ts";
import { loanCheckMs, loanPaceBytesMin, loanPaceMs } from "../limits.ts";
import type { LoanCheck } from "./messages.ts";

/** What is borrowed just now, and what for. */
export interface LoanHolder {
  readonly holdsLent: boolean;
  /** Some of it pays for replies that have not been sent, or for READs that wait for that. */
  readonly holdsLentForReplies: boolean;
}

/** What the client does too slowly. */
export type TooSlow = "takes" | "sends";

export class LoanWatch {
  readonly #kernel: Kernel;
  readonly #connection: Address<LoanCheck>;
  readonly #socket: { readonly sentBytes: number };
  #isWanted = false;
  #timer: Timer | undefined;
  #receivedBytes = 0;
  #sendBeganMs = 0;
  #payloadBeganMs: number | undefined;
  /** When the pace was looked at last, and how far the client had come. */
  #sinceMs = 0;
  #sentBytesBefore = 0;
  #receivedBytesBefore = 0;

  constructor(kernel: Kernel, connection: Address<LoanCheck>, socket: { readonly sentBytes: number }) {
    this.#kernel = kernel;
    this.#connection = connection;
    this.#socket = socket;
  }

  /** Other clients wait for what is lent, or do not any more. */
  setWanted(isWanted: boolean): void {
    this.#isWanted = isWanted;
    this.watch();
  }

  /** Begins to look, if there is a reason to: to be called when bytes are lent. */
  watch(): void {
    if (!this.#isWanted || this.#timer !== undefined) return;
    this.#look();
    this.#lookLater();
  }

  /** A send begins. */
  sends(): void {
    this.#sendBeganMs = this.#kernel.clock.now();
  }

  /** So much has come. */
  received(bytes: number): void {
    this.#receivedBytes += bytes;
  }

  /** Whether the rest of a WRITE is waited for that borrowed bytes are held for. */
  setPayloadArriving(isArriving: boolean): void {
    if (!isArriving) this.#payloadBeganMs = undefined;
    else this.#payloadBeganMs ??= this.#kernel.clock.now();
  }

  /** The answer to `loanCheck`: what the client was too slow in, if it was. */
  check(loans: LoanHolder): TooSlow | undefined {
    this.#timer = undefined;
    if (!this.#isWanted || !loans.holdsLent) return undefined;
    this.#lookLater();
    if (this.#kernel.clock.now() - this.#sinceMs < loanPaceMs) return undefined;
    const sentBytes = this.#socket.sentBytes - this.#sentBytesBefore;
    const receivedBytes = this.#receivedBytes - this.#receivedBytesBefore;
    // What began since the last look is looked at the next time.
    const isSending = loans.holdsLentForReplies && this.#sendBeganMs <= this.#sinceMs;
    const isReceiving = this.#payloadBeganMs !== undefined && this.#payloadBeganMs <= this.#sinceMs;
    this.#look();
    if (isSending && sentBytes < loanPaceBytesMin) return "takes";
    return isReceiving && receivedBytes < loanPaceBytesMin ? "sends" : undefined;
  }

  /** The connection ends. */
  end(): void {
    if (this.#timer !== undefined) this.#kernel.cancelTimer(this.#timer);
    this.#timer = undefined;
    this.#isWanted = false;
  }

  #look(): void {
    this.#sinceMs = this.#kernel.clock.now();
    this.#sentBytesBefore = this.#socket.sentBytes;
    this.#receivedBytesBefore = this.#receivedBytes;
  }

  #lookLater(): void {
    this.#timer = this.#kernel.tellLater(loanCheckMs, this.#connection, { type: "loanCheck" });
  }
}
