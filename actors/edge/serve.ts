/** Serving an open pool: its listening sockets, the NBD listener behind them, and the control socket. */
import { resolve } from "node:path";
import { UsageError, UserError } from "../../storage/base/errors.ts";
import {
  connectionsMax,
  controlConnectionsMax,
  controlConnectionsMin,
  controlDescriptorsShare,
  descriptorsPerClient,
  mailboxMax,
  maxClientsMost,
  ownDescriptors,
  residentBytesOf,
} from "../limits.ts";
import { formatSize } from "../../storage/base/sizes.ts";
import { NbdListener, NbdListenerStub } from "../nbd/listener.ts";
import { reasonOutside } from "../kernel/boundary.ts";
import { ControlServer } from "./control_server.ts";
import { DescriptorReserve, type DescriptorRoom, raisedDescriptorLimit } from "./descriptors.ts";
import { exposureOf } from "./exposure.ts";
import type { PoolProcess } from "./pool_process.ts";
import { listenPrivately } from "./private_socket.ts";
import { type ListenAddress, parseListenAddress } from "./listen_address.ts";
import { type Listening, ListeningSocket } from "./sockets.ts";
import { ServedPool } from "./served_pool.ts";
import { shortSocketPath, socketPathBytesMax } from "./socket_path.ts";
import { missingForPath, requireNoneMissing } from "./socket_permission.ts";
import { readTlsKeys, ReloadableTlsKeys, type TlsKeys, type TlsOptions } from "./tls_keys.ts";

/** How a pool is served. */
export interface ServeOptions {
  /** `tcp:HOST:PORT` (port 0: any) or `unix:PATH`; by default `tcp:127.0.0.1:10809`. `nbd.sock` in the pool comes last, always. */
  readonly listen?: readonly string[] | undefined;
  /** Descriptors of listening sockets that the process was started with. They too replace the default address. */
  readonly inherited?: readonly number[];
  /** TLS on every address; by default, none. */
  readonly tls?: TlsOptions | undefined;
  /** Whether other processes may give commands through `control.sock` in the pool; by default, if it is not read-only. */
  readonly control?: boolean;
  /** Clients at once, 1 to 1024, attached or not; 64 by default. Of TCP clients, and those of one host, it is a part. */
  readonly maxClients?: number | undefined;
}

/** Reads how many clients there may be at once, if it is said; throws {@linkcode UsageError}. */
export function parseMaxClients(text: string = String(connectionsMax)): number {
  const clients = Number(text);
  if (/^\d{1,9}$/.test(text) && clients >= 1 && clients <= maxClientsMost) return clients;
  throw new UsageError(`--max-clients takes a whole number from 1 to ${maxClientsMost}, not "${text}".`);
}

/** A pool that is being served. */
export interface PoolServer {
  /** A URL for each address, as `nbd://127.0.0.1:10809` or `nbd+unix:///?socket=PATH`; `nbds` where TLS is required. */
  readonly addresses: readonly string[];
  /**
   * Reads the TLS certificates again, for connections to come; those that are there go on with theirs. Certificates that
   * cannot be used change nothing. The log tells which it was. Does nothing without TLS.
   */
  reloadCertificates(): void;
  /** Takes no new clients, lets those that are there finish what is in flight, and closes. May be repeated. */
  stop(): Promise<void>;
}

/** The port that NBD has from IANA. */
const defaultAddress: ListenAddress = { transport: "tcp", hostname: "127.0.0.1", port: 10809 };

/**
 * Throws {@linkcode UserError} if an address cannot be bound or the certificates cannot be used: asked before a pool is
 * made, so that nothing is left behind. The default socket in the pool is not tried, as it needs the directory.
 */
export async function requireServable(options: ServeOptions): Promise<void> {
  if (options.tls !== undefined) readTlsKeys(options.tls);
  const tried: ListeningSocket[] = [];
  try {
    const addresses = namedAddresses(options) ?? [defaultAddress];
    for (const address of addresses) tried.push(await ListeningSocket.open(address));
  } finally {
    for (const socket of tried) socket.stop();
  }
}

/** Binds every address, then serves. Throws {@linkcode UserError} with nothing bound. */
export async function servePool(process: PoolProcess, options: ServeOptions = {}): Promise<PoolServer> {
  const { kernel, pool, files, log } = process;
  process.requireOpen();
  const keys = options.tls === undefined ? undefined : new ReloadableTlsKeys(options.tls);
  const { clientsMax, controlMax } = mostOf(process, options);
  // Loaded now: when clients have taken all descriptors, no file can be opened.
  if (keys !== undefined) await import("./tls.ts");
  const sockets: Listening[] = [];
  let control: ControlServer | undefined;
  const reserve = new DescriptorReserve(files.paths.directory, ownDescriptors);
  try {
    for (const fd of options.inherited ?? []) sockets.push(await inherit(fd, keys));
    for (const address of namedAddresses(options) ?? [defaultAddress]) {
      sockets.push(await ListeningSocket.open(address, keys));
    }
    const served = new ServedPool(process);
    if (options.control ?? !files.readOnly) control = openControl(process, served, controlMax);
    const own = await openOwnSocket(process, sockets, keys);
    if (own !== undefined) sockets.push(own);
    for (const { address } of sockets) {
      const warning = exposureOf(address, keys?.policy, files.readOnly);
      if (warning !== undefined) log(warning);
    }
    const peers = { pool: pool.address, accepts: sockets, log, clientsMax };
    const address = kernel.spawn("nbd listener", mailboxMax, (self) => new NbdListener(kernel, self, peers));
    const stub = new NbdListenerStub(address);
    served.listener = stub;
    for (const socket of sockets) socket.start(kernel, address, log);
    const stopAll = async () => {
      await control?.close();
      await process.ask("stop listening", stub.stop());
      for (const socket of sockets) await socket.released;
      reserve[Symbol.dispose]();
    };
    let stopped: Promise<void> | undefined;
    return {
      addresses: sockets.map((socket) => socket.url),
      reloadCertificates: () => reloadCertificates(keys, log),
      stop: () => stopped ??= stopAll(),
    };
  } catch (error) {
    for (const socket of sockets) socket.closeAll();
    await control?.close();
    reserve[Symbol.dispose]();
    throw error;
  }
}

