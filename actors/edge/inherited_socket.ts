/**
 * Listening sockets that the process was started with, as systemd does it (sd_listen_fds): descriptors from 3 on, bound by
 * whoever started us. Deno's own `listen` takes none; node:net does, without a permission.
 */
import { createServer, type Server, type Socket } from "node:net";
import { UserError } from "../../storage/errors.ts";
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Connected } from "../nbd_messages.ts";
import { NodeStream } from "./byte_stream.ts";
import { ClientSocket, localPeer, type Peer, remotePeer } from "./client_socket.ts";
import { openLibc } from "./libc.ts";
import { type ListenAddress, type Listening, nbdUrl } from "./sockets.ts";
import type { TlsKeys } from "./tls_keys.ts";

/** One of them. Its path or port stays bound after `stop`, and a path stays in the file system: neither is ours. */
export class InheritedSocket implements Listening {
  readonly url: string;
  readonly address: ListenAddress | undefined;
  readonly #server: Server;
  readonly #keys: TlsKeys | undefined;
  readonly #local: Peer;
  readonly #clients = new Set<ClientSocket>();
  readonly #released = Promise.withResolvers<void>();
  #isStopped = false;
  /** Clients that came before `start`. */
  #waiting: Socket[] = [];
  #arrived: (client: Socket) => void = (client) => this.#waiting.push(client);

  private constructor(server: Server, address: ListenAddress | undefined, keys: TlsKeys | undefined) {
    this.#server = server;
    this.#keys = keys;
    this.address = address;
    // Without the path there is still a URL that says as much as is known.
    this.url = nbdUrl(address ?? { transport: "unix", path: "" }, keys?.policy);
    this.#local = localPeer(address?.transport === "unix" ? address.path : undefined);
    // Nothing that befalls one client ends the process. (In Deno 2.9.6, node:net takes nobody any more once the process had
    // no descriptor to spare, and does not say so. The cap on connections stays far below any usual limit.)
    server.on("error", () => {});
    server.on("connection", (client: Socket) => this.#arrived(client));
  }

  /** Takes clients of the descriptor. Throws `UserError` if it is no listening stream socket. */
  static async open(fd: number, keys?: TlsKeys): Promise<InheritedSocket> {
    const server = createServer({
      pauseOnConnect: true,
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
    });
    try {
      await new Promise<void>((resolve, reject) => {
        server.once("error", reject);
        server.listen({ fd }, resolve);
      });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new UserError(
        `Can not take clients from descriptor ${fd}, which LISTEN_FDS promises: ${reason}. Pass listening TCP or Unix sockets.`,
      );
    }
    const bound = server.address();
    if (bound !== null && typeof bound === "object") {
      return new InheritedSocket(
        server,
        { transport: "tcp", hostname: bound.address, port: bound.port },
        keys,
      );
    }
    const path = openLibc()?.socketPath(fd);
    return new InheritedSocket(server, path === undefined ? undefined : { transport: "unix", path }, keys);
  }

  get released(): Promise<void> {
    return this.#released.promise;
  }

  start(kernel: Kernel, listener: Address<Connected>): void {
    this.#arrived = (client) => {
      const { remoteAddress, remotePort } = client;
      const peer = remoteAddress === undefined ? this.#local : remotePeer(remoteAddress, remotePort);
      const forget = () => this.#clients.delete(socket);
      const socket = new ClientSocket(kernel, new NodeStream(client), peer, this.#keys, forget);
      this.#clients.add(socket);
      kernel.post(listener, { type: "connected", socket });
    };
    for (const client of this.#waiting.splice(0)) this.#arrived(client);
  }

  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    for (const client of this.#waiting.splice(0)) client.destroy();
    this.#server.close(() => this.#released.resolve());
  }

  closeAll(): void {
    this.stop();
    for (const client of this.#clients) client.close();
  }
}
