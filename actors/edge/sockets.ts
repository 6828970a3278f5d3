/** Listening sockets, whatever binds them and accepts (socket_host.ts). */
import { assert } from "../../storage/base/assert.ts";
import { socketPathBytesMax } from "../limits.ts";
import { UserError } from "../../storage/base/errors.ts";
import type { Address } from "../kernel/address.ts";
import type { Connected } from "../nbd/messages.ts";
import { denoSockets } from "./deno_sockets.ts";
import { boundPrivately } from "./private_socket.ts";
import { missingForPath, missingForPort, requireNoneMissing } from "./socket_permission.ts";
import type { AcceptPort, LogPort, SocketPort } from "../nbd/socket_port.ts";
import { AcceptLoop } from "./accept_loop.ts";
import { localPeer, type Peer, remotePeer } from "./peer.ts";
import { type ListenAddress, nbdUrl } from "./listen_address.ts";
import type { AcceptedClient, BoundListener, SocketHost } from "./socket_host.ts";
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
  readonly address: ListenAddress | undefined;
  readonly #host: SocketHost;
  readonly #listener: BoundListener;
  readonly #keys: TlsKeys | undefined;
  /** The uid of the only volume that is served here. */
  readonly #only: string | undefined;
  readonly #clients = new Set<SocketPort>();
  #isStopped = false;
  #accepts: AcceptLoop<AcceptedClient> | undefined;

  private constructor(
    host: SocketHost,
    listener: BoundListener,
    { keys, only }: { readonly keys?: TlsKeys | undefined; readonly only?: string },
  ) {
    this.address = listener.address;
    this.#host = host;
    this.#keys = keys;
    this.#only = only;
    this.#listener = listener;
  }

  /** Binds a Unix socket that serves one volume, in clear text. Throws `UserError` if it cannot be bound. */
  static async openPrivate(path: string, uid: string, host = denoSockets): Promise<ListeningSocket> {
    return new ListeningSocket(host, await listenOnPath(host, path), { only: uid });
  }

  /** Binds. A Unix socket on which no server answers is replaced. Throws `UserError` if it cannot be bound. */
  static async open(address: ListenAddress, keys?: TlsKeys, host = denoSockets): Promise<ListeningSocket> {
    if (address.transport === "unix") {
      return new ListeningSocket(host, await listenOnPath(host, address.path), { keys });
    }
    try {
      requireNoneMissing(
        `Cannot listen on ${nbdUrl(address)}`,
        missingForPort(address.hostname, address.port),
      );
      return new ListeningSocket(host, host.listenOnTcp(address), { keys });
    } catch (error) {
      throw cannotListen(nbdUrl(address), error);
    }
  }

  /** A socket that the process was started with, and that listens already. */
  static adopt(listener: BoundListener, host: SocketHost, keys?: TlsKeys): ListeningSocket {
    return new ListeningSocket(host, listener, { keys });
  }

  get url(): string {
    // Without the path, the URL says at least the scheme.
    return nbdUrl(this.address ?? { transport: "unix", path: "" }, this.#keys?.policy);
  }

  start(group: SocketGroup, listener: Address<Connected>, log: LogPort = () => {}): void {
    if (this.#isStopped) return;
    assert(this.#accepts === undefined, "a socket begins to take clients once");
    const arrived = (client: AcceptedClient) => {
      const forget = () => {
        const wasThere = this.#clients.delete(socket);
        assert(wasThere, "a client leaves that was not there");
      };
      const socket = client.socketOf(group, this.#peerOf(client), this.#keys, forget);
      this.#clients.add(socket);
      group.kernel.post(listener, { type: "connected", socket });
    };
    this.#accepts = new AcceptLoop(
      this.#listener,
      `clients of ${this.url}`,
      log,
      arrived,
      (ms, promise) => this.#host.atMost(ms, promise),
    );
  }

  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    // This also removes the file of a Unix socket, after the accept under way has ended.
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

  #peerOf({ remote }: AcceptedClient): Peer {
    if (remote !== undefined) return remotePeer(remote.hostname, remote.port);
    return localPeer(this.address?.transport === "unix" ? this.address.path : undefined, this.#only);
  }
}

async function listenOnPath(host: SocketHost, path: string): Promise<BoundListener> {
  const bind = () => boundPrivately(path, () => host.listenOnUnix(path));
  if (new TextEncoder().encode(path).length > socketPathBytesMax) {
    throw new UserError(
      `Cannot listen on the socket ${path}: its path is longer than ${socketPathBytesMax} bytes. Choose a shorter one.`,
    );
  }
  requireNoneMissing(`Cannot listen on the socket ${path}`, missingForPath(path));
  try {
    return bind();
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
    return bind();
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
