/**
 * The removals under way: their names are durably gone, and their thin devices are being deleted behind the commands
 * (control/removal_task.ts). Not an actor but a part of PoolActor's state.
 *
 * One task at a time deletes all that was removed by then. What a task could not delete stays in the catalogue as being
 * deleted; it is tried again with the next removal, and at the next start.
 */
import { assert } from "../../storage/base/assert.ts";
import { adminQueueMax, volumesMax } from "../limits.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { AdminResult } from "./admin_command.ts";
import { done } from "./admin_outcome.ts";
import type { PoolGeometry } from "./pool_geometry.ts";
import type { Admin, Deletion } from "./pool_messages.ts";
import { removalTask } from "./removal_task.ts";

/** What removals work with. */
export interface RemovalsContext {
  readonly kernel: Kernel;
  /** Known: nothing is removed before. */
  readonly geometry: PoolGeometry;
  isStopping(): boolean;
  log(sentence: string): void;
}

/** A command that is answered when the space of its volumes is back. */
interface Waiting {
  readonly command: Admin;
  readonly uids: readonly string[];
}

/** See the head of this file. */
export class Removals {
  readonly #context: RemovalsContext;
  /** By uid: what is to be deleted, and what the task deletes. */
  readonly #left = new Map<string, Deletion>();
  /** What the task deletes. */
  #running: readonly Deletion[] = [];
  #lastAdded: readonly string[] = [];
  #waiting: Waiting[] = [];

  constructor(context: RemovalsContext) {
    this.#context = context;
  }

  get isRunning(): boolean {
    return this.#running.length > 0;
  }

  /** Their names are durably gone. */
  add(deletions: readonly Deletion[]): void {
    for (const deletion of deletions) this.#left.set(deletion.uid, deletion);
    assert(this.#left.size <= volumesMax, "more devices are to be deleted than there can be");
    this.#lastAdded = deletions.map(({ uid }) => uid);
    this.#start();
  }

  /** Answers `command`, which added the last deletions, when the space of these is back. */
  hold(command: Admin): void {
    if (this.#waiting.length >= adminQueueMax) return this.#context.kernel.reply(command, notBack);
    this.#waiting.push({ command, uids: this.#lastAdded });
    if (!this.isRunning) this.#answer(done);
  }

  #start(): void {
    const { kernel, geometry, isStopping } = this.#context;
    if (this.isRunning || this.#left.size === 0 || isStopping()) return;
    this.#running = [...this.#left.values()];
    kernel.start("remove devices", removalTask(geometry.peers, this.#running));
  }

  /** The task has ended. */
  ended(result: AdminResult): void {
    assert(this.isRunning, "a removal that ends has begun");
    const tried = this.#running;
    this.#running = [];
    if (result.kind === "done") { for (const { uid } of tried) this.#left.delete(uid); }
    else if (result.kind === "refused" && !this.#context.isStopping()) this.#context.log(result.reason);
    this.#answer(result, new Set(tried.map(({ uid }) => uid)));
    // What failed is not tried again at once. What came meanwhile is, with it.
    if (result.kind === "done" || this.#left.size > tried.length) this.#start();
  }

  /** Answers the commands whose volumes are all dealt with: of `tried`, or of all. */
  #answer(result: AdminResult, tried?: ReadonlySet<string>): void {
    const waiting: Waiting[] = [];
    for (const one of this.#waiting) {
      const left = one.uids.filter((uid) => this.#left.has(uid));
      if (left.length === 0) this.#context.kernel.reply(one.command, done);
      else if (tried === undefined || left.some((uid) => tried.has(uid))) {
        this.#context.kernel.reply(one.command, result.kind === "done" ? notBack : result);
      } else waiting.push(one);
    }
    this.#waiting = waiting;
  }
}

const notBack: AdminResult = {
  kind: "refused",
  reason: "The change is made, but the space did not come back yet. `status` shows what is being removed.",
};
