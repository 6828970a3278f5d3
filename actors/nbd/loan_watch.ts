/**
 * Times out a client that holds shared payload credit and is slow. While no other client waits for credit, any pace is allowed: a
 * paused guest takes nothing for hours. While one waits, a client that holds a loan has to take its replies, or send its WRITE,
 * at `loanPaceBytesMin` in each `loanPaceMs`.
 */
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Timer } from "../kernel/timers.ts";
import { loanCheckMs, loanPaceBytesMin, loanPaceMs } from "../limits.ts";
import type { LoanCheck } from "./messages.ts";

/** What is borrowed now, and for what. */
export interface LoanHolder {
  readonly holdsLent: boolean;
  /** Some of it pays for replies that have not been sent, or for READs that wait for that. */
  readonly holdsLentForReplies: boolean;
}

export class LoanWatch {
  readonly #kernel: Kernel;
  readonly #connection: Address<LoanCheck>;
  readonly #socket: { readonly sentBytes: number };
  #isWanted = false;
  #isClosed = false;
  #timer: Timer | undefined;
  #receivedBytes = 0;
  /** A send began after the last look. */
  #isSendNew = false;
  #isPayloadArriving = false;
  /** It began to arrive after the last look. */
  #isPayloadNew = false;
  /** The time of the last look at the pace, and the counts at that time. */
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

  /** Starts the periodic look if others wait. Must be called when bytes are lent. */
  watch(): void {
    if (!this.#isWanted || this.#isClosed || this.#timer !== undefined) return;
    this.#look();
    this.#lookLater();
  }

  /** A send begins. */
  sends(): void {
    this.#isSendNew = true;
  }

  /** Bytes were received. */
  received(bytes: number): void {
    this.#receivedBytes += bytes;
  }

  /** Whether a WRITE that borrowed bytes pay for has not come whole. */
  setPayloadArriving(isArriving: boolean): void {
    if (isArriving && !this.#isPayloadArriving) this.#isPayloadNew = true;
    this.#isPayloadArriving = isArriving;
  }

  /** Handles `loanCheck`: in what the client was too slow, as a sentence; undefined if in nothing. */
  check(loans: LoanHolder): string | undefined {
    this.#timer = undefined;
    if (!this.#isWanted || !loans.holdsLent) return undefined;
    this.#lookLater();
    if (this.#kernel.clock.now() - this.#sinceMs < loanPaceMs) return undefined;
    const sentBytes = this.#socket.sentBytes - this.#sentBytesBefore;
    const receivedBytes = this.#receivedBytes - this.#receivedBytesBefore;
    // A send or payload that began after the last look counts at the next one.
    const isSending = loans.holdsLentForReplies && !this.#isSendNew;
    const isReceiving = this.#isPayloadArriving && !this.#isPayloadNew;
    this.#look();
    const slow = isSending && sentBytes < loanPaceBytesMin
      ? "takes its replies"
      : isReceiving && receivedBytes < loanPaceBytesMin
      ? "sends a WRITE"
      : undefined;
    return slow && `it ${slow} too slowly, and other clients wait for the memory`;
  }

  /** Ends the looks: others may begin to wait again later. */
  end(): void {
    if (this.#timer !== undefined) this.#kernel.cancelTimer(this.#timer);
    this.#timer = undefined;
    this.#isWanted = false;
  }

  /**
   * The connection is closed. It may hold a loan until its last request has ended, and others may begin to wait for that: no
   * look may be due then, because the connection may be gone by that time.
   */
  close(): void {
    this.end();
    this.#isClosed = true;
  }

  #look(): void {
    this.#sinceMs = this.#kernel.clock.now();
    this.#sentBytesBefore = this.#socket.sentBytes;
    this.#receivedBytesBefore = this.#receivedBytes;
    this.#isSendNew = false;
    this.#isPayloadNew = false;
  }

  #lookLater(): void {
    this.#timer = this.#kernel.tellLater(loanCheckMs, this.#connection, { type: "loanCheck" });
  }
}
