/**
 * The system's own calls on a socket that Deno has accepted. They receive and send at once or not at all; Deno's calls take a
 * turn of the event loop each. So a request that comes soon is received without a turn, and mapped segments of a device are
 * sent without a copy.
 *
 * Deno does not tell the descriptor of a socket. The socket that was just accepted is the only one with this address that was
 * not seen before. If there is not exactly one, or without the C library, only Deno's calls are used.
 */
import type { Piece } from "../nbd/wire/pieces.ts";
import {
  descriptorsSearchedMax,
  keepAliveCount,
  keepAliveIdleS,
  keepAliveIntervalS,
  resendMs,
} from "../limits.ts";
import { addressOf } from "./memory_address.ts";
import { errnoAt, fromLibc, libraryName } from "./libc_symbols.ts";

/** Nothing can be received, or there is no room to send. */
export const wouldBlock = -1;
/** A mapped segment that was to be sent cannot be read: its file was cut, or its disk fails. */
export const unreadable = -2;

// Constants of Linux, the same on x86-64 and arm64.
const duplicateCloseOnExec = 1030;
const socketLevel = 1;
const optionAcceptsConnections = 30;
const optionCookie = 57;
const dontWait = 0x40;
const noSignal = 0x4000;
const pollIn = 1;
const pollError = 8;
const pollHangUp = 0x10;
const pollReadHangUp = 0x2000;
const errnoInterrupted = 4;
const errnoAgain = 11;
const errnoFault = 14;
const familyUnix = 1;
const tcpLevel = 6;
const tcpKeepIdle = 4;
const tcpKeepInterval = 5;
const tcpKeepCount = 6;
const tcpInfo = 11;
/** Since Linux 6.15. Older systems wait up to `resendMsBefore` between two attempts. */
const tcpResendMaxMs = 44;
const resendMsBefore = 120_000;
/** Offsets in struct tcp_info (linux/tcp.h), and the length up to the end of the last field. */
const infoUnacknowledged = 24;
const infoLastAcknowledgedMs = 56;
const infoUnsentBytes = 144;
const infoBytes = 148;
/** No descriptor: the system refuses it. */
const noDescriptor = -1;

/** Pieces of one call (IOV_MAX). */
const piecesMax = 1024;

type Library = ReturnType<typeof load>;

function load() {
  const { symbols } = Deno.dlopen(libraryName, {
    __errno_location: { parameters: [], result: "pointer" },
    fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
    getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
    getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
    getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
    setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
    // Both answer ssize_t; the lengths used here fit in 32 bits.
    recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
    sendmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
    ppoll: { parameters: ["buffer", "usize", "buffer", "pointer"], result: "i32" },
  });
  const errno = errnoAt(symbols.__errno_location());
  const info = new Uint8Array(256);
  const name = new Uint8Array(128);
  return {
    symbols,
    errno,
    // Memory for the arguments of one call. Nothing of it is kept until the next.
    vector: new SendVector(),
    polled: new Uint32Array(2),
    time: new BigInt64Array(2),
    info,
    infoView: new DataView(info.buffer),
    name,
    nameView: new DataView(name.buffer),
    option: new Uint32Array(2),
    lengthBytes: new Uint32Array(1),
  };
}

/** What one search for a connection's descriptor leaves for the next. One for all sockets that a kernel serves. */
export class KnownSockets {
  /** Cookies of the open sockets that were found before. The system gives each socket a cookie of its own. */
  cookies: ReadonlySet<number> = new Set();
  /** The highest descriptor that was a connected socket. */
  highestSeen = 0;
}

/** What is known of a connection. */
export type Addresses = Pick<Deno.Conn, "localAddr" | "remoteAddr">;

export class DirectSocket {
  readonly #calls: Library;
  /** A duplicate of Deno's descriptor: it names this socket until it is closed here, also if Deno closes its own. */
  #fd: number;
  #resendMaxMs = resendMsBefore;

  private constructor(calls: Library, fd: number) {
    this.#calls = calls;
    this.#fd = fd;
  }

