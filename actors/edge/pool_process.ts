/**
 * A pool in this process: its files, its kernel, its actors, and promises for callers outside the kernel.
 */
import { assert, present } from "../../storage/base/assert.ts";
import { UserError } from "../../storage/base/errors.ts";
import { nanoid } from "nanoid";
import type { AdminCommand, AdminResult } from "../control/admin_command.ts";
import { assemblePool, type SpaceGuard } from "../assemble.ts";
import type { JournalPort } from "../control/catalogue_journal.ts";
import { Kernel } from "../kernel/kernel.ts";
import type { Steps } from "../kernel/task.ts";
import { mailboxes } from "../mailboxes.ts";
import type { IntentJournal } from "../pool/intent_journal.ts";
import type { NoSpacePolicy } from "../pool/space_messages.ts";
import type { PoolStub } from "../control/pool_messages.ts";
import { TextOut, type TextPort } from "../control/text_out.ts";
import { deviceKinds } from "./device_kinds.ts";
import { seeDisks } from "./disk_state.ts";
import { answerOf } from "./outside.ts";
import { whenUnlocked } from "./file_lock.ts";
import { denoIo, type HostIo } from "./host_io.ts";
import { hostSpaceOf } from "./host_space.ts";
import { openLibc } from "./libc.ts";
import { guardedLog } from "./log_sink.ts";
import type { DeviceKinds } from "./open_device.ts";
import { dropIntents, newIntentJournal, type OpenedReplayed, openReplayed } from "./intents_open.ts";
import { PoolFiles } from "./pool_files.ts";
import { removeLeftSockets } from "./private_place.ts";
import { SocketGroup } from "./socket_group.ts";
import { TurnedJournal } from "./turned_journal.ts";

/** How a pool is opened. */
export interface ProcessOptions {
  /** Write no byte to metadata, data or catalogue, and share the pool with other readers. */
  readonly readOnly?: boolean;
  /** Refuse a pool whose blocks have another size. */
  readonly blockSizeBytes?: number | undefined;
  /** Milliseconds to wait for another process that has the pool open; by default none. */
  readonly lockWaitMs?: number | undefined;
  /** What becomes of writes without space; by default they fail at once. */
  readonly noSpace?: NoSpacePolicy;
  /** What becomes of a pool that is nearly full; by default, nothing. */
  readonly guard?: SpaceGuard;
  /** Writes of zeroes to unmapped blocks leave them unmapped; by default they do not. */
  readonly detectZeroes?: boolean;
  /** Count by a walk what volumes with a reserve map alone, where it takes one; by default, true. */
  readonly countsByWalk?: boolean;
  /** Hears what an operator should know, a sentence at a time. What it throws is dropped. */
  readonly log?: ((sentence: string) => unknown) | undefined;
}

/** An open pool. */
export class PoolProcess {
  readonly kernel: Kernel;
  readonly io: HostIo;
  readonly pool: PoolStub;
  readonly files: PoolFiles;
  /** What the sockets of its clients share. */
  readonly sockets: SocketGroup;
  readonly log: (sentence: string) => void;
  /** Nothing is written: so it was asked, or {@linkcode writeRefusal} says why. */
  readonly readOnly: boolean;
  /** Why this pool can only be opened read-only, if so. */
  readonly writeRefusal: string | null;
  /** It would open for writing with more metadata space. */
  readonly lacksMetadata: boolean;
  /** What is open until the end. */
  #held: DisposableStack | undefined;
  readonly #intents: IntentJournal;
  readonly #defects: Defects;
  #hasNotedLacks = false;
  #closing: Promise<void> | undefined;

  private constructor(
    parts: {
      readonly kernel: Kernel;
      readonly pool: PoolStub;
      readonly files: PoolFiles;
      readonly intents: IntentJournal;
      readonly readOnly: boolean;
      readonly opened: OpenedReplayed;
      readonly io: HostIo;
    },
    defects: Defects,
    log: (sentence: string) => void,
  ) {
    this.kernel = parts.kernel;
    this.io = parts.io;
    this.pool = parts.pool;
    this.files = parts.files;
    this.#intents = parts.intents;
    this.sockets = new SocketGroup(parts.kernel, () => parts.intents.writeOut());
    this.readOnly = parts.readOnly;
    this.writeRefusal = parts.opened.writeRefusal;
    this.lacksMetadata = parts.opened.lacksMetadata;
    this.log = log;
    this.#defects = defects;
  }

