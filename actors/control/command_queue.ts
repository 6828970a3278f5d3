/**
 * The commands that a pool has been given. Those that change something are carried out one at a time, in the order in which they
 * came; those that only look go beside them (control/look_queue.ts). A stop comes last: what comes after it is refused. Not an
 * actor but a part of PoolActor's state (control/pool.ts).
 *
 * Between two commands the catalogue's journal may be rewritten: its last line is durable in the superblock then, and no other
 * line can come behind it.
 */
import { assert, present, unreachable } from "../../storage/base/assert.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { adminQueueMax } from "../limits.ts";
import { queues } from "../queues.ts";
import type { AdminResult } from "./admin_command.ts";
import { startTask, stopTask } from "./admin_start.ts";
import { adminTask, forgetTask, lookTask } from "./admin_task.ts";
import { rewriteTask } from "./catalogue_rewrite.ts";
import { LookQueue } from "./look_queue.ts";
import type { PoolGeometry } from "./pool_geometry.ts";
import {
  type Admin,
  type ForgetRemoved,
  type LifetimeCommand,
  lifeVerbs,
  type LookEnded,
  type StartPool,
  type StopPool,
} from "./pool_messages.ts";
import { isLook } from "./verbs.ts";

/** What the pool carries out, and answers when that has ended. */
export type PoolCommand = Admin | ForgetRemoved | StartPool | StopPool;

/** What the queue works with. */
export interface QueueContext {
  readonly kernel: Kernel;
  /** Commands begin when it is known; the start is what makes it known. */
  readonly geometry: PoolGeometry;
  /** The catalogue's journal is to be rewritten once the pool has started. */
  readonly isJournalLong: boolean;
  /** Whether devices are being deleted behind the commands. */
  isRemoving(): boolean;
  /**
   * Called when a command that changes something has ended, before its answer and before the next one begins. True if it is
   * answered later.
   */
  ended(command: PoolCommand, result: AdminResult): boolean;
}

/** See the head of this file. */
export class CommandQueue {
  readonly #context: QueueContext;
  /** The first one is carried out, if `#isRunning`. */
  #commands: PoolCommand[] = [];
  #isRunning = false;
  /** Commands that only look; a slow reader of a dump must not delay a snapshot. */
  readonly #looks: LookQueue;
  /** The last change made the catalogue's journal long enough to be rewritten. */
  #isJournalLong: boolean;
  #isStopping = false;

  constructor(context: QueueContext) {
    this.#context = context;
    this.#isJournalLong = context.isJournalLong;
    this.#looks = new LookQueue(context.kernel.knobs.looksMax);
  }

  /** A command that changes something is carried out, or the journal is rewritten. */
  get isRunning(): boolean {
    return this.#isRunning;
  }

  /** The pool has been told to stop. */
  get isStopping(): boolean {
    return this.#isStopping;
  }

  /** Takes a command, or refuses it: after a stop, and if too many wait. */
  push(command: PoolCommand): void {
    // Carried out after the last commit, it would be acknowledged and lost.
    if (this.#isStopping) {
      return this.#context.kernel.reply(command, {
        kind: "refused",
        reason: "The pool is being closed. Try again when it is open again.",
      });
    }
    if (command.type === "stopPool") this.#isStopping = true;
    const look = command.type === "admin" && isLookOf(command.command) ? command : undefined;
    const waiting = look === undefined ? this.#commands.length : this.#looks.waiting;
    // Only what an administrator asked for can be tried again. The end of a hold is not: there are few of them.
    const isRefusable = command.type === "admin" && command.command.verb !== "endHeld";
    if (waiting >= adminQueueMax && isRefusable) {
      return this.#context.kernel.reply(command, {
        kind: "refused",
        reason: "Too many commands wait already. Try again.",
      });
    }
    if (look !== undefined) {
      this.#looks.push(look);
      return this.#startLooks();
    }
    this.#commands.push(command);
    assert(this.#commands.length <= queues.commands, "more commands wait than are taken");
    if (!this.#isRunning) this.#start();
  }

  #startLooks(): void {
    const { kernel, geometry } = this.#context;
    if (!geometry.isKnown) return;
    for (let look = this.#looks.next(); look !== undefined; look = this.#looks.next()) {
      kernel.start(`admin ${look.command.verb}`, lookTask(geometry.peers, look));
    }
  }

  /** Begins the commands that look and came before the geometry was known. */
  geometryKnown(): void {
    this.#startLooks();
  }

  /** A command that only looks has ended. */
  lookEnded({ look, result }: LookEnded): void {
    this.#looks.ended(look);
    this.#context.kernel.reply(look, result);
    this.#startLooks();
    if (!this.#isRunning) this.#start();
  }

  #start(): void {
    const { kernel, geometry } = this.#context;
    const command = this.#commands[0];
    if (command === undefined) return;
    // The stop comes last, after the commands that look and what is done behind the commands have finished.
    if (command.type === "stopPool" && (this.#looks.running > 0 || this.#context.isRemoving())) return;
    this.#isRunning = true;
    switch (command.type) {
      case "admin":
        // Only after a start that was refused.
        if (!geometry.isKnown) return this.commandEnded({ kind: "refused", reason: "The pool is not open." });
        return kernel.start(`admin ${command.command.verb}`, adminTask(geometry.peers, command.command));
      case "forgetRemoved":
        return kernel.start("forget removed", forgetTask(geometry.peers, command.uids));
      case "startPool":
        return kernel.start("start", startTask(geometry.actors));
      case "stopPool":
        return kernel.start("stop", stopTask(geometry.actors));
      default:
        return unreachable(command);
    }
  }

  /** The command that was carried out has ended. */
  commandEnded(result: AdminResult): void {
    const command = present(this.#commands.shift(), "a command ended that was not given");
    this.#isRunning = false;
    const isAnsweredLater = this.#context.ended(command, result);
    if (!isAnsweredLater) this.#context.kernel.reply(command, result);
    if (this.#isJournalLong && !this.#isStopping && result.kind !== "refused") return this.#rewrite();
    this.#start();
  }

  /** Nothing is deleted behind the commands just now. */
  removalEnded(): void {
    if (!this.#isRunning) this.#start();
  }

  /** The command that is carried out made the journal long. */
  journalLong(): void {
    this.#isJournalLong = true;
  }

  #rewrite(): void {
    this.#isJournalLong = false;
    this.#isRunning = true;
    this.#context.kernel.start("rewrite catalogue", rewriteTask(this.#context.geometry.peers));
  }

  /** The journal has been rewritten, or could not be. */
  rewriteEnded(): void {
    this.#isRunning = false;
    this.#start();
  }
}

/** The commands that the pool gives itself all change something; the table of verbs does not have them. */
function isLookOf(command: Admin["command"]): boolean {
  return !isLifeCommand(command) && isLook(command);
}

function isLifeCommand(command: Admin["command"]): command is LifetimeCommand {
  const verbs: readonly string[] = lifeVerbs;
  return verbs.includes(command.verb);
}
