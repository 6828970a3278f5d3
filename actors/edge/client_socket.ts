/** One client's socket as its connection sees it: completions become messages here, and clear text becomes TLS. */
import { assert, present } from "../../storage/base/assert.ts";
import type { Address } from "../kernel/address.ts";
import { reasonOutside } from "../kernel/boundary.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { copied, type CopyMemory, lengthOf, type Piece } from "../nbd/wire/pieces.ts";
import type { SocketNotice, SocketPort, TlsPolicy } from "../nbd/socket_port.ts";
import { type ByteStream, ClosedOnce, NodeStream } from "./byte_stream.ts";
import { type DirectSocket, unreadable, wouldBlock } from "./direct_socket.ts";
import type { HeardLately } from "./heard_lately.ts";
import { callOutside } from "./outside.ts";
import type { SendShare } from "./send_share.ts";
import type { SocketGroup } from "./socket_group.ts";
import type { Polled, SocketPoll } from "./socket_poll.ts";
import { type Peer, securedPeer } from "./peer.ts";
import type { TlsKeys } from "./tls_keys.ts";
import { UnsentRest } from "./unsent_rest.ts";
import { restPauseMs, sendSpinMs } from "../knobs.ts";

/** With one processor the client cannot read while this thread polls. */
const spinMs = navigator.hardwareConcurrency > 1 ? sendSpinMs : 0;

/** One client's socket. One read and one send may be under way. `closed` is told when both have ended after a close. */
export class ClientSocket implements SocketPort, Polled {
  readonly tls: TlsPolicy;
  readonly only: string | undefined;
  sentBytes = 0;
  readonly #kernel: Kernel;
  readonly #keys: TlsKeys | undefined;
  readonly #forget: () => void;
  #stream: ByteStream;
  #peer: string;
  #identity: string | undefined;
  #owner: Address<SocketNotice> | undefined;
  #reading = false;
  #sending = false;
  readonly #rest = new UnsentRest();
  #securing = false;
  #closing = false;
  /** Streams that are being closed: one, or TLS and its carrier. */
  #ending = 0;
  #hasToldClosed = false;
  #reason: string | undefined;
  readonly #poll: SocketPoll;
  readonly #share: SendShare;
  readonly #beforeSend: () => void;
  readonly #heard: HeardLately;
  /** The system's own calls, if they are available and the stream is in clear text. */
  #direct: DirectSocket | undefined;
  #link: DirectSocket | undefined;
  /** The buffer that the poll receives into. */
  #polledInto: Uint8Array | undefined;

  /**
   * @param group what it shares with the other sockets of the kernel
   * @param keys for TLS, if the server has it
   * @param forget called when the socket is closed
   * @param direct the system's own calls, to receive and send with
   * @param link the same, used only to see whether the other host still answers
   */
  constructor(
    group: SocketGroup,
    stream: ByteStream,
    { peer, identity, only }: Peer,
    keys: TlsKeys | undefined,
    forget: () => void,
    direct?: DirectSocket,
    link: DirectSocket | undefined = direct,
  ) {
    this.#kernel = group.kernel;
    this.#poll = group.poll;
    this.#share = group.share;
    this.#beforeSend = group.beforeSend;
    this.#heard = group.heard;
    this.#direct = direct;
    this.#link = link;
    if (identity !== undefined) link?.keepAlive();
    this.#stream = stream;
    this.#peer = peer;
    this.#identity = identity;
    this.only = only;
    this.#keys = keys;
    this.tls = keys?.policy ?? "off";
    this.#forget = forget;
  }

  get peer(): string {
    return this.#peer;
  }

  get identity(): string | undefined {
    return this.#identity;
  }

  get silentMs(): number {
    return this.#identity === undefined ? 0 : this.#link?.silentMs ?? 0;
  }

  get hasHungUp(): boolean {
    return this.#link?.hasHungUp ?? false;
  }

