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
  /** The name of the other end for the log, with the name in its certificate once that is verified. */
  readonly peer: string;
  /** The host of the client, or the name in its certificate once that is verified; undefined for a local client. See nbd/places.ts. */
  readonly identity: string | undefined;
  /** The uid of the only volume that is served where the client came; undefined: all are. */
  readonly only?: string | undefined;
  /** Whether `startTls` may be called, and whether it has to be. */
  readonly tls: TlsPolicy;
  /** Bytes sent since the beginning, also of a send that is under way: whether the client takes any. */
  readonly sentBytes: number;
  /** Bytes of the send that is under way, 0 if none is. */
  readonly sendingBytes: number;
  /**
   * Copies what has not been sent into pieces of `loanPieceBytes`, and keeps each until it is sent: the memory given to `send`
   * is free then. False if that is not possible yet: the caller tries again later. Only the first call copies.
   */
  shrink(): boolean;
  /** Milliseconds since the client's host should have acknowledged something and did not; 0 if that is not known. */
  readonly silentMs: number;
  /** Whether the client has ended its side, though nothing is read; false if that is not known. */
  readonly hasHungUp: boolean;
  /** Begins. All notices of the socket go to `owner`. */
  open(owner: Address<SocketNotice>): void;
  /**
   * Asks for one `received` or `ended`. The buffer belongs to the socket until then, or until `closed`.
   * @param isInStep the client sends one request and waits for its reply: the next one comes right after that
   */
  read(buffer: Uint8Array, isInStep: boolean): void;
  /** The same for the rest of a payload. Waits for as many bytes as come without a pause. */
  readRest(buffer: Uint8Array): void;
  /** Whether `send` takes mapped segments of a device. */
  readonly takesSegments: boolean;
  /**
   * Sends the pieces in order, then tells `sent`. They must stay unchanged until then, or until `closed`. Mapped segments are
   * sent or copied before the call returns; copies lie in `memory` if it is given.
   */
  send(pieces: readonly Piece[], memory?: CopyMemory): void;
  /**
   * Begins TLS as the server, then tells `secured`, or `closed` with the reason. Called once, with nothing under way. All bytes
   * that were not read before must be TLS, or the stream breaks.
   */
  startTls(): void;
  /** Ends both directions at once; tells `closed` when nothing is under way any more. May be repeated. */
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

/** The last notice of every socket, told once: after `close`, or with a reason if the stream broke. */
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

/** Takes a sentence for the operator of the server. */
export type LogPort = (sentence: string) => void;
