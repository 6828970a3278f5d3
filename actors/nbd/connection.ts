/**
 * NbdConnection: one client, from its greeting to its last reply.
 *
 * Owns: the socket, the handshake, what was received and not yet parsed, the replies not yet sent, and the credits
 * of its requests. It reads the socket only when all that came is parsed, and stops parsing in front of a request
 * without credit: a client that sends too much, or does not read, stalls only itself. All replies that one drain of the
 * kernel produced go out with one send.
 * Its parts: the phase (nbd/connection_phase.ts), the handshake (nbd/handshake_phase.ts), what it asks of the pool
 * (nbd/attachment.ts), the requests (nbd/transmission.ts), what it sends (nbd/reply_sender.ts), and what closes a client that is
 * slow or gone (nbd/client_timeouts.ts).
 *
 * The actor retires when the socket has told `closed`, the volume has none of its requests, the pool has answered `detach`, and
 * the listener has answered `leave`. Then no actor can send it a message any more.
 *
 * Failure policy: a client that breaks the protocol is logged and closed, after the replies it is owed.
 */
import { assert, unreachable } from "../../storage/base/assert.ts";
import { OutputQueue } from "./wire/output_queue.ts";
import { Attachment } from "./attachment.ts";
import type { Actor, Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Attached, HandshakeStep, PoolAnswer } from "./handshake.ts";
import { ClientTimeouts, type TimeoutCheck } from "./client_timeouts.ts";
import { ConnectionLog } from "./connection_log.ts";
import { ConnectionPhase } from "./connection_phase.ts";
import { HandshakePhase } from "./handshake_phase.ts";
import type { Lent, NbdConnectionMessage, NbdListenerMessage } from "./messages.ts";
import { ReceiveBuffers } from "./receive.ts";
import { ReplySender } from "./reply_sender.ts";
import { ClientRequest } from "./client_request.ts";
import { ClientStatus, type NbdSession } from "./status_reply.ts";
import { NbdTransmission, type ParseEnd } from "./transmission.ts";
import type { VolumeRequest } from "../volume/bio.ts";
import type { PoolMessage } from "../control/pool_messages.ts";
import type { LogPort, SocketPort } from "./socket_port.ts";

/** What a connection works with. */
export interface ConnectionPeers {
  readonly socket: SocketPort;
  readonly pool: Address<PoolMessage>;
  readonly listener: Address<NbdListenerMessage>;
  readonly log: LogPort;
}

