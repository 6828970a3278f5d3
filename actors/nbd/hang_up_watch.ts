/**
 * Finds out that a client has hung up while nothing is read from its socket: its requests wait for space, and it has no credits
 * left. Otherwise a read of the socket would tell. Part of the connection (nbd/connection.ts).
 *
 * The waiting requests of such a client must not be carried out later: it may have connected again and sent them anew.
 */
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Timer } from "../kernel/timers.ts";
import { hangUpCheckMs } from "../limits.ts";
import type { HangUpCheck } from "./messages.ts";
import type { SocketPort } from "./socket_port.ts";

/** See the head of this file. */
export class HangUpWatch {
  readonly #kernel: Kernel;
  readonly #connection: Address<HangUpCheck>;
  readonly #socket: Pick<SocketPort, "hasHungUp">;
  #timer: Timer | undefined;

  constructor(kernel: Kernel, connection: Address<HangUpCheck>, socket: Pick<SocketPort, "hasHungUp">) {
    this.#kernel = kernel;
    this.#connection = connection;
    this.#socket = socket;
  }

  /** Requests wait for space: `hangUpCheck` comes in a while. */
  watch(): void {
    this.#timer ??= this.#kernel.tellLater(hangUpCheckMs, this.#connection, { type: "hangUpCheck" });
  }

  /** It has come: true if the client has hung up. If not and `isNeeded`, another one follows. */
  check(isNeeded: boolean): boolean {
    this.#timer = undefined;
    if (this.#socket.hasHungUp) return true;
    if (isNeeded) this.watch();
    return false;
  }

  /** The connection ends. */
  end(): void {
    if (this.#timer !== undefined) this.#kernel.cancelTimer(this.#timer);
    this.#timer = undefined;
  }
}
