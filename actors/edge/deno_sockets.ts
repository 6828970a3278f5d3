/** Sockets by Deno's own calls, and, where the C library can be called, by the system's on what Deno has accepted. */
import { ClientSocket } from "./client_socket.ts";
import { DirectSocket } from "./direct_socket.ts";
import type { ListenAddress } from "./listen_address.ts";
import type { Peer } from "./peer.ts";
import type { AcceptedClient, BoundListener, NetName, SocketHost } from "./socket_host.ts";
import type { SocketGroup } from "./socket_group.ts";
import type { TlsKeys } from "./tls_keys.ts";
import { atMost } from "./turns.ts";

/** See the head of this file. */
export const denoSockets: SocketHost = {
  listenOnUnix: (path) =>
    new DenoListener(Deno.listen({ transport: "unix", path }), { transport: "unix", path }),
  listenOnTcp: ({ hostname, port }) => {
    const listener = Deno.listen({ hostname, port });
    const bound = listener.addr as Deno.NetAddr;
    return new DenoListener(listener, { transport: "tcp", hostname: bound.hostname, port: bound.port });
  },
  atMost,
};

class DenoListener implements BoundListener {
  readonly #listener: Deno.Listener;

  readonly address: ListenAddress;

  constructor(listener: Deno.Listener, address: ListenAddress) {
    this.#listener = listener;
    this.address = address;
  }

  async accept(): Promise<AcceptedClient> {
    return new DenoClient(await this.#listener.accept(), this.address);
  }

  /** Deno also removes the file of a Unix socket, after the accept under way has ended. */
  close(): void {
    this.#listener.close();
  }
}

class DenoClient implements AcceptedClient {
  readonly remote: NetName | undefined;
  readonly #conn: Deno.Conn;

  constructor(conn: Deno.Conn, { transport }: ListenAddress) {
    this.#conn = conn;
    this.remote = transport === "tcp" ? conn.remoteAddr as Deno.NetAddr : undefined;
  }

  close(): void {
    this.#conn.close();
  }

  /** Must be called before the next connection is accepted: DirectSocket finds the last one. */
  socketOf(group: SocketGroup, peer: Peer, keys: TlsKeys | undefined, forget: () => void): ClientSocket {
    const direct = DirectSocket.of(this.#conn, group.known);
    if (this.remote !== undefined) setOptions(this.#conn as Deno.TcpConn);
    return new ClientSocket(group, this.#conn, peer, keys, forget, direct);
  }
}

function setOptions(conn: Deno.TcpConn): void {
  try {
    conn.setNoDelay();
    conn.setKeepAlive();
  } catch {
    // The connection is lost already; the next read says so.
  }
}