  /** Opens a pool, and settles what a crash interrupted. Throws {@linkcode UserError}; nothing is left open then. */
  static async open(
    directory: string,
    options: ProcessOptions = {},
    kinds: DeviceKinds = deviceKinds,
    io: HostIo = denoIo,
  ): Promise<PoolProcess> {
    const log = guardedLog(options.log ?? (() => {}));
    using opening = new DisposableStack();
    const files = opening.adopt(
      await whenUnlocked(
        options.lockWaitMs ?? 0,
        () =>
          PoolFiles.open(directory, {
            readOnly: options.readOnly ?? false,
            libc: openLibc(),
            calls: io.files,
          }, kinds),
      ),
      (files) => files.close(),
    );
    opening.use(io.holdLocks(files.lockFds));
    if (!files.readOnly) removeLeftSockets(files.paths.directory);
    // A process before us may have left a superblock that only the host's memory has. Whatever we build on it (a compacted
    // catalogue, blocks used again that it has freed) would be lost with it in a power cut, and the superblock before it
    // does not know of that. So what we read is what the disk has, and durable, before anything is changed.
    const lost = () => dropIntents(files, log);
    for (const note of await seeDisks(files.cached, files.readOnly, files.readOnly ? undefined : lost)) {
      log(note);
    }
    const opened = await openReplayed(files, options, log);
    const { engine, device, trouble } = opened;
    // The locks stay exclusive in a pool that was to be written: its server answers on the control socket.
    const readOnly = files.readOnly || trouble !== null;
    const { catalogue, notes } = files.settle(engine.transactionId, log, readOnly);
    for (const note of notes) log(note);
    const clock = opening.adopt(io.newClock(), (clock) => clock.close());
    const intents = newIntentJournal(opening, files, opened, log);
    const defects = new Defects();
    // If the start is refused, it may have left work under way (setting needs_check): that ends before the files are closed.
    const kernel = opening.adopt(
      new Kernel({ clock, onDefect: (defect) => defects.met(defect) }),
      (kernel) => kernel.stop(),
    );
    io.serve(kernel);
    const pool = assemblePool(kernel, {
      catalogue,
      readOnly,
      trouble,
      countsByWalk: options.countsByWalk ?? true,
      newUid: () => nanoid(),
      log,
      journal: new TurnedJournal(files.catalogueFile ?? noJournal, io.eventLoop),
      data: files.data,
      metadata: device,
      engine,
      intents,
      ...(options.noSpace === undefined ? {} : { noSpace: options.noSpace }),
      hostSpace: hostSpaceOf(files.data.path),
      ...(readOnly || options.guard === undefined ? {} : { guard: options.guard }),
      detectsZeroes: options.detectZeroes ?? false,
      writtenThins: opened.writtenThins,
    });
    const parts = { kernel, pool, files, intents, readOnly, opened, io };
    const process = new PoolProcess(parts, defects, log);
    const started = await process.ask("start", pool.start());
    if (started.kind === "refused") throw new UserError(started.reason);
    for (const note of engine.notes) log(`Note: ${note}.`);
    process.#held = opening.move();
    return process;
  }

  /** Resolves, with the error, if the program itself fails: a broken invariant. The pool then does nothing any more. */
  get defect(): Promise<unknown> {
    return this.#defects.first;
  }