/** Connections at once: of clients, and to the control socket. */
interface Most {
  readonly clientsMax: number;
  readonly controlMax: number;
}

/** How many there may be of each. Throws {@linkcode UsageError} for a number of clients that no server takes. */
function mostOf({ log }: PoolProcess, options: ServeOptions): Most {
  const wanted = parseMaxClients(options.maxClients?.toString());
  const room = raisedDescriptorLimit();
  const within = room === undefined
    ? { clientsMax: wanted, controlMax: controlConnectionsMax }
    : mostWithin(room);
  const clientsMax = Math.min(wanted, within.clientsMax);
  if (clientsMax < wanted) {
    log(
      `Up to ${clientsMax} clients at once, not ${wanted}: the process may have ${room?.limit} files and sockets open. ` +
        "Raise the limit of open files (ulimit -n) for more.",
    );
  }
  if (clientsMax > connectionsMax) {
    log(
      `Up to ${clientsMax} clients at once: memory stays below ${formatSize(residentBytesOf(clientsMax))}.`,
    );
  }
  return { clientsMax, controlMax: within.controlMax };
}

/**
 * The connections for which there are descriptors besides the open ones and the pool's own. Control connections have a bound
 * of their own: without it they could take all descriptors before a client gets one.
 */
function mostWithin({ limit, used }: DescriptorRoom): Most {
  const free = Math.max(0, limit - used - 3 * ownDescriptors);
  const controlMax = Math.max(
    controlConnectionsMin,
    Math.min(controlConnectionsMax, Math.floor(free * controlDescriptorsShare)),
  );
  return { clientsMax: Math.max(1, Math.floor((free - controlMax) / descriptorsPerClient)), controlMax };
}

function reloadCertificates(keys: ReloadableTlsKeys | undefined, log: (sentence: string) => void): void {
  try {
    keys?.reload();
    if (keys !== undefined) log("The TLS certificates were read again; new connections use them.");
  } catch (error) {
    // The operator has to mend the files. The server goes on with the certificates that it has.
    if (!(error instanceof UserError)) throw error;
    log(`${error.message} The certificates that were read before stay in use.`);
  }
}

/** Loaded where it is used: it brings all of node:net. */
async function inherit(fd: number, keys: TlsKeys | undefined): Promise<Listening> {
  const { InheritedSocket } = await import("./inherited_socket.ts");
  return await InheritedSocket.open(fd, keys);
}

/** The addresses besides inherited sockets, or undefined if the default ones are to be taken. */
function namedAddresses({ listen, inherited = [] }: ServeOptions): ListenAddress[] | undefined {
  return listen?.map(parseListenAddress) ?? (inherited.length > 0 ? [] : undefined);
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
    return await ListeningSocket.open({ transport: "unix", path }, keys);
  } catch (error) {
    // It was not asked for by name, so the other addresses are served without it.
    if (!(error instanceof UserError)) throw error;
    process.log(`${error.message} This one is left out.`);
    return undefined;
  }
}

/** The control socket. A stale one can be removed: the pool is locked, so no other process serves it. */
function openControl(process: PoolProcess, served: ServedPool, connectionsMax: number) {
  const path = shortSocketPath(process.files.paths.controlSocket);
  if (path === undefined) {
    process.log(
      `No control socket, so other commands cannot reach this server: the path ${process.files.paths.controlSocket} has ` +
        `more than ${socketPathBytesMax} bytes. Start the server from a directory nearer to the pool.`,
    );
    return undefined;
  }
  requireNoneMissing(`Cannot open the control socket ${path}`, missingForPath(path));
  try {
    removeStaleSocket(path);
    return new ControlServer(listenPrivately(path) as Deno.UnixListener, served, undefined, connectionsMax);
  } catch (error) {
    throw cannotControl(path, error);
  }
}

/** Throws {@linkcode UserError} for anything that is no socket: what a user has put there is not ours to delete. */
function removeStaleSocket(path: string): void {
  let isSocket: boolean | null;
  try {
    isSocket = Deno.lstatSync(path).isSocket;
  } catch (error) {
    // Usually there is none.
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  if (isSocket !== true) {
    throw new UserError(`Cannot open the control socket ${path}: what is there is no socket. Move it away.`);
  }
  Deno.removeSync(path);
}

function cannotControl(path: string, error: unknown): UserError {
  if (error instanceof UserError) return error;
  const reason = reasonOutside(error);
  return new UserError(`Cannot open the control socket ${path}: ${reason}. Free the path, or move the pool.`);
}
