/**
 * The transmission phase of one connection without its socket: parses requests, admits them as far as credits allow, submits
 * them to the volume, and queues replies.
 *
 * A request is admitted when its header is known: it is checked against the volume's present size, and takes its credits and
 * buffer (payload_memory.ts). It is submitted when its payload has come; a large READ only when most of what was read before
 * has been sent. Its reply is queued when the volume is done.
 */
import { assert, unreachable } from "../../storage/base/assert.ts";
import { NBD_CMD_BLOCK_STATUS, NBD_CMD_CACHE, NBD_CMD_DISC } from "./wire/constants.ts";
import type { OutputQueue } from "./wire/output_queue.ts";
import { type Echo, ReplyWriter } from "./wire/reply.ts";
import { type NbdRequest, RequestDecoder } from "./wire/request.ts";
import { type ErrorReply, statusScope, validateRequest } from "./wire/validate.ts";
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Purse } from "./credits.ts";
import { ParkedRequests } from "./parked_requests.ts";
import { type Paid, PayloadMemory, priceOf } from "./payload_memory.ts";
import type { Attached } from "./handshake.ts";
import { isLargeRead, LargeReads } from "./large_reads.ts";
import type { Lent, NbdConnectionMessage, NbdListenerMessage } from "./messages.ts";
import type { ReceiveBuffers } from "./receive.ts";
import {
  areSegmentsGood,
  type ClientPayload,
  ClientRequest,
  copySegments,
  errorReplyOf,
  goingAway,
  writeReadReply,
} from "./client_request.ts";
import type { SocketPort } from "./socket_port.ts";
import { Submissions } from "./submissions.ts";
import { ClientStatus, type NbdSession, writeStatusReply } from "./status_reply.ts";

/**
 * Why parsing stopped: "needBytes", all is parsed; "blocked", the next request has no credit yet; "disconnect",
 * the client has sent NBD_CMD_DISC; "violation", the client broke the protocol, and where the next request begins is not known.
 */
export type ParseEnd = "needBytes" | "blocked" | "disconnect" | "violation";

/** What a transmission works with. */
export interface TransmissionPeers {
  readonly kernel: Kernel;
  readonly connection: Address<NbdConnectionMessage>;
  readonly listener: Address<NbdListenerMessage>;
  readonly received: ReceiveBuffers;
  readonly output: OutputQueue;
  readonly socket: SocketPort;
}

export class NbdTransmission {
  /** Also where the socket copies what the client does not take at once. */
  readonly memory: PayloadMemory;
  readonly #peers: TransmissionPeers;
  readonly #attached: Attached;
  readonly #session: NbdSession;
  readonly #replies: ReplyWriter;
  readonly #decoder: RequestDecoder;
  #export: { readonly sizeBytes: number; readonly readOnly: boolean };
  #shuttingDown = false;
  #tellsDropped = false;

  /** The admitted request whose payload is arriving; undefined if it is refused or needs no volume. */
  #arriving: ClientRequest | Paid | undefined;
  #refusal: ErrorReply | undefined;
  /** Requests that the volume has. */
  #inFlight = 0;

  readonly #parked = new ParkedRequests();
  readonly #largeReads: LargeReads;
  readonly #submissions: Submissions;
  /** Requests that came since the socket was last read. */
  #executed = 0;
  /** One request came at the last read: the client waits for each reply before it sends the next request. */
  #isInStep = false;
  #hasWritten = false;

  constructor(peers: TransmissionPeers, attached: Attached, session: NbdSession) {
    this.#peers = peers;
    this.memory = new PayloadMemory(peers);
    this.#largeReads = new LargeReads(peers.socket);
    this.#attached = attached;
    this.#submissions = new Submissions(peers.kernel, attached.volume);
    this.#export = attached.info;
    this.#session = session;
    this.#decoder = new RequestDecoder(session);
    this.#replies = new ReplyWriter(peers.output, session);
  }

  /** Whether the client has asked for anything that changes the volume. */
  get hasWritten(): boolean {
    return this.#hasWritten;
  }

  /** Requests that the volume has. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Why `parse` ended with "violation". */
  get violation(): string {
    return this.#decoder.violation;
  }

  /** Whether anything is borrowed. */
  get holdsLent(): boolean {
    return this.memory.holdsLent;
  }

  /** Whether borrowed bytes wait for the client to take its replies. */
  get holdsLentForReplies(): boolean {
    return this.#largeReads.isSending && (this.memory.repliesHoldLent || this.#largeReads.waitOnLoan);
  }

