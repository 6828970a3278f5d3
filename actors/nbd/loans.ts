/**
 * The payload bytes that connections borrow above their own, and the memory that they give back.
 *
 * The next loan goes to the client whose identity (nbd/places.ts; each local client counts as an identity) has borrowed least; among
 * equals, to the first that asked. No later loan is made before there is room for that one, so a large request gets its turn.
 * One identity can borrow `identityBorrowMax`, so the rest is always left to others. Writes that wait for space can hold
 * `waitingLoansBytesMax` together, so the rest always comes back.
 */
import { assert } from "../../storage/base/assert.ts";
import { BufferPool } from "./buffers.ts";
import type { Address } from "../kernel/address.ts";
import { borrowedBytesMax, identityBorrowMax, waitingLoansBytesMax } from "../limits.ts";
import type { Borrow, NbdConnectionMessage } from "./messages.ts";

/** What loans need to know of one client. */
export interface Borrower {
  readonly identity: string | undefined;
  lentBytes: number;
  /** Those of them that pay for writes that wait for space. */
  waitingBytes: number;
  /** It was told that others wait for its loan. */
  isWanted: boolean;
}

/** The clients by their connections. */
export type Borrowers = ReadonlyMap<Address<NbdConnectionMessage>, Borrower>;

/** Bytes for a connection, with memory for them if some is kept. */
export interface Loan {
  readonly borrow: Borrow;
  readonly buffer: Uint8Array | undefined;
}

export class Loans {
  readonly #clients: Borrowers;
  #lentBytes = 0;
  /** Those of them that pay for writes that wait for space. */
  #waitingBytes = 0;
  /** In the order in which they were asked for. */
  #waiting: Borrow[] = [];
  /** Memory given back, for the next loan. */
  readonly #spare = new BufferPool();

  constructor(clients: Borrowers) {
    this.#clients = clients;
  }

  get lentBytes(): number {
    return this.#lentBytes;
  }

  get spareBytes(): number {
    return this.#spare.spareBytes;
  }

  ask(borrow: Borrow): void {
    assert(borrow.bytes > 0 && borrow.bytes <= identityBorrowMax, "a loan was asked for that is never made");
    const isAgain = this.#waiting.some(({ connection }) => connection === borrow.connection);
    assert(!isAgain, "a connection waits for two loans");
    this.#waiting.push(borrow);
    assert(this.#waiting.length <= this.#clients.size, "more loans are asked for than there are clients");
  }

  /** The next loan; undefined if none is asked for, or there is no room for it. */
  next(): Loan | undefined {
    if (this.#waiting.length === 0) return undefined;
    const borrow = this.#first(this.#lentByIdentity());
    if (borrow === undefined || this.#lentBytes + borrow.bytes > borrowedBytesMax) return undefined;
    this.#waiting.splice(this.#waiting.indexOf(borrow), 1);
    this.#lentBytes += borrow.bytes;
    const borrower = this.#borrowerOf(borrow);
    borrower.lentBytes += borrow.bytes;
    assert(borrower.lentBytes <= this.#lentBytes, "a client has borrowed more than all together");
    assert(this.#lentBytes <= borrowedBytesMax, "more was lent than there is");
    // What is lent and what is spare stay within the bound together.
    return { borrow, buffer: this.#spare.takeSpare(borrow.bytes, borrowedBytesMax - this.#lentBytes) };
  }

  giveBack(client: Borrower, bytes: number, buffers: readonly Uint8Array[]): void {
    assert(bytes >= 0 && client.lentBytes <= this.#lentBytes, "a client has borrowed more than all together");
    client.lentBytes -= bytes;
    this.#lentBytes -= bytes;
    assert(client.lentBytes >= 0 && this.#lentBytes >= 0, "more was given back than lent");
    for (const buffer of buffers) this.#spare.give(buffer, borrowedBytesMax - this.#lentBytes);
  }

  /** A write that these bytes pay for waits for space: whether it may. They count as waiting until {@linkcode waitEnded}. */
  mayWait(client: Borrower, bytes: number): boolean {
    client.waitingBytes += bytes;
    this.#waitingBytes += bytes;
    assert(client.waitingBytes <= client.lentBytes, "more borrowed bytes wait than a client has");
    return this.#waitingBytes <= waitingLoansBytesMax;
  }

  /** It is done, or its connection is gone. */
  waitEnded(client: Borrower, bytes: number): void {
    client.waitingBytes -= bytes;
    this.#waitingBytes -= bytes;
    assert(client.waitingBytes >= 0 && this.#waitingBytes >= 0, "more waits ended than began");
  }

  /** The connection is gone: its questions are dropped. */
  forget(connection: Address<NbdConnectionMessage>): void {
    this.#waiting = this.#waiting.filter((borrow) => borrow.connection !== connection);
  }

  clearSpare(): void {
    this.#spare.clear();
  }

  /** The connections whose loans another client waits for. */
  wanted(): Set<Address<NbdConnectionMessage>> {
    const lent = this.#lentByIdentity();
    /** Clients that wait for any bytes, and clients that wait for bytes that their own identity has borrowed. */
    const waiting: Borrow[] = [];
    const waitingByIdentity = new Map<string, Borrow[]>();
    for (const borrow of this.#waiting) {
      const { identity } = this.#borrowerOf(borrow);
      if (identity === undefined || !isAtItsBound(borrow, lent.get(identity) ?? 0)) waiting.push(borrow);
      else waitingByIdentity.set(identity, [...waitingByIdentity.get(identity) ?? [], borrow].slice(0, 2));
    }
    const wanted = new Set<Address<NbdConnectionMessage>>();
    for (const [connection, { identity, lentBytes }] of this.#clients) {
      if (lentBytes === 0) continue;
      const near = identity === undefined ? undefined : waitingByIdentity.get(identity);
      if (isAnother(waiting, connection) || (near !== undefined && isAnother(near, connection))) {
        wanted.add(connection);
      }
    }
    return wanted;
  }

  /** Whether any loan is asked for. */
  get isAnyWaiting(): boolean {
    return this.#waiting.length > 0;
  }

  #first(lent: ReadonlyMap<string, number>): Borrow | undefined {
    let first: Borrow | undefined;
    let leastBytes = Infinity;
    for (const borrow of this.#waiting) {
      const { identity, lentBytes } = this.#borrowerOf(borrow);
      const bytes = identity === undefined ? lentBytes : lent.get(identity) ?? 0;
      if (bytes >= leastBytes || (identity !== undefined && isAtItsBound(borrow, bytes))) continue;
      first = borrow;
      leastBytes = bytes;
    }
    return first;
  }

  /** Bytes that the clients of each identity have borrowed together. */
  #lentByIdentity(): Map<string, number> {
    const lent = new Map<string, number>();
    for (const { identity, lentBytes } of this.#clients.values()) {
      if (identity !== undefined && lentBytes > 0) lent.set(identity, (lent.get(identity) ?? 0) + lentBytes);
    }
    return lent;
  }

  #borrowerOf({ connection }: Borrow): Borrower {
    const borrower = this.#clients.get(connection);
    assert(borrower !== undefined, "a connection that has left waits for a loan");
    return borrower;
  }
}

function isAtItsBound(borrow: Borrow, lentBytes: number): boolean {
  return lentBytes + borrow.bytes > identityBorrowMax;
}

/** Whether one of them is of another connection; each waits once at most. */
function isAnother(waiting: readonly Borrow[], connection: Address<NbdConnectionMessage>): boolean {
  return waiting.length > 1 || (waiting.length === 1 && waiting[0]!.connection !== connection);
}
