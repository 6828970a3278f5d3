/** The messages between the NBD listener, its connections and the edge; the actors are in nbd/listener.ts and nbd/connection.ts. */
import type { ClientRequest } from "./client_request.ts";
import type { RequestParked, RequestsDone } from "../volume/bio.ts";
import type { StatusDone } from "../volume/block_status.ts";
import type { Address, Message, Request } from "../kernel/address.ts";
import type { PoolNotice } from "../control/export_messages.ts";
import type { SocketNotice, SocketPort } from "./socket_port.ts";

/** From the edge: a client has arrived. */
export interface Connected extends Message {
  readonly type: "connected";
  readonly socket: SocketPort;
}

/** From a connection: lend it payload bytes above its own; answered by `lent` when it is its turn. */
export interface Borrow extends Message {
  readonly type: "borrow";
  readonly connection: Address<NbdConnectionMessage>;
  readonly bytes: number;
}

/** From a connection: lent bytes are free again, with buffers of at most as much memory for the next loan. */
export interface GiveBackLoan extends Message {
  readonly type: "giveBack";
  readonly connection: Address<NbdConnectionMessage>;
  readonly bytes: number;
  readonly buffers: readonly Uint8Array[];
}

/** From a connection: a WRITE that lent bytes pay for waits for space. If it may not, `mayNotWait` comes. */
export interface LoanWaits extends Message {
  readonly type: "loanWaits";
  readonly connection: Address<NbdConnectionMessage>;
  readonly request: ClientRequest;
}

/** From a connection: that WRITE is done. Its bytes have been given back. */
export interface LoanWaitEnded extends Message {
  readonly type: "loanWaitEnded";
  readonly connection: Address<NbdConnectionMessage>;
  readonly bytes: number;
}

/** From a connection: it is done, and gives back its loans. Answered by `left`, the last message to it. */
export interface Leave extends Message {
  readonly type: "leave";
  readonly connection: Address<NbdConnectionMessage>;
}

/** From a connection: its client is attached, and no longer makes room for others. */
export interface ClientAttached extends Message {
  readonly type: "attached";
  readonly connection: Address<NbdConnectionMessage>;
  /** Of the volume. */
  readonly uid: string;
}

/** Which clients are there? */
export interface ListClients extends Request<readonly ClientFacts[]> {
  readonly type: "listClients";
}

/** One client, as the listener knows it. */
export interface ClientFacts {
  readonly id: number;
  readonly peer: string;
  /** See nbd/places.ts. */
  readonly identity: string | undefined;
  /** Of the volume that it is attached to. */
  readonly uid: string | undefined;
  /** RFC 3339, UTC. */
  readonly since: string;
}

/** Close this client's connection, and refuse its identity for `refuseMs` if that is above 0. Answered when it has left. */
export interface KickClient extends Request<KickResult> {
  readonly type: "kick";
  readonly client: number;
  readonly refuseMs: number;
}

/** `local`: it has no identity that could be refused; `full`: too many are refused. Nothing was done but with `left`. */
export interface KickResult {
  readonly kind: "left" | "noClient" | "local" | "full" | "stopping";
}

/** From a connection: its client has shown a certificate, by which it is counted from now on. */
export interface Identified extends Message {
  readonly type: "identified";
  readonly connection: Address<NbdConnectionMessage>;
  readonly identity: string;
}

/** Take no new clients and let those that are there finish. Answered when they have, or after the deadline. */
export interface StopListening extends Request<"stopped"> {
  readonly type: "stop";
}

/** From the listener to itself: see whether the memory that was given back is wanted any more. */
export interface SpareCheck extends Message {
  readonly type: "spareCheck";
}

/** From the listener to itself: see whether the hosts of TCP clients are there. */
export interface LinkCheck extends Message {
  readonly type: "linkCheck";
}

/** From the listener to itself: clients have had their time to finish. */
export interface DrainDeadline extends Message {
  readonly type: "drainDeadline";
}

export type NbdListenerMessage =
  | Connected
  | ClientAttached
  | Identified
  | Borrow
  | GiveBackLoan
  | LoanWaits
  | LoanWaitEnded
  | Leave
  | ListClients
  | KickClient
  | StopListening
  | SpareCheck
  | LinkCheck
  | DrainDeadline;

/** From the listener, once: open the socket and greet the client. */
export interface Begin extends Message {
  readonly type: "begin";
}

/** From the listener: the bytes asked for; and a buffer of that size, content unspecified, if one is spare. */
export interface Lent extends Message {
  readonly type: "lent";
  readonly bytes: number;
  readonly buffer: Uint8Array | undefined;
}

/** From the listener: no other actor knows this connection any more. */
export interface Left extends Message {
  readonly type: "left";
}

/** From the listener: the server is stopping; finish what is in flight and close. */
export interface Drain extends Message {
  readonly type: "drain";
}

/** From the listener: another client waits for this one's place; close the socket, unless it is attached. */
export interface MakeRoom extends Message {
  readonly type: "makeRoom";
}

/** From the listener: the operator wants this client's connection closed. */
export interface Kicked extends Message {
  readonly type: "kicked";
}

/** From the listener: the client's host has not answered for so long that it is gone. */
export interface Silent extends Message {
  readonly type: "silent";
}

/** From the listener: close the socket now. */
export interface Abort extends Message {
  readonly type: "abort";
}

/** From the connection to itself: this drain of the kernel ends, so no more replies will join those that are queued. */
export interface Drained extends Message {
  readonly type: "drained";
}

/** From the connection to itself: the client has had its time to attach. */
export interface HandshakeDeadline extends Message {
  readonly type: "handshakeDeadline";
}

/** From the connection to itself: the client has had its time for the handshake of TLS. */
export interface TlsDeadline extends Message {
  readonly type: "tlsDeadline";
}

/** From the connection to itself: see whether the client takes what is sent. */
export interface StallCheck extends Message {
  readonly type: "stallCheck";
}

/** From the listener: other clients wait for what this one has borrowed, or do not any more. */
export interface Wanted extends Message {
  readonly type: "wanted";
  readonly isWanted: boolean;
}

/** From the listener: too many borrowed bytes wait for space, so this WRITE of the client is to fail. */
export interface MayNotWait extends Message {
  readonly type: "mayNotWait";
  readonly request: ClientRequest;
}

/** From the connection to itself: give back what was lent and has been sent, and see whether the client is too slow. */
export interface LoanCheck extends Message {
  readonly type: "loanCheck";
}

/** From the connection to itself: nothing is read from the client; see whether it is still there. */
export interface HangUpCheck extends Message {
  readonly type: "hangUpCheck";
}

export type NbdConnectionMessage =
  | Begin
  | SocketNotice
  | PoolNotice
  | RequestsDone
  | RequestParked
  | StatusDone
  | Lent
  | Left
  | Drain
  | MakeRoom
  | Kicked
  | Silent
  | Abort
  | Drained
  | HandshakeDeadline
  | TlsDeadline
  | StallCheck
  | Wanted
  | MayNotWait
  | LoanCheck
  | HangUpCheck;
