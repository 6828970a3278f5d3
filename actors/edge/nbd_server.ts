/** The pool's side of serving (border.ts): the listening sockets of one server, and the NBD listener behind them. */
import { resolve } from "node:path";
import { assert } from "../../storage/base/assert.ts";
import { UserError } from "../../storage/base/errors.ts";
import type { AdminResult, ServerCommand } from "../control/admin_command.ts";
import { heldVolumesMax, ownDescriptors } from "../limits.ts";
import { mailboxes } from "../mailboxes.ts";
import { clientCommand } from "../nbd/client_commands.ts";
import { NbdListener, NbdListenerStub } from "../nbd/listener.ts";
import type { ListenSettings } from "./border.ts";
import { SpareDescriptors } from "./descriptors.ts";
import { exposureOf } from "./exposure.ts";
import { type ListenAddress, parseListenAddress } from "./listen_address.ts";
import type { PoolProcess } from "./pool_process.ts";
import type { SocketHost } from "./socket_host.ts";
import { type Listening, ListeningSocket } from "./sockets.ts";
import { ReplaceableTlsKeys, type TlsKeys } from "./tls_keys.ts";

/** The port that NBD has from IANA. */
const defaultAddress: ListenAddress = { transport: "tcp", hostname: "127.0.0.1", port: 10809 };

/** Throws {@linkcode UserError} if an address cannot be bound. `nbd.sock` in the pool is not tried, as it needs the directory. */
export async function tryListen(settings: ListenSettings, host: SocketHost): Promise<void> {
  const tried: ListeningSocket[] = [];
  try {
    for (const address of addressesOf(settings)) {
      tried.push(await ListeningSocket.open(address, undefined, host));
    }
  } finally {
    for (const socket of tried) socket.stop();
  }
}

/** What a server has bound. */
interface BoundSockets {
  readonly sockets: Listening[];
  readonly spares: SpareDescriptors;
  readonly keys: ReplaceableTlsKeys | undefined;
}

/** One server: bound, then taking clients, then stopped. */
export class NbdServer {
  readonly #process: PoolProcess;
  readonly #clientsMax: number;
  readonly #bound: BoundSockets;
  /** Sockets that serve one volume each. */
  readonly #private = new Set<ListeningSocket>();
  #listener: NbdListenerStub | undefined;

  private constructor(process: PoolProcess, clientsMax: number, bound: BoundSockets) {
    this.#process = process;
    this.#clientsMax = clientsMax;
    this.#bound = bound;
  }

  /** Binds every address but `nbd.sock` in the pool. Throws {@linkcode UserError} with nothing bound. */
  static async bind(process: PoolProcess, settings: ListenSettings, clientsMax: number): Promise<NbdServer> {
    process.requireOpen();
    const { files, io: { sockets: host } } = process;
    const keys = settings.keys === undefined ? undefined : new ReplaceableTlsKeys(settings.keys);
    // Loaded now: when clients have taken all descriptors, no file can be opened.
    if (keys !== undefined && process.io.tls === undefined) await import("./tls.ts");
    const sockets: Listening[] = [];
    const spares = new SpareDescriptors(files.paths.directory, ownDescriptors);
    try {
      for (const fd of settings.inherited) sockets.push(await inherit(fd, keys, host));
      for (const address of addressesOf(settings)) {
        sockets.push(await ListeningSocket.open(address, keys, host));
      }
    } catch (error) {
      for (const socket of sockets) socket.closeAll();
      spares[Symbol.dispose]();
      throw error;
    }
    return new NbdServer(process, clientsMax, { sockets, spares, keys });
  }

