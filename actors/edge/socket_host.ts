/** What binds sockets and accepts clients: Deno (deno_sockets.ts), or the ring (ring/ring_sockets.ts). */
import type { SocketPort } from "../nbd/socket_port.ts";
import type { AcceptedConn, AcceptListener } from "./accept_loop.ts";
import type { ListenAddress } from "./listen_address.ts";
import type { Peer } from "./peer.ts";
import type { SocketGroup } from "./socket_group.ts";
import type { TlsKeys } from "./tls_keys.ts";

/** Where a TCP socket is bound, or connected to. */
export interface NetName {
  readonly hostname: string;
  readonly port: number;
}

/** A client that was accepted. */
export interface AcceptedClient extends AcceptedConn {
  /** Of a TCP client; undefined for a local one. */
  readonly remote: NetName | undefined;
  /**
   * The socket of its connection. Called once, before the next client is accepted.
   * @param forget called when the socket is closed
   */
  socketOf(group: SocketGroup, peer: Peer, keys: TlsKeys | undefined, forget: () => void): SocketPort;
}

/** A socket that listens. */
export interface BoundListener extends AcceptListener<AcceptedClient> {
  /** Where it is bound: the port is the real one. Undefined if that has no name. */
  readonly address: ListenAddress | undefined;
}

/** See the head of this file. */
export interface SocketHost {
  /** Binds a Unix socket, as `Deno.listen`: throws Deno.errors.AddrInUse if there is a file of that name. */
  listenOnUnix(path: string): BoundListener;
  /** Binds a TCP socket. Throws with a reason. */
  listenOnTcp(address: NetName): BoundListener;
  /** Takes clients of a descriptor that listens already, and stays its owner's. Throws {@linkcode UserError} if it does not. */
  inherit?(fd: number): BoundListener;
  /** Resolves with the promise, which never rejects, or after so many milliseconds. */
  atMost(ms: number, promise: Promise<void>): Promise<void>;
}
