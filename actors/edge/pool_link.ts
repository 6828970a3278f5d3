/**
 * The main side of the border (border.ts): a pool as the library, the command line and the control API see it. It keeps the
 * promises of what was asked and not answered yet, and the functions of the caller (its log, what takes the text of a dump):
 * none of them crosses the border.
 */
import { assert, present } from "../../storage/base/assert.ts";
import { UserError } from "../../storage/base/errors.ts";
import type {
  AdminCommand,
  AdminResult,
  HeldContent,
  HeldVolume,
  ServerCommand,
  TextTaken,
} from "../control/admin_command.ts";
import {
  type Border,
  type BorderAnswer,
  errorOf,
  type FromPool,
  type ListenSettings,
  type OpenBorder,
  type PoolRequest,
} from "./border.ts";
import { noSpaceTimeoutMs, warnAtPercentsDefault } from "../limits.ts";
import type { AutoGrowRule } from "../control/auto_grow.ts";
import type { NoSpacePolicy } from "../pool/space_messages.ts";
import { openDirectBorder } from "./direct_border.ts";
import type { IoName } from "./host_io.ts";
import { guardedLog, type Log } from "./log_sink.ts";
import { openWorkerBorder } from "./worker_border.ts";
import { TextWriter } from "./text_writer.ts";
import type { TlsKeys } from "./tls_keys.ts";

/** How a pool is opened. */
export interface OpenOptions {
  /** Write no byte to metadata, data or catalogue, and share the pool with other readers. */
  readonly readOnly?: boolean;
  /** Refuse a pool whose blocks have another size. */
  readonly blockSizeBytes?: number | undefined;
  /** Milliseconds to wait for another process that has the pool open; by default none. */
  readonly lockWaitMs?: number | undefined;
  /** Milliseconds that writes wait for space in a full pool before they fail, 60,000 by default; 0: for ever. */
  readonly noSpaceTimeoutMs?: number | undefined;
  /** Have writes without space fail at once. */
  readonly errorIfNoSpace?: boolean | undefined;
  /**
   * Whole percents, ascending, from which on data, metadata or the host's file system are low, and which the log tells of; 80, 90
   * and 95 by default. An empty list: those, and the log tells of none.
   */
  readonly warnAtPercents?: readonly number[] | undefined;
  /** Devices that grow by themselves, each once; by default, none. */
  readonly autoGrow?: readonly AutoGrowRule[] | undefined;
  /** Count what volumes with a reserve map alone, also where that takes a walk over all mappings; by default, true. */
  readonly countsByWalk?: boolean | undefined;
  /** Have writes of zeroes leave blocks unmapped that are so: what is not mapped reads as zeroes. */
  readonly detectZeroes?: boolean | undefined;
  /** What moves the bytes: Deno's own calls, the default, or io_uring on a thread of its own. */
  readonly io?: IoName | undefined;
  /**
   * Hears what an operator should know, a sentence at a time. It is called while the pool works, so it should return soon.
   * What it throws is dropped, and a promise that it returns is not waited for.
   */
  readonly log?: ((sentence: string) => unknown) | undefined;
}

/** A request without its number. */
type Unnumbered<Request = PoolRequest> = Request extends PoolRequest ? Omit<Request, "number"> : never;

/** A request that has no answer yet. */
interface Unanswered {
  readonly resolve: (answer: BorderAnswer) => void;
  readonly reject: (error: Error) => void;
}

/** An open pool behind the border. */
export class PoolLink {
  readonly directory: string;
  readonly readOnly: boolean;
  readonly io: IoName;
  /** Says a sentence to the operator. Never throws. */
  readonly log: Log;
  readonly #border: Border;
  readonly #waiting = new Map<number, Unanswered>();
  /** Takers of the text of the dumps under way. */
  readonly #dumps = new Map<number, TextWriter>();
  readonly #failed = Promise.withResolvers<unknown>();
  #failure: Error | undefined;
  #numberLast = 0;
  #writeRefusal: string | null = null;
  #lacksMetadata = false;
  #closing: Promise<void> | undefined;
  #isClosed = false;

  private constructor(directory: string, options: OpenOptions, openBorder: OpenBorder) {
    this.directory = directory;
    this.readOnly = options.readOnly ?? false;
    this.io = options.io ?? "deno";
    this.log = guardedLog(options.log ?? (() => {}));
    this.#border = openBorder((message) => this.#heard(message));
  }

  /** Opens a pool, and settles what a crash interrupted. Throws {@linkcode UserError}; nothing is left open then. */
  static async open(
    directory: string,
    options: OpenOptions = {},
    openBorder: OpenBorder = options.io === "io_uring" ? openWorkerBorder : openDirectBorder,
  ): Promise<PoolLink> {
    const link = new PoolLink(directory, options, openBorder);
    const { readOnly } = link;
    const { blockSizeBytes, lockWaitMs = 0, detectZeroes = false, countsByWalk = true } = options;
    const noSpace = noSpaceOf(options);
    const { warnAtPercents = warnAtPercentsDefault, autoGrow = [] } = options;
    try {
      const settings = {
        directory,
        readOnly,
        blockSizeBytes,
        lockWaitMs,
        noSpace,
        detectZeroes,
        countsByWalk,
        guard: { warnAtPercents, autoGrow },
      };
      const opened = await link.#ask({ type: "open", settings });
      assert(opened.type === "opened", "a pool is opened, or that throws");
      link.#writeRefusal = opened.writeRefusal;
      link.#lacksMetadata = opened.lacksMetadata;
    } catch (error) {
      link.#border.close();
      throw error;
    }
    return link;
  }

