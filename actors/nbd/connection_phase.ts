/**
 * The phase of one connection, which only moves to the right; any may be skipped:
 *
 *   handshake --> transmission --> shuttingDown --> finishing --> closing --> left
 *
 * handshake: options, one at a time. transmission: requests. shuttingDown: the export or the server is going; requests in
 * flight are answered, later ones refused. finishing: nothing more is read; replies are sent. closing: the socket is closed or
 * being closed. left: the listener's answer is awaited.
 */
import { assert } from "../../storage/base/assert.ts";

const order = ["handshake", "transmission", "shuttingDown", "finishing", "closing", "left"] as const;

/** The name of a phase. */
export type PhaseName = typeof order[number];

/** See the head of this file. */
export class ConnectionPhase {
  #name: PhaseName = "handshake";

  get name(): PhaseName {
    return this.#name;
  }

  moveTo(next: PhaseName): void {
    assert(order.indexOf(next) > order.indexOf(this.#name), "a connection moved back to an earlier phase");
    this.#name = next;
  }

  /** Requests or options are still taken in: nothing has begun to end the connection. */
  get isOpen(): boolean {
    return this.#name === "handshake" || this.#name === "transmission";
  }

  /** What comes from the client is not looked at any more. */
  get isReadingOver(): boolean {
    return this.#name === "finishing" || this.isClosed;
  }

  /** The socket is closed or being closed. */
  get isClosed(): boolean {
    return this.#name === "closing" || this.#name === "left";
  }
}