  open(owner: Address<SocketNotice>): void {
    assert(this.#owner === undefined, "a socket has one connection");
    this.#owner = owner;
  }

  get takesSegments(): boolean {
    return this.#direct !== undefined;
  }

  read(buffer: Uint8Array, isInStep: boolean): void {
    if (this.#closing) return;
    this.#beginRead();
    // A client with several requests under way is not polled: each send would wake it for one reply only.
    if (this.#direct === undefined || !isInStep) {
      return void this.#read(buffer, () => this.#poll.heardOther());
    }
    this.#polledInto = buffer;
    this.#poll.add(this);
  }

  readRest(buffer: Uint8Array): void {
    if (this.#closing) return;
    this.#beginRead();
    // After this drain, so that the replies which it has queued are sent first.
    if (this.#direct !== undefined) queueMicrotask(() => this.#readRest(buffer));
    else void this.#read(buffer, () => this.#poll.heardOther());
  }

  #beginRead(): void {
    assert(!this.#reading && this.#polledInto === undefined, "a socket reads once at a time");
    assert(!this.#securing, "a socket reads while TLS begins");
    this.#reading = true;
  }

  #endRead(): void {
    assert(this.#reading && this.#polledInto === undefined, "a read ended that was not under way");
    this.#reading = false;
  }

  #readRest(buffer: Uint8Array): void {
    let doneBytes = 0;
    try {
      if (this.#direct !== undefined) doneBytes = receiveRest(this.#direct, buffer, this.#waitEndMs());
    } catch (error) {
      // The stream is broken, so this closes it.
      this.#endRead();
      return this.#broken(error);
    }
    // `#read` also tells the end of the stream, and that it was closed.
    if (doneBytes === 0) return void this.#read(buffer, () => this.#poll.heardOther());
    this.#endRead();
    this.#tell({ type: "received", bytes: buffer.subarray(0, doneBytes) });
  }

  /** Until when this thread may wait for the client: not at all while something waits that only the event loop can deliver. */
  #waitEndMs(): number {
    if (this.#kernel.tasksRunning > 0 || this.#kernel.hasYielded) return -Infinity;
    return this.#heard.waitEndMs(this, performance.now());
  }

  poll(): boolean {
    const buffer = present(this.#polledInto, "polled a socket that does not read");
    const direct = present(this.#direct, "polled a socket without direct calls");
    let count: number;
    try {
      count = direct.receive(buffer);
    } catch (error) {
      // The stream is broken, so this closes it.
      this.#polledInto = undefined;
      this.#endRead();
      this.#broken(error);
      return true;
    }
    if (count === wouldBlock) return false;
    this.#heard.note(this, false);
    this.#polledInto = undefined;
    this.#endRead();
    this.#tell(count === 0 ? { type: "ended" } : { type: "received", bytes: buffer.subarray(0, count) });
    return true;
  }

  async wait(): Promise<void> {
    const buffer = present(this.#polledInto, "waited for a socket that does not read");
    this.#polledInto = undefined;
    const beginMs = performance.now();
    await this.#read(buffer, () => this.#poll.waited(performance.now() - beginMs));
  }

  send(pieces: readonly Piece[], memory?: CopyMemory): void {
    if (this.#closing) return;
    assert(!this.#sending && !this.#securing, "a socket sends once at a time, and not while TLS begins");
    this.#beforeSend();
    if (this.#direct === undefined) return this.#sendLater(copied(pieces, 0));
    let rest: Uint8Array[];
    try {
      rest = copied(pieces, this.#sendNow(this.#direct, pieces), memory);
    } catch (error) {
      // The stream is broken, so this closes it.
      return this.#broken(error);
    }
    if (rest.length === 0) this.#tell({ type: "sent" });
    else this.#sendLater(rest);
  }

  get sendingBytes(): number {
    return this.#rest.bytes;
  }

  shrink(): boolean {
    return this.#sending && this.#rest.shrink();
  }

  startTls(): void {
    if (this.#closing) return;
    assert(!this.#reading && !this.#sending && !this.#securing, "TLS begins with nothing under way");
    this.#securing = true;
    this.#direct = undefined;
    this.#startTls(present(this.#keys, "TLS where there is none"));
  }

  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#forget();
    if (this.#polledInto !== undefined) {
      this.#poll.remove(this);
      this.#polledInto = undefined;
      this.#endRead();
    }
    this.#closeDirect();
    this.#closeStream();
  }

  #closeDirect(): void {
    this.#link?.close();
    this.#link = this.#direct = undefined;
  }

  /** The number of bytes that the system took. The client makes room for more by reading. */
  #sendNow(direct: DirectSocket, pieces: readonly Piece[]): number {
    let allBytes = 0;
    for (const piece of pieces) allBytes += lengthOf(piece);
    let doneBytes = 0;
    let endMs: number | undefined;
    let giveUpMs = 0;
    for (;;) {
      const count = direct.send(pieces, doneBytes);
      // The rest is copied: reading it tells whether the bytes are readable, and if not, why.
      if (count === unreadable) break;
      if (count !== wouldBlock) doneBytes += count;
      if (doneBytes === allBytes) break;
      const nowMs = performance.now();
      if (endMs === undefined || count !== wouldBlock) {
        endMs ??= nowMs + this.#share.take(this, nowMs);
        giveUpMs = Math.min(endMs, nowMs + spinMs);
      }
      if (nowMs >= giveUpMs) break;
    }
    this.sentBytes += doneBytes;
    return doneBytes;
  }

  #sendLater(pieces: readonly Uint8Array[]): void {
    this.#sending = true;
    this.#rest.begin(pieces);
    this.#sendRest();
  }

  async #startTls(keys: TlsKeys): Promise<void> {
    // From here on both this socket and TLS close the stream.
    const clear = new ClosedOnce(this.#stream);
    this.#stream = clear;
    try {
      // Loaded when it is used: node:tls takes longer to load than all the rest.
      const { secureStream } = await import("./tls.ts");
      const secured = await secureStream(clear, keys);
      this.#stream = secured.stream;
      const { peer, identity } = securedPeer(this, secured.clientName);
      this.#peer = peer;
      this.#identity = identity;
      this.#securing = false;
    } catch (error) {
      this.#securing = false;
      return this.#broken(error);
    }
    if (this.#closing) return this.#closeStream();
    this.#tell({ type: "secured" });
  }

  #closeStream(): void {
    const ended = tryToClose(this.#stream);
    if (ended === undefined) return this.#tellClosed();
    assert(this.#ending < 2, "more streams are closed than TLS and its carrier");
    this.#ending += 1;
    const over = () => {
      assert(this.#ending > 0, "more streams were closed than began to be");
      this.#ending -= 1;
      this.#tellClosed();
    };
    callOutside(() => ended, over, over);
  }

  async #read(buffer: Uint8Array, heard: () => void = () => {}): Promise<void> {
    let count: number | null = null;
    try {
      count = await this.#stream.read(buffer);
    } catch (error) {
      this.#endRead();
      heard();
      return this.#broken(error);
    }
    this.#heard.note(this, true);
    this.#endRead();
    heard();
    if (this.#closing) return this.#tellClosed();
    this.#tell(count === null ? { type: "ended" } : { type: "received", bytes: buffer.subarray(0, count) });
  }

  /** Holds no reference but `#rest`: what `shrink` removes from it is free at once. */
  async #sendRest(): Promise<void> {
    const rest = this.#rest;
    try {
      while (!rest.isEmpty) {
        const isCopied = this.#direct !== undefined || this.#stream instanceof NodeStream;
        const count = await this.#stream.write(rest.next(isCopied));
        this.sentBytes += count;
        rest.sent(count);
        // There is room again, usually for more than Deno's call takes at once.
        if (this.#direct !== undefined) rest.sent(this.#sendNow(this.#direct, rest.pieces));
      }
      this.#sending = false;
    } catch (error) {
      this.#sending = false;
      rest.clear();
      return this.#broken(error);
    }
    if (this.#closing) return this.#tellClosed();
    this.#tell({ type: "sent" });
  }

  /** The connection is lost, or `close` interrupted what was under way. */
  #broken(error: unknown): void {
    const reason = reasonOutside(error);
    if (this.#closing) return this.#tellClosed();
    this.#reason = reason;
    this.close();
  }

  #tellClosed(): void {
    if (this.#reading || this.#sending || this.#securing || this.#ending > 0) return;
    // From here on nothing can be under way again, as the socket is closed.
    assert(this.#closing && !this.#hasToldClosed, "a socket tells once that it is closed");
    this.#hasToldClosed = true;
    this.#tell(this.#reason === undefined ? { type: "closed" } : { type: "closed", reason: this.#reason });
  }

  #tell(notice: SocketNotice): void {
    // A client that was refused has no owner.
    if (this.#owner !== undefined) this.#kernel.post(this.#owner, notice);
  }
}

function tryToClose(stream: ByteStream): void | Promise<void> {
  try {
    return stream.close();
  } catch (error) {
    // It is closed already, or cannot be closed: nothing else can be done.
    reasonOutside(error);
  }
}

/** The number of bytes received into the buffer until a pause of `restPauseMs`, or `endMs`. */
function receiveRest(direct: DirectSocket, buffer: Uint8Array, endMs: number): number {
  let doneBytes = 0;
  while (doneBytes < buffer.length && performance.now() < endMs) {
    const count = direct.receive(doneBytes === 0 ? buffer : buffer.subarray(doneBytes));
    if (count === 0) break;
    if (count !== wouldBlock) doneBytes += count;
    else if (!direct.waitFor(restPauseMs)) break;
  }
  return doneBytes;
}