  /** Binds `nbd.sock`, where that can be done, and takes clients from now on. Answers a URL for each address. */
  async accept(): Promise<readonly string[]> {
    assert(this.#listener === undefined, "a server begins to take clients once");
    const { kernel, pool, log, readOnly } = this.#process;
    const { sockets, keys } = this.#bound;
    const own = await openOwnSocket(this.#process, sockets, keys);
    if (own !== undefined) sockets.push(own);
    for (const { address } of sockets) {
      const warning = exposureOf(address, keys?.policy, readOnly);
      if (warning !== undefined) log(warning);
    }
    const peers = { pool: pool.address, accepts: sockets, log, clientsMax: this.#clientsMax };
    const address = kernel.spawn(
      "nbd listener",
      mailboxes.listener,
      (self) => new NbdListener(kernel, self, peers),
    );
    this.#listener = new NbdListenerStub(address);
    for (const socket of sockets) socket.start(this.#process.sockets, address, log);
    return sockets.map((socket) => socket.url);
  }

  /** Carries out a command about the clients. */
  command(command: ServerCommand): Promise<AdminResult> {
    if (this.#listener === undefined) {
      return Promise.resolve({ kind: "refused", reason: "The server is only starting. Try again." });
    }
    return this.#process.ask(command.verb, clientCommand(command, this.#listener, this.#process.pool));
  }

  /** Binds a socket that serves one volume, and takes clients there from now on. Throws {@linkcode UserError}. */
  async openPrivate(path: string, uid: string): Promise<ListeningSocket> {
    const listener = this.#listener;
    if (listener === undefined) throw new UserError("The server is only starting. Try again.");
    const socket = await ListeningSocket.openPrivate(path, uid, this.#process.io.sockets);
    assert(this.#private.size < heldVolumesMax, "more private sockets are open than volumes are held");
    this.#private.add(socket);
    socket.start(this.#process.sockets, listener.address, this.#process.log);
    return socket;
  }

  /** Closes such a socket. When it answers, the socket's file is gone. */
  async closePrivate(socket: ListeningSocket): Promise<void> {
    this.#private.delete(socket);
    socket.stop();
    await socket.released;
  }

  /** Connections to come use these; those that are there go on with theirs. */
  useCertificates(keys: TlsKeys): void {
    if (this.#bound.keys === undefined) return;
    this.#bound.keys.replace(keys);
    this.#process.log("The TLS certificates were read again; new connections use them.");
  }

  /** Takes no more clients, lets those that are there end, for a bounded time, and resolves when the addresses are free. */
  async stop(): Promise<void> {
    const { sockets, spares } = this.#bound;
    for (const socket of this.#private) await this.closePrivate(socket);
    if (this.#listener === undefined) { for (const socket of sockets) socket.closeAll(); }
    else await this.#process.ask("stop listening", this.#listener.stop());
    for (const socket of sockets) await socket.released;
    spares[Symbol.dispose]();
  }
}

/** Loaded where it is used: it brings all of node:net. */
async function inherit(fd: number, keys: TlsKeys | undefined, host: SocketHost): Promise<Listening> {
  if (host.inherit !== undefined) return ListeningSocket.adopt(host.inherit(fd), host, keys);
  const { InheritedSocket } = await import("./inherited_socket.ts");
  return await InheritedSocket.open(fd, keys);
}

/** The addresses besides inherited sockets. */
function addressesOf({ listen, inherited }: ListenSettings): readonly ListenAddress[] {
  return listen?.map(parseListenAddress) ?? (inherited.length > 0 ? [] : [defaultAddress]);
}

/**
 * Binds `nbd.sock` in the pool, which is there whatever else is listened on; undefined if one of `sockets` is it already, or
 * if it cannot be bound, which the log says.
 */
async function openOwnSocket(
  process: PoolProcess,
  sockets: readonly Listening[],
  keys: TlsKeys | undefined,
): Promise<ListeningSocket | undefined> {
  const path = resolve(process.files.paths.nbdSocket);
  const isBound = sockets.some(({ address }) =>
    address?.transport === "unix" && resolve(address.path) === path
  );
  if (isBound) return undefined;
  try {
    return await ListeningSocket.open({ transport: "unix", path }, keys, process.io.sockets);
  } catch (error) {
    // It was not asked for by name, so the other addresses are served without it.
    if (!(error instanceof UserError)) throw error;
    process.log(`${error.message} This one is left out.`);
    return undefined;
  }
}
