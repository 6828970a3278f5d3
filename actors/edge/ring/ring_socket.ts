/**
 * One client's socket on the ring: completions become messages to its connection.
 *
 * Replies are sent by calls on this thread, which do not wait. What the socket has no room for is sent from where it lies when
 * there is room. The host reads it only during those calls: so it can be copied at any time in between, before it changes
 * (held_segments.ts) or when its memory is needed.
 *
 * TLS is done by the main side (tls_relay.ts). From {@linkcode RingSocket.startTls} on this socket talks in clear text through a
 * socket pair, and the client's descriptor is only looked at: whether its host answers, whether it has hung up.
 */
import { assert, present } from "../../../storage/base/assert.ts";
import type { Address } from "../../kernel/address.ts";
import { reasonOutside } from "../../kernel/boundary.ts";
import { heldSegmentsMax } from "../../limits.ts";
import { copied, type CopyMemory, lengthOf, type Piece } from "../../nbd/wire/pieces.ts";
import type { SocketNotice, SocketPort, TlsPolicy } from "../../nbd/socket_port.ts";
import { DirectSocket, unreadable, wouldBlock } from "../direct_socket.ts";
import { errno } from "../libc.ts";
import { type Peer, securedPeer } from "../peer.ts";
import type { RelayedTls, RelayNews } from "../relayed_tls.ts";
import type { SocketGroup } from "../socket_group.ts";
import type { TlsKeys } from "../tls_keys.ts";
import { UnsentRest } from "../unsent_rest.ts";
import { shutDown, socketPair } from "./socket_calls.ts";
import { addressOf } from "../memory_address.ts";
import { operation, type Uring } from "./uring.ts";

// From asm-generic/poll.h.
const pollOut = 4;

/** What the socket is told of its place, and tells it. */
export interface RingSocketParts {
  readonly ring: Uring;
  readonly group: SocketGroup;
  /** The client's socket. */
  readonly client: DirectSocket;
  readonly peer: Peer;
  /** Undefined: no TLS. */
  readonly keys: TlsKeys | undefined;
  /** What does TLS, where there is TLS. */
  readonly tls: RelayedTls | undefined;
  /** Called when the socket is closed. */
  readonly forget: () => void;
}

/** See the head of this file. */
export class RingSocket implements SocketPort {
  readonly tls: TlsPolicy;
  readonly takesSegments = true;
  sentBytes = 0;
  readonly #parts: RingSocketParts;
  /** What is received from and sent to: the client, or an end of the socket pair. */
  #direct: DirectSocket;
  #peer: Peer;
  /** Whether the main side does not speak TLS with the client yet. */
  #isSecuring = false;
  /** The number of the relay, from the beginning of TLS until the main side has closed its descriptors. */
  #relay: number | undefined;
  /** What is sent from where it lies, when there is room. */
  #unsent: Unsent | undefined;
  /** The same as bytes of our own, after it had to be copied. */
  readonly #rest = new UnsentRest();
  #owner: Address<SocketNotice> | undefined;
  #readBuffer: Uint8Array | undefined;
  #isWaitingForRoom = false;
  #closing = false;
  #hasToldClosed = false;
  #reason: string | undefined;

  constructor(parts: RingSocketParts) {
    this.#parts = parts;
    this.#direct = parts.client;
    this.#peer = parts.peer;
    this.tls = parts.keys?.policy ?? "off";
    if (parts.peer.identity !== undefined) parts.client.keepAlive();
  }

  get peer(): string {
    return this.#peer.peer;
  }

  get identity(): string | undefined {
    return this.#peer.identity;
  }

  get only(): string | undefined {
    return this.#peer.only;
  }

  get silentMs(): number {
    return this.identity === undefined ? 0 : this.#parts.client.silentMs;
  }

  get hasHungUp(): boolean {
    return !this.#closing && this.#parts.client.hasHungUp;
  }

  get sendingBytes(): number {
    return this.#unsent?.restBytes ?? this.#rest.bytes;
  }