  /** The connection that was accepted last. Must be called before the next one is accepted. */
  static of(conn: Addresses, known: KnownSockets): DirectSocket | undefined {
    if (library === undefined) return undefined;
    const found = newDescriptors(library, conn, known);
    if (found.length !== 1) return undefined;
    const fd = library.symbols.fcntl(found[0]!, duplicateCloseOnExec, 0);
    return fd < 0 ? undefined : new DirectSocket(library, fd);
  }

  /** A socket whose descriptor is known, and closed here. Undefined without the C library. */
  static adopt(fd: number): DirectSocket | undefined {
    return library === undefined ? undefined : new DirectSocket(library, fd);
  }

  /** For operations of the ring. */
  get fd(): number {
    return this.#fd;
  }

  /** Bytes received into the buffer, 0 at the end of the stream, or {@linkcode wouldBlock}. Throws when it is broken. */
  receive(buffer: Uint8Array): number {
    for (;;) {
      const count = this.#calls.symbols.recv(this.#fd, buffer, BigInt(buffer.length), dontWait);
      if (count >= 0) return count;
      const failure = this.#calls.errno[0];
      if (failure === errnoAgain) return wouldBlock;
      if (failure !== errnoInterrupted) throw broken(failure);
    }
  }

  /** Waits on this thread until something can be received, or the stream has ended or is broken. False after `ms`. */
  waitFor(ms: number): boolean {
    const { symbols, polled, time } = this.#calls;
    polled[0] = this.#fd;
    polled[1] = pollIn;
    time[0] = BigInt(Math.floor(ms / 1000));
    time[1] = BigInt(Math.round(ms % 1000 * 1e6));
    return symbols.ppoll(polled, 1n, time, null) > 0;
  }

  /** Whether the other end sends nothing more, or the stream is broken. What it has sent before may not have been received. */
  get hasHungUp(): boolean {
    const { symbols, polled, time } = this.#calls;
    polled[0] = this.#fd;
    polled[1] = pollReadHangUp;
    time.fill(0n);
    const ended = pollReadHangUp | pollError | pollHangUp;
    return symbols.ppoll(polled, 1n, time, null) > 0 && (polled[1]! >>> 16 & ended) !== 0;
  }

  /**
   * For TCP: the system probes the other host while the connection is idle, and resends soon what is not acknowledged.
   * TCP_USER_TIMEOUT is not used: it would also end the connection of a host that answers and takes nothing, such as a paused
   * guest.
   */
  keepAlive(): void {
    this.#setTcp(tcpKeepIdle, keepAliveIdleS);
    this.#setTcp(tcpKeepInterval, keepAliveIntervalS);
    this.#setTcp(tcpKeepCount, keepAliveCount);
    this.#resendMaxMs = this.#setTcp(tcpResendMaxMs, resendMs) ? resendMs : resendMsBefore;
  }

