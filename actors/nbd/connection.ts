/**
 * NbdConnection: one client, from its greeting to its last reply.
 *
 * Owns: the socket, the handshake, what was received and not yet parsed, the replies not yet sent, and the credits
 * of its requests. It reads the socket only when all that came is parsed, and stops parsing in front of a request
 * without credit: a client that sends too much, or does not read, stalls only itself. All replies that one drain of the
 * kernel produced go out with one send.
 *
 *   handshake --> transmission --> shuttingDown --> finishing --> closing --> left
 *
 * A phase only changes to one further right, and any may be skipped. The actor retires when the socket has told `closed`, the
 * volume has none of its requests, the pool has answered `detach`, and the listener has answered `leave`. Then no actor can
 * send it a message any more.
 *
 * Failure policy: a client that breaks the protocol is logged and closed, after the replies it is owed.
 */
import { assert, unreachable } from "../../storage/base/assert.ts";
import { OutputQueue } from "./wire/output_queue.ts";
import { quoted } from "./wire/option.ts";
import type { Actor, Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { type Attached, type HandshakeStep, NbdHandshake, type PoolAnswer } from "./handshake.ts";
import { HandshakeTime } from "./handshake_time.ts";
import { LoanWatch } from "./loan_watch.ts";
import type { Lent, NbdConnectionMessage, NbdListenerMessage } from "./messages.ts";
import { ReceiveBuffers } from "./receive.ts";
import { ReplySender } from "./reply_sender.ts";
import { ClientRequest } from "./client_request.ts";
import { ClientStatus, type NbdSession } from "./status_reply.ts";
import { NbdTransmission, type ParseEnd } from "./transmission.ts";
import type { PoolMessage } from "../control/pool_messages.ts";
import type { LogPort, SocketPort } from "./socket_port.ts";

/** What a connection works with. */
export interface ConnectionPeers {
  readonly socket: SocketPort;
  readonly pool: Address<PoolMessage>;
  readonly listener: Address<NbdListenerMessage>;
  readonly log: LogPort;
}

/**
 * handshake: options, one at a time. transmission: requests. shuttingDown: the export or the server is going;
 * requests in flight are answered, later ones refused. finishing: nothing more is read; replies are sent.
 * closing: the socket is closed or being closed. left: the listener's answer is awaited.
 */
type Phase = "handshake" | "transmission" | "shuttingDown" | "finishing" | "closing" | "left";

export class NbdConnection implements Actor<NbdConnectionMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<NbdConnectionMessage>;
  readonly #peers: ConnectionPeers;
  #phase: Phase = "handshake";
  #socketClosed = false;

  readonly #received = new ReceiveBuffers();
  /** Received bytes wait to be parsed; no read is under way. */
  #unparsed = false;

  readonly #output = new OutputQueue();
  readonly #sender: ReplySender;
  readonly #loanWatch: LoanWatch;

  readonly #handshake: NbdHandshake;
  #handshakeTime: HandshakeTime | undefined;
  /** STARTTLS was accepted: nothing is read in clear text any more, and nothing else is done until `secured`. */
  #isSecuring = false;
  /** Where the client came from, before it had shown a certificate. */
  readonly #originBefore: string | undefined;
  /** The pool owes an answer. */
  #questionOpen = false;
  /** The export that the client asked for; the empty name stands for the only volume. */
  #asked = "";
  #attached: Attached | undefined;
  #transmission: NbdTransmission | undefined;

  constructor(kernel: Kernel, self: Address<NbdConnectionMessage>, peers: ConnectionPeers) {
    this.#kernel = kernel;
    this.#self = self;
    this.#peers = peers;
    this.#sender = new ReplySender(kernel, self, peers.socket, this.#output);
    this.#loanWatch = new LoanWatch(kernel, self, peers.socket);
    this.#originBefore = peers.socket.origin;
    this.#handshake = new NbdHandshake(this.#output, peers.socket.tls);
  }

  receive(message: NbdConnectionMessage): void {
    this.#handle(message);
    this.#leave();
  }

  #handle(message: NbdConnectionMessage): void {
    switch (message.type) {
      case "begin":
        return this.#begin();
      case "received":
        return this.#takeReceived(message.bytes);
      case "requestDone":
        assert(message.request instanceof ClientRequest, "a request of another connection");
        return this.#requestDone(message.request);
      case "statusDone":
        assert(message.request instanceof ClientStatus, "a block status of another connection");
        return this.#requestDone(message.request);
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
        this.#questionOpen = false;
        return;
      case "exportResized":
        if (message.uid === this.#attached?.info.uid) this.#transmission?.resize(message.sizeBytes);
        return;
      case "exportGone":
        if (message.uid === this.#attached?.info.uid) this.#shutDown();
        return;
      case "drain":
        return this.#shutDown();
      case "makeRoom":
        // Only a client that is not attached makes room. The listener has logged why.
        return this.#transmission === undefined ? this.#close() : undefined;
      case "kicked":
        if (this.#phase === "closing" || this.#phase === "left") return;
        return this.#giveUp("the operator has kicked it");
      case "silent":
        return this.#giveUp("its host does not answer");
      case "abort":
        return this.#close();
      case "handshakeDeadline":
        if (this.#phase === "handshake") this.#giveUp("it attached to no export in the time it has for that");
        return;
      case "secured":
        return this.#secured();
      case "tlsDeadline":
        if (this.#isSecuring) this.#giveUp("its TLS handshake took too long");
        return;
      case "stallCheck":
        return this.#checkStall();
      case "wanted":
        return this.#loanWatch.setWanted(message.isWanted);
      case "loanCheck":
        return this.#checkLoan();
      case "left":
        return this.#kernel.retire(this.#self);
      default:
        return unreachable(message);
    }
  }

  #begin(): void {
    this.#peers.socket.open(this.#self);
    this.#handshakeTime = new HandshakeTime(this.#kernel, this.#self);
    this.#send();
    this.#read();
  }

  // What comes in.

  #read(): void {
    this.#unparsed = false;
    if (this.#transmission === undefined) this.#peers.socket.read(this.#received.next(), false);
    else this.#transmission.read();
  }

  /** Other clients wait for what this one has borrowed. */
  #checkLoan(): void {
    if (this.#transmission === undefined || this.#phase === "closing" || this.#phase === "left") return;
    this.#transmission.shrinkLoan();
    const slow = this.#loanWatch.check(this.#transmission);
    if (slow === "takes") {
      this.#giveUp("it takes its replies too slowly, and other clients wait for the memory");
    }
    if (slow === "sends") this.#giveUp("it sends a WRITE too slowly, and other clients wait for the memory");
  }

  #takeReceived(bytes: Uint8Array): void {
    this.#loanWatch.received(bytes.length);
    if (this.#phase === "handshake") this.#handshake.push(bytes);
    else if (this.#transmission !== undefined && !this.#isReadingOver()) this.#transmission.push(bytes);
    else return;
    this.#unparsed = true;
    this.#parse();
  }

  #isReadingOver(): boolean {
    return this.#phase === "finishing" || this.#phase === "closing" || this.#phase === "left";
  }

  /** Parses what was received, as far as that is possible now. */
  #parse(): void {
    while (this.#unparsed && this.#phase === "handshake") {
      if (this.#sender.isSending || this.#questionOpen || this.#isSecuring) return;
      this.#takeStep(this.#handshake.next());
    }
    if (this.#unparsed && this.#transmission !== undefined) this.#parsed(this.#transmission.parse());
  }

  #takeStep(step: HandshakeStep): void {
    if (step.kind !== "needBytes") this.#handshakeTime?.progressed();
    switch (step.kind) {
      case "needBytes":
        return this.#read();
      case "answered":
        return this.#send();
      case "ask":
        this.#questionOpen = true;
        if (step.question.type === "attach") this.#asked = step.question.name;
        return this.#kernel.tell(this.#peers.pool, { ...step.question, client: this.#self });
      case "startTls":
        this.#isSecuring = true;
        return this.#send();
      case "transmission":
        return this.#beginTransmission(step.attached, step.session);
      case "end":
        this.#send();
        if (step.reason !== undefined) this.#logClosing(step.reason);
        return this.#finish();
      default:
        return unreachable(step);
    }
  }

  #answered(answer: PoolAnswer): void {
    assert(this.#questionOpen, "the pool answered what was not asked");
    this.#questionOpen = false;
    if (this.#phase === "handshake") {
      if (answer.type === "exports") this.#handshakeTime?.allowFor(answer.names.length);
      this.#takeStep(this.#handshake.answer(answer));
      this.#parse();
    } else if (answer.type === "attached") {
      // The client left while the pool attached it: `#leave` detaches it again.
      this.#attached = answer;
    }
  }

  #beginTransmission(attached: Attached, session: NbdSession): void {
    this.#cancelTimers();
    this.#phase = "transmission";
    this.#attached = attached;
    this.#transmission = new NbdTransmission(
      {
        kernel: this.#kernel,
        connection: this.#self,
        listener: this.#peers.listener,
        received: this.#received,
        output: this.#output,
        socket: this.#peers.socket,
      },
      attached,
      session,
    );
    this.#transmission.push(this.#handshake.takeSurplus());
    const { name } = attached.info;
    const asked = this.#asked === name ? "" : ` by the name ${quoted(this.#asked)}`;
    const tls = this.#handshake.isSecured ? ", TLS" : "";
    this.#peers.log(`${this.#peers.socket.peer} attached to ${quoted(name)}${asked}${tls}`);
    this.#kernel.tell(this.#peers.listener, {
      type: "settled",
      connection: this.#self,
      uid: attached.info.uid,
    });
    this.#send();
  }

  #parsed(end: ParseEnd): void {
    this.#loanWatch.setPayloadArriving(this.#transmission?.holdsBorrowed ?? false);
    if (this.#output.pendingBytes > 0) this.#sender.askDrained();
    switch (end) {
      case "needBytes":
        return this.#read();
      case "blocked":
        return;
      case "disconnect":
        return this.#finish();
      case "violation":
        this.#logClosing(this.#transmission?.violation ?? "");
        return this.#finish();
      default:
        return unreachable(end);
    }
  }

  #lent(loan: Lent): void {
    // All loans of a connection that is leaving go back when it leaves.
    if (this.#transmission === undefined || this.#isReadingOver()) return;
    this.#loanWatch.watch();
    const isBlocked = this.#unparsed;
    const end = this.#transmission.lent(loan, isBlocked);
    if (isBlocked) this.#parsed(end);
  }

  // What goes out.

  #requestDone(request: ClientRequest | ClientStatus): void {
    assert(this.#transmission !== undefined, "a request ended before transmission");
    const answer = this.#phase !== "closing";
    if (request instanceof ClientRequest) this.#transmission.done(request, answer);
    else this.#transmission.statusDone(request, answer);
    if (!answer) return;
    this.#sender.askDrained();
    this.#parse();
  }

  #send(): void {
    const pieces = this.#phase === "closing" ? undefined : this.#sender.begin();
    if (pieces === undefined) return;
    this.#loanWatch.sends();
    this.#transmission?.batchTaken();
    this.#peers.socket.send(pieces, this.#transmission?.memory);
  }

  #sent(): void {
    this.#sender.sent();
    if (this.#phase === "closing") return;
    this.#output.recycle();
    this.#transmission?.batchSent();
    if (this.#isSecuring && this.#phase === "handshake") return this.#startTls();
    this.#send();
    this.#parse();
  }

  /** The client knows that STARTTLS was accepted; the next byte of either side is TLS. */
  #startTls(): void {
    this.#handshakeTime?.beginTls();
    this.#peers.socket.startTls();
  }

  #secured(): void {
    this.#isSecuring = false;
    this.#handshakeTime?.endTls();
    if (this.#phase !== "handshake") return;
    this.#handshake.secured();
    this.#handshakeTime?.progressed();
    const { origin } = this.#peers.socket;
    if (origin !== undefined && origin !== this.#originBefore) {
      this.#kernel.tell(this.#peers.listener, { type: "identified", connection: this.#self, origin });
    }
    this.#parse();
  }

  #checkStall(): void {
    this.#sender.stallChecked();
    if (!this.#sender.isSending || this.#phase === "closing" || this.#phase === "left") return;
    // A paused guest takes nothing for hours, which is allowed. Borrowed bytes have a timeout of their own (nbd/loan_watch.ts).
    if (this.#phase === "transmission") return this.#sender.watchStall();
    if (this.#sender.isStalled) this.#giveUp("it does not read its replies");
    else this.#sender.watchStall();
  }

  // The end.

  /** The export or the server is going: nothing more is taken in. */
  #shutDown(): void {
    if (this.#phase === "handshake") return this.#finish();
    if (this.#phase !== "transmission") return;
    this.#phase = "shuttingDown";
    this.#transmission?.shutDown();
  }

  /** Reads nothing more; what is in flight is answered. */
  #finish(): void {
    if (this.#isReadingOver()) return;
    this.#phase = "finishing";
    this.#unparsed = false;
    this.#transmission?.submitWaiting();
  }

  #giveUp(reason: string): void {
    this.#logClosing(reason);
    this.#close();
  }

  #close(): void {
    if (this.#phase === "closing" || this.#phase === "left") return;
    if (this.#handshake.wasClearTextRefused) {
      this.#peers.log(`refused ${this.#peers.socket.peer}: it did not ask for TLS`);
    }
    this.#phase = "closing";
    this.#unparsed = false;
    this.#transmission?.dropWaiting();
    this.#cancelTimers();
    if (!this.#socketClosed) this.#peers.socket.close();
  }

  #takeClosed(reason: string | undefined): void {
    this.#socketClosed = true;
    if (reason !== undefined && this.#isSecuring && this.#phase === "handshake") this.#logClosing(reason);
    if (reason !== undefined && this.#attached !== undefined) {
      this.#peers.log(`lost ${this.#peers.socket.peer}: ${reason}`);
    }
    this.#close();
  }

  /** Takes the next step towards the end, if it is due. */
  #leave(): void {
    if (this.#phase === "handshake" || this.#phase === "transmission" || this.#phase === "left") return;
    if (this.#transmission !== undefined && this.#transmission.inFlight > 0) return;
    if (this.#attached !== undefined) this.#detach(this.#attached);
    if (this.#phase !== "closing" && this.#sender.isDone) this.#close();
    if (this.#phase !== "closing" || !this.#socketClosed || this.#questionOpen || this.#sender.isDrainAsked) {
      return;
    }
    this.#phase = "left";
    this.#kernel.tell(this.#peers.listener, { type: "leave", connection: this.#self });
  }

  /** Messages of one sender keep their order: after the pool's answer, none of its messages is on the way to this actor. */
  #detach(attached: Attached): void {
    this.#attached = undefined;
    this.#kernel.tell(this.#peers.pool, { type: "detach", uid: attached.info.uid, client: this.#self });
    this.#questionOpen = true;
    this.#peers.log(`${this.#peers.socket.peer} left ${quoted(attached.info.name)}`);
  }

  #cancelTimers(): void {
    this.#handshakeTime?.end();
    this.#sender.end();
    this.#loanWatch.end();
  }

  #logClosing(reason: string): void {
    this.#peers.log(`closing the connection from ${this.#peers.socket.peer}: ${reason}`);
  }
}