  open(owner: Address<SocketNotice>): void {
    assert(this.#owner === undefined, "a socket has one connection");
    this.#owner = owner;
  }

  read(buffer: Uint8Array): void {
    if (this.#closing) return;
    assert(this.#readBuffer === undefined, "a socket reads once at a time");
    assert(!this.#isSecuring, "a socket reads while TLS begins");
    this.#readBuffer = buffer;
    const { fd } = this.#direct;
    const address = addressOf(buffer);
    this.#parts.ring.push(
      { operation: operation.recv, fd, address, lengthBytes: buffer.length },
      this.#received,
      buffer,
    );
  }

  readRest(buffer: Uint8Array): void {
    this.read(buffer);
  }

  /** One function for all receives of the socket. */
  readonly #received = (count: number): void => {
    const buffer = present(this.#readBuffer, "a receive ended that was not under way");
    this.#readBuffer = undefined;
    if (this.#closing) return this.#tellClosed();
    if (count === -errno.interrupted) return this.read(buffer);
    if (count < 0) return this.#broken(lost(-count));
    this.#tell(count === 0 ? { type: "ended" } : { type: "received", bytes: buffer.subarray(0, count) });
  };

  send(pieces: readonly Piece[], memory?: CopyMemory): void {
    if (this.#closing) return;
    assert(!this.#isWaitingForRoom && this.sendingBytes === 0, "a socket sends once at a time");
    assert(!this.#isSecuring, "a socket sends while TLS begins");
    this.#parts.group.beforeSend();
    const unsent = new Unsent(pieces, memory);
    this.#unsent = unsent;
    if (!this.#sendOn()) return;
    if (this.#unsent !== undefined && !unsent.hold(() => this.#copyRest())) this.#copyRest();
    if (!this.#closing) this.#waitForRoom();
  }

  shrink(): boolean {
    if (!this.#isWaitingForRoom) return false;
    this.#copyRest();
    return !this.#closing && this.#rest.shrink();
  }

  /** The bytes of a reply are about to change or to be needed: what is left of it is copied. */
  #copyRest(): void {
    const unsent = this.#unsent;
    if (unsent === undefined) return;
    this.#unsent = undefined;
    try {
      this.#rest.begin(unsent.copied());
    } catch (error) {
      // A part may have been sent, so no error can be replied: this closes the stream.
      this.#broken(error);
    }
  }

  startTls(): void {
    if (this.#closing) return;
    assert(this.#direct === this.#parts.client, "TLS begins once");
    assert(this.#readBuffer === undefined && !this.#isWaitingForRoom, "TLS begins with nothing under way");
    const keys = present(this.#parts.keys, "TLS where there is none");
    let pair: readonly [number, number];
    try {
      pair = socketPair();
    } catch (error) {
      return this.#broken(error);
    }
    const { client, tls } = this.#parts;
    this.#direct = present(DirectSocket.adopt(pair[0]), "a ring is used where the C library can be called");
    this.#isSecuring = true;
    this.#relay = present(tls, "TLS where nothing does it").begin(
      { clientFd: client.fd, clearFd: pair[1] },
      keys,
      (news) => this.#relayed(news),
    );
  }

  #relayed(news: RelayNews): void {
    assert(this.#relay === news.relay, "a relay is heard of after its end");
    switch (news.type) {
      case "tlsSecured":
        if (this.#closing) return;
        this.#isSecuring = false;
        this.#peer = securedPeer(this.#peer, news.clientName);
        return this.#tell({ type: "secured" });
      case "tlsBroken":
        return this.#broken(new Error(news.reason));
      case "tlsOver":
        assert(this.#closing, "a relay is over before the socket is closed");
        this.#relay = undefined;
        return this.#tellClosed();
    }
  }

  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#unsent?.release();
    this.#unsent = undefined;
    this.#rest.clear();
    this.#parts.forget();
    // What is under way on the socket ends, and so does the relay. Only then descriptors are closed: the system soon gives their
    // numbers to other files.
    shutDown(this.#direct.fd);
    if (this.#relay !== undefined) this.#parts.tls?.end(this.#relay);
    this.#tellClosed();
  }

  /** Sends what there is room for. True if something is left; if not, that is told. */
  #sendOn(): boolean {
    try {
      if (this.#unsent !== undefined) this.#sendUnsent(this.#unsent);
      else this.#rest.sent(this.#sendNow(this.#rest.pieces, 0));
    } catch (error) {
      // The stream is broken, so this closes it.
      this.#broken(error);
    }
    if (this.#closing) return false;
    if (this.sendingBytes > 0) return true;
    this.#tell({ type: "sent" });
    return false;
  }

  #sendUnsent(unsent: Unsent): void {
    const count = this.#sendNow(unsent.pieces, unsent.doneBytes);
    if (count === unreadable) {
      // Reading it tells why.
      this.#copyRest();
      return;
    }
    unsent.doneBytes += count;
    if (unsent.restBytes > 0) return;
    unsent.release();
    this.#unsent = undefined;
  }

  /** Bytes that the system took at once, or {@linkcode unreadable}. */
  #sendNow(pieces: readonly Piece[], beginBytes: number): number {
    const count = this.#direct.send(pieces, beginBytes);
    if (count === wouldBlock) return 0;
    if (count !== unreadable) this.sentBytes += count;
    return count;
  }

  #waitForRoom(): void {
    assert(!this.#isWaitingForRoom, "a socket waits for room twice");
    this.#isWaitingForRoom = true;
    this.#parts.ring.push(
      { operation: operation.pollAdd, fd: this.#direct.fd, flags: pollOut },
      this.#hasRoom,
    );
  }

  readonly #hasRoom = (result: number): void => {
    assert(this.#isWaitingForRoom, "room came that was not waited for");
    this.#isWaitingForRoom = false;
    if (this.#closing) return this.#tellClosed();
    if (result < 0 && result !== -errno.interrupted) return this.#broken(lost(-result));
    if (this.#sendOn()) this.#waitForRoom();
  };

  #broken(error: unknown): void {
    if (!this.#closing) this.#reason = reasonOutside(error);
    this.close();
  }

  #tellClosed(): void {
    if (this.#readBuffer !== undefined || this.#isWaitingForRoom || this.#relay !== undefined) return;
    assert(this.#closing && !this.#hasToldClosed, "a socket tells once that it is closed");
    this.#hasToldClosed = true;
    this.#direct.close();
    this.#parts.client.close();
    this.#tell(this.#reason === undefined ? { type: "closed" } : { type: "closed", reason: this.#reason });
  }

  #tell(notice: SocketNotice): void {
    // A client that was refused has no owner.
    if (this.#owner !== undefined) this.#parts.group.kernel.post(this.#owner, notice);
  }
}

function lost(failure: number): Error {
  return new Deno.errors.ConnectionReset(`the connection was lost (os error ${failure})`);
}

/** A reply of which a part is left. */
class Unsent {
  doneBytes = 0;
  readonly pieces: readonly Piece[];
  readonly #memory: CopyMemory | undefined;
  readonly #allBytes: number;
  #holds: (() => void)[] = [];

  constructor(pieces: readonly Piece[], memory: CopyMemory | undefined) {
    this.pieces = pieces;
    this.#memory = memory;
    let bytes = 0;
    for (const piece of pieces) bytes += lengthOf(piece);
    this.#allBytes = bytes;
  }

  get restBytes(): number {
    return this.#allBytes - this.doneBytes;
  }

  /** Keeps the mapped segments valid. False if that is not possible: then they are copied now. */
  hold(copyNow: () => void): boolean {
    let endBytes = 0;
    for (const piece of this.pieces) {
      endBytes += lengthOf(piece);
      if (endBytes <= this.doneBytes || piece instanceof Uint8Array) continue;
      const release = piece.hold?.(copyNow);
      if (release === undefined) {
        this.release();
        return false;
      }
      this.#holds.push(release);
      assert(this.#holds.length <= heldSegmentsMax, "a socket holds more segments than there may be");
    }
    return true;
  }

  /** What is left, as bytes of our own. Throws if that cannot be read. */
  copied(): Uint8Array[] {
    this.release();
    return copied(this.pieces, this.doneBytes, this.#memory);
  }

  release(): void {
    for (const release of this.#holds) release();
    this.#holds = [];
  }
}
