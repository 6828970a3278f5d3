/**
 * Listening sockets that the process was started with, as systemd does it (sd_listen_fds): descriptors from 3 on, bound by the
 * parent. Deno's own `listen` takes no descriptor; node:net does, without a permission.
 */
import { createServer, type Server, type Socket } from "node:net";
import { assert, present } from "../../storage/base/assert.ts";
import { UserError } from "../../storage/base/errors.ts";
import type { Address } from "../kernel/address.ts";
import type { Connected } from "../nbd/messages.ts";
import { NodeStream } from "./byte_stream.ts";
import { ClientSocket } from "./client_socket.ts";
import { localPeer, type Peer, remotePeer } from "./peer.ts";
import type { LogPort } from "../nbd/socket_port.ts";
import { areSameSocket, areSparesComplete, closeDuplicate, duplicate, isReadable } from "./descriptors.ts";
import { DirectSocket } from "./direct_socket.ts";
import { openLibc } from "./libc.ts";
import { type ListenAddress, nbdUrl } from "./listen_address.ts";
import type { SocketGroup } from "./socket_group.ts";
import type { Listening } from "./sockets.ts";
import type { TlsKeys } from "./tls_keys.ts";
import { acceptLookMs } from "../knobs.ts";

function newServer(): Server {
  return createServer({ pauseOnConnect: true, allowHalfOpen: true, noDelay: true, keepAlive: true });
}

/**
 * Has a server accept on another descriptor of the socket `fd`. If the server cannot, the descriptor is closed, unless the
 * server has closed it already: its number may then be another file's.
 */
export function listenAgain(server: Server, fd: number): void {
  const again = duplicate(fd);
  if (again === undefined) return;
  server.once("error", () => {
    if (!server.listening && areSameSocket(fd, again)) closeDuplicate(again);
  });
  server.listen({ fd: again });
}

/** One of them. Its path or port stays bound after `stop`, and a path stays in the file system: both are the parent's. */
export class InheritedSocket implements Listening {
  readonly url: string;
  readonly address: ListenAddress | undefined;
  #server: Server;
  /** Another descriptor of the socket, to see whether clients wait, and to accept again. None without the C library. */
  readonly #own: number | undefined;
  readonly #keys: TlsKeys | undefined;
  readonly #local: Peer;
  readonly #clients = new Set<ClientSocket>();
  readonly #released = Promise.withResolvers<void>();
  #isStopped = false;
  #watch: ReturnType<typeof setInterval> | undefined;
  #hasArrived = false;
  #looksInVain = 0;
  #hasBegunAgain = false;
  /** Clients that came before `start`. */
  #waiting: Socket[] = [];
  #arrived: (client: Socket) => void = (client) => this.#waiting.push(client);

  private constructor(
    server: Server,
    fd: number,
    address: ListenAddress | undefined,
    keys: TlsKeys | undefined,
  ) {
    this.#server = server;
    this.#own = duplicate(fd);
    this.#keys = keys;
    this.address = address;
    // Without the path, the URL says at least the scheme.
    this.url = nbdUrl(address ?? { transport: "unix", path: "" }, keys?.policy);
    this.#local = localPeer(address?.transport === "unix" ? address.path : undefined);
    this.#hear(server);
  }

  /** An error event without a handler would end the process. */
  #hear(server: Server): void {
    server.on("error", () => {});
    server.on("connection", (client: Socket) => {
      this.#hasArrived = true;
      this.#arrived(client);
    });
  }

  /** Takes clients of the descriptor. Throws `UserError` if it is no listening stream socket. */
  static async open(fd: number, keys?: TlsKeys): Promise<InheritedSocket> {
    const server = newServer();
    try {
      await new Promise<void>((resolve, reject) => {
        server.once("error", reject);
        server.listen({ fd }, resolve);
      });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new UserError(
        `Cannot take clients from descriptor ${fd}, which LISTEN_FDS promises: ${reason}. Pass listening TCP or Unix sockets.`,
      );
    }
    const bound = server.address();
    if (bound !== null && typeof bound === "object") {
      return new InheritedSocket(
        server,
        fd,
        { transport: "tcp", hostname: bound.address, port: bound.port },
        keys,
      );
    }
    const path = openLibc()?.socketPath(fd);
    return new InheritedSocket(
      server,
      fd,
      path === undefined ? undefined : { transport: "unix", path },
      keys,
    );
  }

  get released(): Promise<void> {
    return this.#released.promise;
  }

  start(group: SocketGroup, listener: Address<Connected>, log: LogPort = () => {}): void {
    if (this.#own !== undefined) this.#watch = setInterval(() => this.#look(log), acceptLookMs);
    this.#arrived = (client) => {
      const { remoteAddress, remotePort, localAddress, localPort } = client;
      // A TCP client that has reset its connection has no address any more. It must not get a place of a local client.
      if (remoteAddress === undefined && this.address?.transport === "tcp") return void client.destroy();
      const peer = remoteAddress === undefined ? this.#local : remotePeer(remoteAddress, remotePort);
      const forget = () => {
        const wasThere = this.#clients.delete(socket);
        assert(wasThere, "a client leaves that was not there");
      };
      const tcp = (hostname = "", port = 0) => ({ transport: "tcp", hostname, port } as const);
      const link = remoteAddress === undefined ? undefined : DirectSocket.of({
        localAddr: tcp(localAddress, localPort),
        remoteAddr: tcp(remoteAddress, remotePort),
      }, group.known);
      const stream = new NodeStream(client);
      const socket = new ClientSocket(group, stream, peer, this.#keys, forget, undefined, link);
      this.#clients.add(socket);
      group.kernel.post(listener, { type: "connected", socket });
    };
    for (const client of this.#waiting.splice(0)) this.#arrived(client);
  }

  /**
   * In Deno 2.9.6, node:net accepts no client any more once accepting has failed for want of descriptors, and reports no error.
   * The sign is that a client waits from one look to the next and none arrives. Then another server accepts on the socket.
   */
  #look(log: LogPort): void {
    const own = present(this.#own, "looked at a socket without a descriptor");
    const waits = isReadable(own) && !this.#hasArrived;
    this.#hasArrived = false;
    if (!waits) this.#looksInVain = 0;
    else this.#looksInVain += 1;
    if (this.#looksInVain === 0) this.#hasBegunAgain = false;
    if (this.#looksInVain < 2 || !areSparesComplete()) return;
    if (!this.#hasBegunAgain) {
      log(
        `Clients of ${this.url} were not accepted: the process or the host had no descriptor left. ` +
          "Accepting begins again. If it lasts, raise the limit of open files (ulimit -n).",
      );
    }
    this.#hasBegunAgain = true;
    this.#looksInVain = 0;
    this.#server.close();
    this.#server = newServer();
    this.#hear(this.#server);
    listenAgain(this.#server, own);
  }

  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    clearInterval(this.#watch);
    if (this.#own !== undefined) closeDuplicate(this.#own);
    for (const client of this.#waiting.splice(0)) client.destroy();
    this.#server.close(() => this.#released.resolve());
  }

  closeAll(): void {
    this.stop();
    for (const client of this.#clients) client.close();
  }
}
