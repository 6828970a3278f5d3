/**
 * How long one client may take to attach: so long between two options, and so long in all, which grows with the exports
 * that it was told of. libnbd's `nbdinfo --list` asks about each of them on one connection, and over TCP that takes it
 * 0.2 s an export (it leaves the last part of an option with the kernel, which waits 200 ms for more).
 */
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Timer } from "../kernel/timers.ts";
import { handshakeExportMs, handshakeMs, handshakeSumMs } from "../limits.ts";
import type { HandshakeDeadline } from "./messages.ts";

export class HandshakeTime {
  readonly #kernel: Kernel;
  readonly #connection: Address<HandshakeDeadline>;
  readonly #beganMs: number;
  #sumMs = handshakeSumMs;
  #timer: Timer | undefined;

  /** Begins. Tells the connection `handshakeDeadline` when the time is up. */
  constructor(kernel: Kernel, connection: Address<HandshakeDeadline>) {
    this.#kernel = kernel;
    this.#connection = connection;
    this.#beganMs = kernel.clock.now();
    this.#timer = this.#kernel.tellLater(handshakeMs, connection, { type: "handshakeDeadline" });
  }

  /** An option has been received whole, or TLS is on: the client has `handshakeMs` for the next one. */
  progressed(): void {
    if (this.#timer === undefined) return;
    this.#kernel.cancelTimer(this.#timer);
    const restMs = this.#beganMs + this.#sumMs - this.#kernel.clock.now();
    const forMs = Math.max(0, Math.min(handshakeMs, restMs));
    this.#timer = this.#kernel.tellLater(forMs, this.#connection, { type: "handshakeDeadline" });
  }

  /** The client was told of so many exports, and may ask about each; telling it again gives no more time. */
  allowFor(exports: number): void {
    this.#sumMs = Math.max(this.#sumMs, handshakeSumMs + exports * handshakeExportMs);
  }

  /** The client is attached, or gone. */
  end(): void {
    if (this.#timer !== undefined) this.#kernel.cancelTimer(this.#timer);
    this.#timer = undefined;
  }
}
