/**
 * The large READs of one connection: how many bytes of them the volume has or have not been sent, and those that wait until
 * what was read before has been sent. A READ is large from `referenceMinBytes` on: its bytes are sent from where they lie.
 */
import { assert } from "../../storage/base/assert.ts";
import { unsentReadBytesMax } from "../limits.ts";
import { queues } from "../queues.ts";
import type { ClientRequest } from "./client_request.ts";
import type { SocketPort } from "./socket_port.ts";
import { referenceMinBytes } from "./wire/limits.ts";

/** See the head of this file. */
export class LargeReads {
  readonly #socket: Pick<SocketPort, "takesSegments">;
  /** They count as in flight. */
  readonly #waiting: ClientRequest[] = [];
  /** Bytes that the volume has or that have not been sent. */
  #unsentBytes = 0;
  /** Of them, bytes whose replies are queued, and whose replies are being sent. */
  #queuedBytes = 0;
  #sendingBytes = 0;
  #isSending = false;

  constructor(socket: Pick<SocketPort, "takesSegments">) {
    this.#socket = socket;
  }

  /** A batch of replies, of whatever requests, is being sent. */
  get isSending(): boolean {
    return this.#isSending;
  }

  /** Whether one of those that wait is paid for with borrowed bytes. */
  get waitOnLoan(): boolean {
    return this.#waiting.some(({ purse }) => purse === "lent");
  }

  /** Whether a READ that has come has to wait: then it is kept here. */
  waits(request: ClientRequest): boolean {
    if (this.#waiting.length === 0 && this.#mayRead(request)) return false;
    assert(this.#waiting.length < queues.largeReads, "more READs wait than a client has credits");
    this.#waiting.push(request);
    return true;
  }

  /** The oldest that waits, which does not wait any more. */
  shift(): ClientRequest | undefined {
    return this.#waiting.shift();
  }

  /** The same, if it may be submitted now. */
  shiftAllowed(): ClientRequest | undefined {
    return this.#waiting.length > 0 && this.#mayRead(this.#waiting[0]!) ? this.#waiting.shift() : undefined;
  }

  /** The client is gone: forgets those that wait. Returns their number. */
  drop(): number {
    const dropped = this.#waiting.length;
    this.#waiting.length = 0;
    return dropped;
  }

  /** The volume has a READ now. */
  submitted(request: ClientRequest): void {
    this.#unsentBytes += request.lengthBytes;
  }

  /** The volume is done with a READ, and none of its bytes is sent. */
  unsent(request: ClientRequest): void {
    this.#unsentBytes -= request.lengthBytes;
    assert(this.#unsentBytes >= 0, "a READ was submitted once and ended twice");
  }

  /** The volume is done with a READ, and its reply is queued. */
  queued(request: ClientRequest): void {
    this.#queuedBytes += request.lengthBytes;
    assert(this.#queuedBytes <= this.#unsentBytes, "a READ was queued that was not submitted");
  }

  /** The queued replies are being sent. */
  batchTaken(): void {
    assert(!this.#isSending, "one batch is sent at a time");
    this.#isSending = true;
    [this.#queuedBytes, this.#sendingBytes] = [0, this.#queuedBytes];
  }

  /** They have been sent. */
  batchSent(): void {
    this.#isSending = false;
    this.#unsentBytes -= this.#sendingBytes;
    this.#sendingBytes = 0;
    assert(this.#unsentBytes >= 0, "more was sent of READs than was submitted");
  }

  /**
   * Whether the segments of a large READ could be sent without a copy. If not, the READ waits: it would be copied now, which
   * delays other clients, and be sent no sooner.
   */
  #mayRead(request: ClientRequest): boolean {
    if (!this.#socket.takesSegments) return true;
    if (this.#isSending) return false;
    return this.#unsentBytes === 0 || this.#unsentBytes + request.lengthBytes <= unsentReadBytesMax;
  }
}

/** See the head of this file. */
export function isLargeRead(request: ClientRequest): boolean {
  return request.kind === "read" && request.lengthBytes >= referenceMinBytes;
}
