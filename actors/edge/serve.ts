/**
 * Serving an open pool, from the main side of the border (border.ts): its certificates, its control socket, and how many
 * clients. The sockets of the clients are on the pool's side (nbd_server.ts).
 */
import { UsageError, UserError } from "../../storage/base/errors.ts";
import {
  connectionsMax,
  controlConnectionsMax,
  controlConnectionsMin,
  controlDescriptorsShare,
  controlHoldsMax,
  descriptorsPerClient,
  descriptorsPerRelay,
  maxClientsMost,
  ownDescriptors,
  residentBytesOf,
  socketPathBytesMax,
} from "../limits.ts";
import { formatSize } from "../../storage/base/sizes.ts";
import type { AdminResult } from "../control/admin_command.ts";
import { isServerCommand } from "../control/verbs.ts";
import { reasonOutside } from "../kernel/boundary.ts";
import type { ListenSettings } from "./border.ts";
import type { HoldHandler } from "./control_hold.ts";
import { type CommandHandler, ControlServer } from "./control_server.ts";
import { type DescriptorRoom, raisedDescriptorLimit } from "./descriptors.ts";
import { poolPaths } from "./pool_paths.ts";
import { PoolLink } from "./pool_link.ts";
import { listenPrivately } from "./private_socket.ts";
import { shortSocketPath } from "./socket_path.ts";
import { missingForPath, requireNoneMissing } from "./socket_permission.ts";
import { readTlsKeys, type TlsKeys, type TlsOptions } from "./tls_keys.ts";

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

/** A server whose process holds a volume too. */
export interface HoldingServer extends PoolServer, HoldHandler {
  /** Clients of the control socket that hold a volume. */
  readonly holds: number;
  /** Resolves when no client of the control socket holds a volume. */
  holdsEnded(): Promise<void>;
}

/**
 * Throws {@linkcode UserError} if an address cannot be bound or the certificates cannot be used: asked before a pool is
 * made, so that nothing is left behind. The default socket in the pool is not tried, as it needs the directory.
 */
export async function requireServable(options: ServeOptions): Promise<void> {
  if (options.tls !== undefined) readTlsKeys(options.tls);
  await PoolLink.tryListen(listenSettingsOf(options, undefined));
}

function listenSettingsOf(
  { listen, inherited = [] }: ServeOptions,
  keys: TlsKeys | undefined,
): ListenSettings {
  return { listen, inherited, keys };
}

/** Binds every address, then serves. Throws {@linkcode UserError} with nothing bound. */
export async function servePool(link: PoolLink, options: ServeOptions = {}): Promise<HoldingServer> {
  link.requireOpen();
  const { tls } = options;
  const keys = tls === undefined ? undefined : readTlsKeys(tls);
  const { clientsMax, controlMax } = mostOf(link, options);
  const server = await link.listen(listenSettingsOf(options, keys), clientsMax);
  let addresses: readonly string[] = [];
  let control: ControlServer | undefined;
  try {
    if (options.control ?? !link.readOnly) {
      control = openControl(link, handlerOf(link, server, () => addresses), controlMax);
    }
    addresses = await link.accept(server);
  } catch (error) {
    await control?.close();
    await link.stopListening(server);
    throw error;
  }
  const stopAll = async () => {
    await control?.close();
    await link.stopListening(server);
  };
  let stopped: Promise<void> | undefined;
  return {
    addresses,
    hold: (content) => link.hold(server, content),
    release: (uid) => link.release(server, uid),
    get holds() {
      return control?.holds ?? 0;
    },
    holdsEnded: () => control?.holdsEnded() ?? Promise.resolve(),
    reloadCertificates: () => {
      if (tls !== undefined) reloadCertificates(link, server, tls);
    },
    stop: () => stopped ??= stopAll(),
  };
}

/** Connections at once: of clients, and to the control socket. */
interface Most {
  readonly clientsMax: number;
  readonly controlMax: number;
}

/** How many there may be of each. Throws {@linkcode UsageError} for a number of clients that no server takes. */
function mostOf({ log, io }: PoolLink, options: ServeOptions): Most {
  const wanted = parseMaxClients(options.maxClients?.toString());
  const room = raisedDescriptorLimit();
  const isRelayed = io === "io_uring" && options.tls !== undefined;
  const within = room === undefined
    ? { clientsMax: wanted, controlMax: controlConnectionsMax }
    : mostWithin(room, isRelayed ? descriptorsPerRelay : descriptorsPerClient);
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
function mostWithin({ limit, used }: DescriptorRoom, perClient: number): Most {
  // A volume that is held has a listening socket.
  const free = Math.max(0, limit - used - 3 * ownDescriptors - controlHoldsMax);
  const controlMax = Math.max(
    controlConnectionsMin,
    Math.min(controlConnectionsMax, Math.floor(free * controlDescriptorsShare)),
  );
  return { clientsMax: Math.max(1, Math.floor((free - controlMax) / perClient)), controlMax };
}

function reloadCertificates(link: PoolLink, server: number, tls: TlsOptions): void {
  let keys: TlsKeys;
  try {
    keys = readTlsKeys(tls);
  } catch (error) {
    // The operator has to mend the files. The server goes on with the certificates that it has.
    if (!(error instanceof UserError)) throw error;
    return link.log(`${error.message} The certificates that were read before stay in use.`);
  }
  link.useCertificates(server, keys);
}

/** What carries out the commands of the control socket. */
function handlerOf(link: PoolLink, server: number, addresses: () => readonly string[]): CommandHandler {
  return {
    log: link.log,
    command: async (command) => {
      if (isServerCommand(command)) return await link.clientCommand(server, command);
      return withUris(await link.command(command), addresses());
    },
    dump: (write) => link.dump(write),
    hold: (content) => link.hold(server, content),
    release: (uid) => link.release(server, uid),
  };
}

/** Adds to new volumes where this server serves them. */
function withUris(result: AdminResult, addresses: readonly string[]): AdminResult {
  if (result.kind !== "forked") return result;
  const uris = (name: string) => addresses.map((address) => uriOf(address, name));
  return { kind: "forked", volumes: result.volumes.map(({ name }) => ({ name, uris: uris(name) })) };
}

/** The URI of an export at an address: `nbd://HOST:PORT/NAME` or `nbd+unix:///NAME?socket=PATH` (the URI specification of NBD). */
function uriOf(address: string, name: string): string {
  const [place, socket] = address.split("/?", 2);
  return socket === undefined ? `${address}/${name}` : `${place}/${name}?${socket}`;
}

/** The control socket. A stale one can be removed: the pool is locked, so no other process serves it. */
function openControl(
  link: PoolLink,
  handler: CommandHandler,
  connectionsMax: number,
): ControlServer | undefined {
  const { controlSocket } = poolPaths(link.directory);
  const path = shortSocketPath(controlSocket);
  if (path === undefined) {
    link.log(
      `No control socket, so other commands cannot reach this server: the path ${controlSocket} has ` +
        `more than ${socketPathBytesMax} bytes. Start the server from a directory nearer to the pool.`,
    );
    return undefined;
  }
  requireNoneMissing(`Cannot open the control socket ${path}`, missingForPath(path));
  try {
    removeStaleSocket(path);
    const listener = listenPrivately(path) as Deno.UnixListener;
    return new ControlServer(listener, handler, undefined, connectionsMax);
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
