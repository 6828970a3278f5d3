/**
 * What a connection asks of its socket, and what the socket tells it. The real one is in edge/client_socket.ts; tests
 * have simulated ones.
 */
import type { CopyMemory, Piece } from "./wire/pieces.ts";
import type { Address, Message } from "../kernel/address.ts";

/** What an address says about TLS: never, if the client asks for it, or before anything else. */
export type TlsPolicy = "off" | "allow" | "require";

/** One client's stream of bytes. At most one read and one send are under way at a time. */
export interface SocketPort {
  /** Who is at the other end, for the log; with the name in its certificate once that was verified. */
  readonly peer: string;
  /** The host it comes from, or what its certificate says once that was verified; undefined for a local one. See nbd/places.ts. */
  readonly origin: string | undefined;
  /** Whether `startTls` may be called, and whether it has to be. */
  readonly tls: TlsPolicy;
  /** Bytes sent since the beginning, also of a send that is under way: whether the client takes any. */
  readonly sentBytes: number;
  /** Bytes of the send that is under way, 0 if none is. */
  readonly sendingBytes: number;
  /**
   * Keeps what has not been sent in pieces of its own of `loanPieceBytes`, and each of them for as long as it is unsent:
   * what was given to `send` is free. False if that cannot be yet; it is tried again then. Costs a copy the first time.
   */
  shrink(): boolean;
  /** Milliseconds for which the client's host should have acknowledged something and has not; 0 where that is not known. */
  readonly silentMs: number;
  /** Begins: everything the socket has to tell goes to `owner`. */
  open(owner: Address<SocketNotice>): void;
  /**
   * Asks for one `received` or `ended`. The buffer belongs to the socket until then, or until `closed`.
   * @param isInStep the client sends one request and waits for its reply: the next one comes right after that
   */
  read(buffer: Uint8Array, isInStep: boolean): void;
  /** The same for the rest of a payload that is being sent, of which as much is waited for as comes without a pause. */
  readRest(buffer: Uint8Array): void;
  /** Whether `send` may be given views of a device. */
  readonly takesSegments: boolean;
  /**
   * Sends the pieces in order, then tells `sent`. They stay untouched until then, or until `closed`. Views are sent
   * or copied in the call, into `memory` if there is one.
   */
  send(pieces: readonly Piece[], memory?: CopyMemory): void;
  /**
   * Goes on in TLS, as the server: told `secured`, or `closed` with the reason. Once, with nothing under way. What the
   * client sends from now on, and what it has sent that was not read, is TLS or breaks the stream.
   */
  startTls(): void;
  /** Ends both directions at once; told `closed` when nothing is under way any more. May be repeated. */
  close(): void;
}

/** The bytes asked for: a part of the buffer given to `read`, at least one byte. */
export interface Received extends Message {
  readonly type: "received";
  readonly bytes: Uint8Array;
}

/** The client will send nothing more; it may still read. */
export interface Ended extends Message {
  readonly type: "ended";
}

/** The pieces are on their way. */
export interface Sent extends Message {
  readonly type: "sent";
}

/** The stream is encrypted from here on. */
export interface Secured extends Message {
  readonly type: "secured";
}

/** The last word of every socket, said once: after `close`, or with a reason if the stream broke. */
export interface Closed extends Message {
  readonly type: "closed";
  readonly reason?: string;
}

/** What a socket tells its connection. */
export type SocketNotice = Received | Ended | Sent | Secured | Closed;

/** A place where clients arrive, from the listener's side. */
export interface AcceptPort {
  /** Takes no new clients any more. */
  stop(): void;
}

/** A sentence for whoever runs the server. */
export type LogPort = (sentence: string) => void;
