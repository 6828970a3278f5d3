/**
 * When one connection sends: one send at a time, of all replies that one drain of the kernel has queued; and whether the
 * client takes what is sent.
 */
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Timer } from "../kernel/timers.ts";
import { stalledSendMs } from "../limits.ts";
import type { Drained, StallCheck } from "./messages.ts";
import type { SocketPort } from "./socket_port.ts";
import type { OutputQueue } from "./wire/output_queue.ts";
import type { Piece } from "./wire/pieces.ts";

export class ReplySender {
  readonly #kernel: Kernel;
  readonly #connection: Address<Drained | StallCheck>;
  readonly #socket: Pick<SocketPort, "sentBytes">;
  readonly #output: OutputQueue;
  #isSending = false;
  #isDrainAsked = false;
  #stallTimer: Timer | undefined;
  #sentBytesBefore = 0;

  /** Tells the connection `drained` and `stallCheck`. */
  constructor(
    kernel: Kernel,
    connection: Address<Drained | StallCheck>,
    socket: Pick<SocketPort, "sentBytes">,
    output: OutputQueue,
  ) {
    this.#kernel = kernel;
    this.#connection = connection;
    this.#socket = socket;
    this.#output = output;
  }

  /** A send is under way. */
  get isSending(): boolean {
    return this.#isSending;
  }

  /** `drained` is on its way. */
  get isDrainAsked(): boolean {
    return this.#isDrainAsked;
  }

  /** Everything queued has been sent. */
  get isDone(): boolean {
    return !this.#isSending && this.#output.pendingBytes === 0;
  }

  /** Asks for `drained` when this drain of the kernel ends: other replies may join those that are queued. */
  askDrained(): void {
    if (this.#isDrainAsked) return;
    this.#isDrainAsked = true;
    this.#kernel.whenIdle(this.#connection, { type: "drained" });
  }

  /** `drained` has come. */
  drained(): void {
    this.#isDrainAsked = false;
  }

  /** What is to be sent now, which then is under way; undefined if a send is, or nothing is queued. */
  begin(): readonly Piece[] | undefined {
    if (this.#isSending) return undefined;
    const pieces = this.#output.take();
    if (pieces.length === 0) return undefined;
    this.#isSending = true;
    if (this.#stallTimer === undefined) this.#watchStall();
    return pieces;
  }

  /** `sent` has come. */
  sent(): void {
    this.#isSending = false;
  }

  /** Handles `stallCheck`: whether the client has taken no byte since the last look and may not pause. */
  checkStall(mayPause: boolean): boolean {
    this.#stallTimer = undefined;
    if (!this.#isSending) return false;
    if (!mayPause && this.#socket.sentBytes === this.#sentBytesBefore) return true;
    this.#watchStall();
    return false;
  }

  /** Asks for `stallCheck` in a while: one timer in `stalledSendMs` for a busy connection, none for an idle one. */
  #watchStall(): void {
    this.#sentBytesBefore = this.#socket.sentBytes;
    this.#stallTimer = this.#kernel.tellLater(stalledSendMs, this.#connection, { type: "stallCheck" });
  }

  /** The connection ends. */
  end(): void {
    if (this.#stallTimer !== undefined) this.#kernel.cancelTimer(this.#stallTimer);
    this.#stallTimer = undefined;
  }
}