  /** Other clients wait for what is lent: gives back what has been sent of the replies under way. */
  shrinkLoan(): void {
    if (this.#largeReads.isSending) this.memory.shrink(this.#peers.socket);
  }

  /** True while borrowed bytes wait for the payload of a request. */
  get holdsBorrowed(): boolean {
    return this.#arriving?.purse === "lent";
  }

  /** To be called at the end of each turn of the connection: the volume gets what was submitted in it. */
  endTurn(): void {
    this.#submissions.send();
  }

  /** All is parsed: has the socket receive more. */
  read(): void {
    const { socket, received } = this.#peers;
    // If only a header came, without its payload, no request was counted: keep what was known.
    if (this.#executed > 0) this.#isInStep = this.#executed === 1;
    this.#executed = 0;
    const rest = this.#decoder.payloadRest;
    if (rest === undefined) socket.read(received.next(), this.#isInStep);
    else socket.readRest(rest);
  }

  /** Takes received bytes, which must stay untouched until "needBytes", or while requests hold them. */
  push(bytes: Uint8Array): void {
    this.#decoder.push(bytes);
  }

  /** The volume has another size. Requests on their way are checked by the volume. */
  resize(sizeBytes: number): void {
    this.#export = { sizeBytes, readOnly: this.#export.readOnly };
  }

  /**
   * Takes in nothing any more: requests that come are answered with ESHUTDOWN, and with `tellsDropped` those too that wait for
   * space.
   */
  shutDown(tellsDropped: boolean): void {
    this.#shuttingDown = true;
    this.#tellsDropped = tellsDropped;
    this.submitWaiting();
    this.dropParked();
  }

  /** Submits all waiting READs, which are then copied: a client that takes nothing must not keep requests in flight. */
  submitWaiting(): void {
    const reads = this.#largeReads;
    for (let next = reads.shift(); next !== undefined; next = reads.shift()) this.#submit(next);
  }

  /** Admits and submits what was received, as far as credits reach. */
  parse(): ParseEnd {
    for (;;) {
      const step = this.#decoder.next();
      switch (step) {
        case "needBytes":
        case "violation":
          return step;
        case "header":
          if (this.#decoder.request.type === NBD_CMD_DISC) return "disconnect";
          if (!this.#admit(this.#decoder.request)) return "blocked";
          break;
        case "request":
          this.#execute(this.#decoder.request);
          break;
        default:
          unreachable(step);
      }
    }
  }

  /** The listener has lent bytes: goes on with the request that waits for them, and returns what it does not need. */
  lent(loan: Lent, isBlocked: boolean): ParseEnd {
    return this.memory.lent(loan, () => isBlocked ? this.parse() : "needBytes");
  }

  /** The client is gone: requests that were not submitted are dropped. Their loans go back when the connection leaves. */
  dropWaiting(): void {
    this.#inFlight -= this.#largeReads.drop();
  }

  /** The volume is done with a request. `answer` is false if the client is gone. */
  done(request: ClientRequest, answer: boolean): void {
    let refusal = errorReplyOf(request.status, request.kind);
    const isRead = request.kind === "read" && refusal === undefined && answer;
    if (isRead && request.segments.length > 0) {
      if (!areSegmentsGood(request, this.#peers.kernel.drains)) return this.#readAgain(request);
      // Segments are valid in this drain only, so they are copied if a send is under way. And if the request has a buffer too, its
      // bytes pay for that buffer only: the segments go into it now, as a slow client would need a second copy later.
      if (
        (this.#largeReads.isSending || request.data.length > 0) &&
        !copySegments(request, this.#attached.blockSizeBytes)
      ) {
        refusal = errorReplyOf("ioError", "read");
      }
    }
    assert(this.#inFlight > 0, "more requests are done than were submitted");
    this.#inFlight -= 1;
    if (isRead && refusal === undefined) return this.#answerRead(request);
    if (isLargeRead(request)) this.#largeReads.unsent(request);
    if (this.#parked.size > 0) this.#parked.done(request);
    if (request.hasMoved) this.memory.takeForReply();
    else this.memory.free(request);
    if (answer) this.#answer(request, refusal);
  }

  /** The volume has told that a request waits for space. Its payload has moved, if there was room. */
  parked(request: ClientRequest): void {
    this.#parked.add(request);
    if (request.mayNotWait) return this.#failParked(request);
    if (!request.hasMoved) return this.memory.waits(request);
    // It may have been told of before, when there was no room.
    if (!request.isFreed) this.memory.freeMoved(request);
    request.isFreed = true;
  }

  /** Too many borrowed bytes wait for space: the request fails, as soon as it waits. */
  mayNotWait(request: ClientRequest): void {
    if (!this.#parked.has(request) || request.hasMoved) return;
    request.mayNotWait = true;
    this.#failParked(request);
  }

  #failParked(request: ClientRequest): void {
    this.#peers.kernel.tell(this.#attached.volume, { type: "failParkedRequest", request });
  }

  /**
   * Whether the end of a request is told. A request that waited for space when the server stopped is not: the client is to
   * send it again on another connection, and would not if it were told an error.
   */
  tells(request: ClientRequest | ClientStatus): boolean {
    return request.status !== "dropped" || this.#tellsDropped;
  }

  /** Whether requests wait for space, or have and are not done. */
  get hasParked(): boolean {
    return this.#parked.size > 0;
  }

  /** The client is gone or going: has its requests that wait for space end. */
  dropParked(): void {
    if (!this.hasParked) return;
    this.#peers.kernel.tell(this.#attached.volume, { type: "dropParked", client: this.#peers.connection });
  }

  /** The client stays attached while anything is in flight, so the volume is open. */
  #readAgain(request: ClientRequest): void {
    request.forgoSegments();
    this.#submissions.add(request);
  }

  /** The volume is done with a block status. `answer` is false if the client is gone. */
  statusDone(request: ClientStatus, answer: boolean): void {
    assert(this.#inFlight > 0, "more requests are done than were submitted");
    this.#inFlight -= 1;
    const refusal = errorReplyOf(request.status, "blockStatus");
    if (refusal !== undefined || !answer) {
      this.memory.freeBytes(request);
      if (answer) this.#answer(request, refusal);
      return;
    }
    // The extents have been copied into the output, which stays paid for until it has been sent.
    this.memory.keepPaid(request);
    writeStatusReply(this.#replies, request);
  }

  /** The queued replies are being sent. */
  batchTaken(): void {
    this.memory.batchTaken();
    this.#largeReads.batchTaken();
  }

  /** They have been sent. */
  batchSent(): void {
    const reads = this.#largeReads;
    this.memory.batchSent();
    reads.batchSent();
    for (let next = reads.shiftAllowed(); next !== undefined; next = reads.shiftAllowed()) this.#submit(next);
  }

  /** True if the request has been admitted, or refused. */
  #admit(request: NbdRequest): boolean {
    if (!this.memory.hasRequest) return false;
    this.#refusal = this.#shuttingDown ? goingAway : validateRequest(request, this.#export, this.#session);
    const paidBytes = this.#refusal === undefined ? priceOf(request, this.#session) : 0;
    const purse = this.memory.pay(paidBytes);
    if (purse === undefined) return false;
    if (this.#refusal !== undefined) this.#decoder.discard();
    else if (request.type === NBD_CMD_CACHE) this.#decoder.accept();
    else this.#arriving = this.#accept(request, purse, paidBytes);
    return true;
  }

  #accept(request: NbdRequest, purse: Purse, paidBytes: number): ClientRequest | Paid {
    if (request.type === NBD_CMD_BLOCK_STATUS) {
      // At most a few hundred bytes, which the price of the reply covers.
      this.#decoder.accept(request.payloadBytes === 0 ? undefined : new Uint8Array(request.payloadBytes));
      return { purse, paidBytes };
    }
    const isWrite = request.payloadBytes > 0;
    const receivedIn = isWrite && this.#decoder.payloadInChunk ? this.#peers.received.hold() : undefined;
    const isBuffered = paidBytes > 0 && receivedIn === undefined;
    const memory = isBuffered ? this.memory.memoryOf(purse, paidBytes) : undefined;
    this.#decoder.accept(isWrite ? memory?.take(request.lengthBytes) : undefined);
    const payload: ClientPayload = {
      data: isWrite ? request.payload : undefined,
      memory: isWrite ? undefined : memory,
      parking: this.#parked,
      purse,
      paidBytes,
      receivedIn,
    };
    return new ClientRequest(request, payload, this.#peers.connection);
  }

  /** The request has come whole: it is refused, done without the volume, or submitted. */
  #execute(request: NbdRequest): void {
    this.#executed += 1;
    const arriving = this.#arriving;
    this.#arriving = undefined;
    if (arriving === undefined) return this.#answer(request, this.#refusal);
    if (!(arriving instanceof ClientRequest)) return this.#executeStatus(request, arriving);
    if (this.#shuttingDown) {
      this.memory.free(arriving);
      return this.#answer(request, goingAway);
    }
    this.#inFlight += 1;
    if (!isLargeRead(arriving) || !this.#largeReads.waits(arriving)) this.#submit(arriving);
  }

  #submit(request: ClientRequest): void {
    this.#hasWritten ||= request.kind !== "read" && request.kind !== "flush";
    if (isLargeRead(request)) this.#largeReads.submitted(request);
    request.takesSegments = request.kind === "read" && this.#peers.socket.takesSegments;
    this.#submissions.add(request);
  }

  #executeStatus(request: NbdRequest, paid: Paid): void {
    const session = this.#session;
    const scope = this.#shuttingDown ? goingAway : statusScope(request, this.#export, session);
    if ("error" in scope) {
      this.memory.freeBytes(paid);
      return this.#answer(request, scope);
    }
    const volumeBlockSizeBytes = this.#attached.blockSizeBytes;
    const asker = { session, client: this.#peers.connection, volumeBlockSizeBytes, ...paid };
    this.#inFlight += 1;
    this.#peers.kernel.tell(this.#attached.volume, {
      type: "askStatus",
      request: new ClientStatus(request, scope, asker),
    });
  }

  #answer(echo: Echo, refusal: ErrorReply | undefined): void {
    this.memory.keepRequest();
    if (refusal === undefined) this.#replies.success(echo);
    else this.#replies.failure(echo, refusal.error, refusal.message);
  }

  #answerRead(request: ClientRequest): void {
    this.memory.keepPaid(request);
    if (isLargeRead(request)) this.#largeReads.queued(request);
    writeReadReply(this.#replies, this.#session, request, this.#attached.blockSizeBytes);
    this.memory.keepBuffer(request);
  }
}
