/**
 * The border between the main side (command line, library, control API, TLS certificates, signals, log) and the pool's side
 * (kernel, actors, files, sockets of NBD clients). All that crosses it is here, and all of it is plain data: every message
 * can be copied by `structuredClone`. So the two sides may be one thread, as they are today (direct_border.ts), or two.
 *
 * The main side's end is pool_link.ts, the pool's is pool_service.ts. A request has a number, which the main side chooses
 * and uses once, and gets one answer with that number. Messages of one direction arrive in the order in which they were
 * sent.
 */
import { Defect } from "../../storage/base/assert.ts";
import { UsageError, UserError } from "../../storage/base/errors.ts";
import type {
  AdminCommand,
  AdminResult,
  HeldContent,
  HeldVolume,
  ServerCommand,
  TextTaken,
} from "../control/admin_command.ts";
import type { SpaceGuard } from "../assemble.ts";
import type { NoSpacePolicy } from "../pool/space_messages.ts";
import type { LogRecord } from "./log_sink.ts";
import type { TlsKeys } from "./tls_keys.ts";

/** Which pool is opened, and how. */
export interface OpenSettings {
  readonly directory: string;
  readonly readOnly: boolean;
  /** Refuse a pool whose blocks have another size. */
  readonly blockSizeBytes: number | undefined;
  /** Milliseconds to wait for another process that has the pool open. */
  readonly lockWaitMs: number;
  /** What becomes of writes without space. */
  readonly noSpace: NoSpacePolicy;
  /** What becomes of a pool that is nearly full. */
  readonly guard: SpaceGuard;
  /** Writes of zeroes to unmapped blocks leave them unmapped. */
  readonly detectZeroes: boolean;
  /** What volumes with a reserve map alone is counted by a walk, where it takes one. */
  readonly countsByWalk: boolean;
}

/** Where clients are waited for. */
export interface ListenSettings {
  /** As `tcp:HOST:PORT` or `unix:PATH`; undefined: the default address, unless there are inherited sockets. */
  readonly listen: readonly string[] | undefined;
  /** Descriptors of listening sockets that the process was started with. */
  readonly inherited: readonly number[];
  /** Undefined: no TLS. */
  readonly keys: TlsKeys | undefined;
}

/** A request from the main side. */
export type PoolRequest =
  /** Answered by `opened`. The first message, and the only one of its kind. */
  | { readonly type: "open"; readonly number: number; readonly settings: OpenSettings }
  /** A command to the pool. Answered by `result`. */
  | { readonly type: "command"; readonly number: number; readonly command: AdminCommand }
  /** The metadata as text: `text` for each piece, the next after `textTaken`, then `result`. */
  | { readonly type: "dump"; readonly number: number }
  /** Tries whether the addresses can be bound, and leaves none bound. Needs no pool. Answered by `done`. */
  | { readonly type: "tryListen"; readonly number: number; readonly settings: ListenSettings }
  /** Binds the addresses. Answered by `done`; the request's number is that of the server from then on. */
  | {
    readonly type: "listen";
    readonly number: number;
    readonly settings: ListenSettings;
    readonly clientsMax: number;
  }
  /** Binds `nbd.sock` in the pool too, and takes clients from now on. Answered by `listening`. */
  | { readonly type: "accept"; readonly number: number; readonly server: number }
  /** A command about the clients of a server. Answered by `result`. */
  | {
    readonly type: "clientCommand";
    readonly number: number;
    readonly server: number;
    readonly command: ServerCommand;
  }
  /** Makes a volume that exists until it is released, and serves it alone on a private socket. Answered by `held` or `result`. */
  | { readonly type: "hold"; readonly number: number; readonly server: number; readonly content: HeldContent }
  /** Ends a hold. Answered by `result`. */
  | { readonly type: "release"; readonly number: number; readonly server: number; readonly uid: string }
  /** Takes no more clients, and lets those that are there end, for a bounded time. Answered by `done`. */
  | { readonly type: "stopListening"; readonly number: number; readonly server: number }
  /** Commits and closes the pool. Answered by `done`, the last answer there is. */
  | { readonly type: "close"; readonly number: number };

