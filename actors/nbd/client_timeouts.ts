/**
 * The timeouts of one client: of its handshake, of a client that takes no replies, that keeps what it has borrowed, and that has
 * hung up while its requests wait for space. Part of the connection (nbd/connection.ts), which gets a message when a look is due.
 */
import { unreachable } from "../../storage/base/assert.ts";
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { ConnectionPhase } from "./connection_phase.ts";
import type { HandshakePhase } from "./handshake_phase.ts";
import { HangUpWatch } from "./hang_up_watch.ts";
import { LoanWatch } from "./loan_watch.ts";
import type { HandshakeDeadline, HangUpCheck, LoanCheck, StallCheck, TlsDeadline } from "./messages.ts";
import type { ReplySender } from "./reply_sender.ts";
import type { SocketPort } from "./socket_port.ts";
import type { NbdTransmission } from "./transmission.ts";

/** A look that is due. */
export type TimeoutCheck = HandshakeDeadline | TlsDeadline | StallCheck | LoanCheck | HangUpCheck;

/** The parts of the connection that are looked at. */
export interface TimedParts {
  readonly phase: ConnectionPhase;
  readonly handshake: HandshakePhase;
  readonly sender: ReplySender;
}

/** See the head of this file. */
export class ClientTimeouts {
  readonly loans: LoanWatch;
  readonly hangUps: HangUpWatch;
  readonly #parts: TimedParts;

  constructor(kernel: Kernel, connection: Address<TimeoutCheck>, socket: SocketPort, parts: TimedParts) {
    this.#parts = parts;
    this.loans = new LoanWatch(kernel, connection, socket);
    this.hangUps = new HangUpWatch(kernel, connection, socket);
  }

  /** Why the client has to go, as a sentence; undefined if it may stay. */
  check(type: TimeoutCheck["type"], transmission: NbdTransmission | undefined): string | undefined {
    const { phase, handshake } = this.#parts;
    switch (type) {
      case "handshakeDeadline":
        return phase.name === "handshake" ? tooLongHandshake : undefined;
      case "tlsDeadline":
        return handshake.isSecuring ? "its TLS handshake took too long" : undefined;
      case "stallCheck":
        return phase.isClosed ? undefined : this.#checkStall();
      case "loanCheck":
        return phase.isClosed ? undefined : this.#checkLoan(transmission);
      case "hangUpCheck":
        if (phase.isClosed || !this.hangUps.check(transmission?.hasParked ?? false)) return undefined;
        return "it hung up while its writes wait for space";
      default:
        return unreachable(type);
    }
  }

  /** A paused guest takes nothing for hours, which is allowed. Borrowed bytes have a timeout of their own (nbd/loan_watch.ts). */
  #checkStall(): string | undefined {
    const mayPause = this.#parts.phase.name === "transmission";
    return this.#parts.sender.checkStall(mayPause) ? "it does not read its replies" : undefined;
  }

  /** Other clients wait for what this one has borrowed. */
  #checkLoan(transmission: NbdTransmission | undefined): string | undefined {
    transmission?.shrinkLoan();
    return transmission && this.loans.check(transmission);
  }

  /** The client is attached, or gone: no look is due any more until one is asked for again. */
  end(): void {
    this.#parts.handshake.end();
    this.#parts.sender.end();
    this.loans.end();
    this.hangUps.end();
  }
}

const tooLongHandshake = "it attached to no export in the time it has for that";