  /** Tries whether the addresses can be bound, without a pool. Throws {@linkcode UserError} if not. */
  static async tryListen(
    settings: ListenSettings,
    openBorder: OpenBorder = openDirectBorder,
  ): Promise<void> {
    const link = new PoolLink("", {}, openBorder);
    try {
      await link.#ask({ type: "tryListen", settings });
    } finally {
      link.#border.close();
    }
  }

  /** Why this pool can only be opened read-only, if so. */
  get writeRefusal(): string | null {
    return this.#writeRefusal;
  }

  /** True if this pool is open read-only, and would open for writing with more metadata space. */
  get lacksMetadata(): boolean {
    return this.#lacksMetadata;
  }

  /** Resolves, with the error, if the program itself fails: a broken invariant. The pool then does nothing any more. */
  get defect(): Promise<unknown> {
    return this.#failed.promise;
  }

  /** Throws {@linkcode UserError} once the pool is closed: nothing would answer any more. */
  requireOpen(): void {
    if (this.#isClosed && this.#failure === undefined) throw closedError(this.directory);
  }

  /** Carries out a command of the administrator. */
  command(command: AdminCommand): Promise<AdminResult> {
    return this.#result({ type: "command", command });
  }

  /** Dumps the metadata, a piece of text at a time, each when `write` has taken the one before. Throws what `write` throws. */
  async dump(write: (text: string) => Promise<TextTaken>): Promise<AdminResult> {
    const writer = new TextWriter(write);
    const number = this.#nextNumber();
    this.#dumps.set(number, writer);
    const result = await this.#result({ type: "dump" }, number).finally(() => this.#dumps.delete(number));
    writer.throwFailure();
    return result;
  }

  /** Binds addresses. Answers the number of the server. Throws {@linkcode UserError}, with nothing bound. */
  async listen(settings: ListenSettings, clientsMax: number): Promise<number> {
    return (await this.#ask({ type: "listen", settings, clientsMax })).number;
  }

  /** Takes clients from now on. Answers a URL for each address. */
  async accept(server: number): Promise<readonly string[]> {
    const answer = await this.#ask({ type: "accept", server });
    assert(answer.type === "listening", "a server takes clients, or that throws");
    return answer.addresses;
  }

  /** Carries out a command about the clients of a server. */
  clientCommand(server: number, command: ServerCommand): Promise<AdminResult> {
    return this.#result({ type: "clientCommand", server, command });
  }

  /** Makes a volume that exists until it is released, and serves it alone on a private socket. Throws {@linkcode UserError}. */
  async hold(server: number, content: HeldContent): Promise<HeldVolume | AdminResult> {
    const answer = await this.#ask({ type: "hold", server, content });
    if (answer.type === "held") return answer.volume;
    assert(answer.type === "result", "a volume is held, or that is refused, or it throws");
    return answer.result;
  }

  /** Ends a hold: socket and name of the volume are gone when it answers. */
  release(server: number, uid: string): Promise<AdminResult> {
    return this.#result({ type: "release", server, uid });
  }

  /** Certificates for the connections to come. */
  useCertificates(server: number, keys: TlsKeys): void {
    if (!this.#isClosed) this.#border.send({ type: "certificates", server, keys });
  }

  /** Takes no more clients, and lets those that are there end, for a bounded time. */
  async stopListening(server: number): Promise<void> {
    await this.#ask({ type: "stopListening", server });
  }

  /**
   * Commits and closes. Throws {@linkcode UserError} if the last commit fails; it is closed all the same. May be repeated: each
   * call ends as the first does, when it does.
   */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    try {
      await this.#ask({ type: "close" });
    } finally {
      this.#isClosed = true;
      this.#border.close();
    }
  }

  async #result(request: Unnumbered, number = this.#nextNumber()): Promise<AdminResult> {
    const answer = await this.#ask(request, number);
    assert(answer.type === "result", "a command has a result, or throws");
    return answer.result;
  }

  /** Rejects with what the pool's side threw, or with its defect if that comes first. */
  #ask(request: Unnumbered, number = this.#nextNumber()): Promise<BorderAnswer> {
    if (this.#isClosed) return Promise.reject(this.#failure ?? closedError(this.directory));
    assert(!this.#waiting.has(number), "two requests have one number");
    const { promise, resolve, reject } = Promise.withResolvers<BorderAnswer>();
    this.#waiting.set(number, { resolve, reject });
    this.#border.send({ ...request, number });
    return promise;
  }

  /** The number of a request to come. */
  #nextNumber(): number {
    this.#numberLast += 1;
    return this.#numberLast;
  }

  #heard(message: FromPool): void {
    switch (message.type) {
      case "log":
        return this.log(message.record.text);
      case "text":
        return this.#text(message.number, message.text);
      case "failed":
        // What waits for an answer is answered all the same, by `threw`.
        this.#failure = errorOf(message.error);
        return this.#failed.resolve(this.#failure);
      default:
        return this.#answered(message);
    }
  }

  #answered(answer: BorderAnswer): void {
    const waiting = present(this.#waiting.get(answer.number), "an answer that was not asked for");
    this.#waiting.delete(answer.number);
    if (answer.type === "threw") waiting.reject(errorOf(answer.error));
    else waiting.resolve(answer);
  }

  #text(number: number, text: string): void {
    const writer = present(this.#dumps.get(number), "a piece of a dump that was not asked for");
    writer.write(text, (taken) => {
      if (!this.#isClosed) this.#border.send({ type: "textTaken", number, taken });
    });
  }
}

function closedError(directory: string): UserError {
  return new UserError(`The pool "${directory}" is closed. Open it again.`);
}

function noSpaceOf(
  { noSpaceTimeoutMs: timeoutMs = noSpaceTimeoutMs, errorIfNoSpace }: OpenOptions,
): NoSpacePolicy {
  return errorIfNoSpace === true ? { kind: "error" } : { kind: "queue", timeoutMs };
}
