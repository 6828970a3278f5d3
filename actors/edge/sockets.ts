/** Listening sockets of Deno's. */
import { assert } from "../../storage/base/assert.ts";
import { socketPathBytesMax } from "../limits.ts";
import { UserError } from "../../storage/base/errors.ts";
import type { Address } from "../kernel/address.ts";
import type { Connected } from "../nbd/messages.ts";
import { listenPrivately } from "./private_socket.ts";
import { missingForPath, missingForPort, requireNoneMissing } from "./socket_permission.ts";
import type { AcceptPort, LogPort } from "../nbd/socket_port.ts";
import { AcceptLoop } from "./accept_loop.ts";
import { ClientSocket } from "./client_socket.ts";
import { localPeer, type Peer, remotePeer } from "./peer.ts";
import { DirectSocket } from "./direct_socket.ts";
import { type ListenAddress, nbdUrl } from "./listen_address.ts";
import type { SocketGroup } from "./socket_group.ts";
import type { TlsKeys } from "./tls_keys.ts";

/** A place where clients arrive, from the edge's side. */
export interface Listening extends AcceptPort {
  /** For clients. */
  readonly url: string;
  /** Where it is bound, if that is known: the port is the real one. */
  readonly address: ListenAddress | undefined;
  /** Tells `listener` about each client from now on. */
  start(group: SocketGroup, listener: Address<Connected>, log?: LogPort): void;
  /** After `stop`, resolves when the address is free. */
  readonly released: Promise<void>;
  /** For a kernel that has stopped, so that no connection closes its socket: closes the clients' sockets too. */
  closeAll(): void;
}

/** A bound socket. It takes clients from `start` to `stop`. */
export class ListeningSocket implements Listening {
  /** Where it is bound: the port is the real one. */
  readonly address: ListenAddress;
  readonly #listener: Deno.Listener;
  readonly #keys: TlsKeys | undefined;
  /** The uid of the only volume that is served here. */
  readonly #only: string | undefined;
  readonly #clients = new Set<ClientSocket>();
  #isStopped = false;
  #accepts: AcceptLoop<Deno.Conn> | undefined;

  private constructor(
    address: ListenAddress,
    listener: Deno.Listener,
    { keys, only }: { readonly keys?: TlsKeys | undefined; readonly only?: string },
  ) {
    this.address = address;
    this.#keys = keys;
    this.#only = only;
    this.#listener = listener;
  }

  /** Binds a Unix socket that serves one volume, in clear text. Throws `UserError` if it cannot be bound. */
  static async openPrivate(path: string, uid: string): Promise<ListeningSocket> {
    return new ListeningSocket({ transport: "unix", path }, await listenOnPath(path), { only: uid });
  }

  /** Binds. A Unix socket on which no server answers is replaced. Throws `UserError` if it cannot be bound. */
  static async open(address: ListenAddress, keys?: TlsKeys): Promise<ListeningSocket> {
    if (address.transport === "unix") {
      return new ListeningSocket(address, await listenOnPath(address.path), { keys });
    }
    try {
      requireNoneMissing(
        `Cannot listen on ${nbdUrl(address)}`,
        missingForPort(address.hostname, address.port),
      );
      const listener = Deno.listen({ hostname: address.hostname, port: address.port });
      const { hostname, port } = listener.addr as Deno.NetAddr;
      return new ListeningSocket({ transport: "tcp", hostname, port }, listener, { keys });
    } catch (error) {
      throw cannotListen(nbdUrl(address), error);
    }
  }

  get url(): string {
    return nbdUrl(this.address, this.#keys?.policy);
  }

  start(group: SocketGroup, listener: Address<Connected>, log: LogPort = () => {}): void {
    if (this.#isStopped) return;
    assert(this.#accepts === undefined, "a socket begins to take clients once");
    this.#accepts = new AcceptLoop(this.#listener, `clients of ${this.url}`, log, (conn) => {
      const client = this.#clientOf(group, conn);
      this.#clients.add(client);
      group.kernel.post(listener, { type: "connected", socket: client });
    });
  }

  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    // Deno then removes the file of a Unix socket, after the accept under way has ended.
    if (this.#accepts === undefined) this.#listener.close();
    else this.#accepts.stop();
  }

  /** Binding the same path before that would lose the new file. */
  get released(): Promise<void> {
    return this.#accepts?.ended ?? Promise.resolve();
  }

  closeAll(): void {
    this.stop();
    for (const client of this.#clients) client.close();
  }

  /** Must be called before the next connection is accepted: DirectSocket finds the last one. */
  #clientOf(group: SocketGroup, conn: Deno.Conn): ClientSocket {
    const direct = DirectSocket.of(conn, group.known);
    if (this.address.transport === "tcp") setOptions(conn as Deno.TcpConn);
    const client: ClientSocket = new ClientSocket(
      group,
      conn,
      this.#peerOf(conn),
      this.#keys,
      () => this.#forget(client),
      direct,
    );
    return client;
  }

  #forget(client: ClientSocket): void {
    const wasThere = this.#clients.delete(client);
    assert(wasThere, "a client leaves that was not there");
  }

  #peerOf(conn: Deno.Conn): Peer {
    if (this.address.transport === "unix") return localPeer(this.address.path, this.#only);
    const { hostname, port } = conn.remoteAddr as Deno.NetAddr;
    return remotePeer(hostname, port);
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

async function listenOnPath(path: string): Promise<Deno.Listener> {
  if (new TextEncoder().encode(path).length > socketPathBytesMax) {
    throw new UserError(
      `Cannot listen on the socket ${path}: its path is longer than ${socketPathBytesMax} bytes. Choose a shorter one.`,
    );
  }
  requireNoneMissing(`Cannot listen on the socket ${path}`, missingForPath(path));
  try {
    return listenPrivately(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.AddrInUse)) throw cannotListen(`the socket ${path}`, error);
  }
  if (!Deno.lstatSync(path).isSocket) {
    throw new UserError(
      `Cannot listen on the socket ${path}: a file of that name exists. Choose another path.`,
    );
  }
  if (await answers(path)) {
    throw new UserError(
      `Cannot listen on the socket ${path}: another server answers on it. Stop that one first.`,
    );
  }
  try {
    Deno.removeSync(path);
    return listenPrivately(path);
  } catch (error) {
    throw cannotListen(`the socket ${path}`, error);
  }
}

/** Whether a server listens on the socket. True also if there is no permission to connect. */
async function answers(path: string): Promise<boolean> {
  try {
    (await Deno.connect({ transport: "unix", path })).close();
    return true;
  } catch (error) {
    return !(error instanceof Deno.errors.ConnectionRefused || error instanceof Deno.errors.NotFound);
  }
}

function cannotListen(where: string, error: unknown): UserError {
  if (error instanceof UserError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new UserError(`Cannot listen on ${where}: ${reason}. Choose another address with --listen.`);
}
