/**
 * What pays for the requests of one connection, and the memory of their payloads: the connection's credits, its buffers, what
 * the listener lends it, and what queued replies hold until they have been sent.
 *
 * A request pays when it is admitted. Its bytes are free when nothing reads its buffer any more: at once if it failed, else
 * when its reply has been sent. Its place is free when its reply has been sent.
 */
import { NBD_CMD_BLOCK_STATUS, NBD_CMD_READ, NBD_CMD_WRITE } from "./wire/constants.ts";
import { referenceMinBytes } from "./wire/limits.ts";
import { assert } from "../../storage/base/assert.ts";
import { bufferBytes, BufferPool } from "./buffers.ts";
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { loanPieceBytes } from "../limits.ts";
import { ClientRequest, type RequestMemory } from "./client_request.ts";
import { Credits, type Purse } from "./credits.ts";
import type { Lent, NbdConnectionMessage, NbdListenerMessage } from "./messages.ts";
import type { ReceiveBuffers } from "./receive.ts";
import type { SocketPort } from "./socket_port.ts";
import { type ClientStatus, statusBytes } from "./status_reply.ts";
import type { CopyMemory } from "./wire/pieces.ts";
import type { NbdRequest } from "./wire/request.ts";
import type { Session } from "./wire/validate.ts";

/** What paid for an admitted request. */
export interface Paid {
  readonly purse: Purse;
  readonly paidBytes: number;
}

/** Bytes of memory that a request takes, its reply included. */
export function priceOf(request: NbdRequest, { metaContextCount }: Session): number {
  if (request.type === NBD_CMD_READ || request.type === NBD_CMD_WRITE) {
    return bufferBytes(request.lengthBytes);
  }
  return request.type === NBD_CMD_BLOCK_STATUS ? statusBytes(request, metaContextCount) : 0;
}

/** What replies hold until they have been sent. */
class Batch {
  requests = 0;
  ownBytes = 0;
  lentBytes = 0;
  /** Payloads that are sent from where they lie: in buffers of the connection, and in lent ones. */
  ownBuffers: Uint8Array[] = [];
  lentBuffers: Uint8Array[] = [];
}

/** Memory that the listener has lent for one request: a buffer, or leave to make one. */
class LentMemory implements RequestMemory {
  constructor(
    readonly untaken: Uint8Array | undefined,
    readonly paidBytes: number,
  ) {}

  take(lengthBytes: number): Uint8Array {
    const buffer = this.untaken ?? new Uint8Array(this.paidBytes);
    return buffer.length === lengthBytes ? buffer : buffer.subarray(0, lengthBytes);
  }
}

/** What the memory works with. */
export interface MemoryPeers {
  readonly kernel: Kernel;
  readonly connection: Address<NbdConnectionMessage>;
  readonly listener: Address<NbdListenerMessage>;
  readonly received: ReceiveBuffers;
}

export class PayloadMemory implements RequestMemory, CopyMemory {
  readonly untaken = undefined;
  readonly #peers: MemoryPeers;
  readonly #credits = new Credits();
  readonly #buffers = new BufferPool();
  /** The memory that came with the last loan, until a request takes it. */
  #loan: Uint8Array | undefined;
  #queued = new Batch();
  #underWay = new Batch();

  constructor(peers: MemoryPeers) {
    this.#peers = peers;
  }

  /** A buffer of the connection for one request. */
  take(lengthBytes: number): Uint8Array {
    return this.#buffers.take(lengthBytes, this.#credits.unpaidBytes);
  }

  /** A buffer for what a client does not take at once. The replies under way have paid for it. */
  takeCopy(lengthBytes: number): Uint8Array {
    const buffer = this.take(lengthBytes);
    this.#underWay.ownBuffers.push(buffer);
    return buffer;
  }

  /** Whether anything is borrowed. */
  get holdsLent(): boolean {
    return this.#credits.lentBytes > 0;
  }

  /** Whether replies that have not been sent hold borrowed bytes. */
  get repliesHoldLent(): boolean {
    return this.#underWay.lentBytes > 0 || this.#queued.lentBytes > 0;
  }

  /** True if one more request may be admitted, apart from its bytes. */
  get hasRequest(): boolean {
    return this.#credits.hasRequest;
  }

  /** Takes the credit for one request. Undefined if the bytes are not there: they are borrowed, and `lent` comes. */
  pay(bytes: number): Purse | undefined {
    const purse = this.#credits.pay(bytes);
    if (purse === undefined && this.#credits.borrow(bytes)) {
      const { kernel, listener, connection } = this.#peers;
      kernel.tell(listener, { type: "borrow", connection, bytes });
    }
    return purse;
  }

  /** The payload of a request has moved: what it was in, and all that it has paid with, is free. */
  freeMoved(request: ClientRequest): void {
    this.free(request);
    this.#credits.releaseRequests(1);
  }

  /** A WRITE waits for space and has not moved: the listener is told if lent bytes pay for it. */
  waits(request: ClientRequest): void {
    if (request.purse !== "lent" || request.isLoanWaiting) return;
    request.isLoanWaiting = true;
    const { kernel, listener, connection } = this.#peers;
    kernel.tell(listener, { type: "loanWaits", connection, request });
  }

  /** A request whose payload had moved is done. */
  takeForReply(): void {
    this.#credits.takeForReply();
  }

  /** Where a request that has paid takes its buffer from, if it needs one. */
  memoryOf(purse: Purse, paidBytes: number): RequestMemory {
    if (purse === "own") return this;
    const buffer = this.#loan;
    this.#loan = undefined;
    return new LentMemory(buffer, paidBytes);
  }

