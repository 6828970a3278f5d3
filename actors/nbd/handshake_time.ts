/**
 * Timeouts of one client's handshake: from one option to the next, for the TLS handshake, and in all. The last grows with the
 * number of exports that the client was told of. libnbd's `nbdinfo --list` asks about each of them on one connection, which
 * over TCP takes 0.2 s an export: libnbd leaves the last part of an option with Linux, which waits 200 ms for more.
 */
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Timer } from "../kernel/timers.ts";
import { handshakeExportMs, handshakeMs, handshakeSumMs, tlsHandshakeMs } from "../limits.ts";
import type { HandshakeDeadline, TlsDeadline } from "./messages.ts";

export class HandshakeTime {
  readonly #kernel: Kernel;
  readonly #connection: Address<HandshakeDeadline | TlsDeadline>;
  readonly #beganMs: number;
  #sumMs = handshakeSumMs;
  #timer: Timer | undefined;
  #tlsTimer: Timer | undefined;

  /** Begins. Tells the connection `handshakeDeadline` or `tlsDeadline` when the time is up. */
  constructor(kernel: Kernel, connection: Address<HandshakeDeadline | TlsDeadline>) {
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

  /** The TLS handshake begins. */
  beginTls(): void {
    this.#tlsTimer = this.#kernel.tellLater(tlsHandshakeMs, this.#connection, { type: "tlsDeadline" });
  }

  /** The TLS handshake has ended. */
  endTls(): void {
    if (this.#tlsTimer !== undefined) this.#kernel.cancelTimer(this.#tlsTimer);
    this.#tlsTimer = undefined;
  }

  /** The client was told of so many exports, and may ask about each; telling it again gives no more time. */
  allowFor(exports: number): void {
    this.#sumMs = Math.max(this.#sumMs, handshakeSumMs + exports * handshakeExportMs);
  }

  /** The client is attached, or gone. */
  end(): void {
    if (this.#timer !== undefined) this.#kernel.cancelTimer(this.#timer);
    this.#timer = undefined;
    this.endTls();
  }
}
