/**
 * The requests of one connection that wait for space, and the memory that their payloads move to. Part of the transmission
 * (nbd/transmission.ts).
 *
 * A request that waits may wait for a minute or for ever. So within a bound of its own it costs the client none of its
 * credits, and holds no buffer that the socket is read into or that others could borrow: reads, writes in place, TRIM, FLUSH
 * and the disconnect pass it. Beyond the bound a request keeps what it has, and a client that has used up its credits is not
 * read from until space comes; it is watched for a hang-up meanwhile (nbd/hang_up_watch.ts). What it has borrowed others wait
 * for, so such a request waits only while all of them together hold no more than `waitingLoansBytesMax` (nbd/loans.ts).
 */
import { assert } from "../../storage/base/assert.ts";
import { parkedBytesPerClientMax, parkedRequestsPerClientMax } from "../limits.ts";
import { queues } from "../queues.ts";

/** A request as it is here. */
interface ParkedRequest {
  /** Its payload has moved. */
  readonly hasMoved: boolean;
  readonly data: Uint8Array;
}

/** See the head of this file. */
export class ParkedRequests {
  /** Requests that the volume has told of and that are not done. */
  readonly #known = new Set<ParkedRequest>();
  /** Requests whose payloads have moved, and the bytes of these. */
  #moved = 0;
  #movedBytes = 0;

  /** Requests that wait, or have waited and are not done. */
  get size(): number {
    return this.#known.size;
  }

  /** True if one more payload may move; then it counts as moved. */
  takeRoom(payloadBytes: number): boolean {
    if (this.#moved === parkedRequestsPerClientMax) return false;
    if (this.#movedBytes + payloadBytes > parkedBytesPerClientMax) return false;
    this.#moved += 1;
    this.#movedBytes += payloadBytes;
    assert(this.#moved <= parkedRequestsPerClientMax, "more payloads have moved than there is room for");
    return true;
  }

  /** Whether the request waits, or has waited and is not done. */
  has(request: ParkedRequest): boolean {
    return this.#known.has(request);
  }

  /** The volume has told that the request waits, again perhaps. */
  add(request: ParkedRequest): void {
    if (this.#known.has(request)) return;
    assert(this.#known.size < queues.parkedRequests, "more requests wait for space than a client may have");
    this.#known.add(request);
  }

  /** A request is done. */
  done(request: ParkedRequest): void {
    const hasWaited = this.#known.delete(request);
    if (!request.hasMoved) return;
    assert(hasWaited, "a payload has moved of a request that did not wait");
    this.#moved -= 1;
    this.#movedBytes -= request.data.length;
    assert(this.#moved >= 0 && this.#movedBytes >= 0, "more payloads are done than have moved");
  }
}