  /** The listener has lent bytes. `use` lets a request pay with them; what it leaves goes back. */
  lent<T>({ bytes, buffer }: Lent, use: () => T): T {
    this.#credits.arrived(bytes);
    this.#loan = buffer;
    const used = use();
    const unneeded = this.#credits.takeUnneeded();
    if (unneeded > 0) this.#giveBack(unneeded, this.#loan === undefined ? [] : [this.#loan]);
    this.#loan = undefined;
    return used;
  }

  /** Other clients wait for what is lent: gives back the part of it whose replies under way have been sent. */
  shrink(socket: SocketPort): void {
    const batch = this.#underWay;
    // Two pieces more than is being sent: one that has been sent in part is kept whole, and the host has a part of another.
    const keptBytes = Math.min(batch.lentBytes, socket.sendingBytes + 2 * loanPieceBytes);
    const freeBytes = batch.lentBytes - keptBytes;
    if (freeBytes < loanPieceBytes || !socket.shrink()) return;
    this.#credits.releaseBytes("lent", freeBytes);
    batch.lentBytes = keptBytes;
    this.#giveBack(freeBytes, batch.lentBuffers);
    batch.lentBuffers = [];
    // The socket has a copy of what these buffers held, and the bytes that are kept pay for the copy.
    this.#freeOwnBuffers(batch);
  }

  /** A reply is queued that holds no bytes. */
  keepRequest(): void {
    this.#queued.requests += 1;
  }

  /** A reply is queued, and its request stays paid for until the reply has been sent. */
  keepPaid(paid: Paid): void {
    const batch = this.#queued;
    batch.requests += 1;
    if (paid.purse === "own") batch.ownBytes += paid.paidBytes;
    else batch.lentBytes += paid.paidBytes;
  }

  /** The reply of a READ has been queued by `keepPaid`, and its payload written to the output: keeps its buffer as long. */
  keepBuffer(request: ClientRequest): void {
    const { buffer } = request;
    if (buffer === undefined) return;
    // Only mapped segments are sent. What is paid for now is the copy that is made if the client takes nothing.
    if (request.data.length === 0) return this.#giveBack(0, [buffer]);
    // A short payload has been copied into the output.
    if (request.purse === "lent") this.#queued.lentBuffers.push(buffer);
    else if (buffer.length < referenceMinBytes) this.freeBuffer(request);
    else this.#queued.ownBuffers.push(buffer);
  }

  /** The queued replies are being sent. */
  batchTaken(): void {
    const batch = this.#queued;
    const { requests, ownBytes, lentBytes } = this.#underWay;
    assert(requests === 0 && ownBytes === 0 && lentBytes === 0, "a batch is sent beside another");
    this.#queued = this.#underWay;
    this.#underWay = batch;
  }

  /** They have been sent: the credits of their requests are free. */
  batchSent(): void {
    const batch = this.#underWay;
    this.#credits.releaseRequests(batch.requests);
    this.#credits.releaseBytes("own", batch.ownBytes);
    this.#credits.releaseBytes("lent", batch.lentBytes);
    if (batch.lentBytes > 0) {
      this.#giveBack(batch.lentBytes, batch.lentBuffers);
      batch.lentBuffers = [];
    }
    this.#freeOwnBuffers(batch);
    assert(batch.ownBuffers.length === 0 && batch.lentBuffers.length === 0, "a batch kept a buffer");
    batch.requests = 0;
    batch.ownBytes = 0;
    batch.lentBytes = 0;
  }

  /** What a request has paid with, and its buffer. */
  free(request: ClientRequest): void {
    this.freeBytes(request);
    this.freeBuffer(request);
  }

  /** The bytes of a request that gets no payload in its reply. What is lent goes back with its buffer. */
  freeBytes(request: Paid | ClientRequest | ClientStatus): void {
    this.#credits.releaseBytes(request.purse, request.paidBytes);
    if (request.purse !== "lent") return;
    if (request instanceof ClientRequest && request.isLoanWaiting) {
      const { kernel, listener, connection } = this.#peers;
      kernel.tell(listener, { type: "loanWaitEnded", connection, bytes: request.paidBytes });
    }
    const isOurs = request instanceof ClientRequest && request.receivedIn === undefined;
    const buffer = isOurs ? request.buffer : undefined;
    this.#giveBack(request.paidBytes, buffer === undefined ? [] : [buffer]);
  }

  /** After `freeBytes`: the buffer is kept for another request only within the bytes that nothing pays with. */
  freeBuffer(request: ClientRequest): void {
    const { buffer, receivedIn } = request;
    if (receivedIn !== undefined) this.#peers.received.release(receivedIn);
    else if (request.purse === "own" && buffer !== undefined) {
      this.#buffers.give(buffer, this.#credits.unpaidBytes);
    }
  }

  #freeOwnBuffers(batch: Batch): void {
    for (let buffer = batch.ownBuffers.pop(); buffer !== undefined; buffer = batch.ownBuffers.pop()) {
      this.#buffers.give(buffer, this.#credits.unpaidBytes);
    }
  }

  #giveBack(bytes: number, buffers: readonly Uint8Array[]): void {
    assert(bytes > 0 || buffers.length > 0, "gave back nothing");
    const { kernel, listener, connection } = this.#peers;
    kernel.tell(listener, { type: "giveBack", connection, bytes, buffers });
  }
}
