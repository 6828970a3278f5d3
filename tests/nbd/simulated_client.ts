/** A simulated client and its socket, as the server of simulated_server.ts sees them, and the requests that it sends. */
import { copied, type Piece } from "../../actors/nbd/wire/pieces.ts";
import { assert, present } from "../../storage/base/assert.ts";
import {
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_OPT_GO,
  NBD_OPT_SET_META_CONTEXT,
  NBD_REP_ACK,
  NBD_REPLY_FLAG_DONE,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
} from "../../actors/nbd/wire/constants.ts";
import { join, option, request, string, u16, u32 } from "./wire_bytes.ts";
import type { Address } from "../../actors/kernel/address.ts";
import type { SocketNotice, SocketPort, TlsPolicy } from "../../actors/nbd/socket_port.ts";
import type { TestServer } from "./simulated_server.ts";

/** NBD_OPT_SET_META_CONTEXT. */
export function setContexts(name: string, ...queries: string[]): Uint8Array {
  return option(NBD_OPT_SET_META_CONTEXT, join(string(name), u32(queries.length), ...queries.map(string)));
}

/** NBD_OPT_GO without info requests, or with. */
export function go(name: string, ...infoTypes: number[]): Uint8Array {
  return option(NBD_OPT_GO, join(string(name), u16(infoTypes.length), ...infoTypes.map(u16)));
}

/** A READ; the cookie's low half is `cookie`. */
export function read(cookie: number, offsetBytes: number, lengthBytes: number, flags = 0): Uint8Array {
  const offset: readonly [number, number] = [Math.floor(offsetBytes / 2 ** 32), offsetBytes % 2 ** 32];
  return request({ type: NBD_CMD_READ, flags, cookie: [7, cookie], offset, length: lengthBytes });
}

/** A WRITE with its payload. */
export function write(cookie: number, offsetBytes: number, payload: Uint8Array, flags = 0): Uint8Array {
  const offset: readonly [number, number] = [Math.floor(offsetBytes / 2 ** 32), offsetBytes % 2 ** 32];
  const header = request({ type: NBD_CMD_WRITE, flags, cookie: [7, cookie], offset, length: payload.length });
  return join(header, payload);
}

/** A request without payload. */
export function command(
  type: number,
  cookie: number,
  offsetBytes = 0,
  lengthBytes = 0,
  flags = 0,
): Uint8Array {
  return request({ type, flags, cookie: [7, cookie], offset: [0, offsetBytes], length: lengthBytes });
}

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Uint8Array;
}

/** A simple reply, or one chunk of a structured or extended one. */
export interface Reply {
  readonly cookie: number;
  /** "simple" or the chunk's type. */
  readonly type: number | "simple";
  readonly error: number;
  readonly isLast: boolean;
  readonly payload: Uint8Array;
}

export interface ClientOptions {
  /** Most bytes that one read of the server gets. */
  readonly pieceBytes?: number;
  /** False: the server's sends do not end until `takeSend`. */
  readonly reads?: boolean;
  /** True: what was under way ends only some time after the server's close, at the next `pump`. */
  readonly lingers?: boolean;
  readonly tls?: TlsPolicy;
  /** The host it comes from; by default it is a local client. */
  readonly identity?: string;
  /** Whether the socket can be given views. Default true. */
  readonly takesSegments?: boolean;
  /** It has ended its side before the server looks at it. */
  readonly hasHungUp?: boolean;
}

/** A client and its socket, as the server sees it: bytes arrive when asked for, sends end when the client reads. */
export class SimulatedClient implements SocketPort {
  readonly peer = "a simulated client";
  identity: string | undefined;
  /** For how long its host has acknowledged nothing. */
  silentMs = 0;
  /** It has ended its side. */
  hasHungUp: boolean;
  readonly tls: TlsPolicy;
  /** TLS was begun; the test says `secure` when its handshake is over. Nothing is really encrypted. */
  isSecuring = false;
  /** What the server said of the client when it read last. */
  isInStep = false;
  sentBytes = 0;
  readonly takesSegments: boolean;
  /** True once the server has closed the socket. */
  closed = false;
  /** Each send of the server, as one. */
  readonly sends: Uint8Array[] = [];
  readonly #server: TestServer;
  readonly #pieceBytes: number;
  readonly #lingers: boolean;
  #closedUntold = false;
  #vanished = false;
  /** Whether sends end by themselves. */
  reads: boolean;
  #owner: Address<SocketNotice> | undefined;
  #toServer: Uint8Array = new Uint8Array(0);
  #readInto: Uint8Array | undefined;
  #ended = false;
  #sending = false;
  #sendingBytes = 0;
  /** How often the server asked for its memory, and whether it gets none of it. */
  shrinks = 0;
  isPinned = false;
  #unread: Uint8Array = new Uint8Array(0);

