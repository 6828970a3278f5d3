/**
 * The handshake phase of one connection: the options (nbd/handshake.ts), the change to TLS, and the deadlines of both
 * (nbd/handshake_time.ts). Not an actor but a part of NbdConnection's state (nbd/connection.ts).
 */
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { type HandshakeStep, NbdHandshake, type PoolAnswer } from "./handshake.ts";
import { HandshakeTime } from "./handshake_time.ts";
import type { HandshakeDeadline, TlsDeadline } from "./messages.ts";
import type { SocketPort } from "./socket_port.ts";
import type { OutputQueue } from "./wire/output_queue.ts";

/** See the head of this file. */
export class HandshakePhase {
  readonly #kernel: Kernel;
  readonly #connection: Address<HandshakeDeadline | TlsDeadline>;
  readonly #socket: Pick<SocketPort, "tls" | "identity" | "startTls">;
  readonly #options: NbdHandshake;
  #time: HandshakeTime | undefined;
  #isSecuring = false;
  /** Where the client came from, before it had shown a certificate. */
  readonly #identityBefore: string | undefined;

  /** Puts the greeting into the output queue. */
  constructor(
    kernel: Kernel,
    connection: Address<HandshakeDeadline | TlsDeadline>,
    socket: Pick<SocketPort, "tls" | "identity" | "startTls">,
    output: OutputQueue,
  ) {
    this.#kernel = kernel;
    this.#connection = connection;
    this.#socket = socket;
    this.#identityBefore = socket.identity;
    this.#options = new NbdHandshake(output, socket.tls);
  }

  /** The client is greeted: its time begins. Tells the connection `handshakeDeadline` or `tlsDeadline` when it is over. */
  begin(): void {
    this.#time = new HandshakeTime(this.#kernel, this.#connection);
  }

  /** STARTTLS was accepted: nothing is read in clear text any more, and nothing else is done until {@linkcode secured}. */
  get isSecuring(): boolean {
    return this.#isSecuring;
  }

  /** The stream is encrypted. */
  get isSecured(): boolean {
    return this.#options.isSecured;
  }

  /** The client asked for something in clear text that needs TLS. */
  get wasClearTextRefused(): boolean {
    return this.#options.wasClearTextRefused;
  }

  /** Takes received bytes, which must stay untouched until the step "needBytes". */
  push(bytes: Uint8Array): void {
    this.#options.push(bytes);
  }

  /** The bytes behind the handshake, after the step "transmission". */
  takeSurplus(): Uint8Array {
    return this.#options.takeSurplus();
  }

  /** What is to be done next. */
  next(): HandshakeStep {
    return this.#noted(this.#options.next());
  }

  /** The pool has answered the question of the step "ask". */
  answer(answer: PoolAnswer): HandshakeStep {
    if (answer.type === "exports") this.#time?.allowFor(answer.names.length);
    return this.#noted(this.#options.answer(answer));
  }

  #noted(step: HandshakeStep): HandshakeStep {
    if (step.kind !== "needBytes") this.#time?.progressed();
    if (step.kind === "startTls") this.#isSecuring = true;
    return step;
  }

  /** The client knows that STARTTLS was accepted; the next byte of either side is TLS. */
  startTls(): void {
    this.#time?.beginTls();
    this.#socket.startTls();
  }

  /** The socket has told `secured`, also where the phase has ended since. */
  tlsEnded(): void {
    this.#isSecuring = false;
    this.#time?.endTls();
  }

  /** The options go on in TLS. Returns the identity by which the client is counted now, undefined if that is the old one. */
  secured(): string | undefined {
    this.#options.secured();
    this.#time?.progressed();
    const { identity } = this.#socket;
    return identity === this.#identityBefore ? undefined : identity;
  }

  /** The client is attached, or gone: no deadline is told any more. */
  end(): void {
    this.#time?.end();
  }
}