  /**
   * Milliseconds since the other host should have acknowledged something and did not; 0 if nothing is unacknowledged. If the
   * client has no room, the system probes its host at most each `resendMs`: silence counts from a probe without an answer.
   */
  get silentMs(): number {
    const { symbols, info, infoView, lengthBytes } = this.#calls;
    lengthBytes[0] = info.byteLength;
    if (symbols.getsockopt(this.#fd, tcpLevel, tcpInfo, info, lengthBytes) !== 0) return 0;
    if (lengthBytes[0] < infoBytes) return 0;
    const ms = infoView.getUint32(infoLastAcknowledgedMs, true);
    if (infoView.getUint32(infoUnacknowledged, true) > 0) return ms;
    if (infoView.getUint32(infoUnsentBytes, true) === 0) return 0;
    return Math.max(0, ms - (this.#resendMaxMs - resendMs));
  }

  #setTcp(name: number, value: number): boolean {
    return this.#calls.symbols.setsockopt(this.#fd, tcpLevel, name, Uint32Array.of(value), 4) === 0;
  }

  /**
   * Bytes sent of the pieces from `beginBytes` on, {@linkcode wouldBlock} or {@linkcode unreadable}. Throws when the stream
   * is broken.
   */
  send(pieces: readonly Piece[], beginBytes: number): number {
    const { symbols, errno, vector } = this.#calls;
    vector.fill(pieces, beginBytes);
    for (;;) {
      const count = symbols.sendmsg(this.#fd, vector.header, dontWait | noSignal);
      if (count >= 0) return count;
      const failure = errno[0];
      if (failure === errnoAgain) return wouldBlock;
      if (failure === errnoFault) return unreadable;
      if (failure !== errnoInterrupted) throw broken(failure);
    }
  }

  /** The socket stays open while Deno has it. The number is forgotten, because the system soon gives it to another file. */
  close(): void {
    if (this.#fd !== noDescriptor) this.#calls.symbols.close(this.#fd);
    this.#fd = noDescriptor;
  }
}

function broken(failure: number | undefined): Error {
  return new Deno.errors.ConnectionReset(`the connection was lost (os error ${failure})`);
}

/** A message header and its vector, as sendmsg takes them: addresses and lengths of 64 bits, the low half first. */
class SendVector {
  readonly header = new Uint8Array(56);
  readonly #headerWords = new Uint32Array(this.header.buffer);
  readonly #entries = new Uint32Array(4 * piecesMax);

  constructor() {
    this.#setAddress(this.#headerWords, 4, addressOf(new Uint8Array(this.#entries.buffer)));
  }

  fill(pieces: readonly Piece[], beginBytes: number): void {
    let skipBytes = beginBytes;
    let count = 0;
    for (let index = 0; index < pieces.length && count < piecesMax; index += 1) {
      const piece = pieces[index]!;
      const lengthBytes = piece instanceof Uint8Array ? piece.length : piece.lengthBytes;
      if (skipBytes >= lengthBytes) {
        skipBytes -= lengthBytes;
        continue;
      }
      const begin = piece instanceof Uint8Array ? addressOf(piece) : piece.address;
      this.#setAddress(this.#entries, 4 * count, begin + skipBytes);
      this.#entries[4 * count + 2] = lengthBytes - skipBytes;
      skipBytes = 0;
      count += 1;
    }
    this.#headerWords[6] = count;
  }

  #setAddress(words: Uint32Array, at: number, address: number): void {
    words[at] = address;
    words[at + 1] = Math.floor(address / 0x1_0000_0000);
  }
}

/** The connected sockets with the addresses of this one that were not found before. */
function newDescriptors(calls: Library, conn: Addresses, known: KnownSockets): number[] {
  const found: number[] = [];
  const cookies = new Set<number>();
  const end = known.highestSeen + descriptorsSearchedMax;
  known.highestSeen = 0;
  for (let fd = 0; fd < end; fd += 1) {
    if (option(calls, fd, optionAcceptsConnections) !== 0) continue;
    const cookie = option(calls, fd, optionCookie);
    if (cookie === undefined) continue;
    known.highestSeen = fd;
    const isKnown = known.cookies.has(cookie);
    if (!isKnown && !isOf(calls, fd, conn)) continue;
    cookies.add(cookie);
    if (!isKnown) found.push(fd);
  }
  known.cookies = cookies;
  return found;
}

function option({ symbols, option, lengthBytes }: Library, fd: number, name: number): number | undefined {
  option.fill(0);
  lengthBytes[0] = option.byteLength;
  const status = symbols.getsockopt(fd, socketLevel, name, option, lengthBytes);
  return status === 0 ? option[0]! + option[1]! * 0x1_0000_0000 : undefined;
}

function isOf(calls: Library, fd: number, { localAddr, remoteAddr }: Addresses): boolean {
  const local = nameOf(calls, "getsockname", fd);
  if (localAddr.transport === "unix") return local.path === (localAddr as Deno.UnixAddr).path;
  const remote = nameOf(calls, "getpeername", fd);
  return local.port === (localAddr as Deno.NetAddr).port && remote.port === (remoteAddr as Deno.NetAddr).port;
}

/** The path of a Unix socket, or the port of a TCP socket. */
function nameOf(
  { symbols, name, nameView, lengthBytes }: Library,
  call: "getsockname" | "getpeername",
  fd: number,
): { readonly path?: string; readonly port?: number } {
  lengthBytes[0] = name.length;
  if (symbols[call](fd, name, lengthBytes) !== 0) return {};
  if (nameView.getUint16(0, true) !== familyUnix) return { port: nameView.getUint16(2) };
  const path = name.subarray(2, lengthBytes[0]);
  const end = path.indexOf(0);
  return { path: new TextDecoder().decode(end < 0 ? path : path.subarray(0, end)) };
}

const library = fromLibc(load);