export class NbdConnection implements Actor<NbdConnectionMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<NbdConnectionMessage>;
  readonly #peers: ConnectionPeers;
  readonly #phase = new ConnectionPhase();
  #socketClosed = false;

  readonly #received = new ReceiveBuffers();
  /** Received bytes wait to be parsed; no read is under way. */
  #unparsed = false;

  readonly #output = new OutputQueue();
  readonly #sender: ReplySender;

  readonly #handshake: HandshakePhase;
  readonly #attachment: Attachment;
  #transmission: NbdTransmission | undefined;
  readonly #timeouts: ClientTimeouts;
  readonly #log: ConnectionLog;

  constructor(kernel: Kernel, self: Address<NbdConnectionMessage>, peers: ConnectionPeers) {
    this.#kernel = kernel;
    this.#self = self;
    this.#peers = peers;
    this.#sender = new ReplySender(kernel, self, peers.socket, this.#output);
    this.#handshake = new HandshakePhase(kernel, self, peers.socket, this.#output);
    const [phase, handshake, sender] = [this.#phase, this.#handshake, this.#sender];
    this.#timeouts = new ClientTimeouts(kernel, self, peers.socket, { phase, handshake, sender });
    this.#log = new ConnectionLog(peers.log, peers.socket);
    this.#attachment = new Attachment(kernel, self, peers.pool, peers.socket.peer, peers.socket.only);
  }

  receive(message: NbdConnectionMessage): void {
    this.#handle(message);
    this.#transmission?.endTurn();
    this.#leave();
  }

  #handle(message: NbdConnectionMessage): void {
    switch (message.type) {
      case "begin":
        return this.#begin();
      case "received":
        return this.#takeReceived(message.bytes);
      case "requestsDone":
        return this.#requestsDone(message.requests);
      case "requestParked":
        return this.#requestParked(message.request as ClientRequest);
      case "statusDone":
        assert(message.request instanceof ClientStatus, "a block status of another connection");
        return this.#ended(this.#requestDone(message.request));
      case "drained":
        this.#sender.drained();
        return this.#send();
      case "sent":
        return this.#sent();
      case "lent":
        return this.#lent(message);
      case "ended":
        return this.#finish();
      case "closed":
        return this.#takeClosed(message.reason);
      case "attached":
      case "described":
      case "unknownExport":
      case "exports":
      case "contexts":
        return this.#answered(message);
      case "detached":
        return this.#attachment.answered();
      case "exportResized":
        if (this.#attachment.isTo(message.uid)) this.#transmission?.resize(message.sizeBytes);
        return;
      case "exportGone":
        return this.#attachment.isTo(message.uid) ? this.#shutDown(true) : undefined;
      case "drain":
        return this.#shutDown(false);
      case "makeRoom":
        // Only a client that is not attached makes room. The listener has logged why.
        return this.#transmission === undefined ? this.#close() : undefined;
      case "kicked":
        return this.#phase.isClosed ? undefined : this.#giveUp("the operator has kicked it");
      case "silent":
        return this.#giveUp("its host does not answer");
      case "abort":
        return this.#close();
      case "secured":
        return this.#secured();
      case "mayNotWait":
        return this.#transmission?.mayNotWait(message.request);
      case "wanted":
        return this.#timeouts.loans.setWanted(message.isWanted);
      case "handshakeDeadline":
      case "tlsDeadline":
      case "stallCheck":
      case "loanCheck":
      case "hangUpCheck":
        return this.#checkTimeout(message.type);
      case "left":
        return this.#kernel.retire(this.#self);
      default:
        return unreachable(message);
    }
  }

  #begin(): void {
    this.#peers.socket.open(this.#self);
    this.#handshake.begin();
    this.#send();
    this.#read();
  }

  // What comes in.

  #read(): void {
    this.#unparsed = false;
    if (this.#transmission === undefined) this.#peers.socket.read(this.#received.next(), false);
    else this.#transmission.read();
  }

  #takeReceived(bytes: Uint8Array): void {
    this.#timeouts.loans.received(bytes.length);
    if (this.#phase.name === "handshake") this.#handshake.push(bytes);
    else if (this.#transmission !== undefined && !this.#phase.isReadingOver) this.#transmission.push(bytes);
    else return;
    this.#unparsed = true;
    this.#parse();
  }

  /** Parses what was received, as far as that is possible now. */
  #parse(): void {
    while (this.#unparsed && this.#phase.name === "handshake") {
      if (this.#sender.isSending || this.#attachment.isQuestionOpen || this.#handshake.isSecuring) return;
      this.#takeStep(this.#handshake.next());
    }
    if (this.#unparsed && this.#transmission !== undefined) this.#parsed(this.#transmission.parse());
  }

  #takeStep(step: HandshakeStep): void {
    switch (step.kind) {
      case "needBytes":
        return this.#read();
      case "answered":
      case "startTls":
        return this.#send();
      case "ask":
        return this.#attachment.ask(step.question);
      case "transmission":
        return this.#beginTransmission(step.attached, step.session);
      case "end":
        this.#send();
        if (step.reason !== undefined) this.#log.closing(step.reason);
        return this.#finish();
      default:
        return unreachable(step);
    }
  }

  #answered(answer: PoolAnswer): void {
    this.#attachment.answered();
    if (this.#phase.name === "handshake") {
      this.#takeStep(this.#handshake.answer(answer));
      this.#parse();
    } else if (answer.type === "attached") {
      // The client left while the pool attached it: `#leave` detaches it again.
      this.#attachment.hold(answer);
    }
  }

  #beginTransmission(attached: Attached, session: NbdSession): void {
    this.#timeouts.end();
    this.#phase.moveTo("transmission");
    this.#attachment.hold(attached);
    const { socket, listener } = this.#peers;
    const [kernel, connection, received, output] = [this.#kernel, this.#self, this.#received, this.#output];
    const peers = { kernel, connection, listener, received, output, socket };
    this.#transmission = new NbdTransmission(peers, attached, session);
    this.#transmission.push(this.#handshake.takeSurplus());
    this.#log.attached(this.#attachment.sentence, this.#handshake.isSecured);
    kernel.tell(listener, { type: "attached", connection, uid: attached.info.uid });
    this.#send();
  }

  #parsed(end: ParseEnd): void {
    if (this.#transmission?.hasWritten) this.#attachment.writes();
    if (end === "disconnect") this.#attachment.disconnected();
    this.#timeouts.loans.setPayloadArriving(this.#transmission?.holdsBorrowed ?? false);
    if (this.#output.pendingBytes > 0) this.#sender.askDrained();
    switch (end) {
      case "needBytes":
        return this.#read();
      case "blocked":
        return;
      case "disconnect":
        return this.#finish();
      case "violation":
        this.#log.closing(this.#transmission?.violation ?? "");
        return this.#finish();
      default:
        return unreachable(end);
    }
  }

  #lent(loan: Lent): void {
    // All loans of a connection that is leaving go back when it leaves.
    if (this.#transmission === undefined || this.#phase.isReadingOver) return;
    this.#timeouts.loans.watch();
    const isBlocked = this.#unparsed;
    const end = this.#transmission.lent(loan, isBlocked);
    if (isBlocked) this.#parsed(end);
  }

  // What goes out.

  #requestsDone(requests: readonly VolumeRequest[]): void {
    let isAnswered = false;
    for (const request of requests) {
      assert(request instanceof ClientRequest, "a request of another connection");
      if (this.#requestDone(request)) isAnswered = true;
    }
    this.#ended(isAnswered);
  }

  /** True if the client is answered. */
  #requestDone(request: ClientRequest | ClientStatus): boolean {
    assert(this.#transmission !== undefined, "a request ended before transmission");
    const answer = this.#phase.name !== "closing" && this.#transmission.tells(request);
    if (request instanceof ClientRequest) this.#transmission.done(request, answer);
    else this.#transmission.statusDone(request, answer);
    return answer;
  }

  /** Requests have ended, so there may be credits for others. */
  #ended(isAnswered: boolean): void {
    if (!isAnswered) return;
    this.#sender.askDrained();
    this.#parse();
  }

  #requestParked(request: ClientRequest): void {
    this.#transmission?.parked(request);
    if (this.#phase.name !== "transmission") return this.#transmission?.dropParked();
    this.#timeouts.hangUps.watch();
    this.#parse();
  }

  #send(): void {
    const pieces = this.#phase.name === "closing" ? undefined : this.#sender.begin();
    if (pieces === undefined) return;
    this.#timeouts.loans.sends();
    this.#transmission?.batchTaken();
    this.#peers.socket.send(pieces, this.#transmission?.memory);
  }

  #sent(): void {
    this.#sender.sent();
    if (this.#phase.name === "closing") return;
    this.#output.recycle();
    this.#transmission?.batchSent();
    if (this.#handshake.isSecuring && this.#phase.name === "handshake") return this.#handshake.startTls();
    this.#send();
    this.#parse();
  }

  #secured(): void {
    this.#handshake.tlsEnded();
    if (this.#phase.name !== "handshake") return;
    const identity = this.#handshake.secured();
    if (identity !== undefined) {
      this.#kernel.tell(this.#peers.listener, { type: "identified", connection: this.#self, identity });
    }
    this.#parse();
  }

  // The end.

  /** The export (then what waits for space is refused) or the server is going: nothing more is taken in. */
  #shutDown(tellsDropped: boolean): void {
    if (this.#phase.name === "handshake") return this.#finish();
    if (this.#phase.name !== "transmission") return;
    this.#phase.moveTo("shuttingDown");
    this.#transmission?.shutDown(tellsDropped);
  }

  /** Reads nothing more; what is in flight is answered. */
  #finish(): void {
    if (this.#phase.isReadingOver) return;
    this.#phase.moveTo("finishing");
    this.#unparsed = false;
    this.#transmission?.submitWaiting();
    this.#transmission?.dropParked();
  }

  #checkTimeout(type: TimeoutCheck["type"]): void {
    const reason = this.#timeouts.check(type, this.#transmission);
    if (reason !== undefined) this.#giveUp(reason);
  }

  #giveUp(reason: string): void {
    this.#log.closing(reason);
    this.#close();
  }

  #close(): void {
    if (this.#phase.isClosed) return;
    if (this.#handshake.wasClearTextRefused) this.#log.refusedClearText();
    this.#phase.moveTo("closing");
    this.#unparsed = false;
    this.#transmission?.dropWaiting();
    this.#transmission?.dropParked();
    this.#timeouts.end();
    this.#timeouts.loans.close();
    if (!this.#socketClosed) this.#peers.socket.close();
  }

  #takeClosed(reason: string | undefined): void {
    this.#socketClosed = true;
    if (reason !== undefined && this.#handshake.isSecuring && this.#phase.name === "handshake") {
      this.#log.closing(reason);
    }
    if (reason !== undefined && this.#attachment.isAttached) this.#log.lost(reason);
    this.#close();
  }

  /** Takes the next step towards the end, if it is due. */
  #leave(): void {
    if (this.#phase.isOpen || this.#phase.name === "left") return;
    if (this.#transmission !== undefined && this.#transmission.inFlight > 0) return;
    const name = this.#attachment.detach();
    if (name !== undefined) this.#log.left(name);
    if (this.#phase.name !== "closing" && this.#sender.isDone) this.#close();
    if (this.#phase.name !== "closing" || !this.#socketClosed) return;
    if (this.#attachment.isQuestionOpen || this.#sender.isDrainAsked) return;
    this.#phase.moveTo("left");
    this.#kernel.tell(this.#peers.listener, { type: "leave", connection: this.#self });
  }
}