/** From the main side, without an answer. */
export type PoolNotification =
  /** What became of the piece of text of the dump with this number: the credit for the next, or the end. */
  | { readonly type: "textTaken"; readonly number: number; readonly taken: TextTaken }
  /** Certificates for the connections to come. */
  | { readonly type: "certificates"; readonly server: number; readonly keys: TlsKeys }
  /** The handshake of a relay is over: what is written into the socket pair from now on is encrypted. */
  | { readonly type: "tlsSecured"; readonly relay: number; readonly clientName: string | undefined }
  /** There is no TLS, or none any more. The pool's side closes its end of the socket pair. */
  | { readonly type: "tlsBroken"; readonly relay: number; readonly reason: string }
  /** The last of a relay, after the pool's side has closed its end: the main side has closed its descriptors. */
  | { readonly type: "tlsOver"; readonly relay: number };

/** What the pool's side hears. */
export type ToPool = PoolRequest | PoolNotification;

/** The answer to a request, with its number. */
export type BorderAnswer =
  | {
    readonly type: "opened";
    readonly number: number;
    /** Why the pool can only be opened read-only, if so. */
    readonly writeRefusal: string | null;
    /** It would open for writing with more metadata space. */
    readonly lacksMetadata: boolean;
  }
  | { readonly type: "result"; readonly number: number; readonly result: AdminResult }
  | { readonly type: "held"; readonly number: number; readonly volume: HeldVolume }
  | { readonly type: "listening"; readonly number: number; readonly addresses: readonly string[] }
  | { readonly type: "done"; readonly number: number }
  /** In place of any other answer. */
  | { readonly type: "threw"; readonly number: number; readonly error: PlainError };

/** From the pool's side, without a request. */
export type PoolNews =
  /** A piece of the dump with this number. */
  | { readonly type: "text"; readonly number: number; readonly text: string }
  | { readonly type: "log"; readonly record: LogRecord }
  /** An invariant of the program broke. The pool does nothing any more. */
  | { readonly type: "failed"; readonly error: PlainError };

/**
 * From the pool's side where it has a thread of its own, to the border itself (worker_border.ts): asks for TLS between a client's
 * socket and one end of a socket pair, at whose other end the pool's side talks in clear text.
 */
export interface TlsWanted {
  readonly type: "tlsWanted";
  /** Chosen by the pool's side, and used once. */
  readonly relay: number;
  /** The client's socket. It stays the pool side's, which keeps it open until `tlsOver`: the main side uses a duplicate. */
  readonly clientFd: number;
  /** The main side's from now on, to be closed there. */
  readonly clearFd: number;
  readonly keys: TlsKeys;
}

/** The pool's side has closed its end of the socket pair of a relay. */
export interface TlsEnd {
  readonly type: "tlsEnd";
  readonly relay: number;
}

/** What the main side hears. */
export type FromPool = BorderAnswer | PoolNews;

/** The main side's way to a pool. */
export interface Border {
  send(message: ToPool): void;
  /** Nothing is sent any more. */
  close(): void;
}

/** Opens a way to a pool, which is not open yet. What comes from there goes to `heard`. */
export type OpenBorder = (heard: (message: FromPool) => void) => Border;

/** An error as data. */
export interface PlainError {
  readonly name: string;
  readonly message: string;
  readonly stack: string | undefined;
  /** As in errors of node: `ENOENT`. */
  readonly code: string | undefined;
}

/** An error, or anything that was thrown, as data. */
export function plainOf(error: unknown): PlainError {
  if (!(error instanceof Error)) {
    return { name: "Error", message: String(error), stack: undefined, code: undefined };
  }
  const { name, message, stack } = error;
  const code = "code" in error && typeof error.code === "string" ? error.code : undefined;
  return { name, message, stack, code };
}

/** The error, of the class that it had if that is one of ours, of Deno's or of the language's. */
export function errorOf({ name, message, stack, code }: PlainError): Error {
  const known = Object.hasOwn(classes, name) ? classes[name] : undefined;
  const error = known === undefined ? new Error(message) : new known(message);
  if (known === undefined) error.name = name;
  if (stack !== undefined) error.stack = stack;
  return code === undefined ? error : Object.assign(error, { code });
}

const classes: Readonly<Record<string, new (message: string) => Error>> = {
  ...Deno.errors,
  Defect,
  Error,
  RangeError,
  TypeError,
  UsageError,
  UserError,
};
