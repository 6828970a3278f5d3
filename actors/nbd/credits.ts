/**
 * What one connection may have in flight: a number of requests, payload bytes of its own, and bytes borrowed from the listener
 * for a request that its own bytes cannot pay.
 *
 * A request is paid for whole from one purse, and borrowed bytes never wait for more borrowed bytes. So no connection holds
 * bytes that others need while it waits: lent bytes pay for a request in flight, or go back.
 */
import { assert } from "../../storage/base/assert.ts";
import {
  connectionBorrowMax,
  connectionBytesMax,
  parkedRequestsPerClientMax,
  requestsPerConnectionMax,
} from "../limits.ts";

/** What pays for a request: the connection's own bytes, or borrowed ones. */
export type Purse = "own" | "lent";

export class Credits {
  /** Requests admitted whose replies have not been sent. */
  #requests = 0;
  #ownBytes = 0;
  /** Borrowed bytes that pay for requests. */
  #lentBytes = 0;
  /** Borrowed bytes that have just arrived. */
  #arrivedBytes = 0;
  #borrowing = false;

  get requestsInFlight(): number {
    return this.#requests;
  }

  /** Borrowed bytes that pay for requests. */
  get lentBytes(): number {
    return this.#lentBytes;
  }

  /** Bytes of its own that pay for no request now. */
  get unpaidBytes(): number {
    return connectionBytesMax - this.#ownBytes;
  }

  /** True if one more request may be admitted, apart from its bytes. */
  get hasRequest(): boolean {
    return this.#requests < requestsPerConnectionMax;
  }

  /** Takes the credit for one request. Undefined if there are not enough bytes. */
  pay(bytes: number): Purse | undefined {
    assert(this.hasRequest, "a request was admitted without a credit");
    if (this.#ownBytes + bytes <= connectionBytesMax) {
      this.#ownBytes += bytes;
      this.#requests += 1;
      assert(this.unpaidBytes >= 0, "a connection pays with more than it has");
      return "own";
    }
    if (bytes > this.#arrivedBytes) return undefined;
    this.#arrivedBytes -= bytes;
    this.#lentBytes += bytes;
    assert(this.#lentBytes <= connectionBorrowMax, "a connection has borrowed more than it may");
    this.#requests += 1;
    return "lent";
  }

  /** True if `bytes` are to be borrowed now; then they count as asked for. */
  borrow(bytes: number): boolean {
    assert(bytes > this.unpaidBytes, "bytes were borrowed that the connection has");
    if (this.#borrowing || this.#lentBytes + bytes > connectionBorrowMax) return false;
    this.#borrowing = true;
    return true;
  }

  /** The bytes asked for have come. What `pay` does not take at once must be given back. */
  arrived(bytes: number): void {
    assert(this.#borrowing, "bytes were lent that were not asked for");
    assert(this.#arrivedBytes === 0, "bytes came before the last that came were used or given back");
    this.#borrowing = false;
    this.#arrivedBytes = bytes;
  }

  /** Takes the bytes that came and were not needed; the caller gives them back. */
  takeUnneeded(): number {
    const bytes = this.#arrivedBytes;
    assert(bytes >= 0, "a request paid with more bytes than came");
    this.#arrivedBytes = 0;
    return bytes;
  }

  /** Bytes of a request's payload are free again. Lent bytes must then be given back. */
  releaseBytes(purse: Purse, bytes: number): void {
    assert(bytes >= 0, "bytes are released, not paid");
    if (purse === "own") this.#ownBytes -= bytes;
    else this.#lentBytes -= bytes;
    assert(this.#ownBytes >= 0 && this.#lentBytes >= 0, "more bytes released than paid");
  }

  /** A request that waited for space without a credit is done: its reply has one, also above what may be admitted. */
  takeForReply(): void {
    this.#requests += 1;
    assert(
      this.#requests <= requestsPerConnectionMax + parkedRequestsPerClientMax,
      "more requests are done than were admitted or waited",
    );
  }

  /** The replies of this many requests have been sent, or so many wait for space with memory of their own. */
  releaseRequests(count: number): void {
    assert(count >= 0, "requests are released, not admitted");
    this.#requests -= count;
    assert(this.#requests >= 0, "more requests released than admitted");
  }
}
