/** A simulated connection: a stream of bytes each way that moves in pieces, when its turn comes, until somebody is gone. */
import { copied, type CopyMemory, type Piece } from "../../actors/nbd/wire/pieces.ts";
import { assert } from "../../storage/base/assert.ts";
import type { Address } from "../../actors/kernel/address.ts";
import type { Kernel } from "../../actors/kernel/kernel.ts";
import type { SocketNotice, SocketPort } from "../../actors/nbd/socket_port.ts";
import { join } from "../nbd/wire_bytes.ts";
import type { Random } from "../support/world.ts";

/** What a socket is made with. */
export interface SocketWorld {
  readonly kernel: Kernel;
  /** Most bytes that move at once; 0 for no bound. */
  readonly world: { readonly random: Random; readonly swarm: { readonly pieceBytes: number } };
  /** Calls it when its turn comes, before or after anything else that waits. */
  schedule(event: () => void): void;
  /** The process is there: what it sends now can be heard. */
  isAlive(): boolean;
  /** Called before anything is sent. */
  beforeSend(): void;
}

/** The server's side is the port; the client's side is `say`, `reset` and the two callbacks. */
export class SimSocket implements SocketPort {
  readonly peer = "a simulated client";
  readonly identity = undefined;
  readonly silentMs = 0;
  readonly hasHungUp = false;
  readonly tls = "off";
  sentBytes = 0;
  readonly takesSegments = true;
  isClosed = false;
  readonly #world: SocketWorld;
  readonly #heard: (bytes: Uint8Array) => void;
  readonly #lost: () => void;
  #owner: Address<SocketNotice> | undefined;
  #toServer: Uint8Array = new Uint8Array(0);
  #readInto: Uint8Array | undefined;
  #sending: Uint8Array | undefined;
  #isPumping = false;
  #isReset = false;

  /** @param heard takes what the server sent; `lost` is called once, when nothing will come any more */
  constructor(world: SocketWorld, heard: (bytes: Uint8Array) => void, lost: () => void) {
    this.#world = world;
    this.#heard = heard;
    this.#lost = lost;
  }

  open(owner: Address<SocketNotice>): void {
    this.#owner = owner;
    // The client may be gone before anybody has looked at it.
    if (this.isClosed) this.#world.schedule(() => this.#tellClosed());
  }

  read(buffer: Uint8Array): void {
    assert(this.#readInto === undefined, "a second read while one is under way");
    this.#readInto = buffer;
    this.#pumpLater();
  }

  readRest(buffer: Uint8Array): void {
    this.read(buffer);
  }

  get sendingBytes(): number {
    return this.#sending?.length ?? 0;
  }

  shrink(): boolean {
    return this.#sending !== undefined;
  }

  send(pieces: readonly Piece[], memory?: CopyMemory): void {
    assert(this.#sending === undefined, "a second send while one is under way");
    this.#world.beforeSend();
    // The rest of the turn in which the process ended.
    if (!this.#world.isAlive()) return;
    this.#sending = join(...copied(pieces, 0, memory));
    this.#world.schedule(() => this.#deliver());
  }

  startTls(): void {
    assert(false, "the simulation has no TLS");
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.#readInto = undefined;
    this.#sending = undefined;
    if (this.#owner !== undefined) this.#world.schedule(() => this.#tellClosed());
    this.#world.schedule(this.#lost);
  }

  /** The client sends. */
  say(bytes: Uint8Array): void {
    if (this.isClosed) return;
    this.#toServer = this.#toServer.length === 0 ? bytes : join(this.#toServer, bytes);
    this.#pumpLater();
  }

  /** The client vanishes, and what it has sent last with it. */
  reset(): void {
    this.#isReset = !this.isClosed;
    this.close();
  }

  /** The process has ended. The host delivers what it was given to send. */
  deliverRest(): void {
    const sending = this.#sending;
    this.#sending = undefined;
    if (sending !== undefined && !this.isClosed) this.#heard(sending);
  }

  #tellClosed(): void {
    if (this.#owner === undefined) return;
    const reason = this.#isReset ? { reason: "connection reset" } : {};
    this.#world.kernel.post(this.#owner, { type: "closed", ...reason });
  }

  #pumpLater(): void {
    if (this.#isPumping || this.#readInto === undefined || this.#toServer.length === 0) return;
    this.#isPumping = true;
    this.#world.schedule(() => this.#pump());
  }

  #pump(): void {
    this.#isPumping = false;
    const buffer = this.#readInto;
    if (buffer === undefined || this.#owner === undefined || this.isClosed) return;
    const piece = this.#toServer.subarray(0, Math.min(buffer.length, this.#piece(this.#toServer.length)));
    this.#toServer = this.#toServer.subarray(piece.length);
    this.#readInto = undefined;
    buffer.set(piece);
    this.#world.kernel.post(this.#owner, { type: "received", bytes: buffer.subarray(0, piece.length) });
    this.#pumpLater();
  }

  #deliver(): void {
    const sending = this.#sending;
    if (sending === undefined || this.#owner === undefined || this.isClosed) return;
    const piece = sending.slice(0, this.#piece(sending.length));
    this.sentBytes += piece.length;
    this.#sending = piece.length < sending.length ? sending.subarray(piece.length) : undefined;
    this.#heard(piece);
    if (this.#sending !== undefined) this.#world.schedule(() => this.#deliver());
    else this.#world.kernel.post(this.#owner, { type: "sent" });
  }

  #piece(bytes: number): number {
    const { random, swarm: { pieceBytes } } = this.#world.world;
    return pieceBytes === 0 ? bytes : Math.min(bytes, 1 + random.below(pieceBytes));
  }
}