  constructor(server: TestServer, options: ClientOptions) {
    const { pieceBytes = Infinity, reads = true, lingers = false, tls = "off", takesSegments = true } =
      options;
    this.takesSegments = takesSegments;
    this.tls = tls;
    this.identity = options.identity;
    this.hasHungUp = options.hasHungUp ?? false;
    this.#lingers = lingers;
    this.#server = server;
    this.#pieceBytes = pieceBytes;
    this.reads = reads;
  }

  // The server's side.

  open(owner: Address<SocketNotice>): void {
    this.#owner = owner;
  }

  read(buffer: Uint8Array, isInStep: boolean): void {
    assert(this.#readInto === undefined, "a second read while one is under way");
    assert(buffer.length > 0, "a read into nothing");
    this.#readInto = buffer;
    this.isInStep = isInStep;
  }

  readRest(buffer: Uint8Array): void {
    this.read(buffer, false);
  }

  get sendingBytes(): number {
    return this.#sendingBytes;
  }

  shrink(): boolean {
    this.shrinks += 1;
    return !this.isPinned;
  }

  send(pieces: readonly Piece[]): void {
    assert(!this.#sending, "a second send while one is under way");
    const sent = join(...copied(pieces, 0));
    this.#sendingBytes = sent.length;
    this.sends.push(sent);
    this.#unread = join(this.#unread, sent);
    this.#sending = true;
    if (this.reads) this.takeSend();
  }

  startTls(): void {
    assert(this.#readInto === undefined && !this.#sending, "TLS with something under way in clear text");
    this.isSecuring = true;
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.#readInto = undefined;
    this.#sending = false;
    this.#closedUntold = this.#owner !== undefined;
    if (!this.#lingers) this.#tellClosed();
  }

  #tellClosed(): void {
    if (!this.#closedUntold || this.#owner === undefined) return;
    this.#closedUntold = false;
    const reason = this.#vanished ? { reason: "connection reset" } : {};
    this.#server.kernel.post(this.#owner, { type: "closed", ...reason });
  }

  // The client's side.

  /** Sends these bytes as one stream and lets the server work. */
  say(...parts: readonly Uint8Array[]): void {
    this.#toServer = join(this.#toServer, ...parts);
    this.pump();
  }

  /** What serves it. */
  get connection(): Address<SocketNotice> {
    return present(this.#owner, "a socket that was not opened");
  }

  /** Ends the handshake of TLS, in which the client may have shown a certificate. */
  secure(identity = this.identity): void {
    assert(this.isSecuring, "TLS was not begun");
    this.identity = identity;
    this.isSecuring = false;
    this.#server.kernel.post(present(this.#owner, "a socket that was not opened"), { type: "secured" });
    this.#server.clock.runAllYields();
  }

  /** Gives the server what it asks for, as far as there is something. */
  pump(): void {
    this.#tellClosed();
    this.#server.clock.runAllYields();
    while (this.#readInto !== undefined && this.#toServer.length > 0) this.#deliver();
    if (this.#ended && this.#readInto !== undefined && this.#owner !== undefined) {
      this.#readInto = undefined;
      this.#server.kernel.post(this.#owner, { type: "ended" });
      this.#server.clock.runAllYields();
    }
  }

  #deliver(): void {
    const buffer = present(this.#readInto, "nothing is read");
    const piece = this.#toServer.subarray(0, Math.min(buffer.length, this.#pieceBytes));
    this.#toServer = this.#toServer.subarray(piece.length);
    this.#readInto = undefined;
    buffer.set(piece);
    const bytes = buffer.subarray(0, piece.length);
    this.#server.kernel.post(present(this.#owner, "a socket that was not opened"), {
      type: "received",
      bytes,
    });
    this.#server.clock.runAllYields();
  }

  /** Bytes that the server has not asked for. */
  get unsentBytes(): number {
    return this.#toServer.length;
  }

  /** Sends nothing more. */
  end(): void {
    this.#ended = true;
    this.pump();
  }

  /** Vanishes. */
  reset(): void {
    this.#toServer = new Uint8Array(0);
    this.#vanished = !this.closed;
    this.close();
    this.#server.clock.runAllYields();
  }

  /** Sends these bytes and vanishes before anybody has looked at them. */
  sayAndVanish(bytes: Uint8Array): void {
    this.sayUnheard(bytes);
    this.reset();
  }

  /** Sends these bytes; the server looks at them together with what comes next. */
  sayUnheard(bytes: Uint8Array): void {
    const buffer = present(this.#readInto, "the server does not read");
    const owner = present(this.#owner, "a socket that was not opened");
    buffer.set(bytes);
    this.#readInto = undefined;
    this.#server.kernel.tell(owner, { type: "received", bytes: buffer.subarray(0, bytes.length) });
  }

  /** Reads what the server is sending. */
  takeSend(): void {
    assert(this.#sending, "nothing is being sent");
    this.#sending = false;
    this.sentBytes += this.#sendingBytes;
    this.#sendingBytes = 0;
    this.#server.kernel.post(present(this.#owner, "a socket that was not opened"), { type: "sent" });
    this.#server.clock.runAllYields();
  }

  /** Takes so many bytes of what the server is sending, and not the last of them. */
  takePart(bytes: number): void {
    assert(bytes < this.#sendingBytes, "that is all of it");
    this.sentBytes += bytes;
    this.#sendingBytes -= bytes;
  }

  get isSending(): boolean {
    return this.#sending;
  }

  /** Takes out received bytes. */
  take(lengthBytes: number): Uint8Array {
    assert(lengthBytes <= this.#unread.length, "the server has not sent that much");
    const taken = this.#unread.subarray(0, lengthBytes);
    this.#unread = this.#unread.subarray(lengthBytes);
    return taken;
  }

  get unreadBytes(): number {
    return this.#unread.length;
  }

  takeOpening(): Uint8Array {
    return this.take(18);
  }

  /** Takes out all option replies. */
  takeOptionReplies(): OptionReply[] {
    const replies: OptionReply[] = [];
    while (this.#unread.length >= 20) {
      const header = view(this.take(20));
      const data = this.take(header.getUint32(16));
      replies.push({ option: header.getUint32(8), type: header.getUint32(12), data });
    }
    return replies;
  }

  /** Takes out the handshake of `attach`, which must have succeeded. */
  skipHandshake(): void {
    this.takeOpening();
    const last = this.takeOptionReplies().at(-1);
    assert(last?.option === NBD_OPT_GO && last.type === NBD_REP_ACK, "the client was not attached");
  }

  /** Takes out all replies. */
  takeReplies(readLengths: ReadonlyMap<number, number> = new Map()): Reply[] {
    const replies: Reply[] = [];
    while (this.#unread.length > 0) replies.push(this.#takeReply(readLengths));
    return replies;
  }

  #takeReply(readLengths: ReadonlyMap<number, number>): Reply {
    const magic = view(this.#unread).getUint32(0);
    if (magic === NBD_SIMPLE_REPLY_MAGIC) {
      const header = view(this.take(16));
      const cookie = header.getUint32(12);
      const error = header.getUint32(4);
      const payload = this.take(error === 0 ? readLengths.get(cookie) ?? 0 : 0);
      return { cookie, type: "simple", error, isLast: true, payload };
    }
    const isExtended = magic === NBD_EXTENDED_REPLY_MAGIC;
    assert(isExtended || magic === NBD_STRUCTURED_REPLY_MAGIC, "a reply with a wrong magic");
    const header = view(this.take(isExtended ? 32 : 20));
    const type = header.getUint16(6);
    const payload = this.take(header.getUint32(isExtended ? 28 : 16));
    return {
      cookie: header.getUint32(12),
      type,
      error: type >= 0x8000 ? view(payload).getUint32(0) : 0,
      isLast: (header.getUint16(4) & NBD_REPLY_FLAG_DONE) !== 0,
      payload,
    };
  }
}

/** The cookies of the replies that a client has read since. */
export function cookiesOf(client: SimulatedClient): number[] {
  return client.takeReplies().filter(({ isLast }) => isLast).map(({ cookie }) => cookie);
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