  /**
   * Says once, before it is served, that a pool to be written is open read-only, and what is missing where it is kept: space
   * that goes back to the host, an intent journal.
   */
  noteHostLacks(): void {
    if (this.#hasNotedLacks || this.files.readOnly) return;
    this.#hasNotedLacks = true;
    if (this.readOnly) {
      return this.log(present(this.writeRefusal, "a pool that was to be written says why not"));
    }
    if (!this.files.data.local?.canDiscard) this.log(keepsHostSpace());
    const { kind, reason } = this.#intents.state;
    if (kind !== "none") return;
    this.log(`No intent journal: ${reason}. A server that is killed loses what no flush has made durable.`);
  }

  /** Carries out a command of the administrator. */
  command(command: AdminCommand): Promise<AdminResult> {
    return this.ask(command.verb, this.pool.admin(command));
  }

  /** Dumps the metadata, a piece of text at a time, each when the port has taken the one before. */
  dump(port: TextPort): Promise<AdminResult> {
    const out = this.kernel.spawn(
      "dump out",
      mailboxes.textOut,
      (self) => new TextOut(this.kernel, self, port),
    );
    return this.ask("dump", this.pool.admin({ verb: "dump" }, out)).finally(() =>
      this.kernel.post(out, { type: "endText" })
    );
  }

  /** Throws {@linkcode UserError} once the pool is closed: nothing would answer any more. */
  requireOpen(): void {
    if (!this.kernel.stopped || this.#defects.isMet) return;
    throw new UserError(`The pool "${this.files.paths.directory}" is closed. Open it again.`);
  }

  /** Runs steps inside and promises their answer; rejects if the pool is closed, or its process fails first. */
  async ask<T>(name: string, steps: Steps<T>): Promise<T> {
    this.requireOpen();
    const answer = await this.#defects.unlessMet(answerOf(this.kernel, name, steps));
    this.#intents.writeOut();
    return answer;
  }

  /**
   * Commits and closes, when the devices are done with what they were asked. Throws {@linkcode UserError} if the last commit
   * fails; it is closed all the same. May be repeated: each call ends as the first does, when it does.
   */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    try {
      if (this.kernel.stopped) return;
      const stopped = await this.ask("stop", this.pool.stop());
      if (stopped.kind === "refused") throw new UserError(stopped.reason);
      await this.files.idle();
      // The last commit has flushed all that was written: the servers have stopped, and no command came after it.
      if (!this.readOnly) this.files.data.cached?.noteFlushed();
      this.#intents.end();
    } finally {
      this.kernel.stop();
      await this.files.idle();
      this.#held?.dispose();
    }
  }
}

/** What an operator should know about a data device without holes. */
function keepsHostSpace(): string {
  const known = "discarded blocks are free in the pool, but the host does not get their space back";
  if (openLibc() === undefined) return `Deno has no --allow-ffi, or no C library to call, so ${known}.`;
  return `The host cannot punch holes into the data device, so ${known}.`;
}

/** Rejects all promises that are still open when a broken invariant has stopped the kernel. */
class Defects {
  readonly first: Promise<unknown>;
  #met: (defect: unknown) => void;
  #defect: { readonly error: unknown } | undefined;
  readonly #waiting = new Set<(error: unknown) => void>();

  constructor() {
    const { promise, resolve } = Promise.withResolvers<unknown>();
    this.first = promise;
    this.#met = resolve;
  }

  get isMet(): boolean {
    return this.#defect !== undefined;
  }

  met(error: unknown): void {
    this.#defect = { error };
    this.#met(error);
    for (const reject of this.#waiting) reject(error);
    this.#waiting.clear();
  }

  /** The answer, or the defect if that comes first. */
  unlessMet<T>(answer: Promise<T>): Promise<T> {
    if (this.#defect !== undefined) return Promise.reject(this.#defect.error);
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    this.#waiting.add(reject);
    answer.then((value) => {
      this.#waiting.delete(reject);
      resolve(value);
    }, reject);
    return promise;
  }
}

/** A read-only pool never appends. */
const noJournal: JournalPort = {
  append: () => assert(false, "a read-only pool appended to the catalogue"),
  retract: () => assert(false, "a read-only pool changed the catalogue"),
  isLong: () => false,
  rewrite: () => assert(false, "a read-only pool changed the catalogue"),
  finishRewrite: () => assert(false, "a read-only pool changed the catalogue"),
};
