/**
 * The pool's part of a change: it is planned, staged in the catalogue, and settled, each in slices. Not an actor but a part
 * of the pool's state.
 *
 * Between two slices of staging and of settling the catalogue shows a part of the change, so nothing may read it then:
 * {@linkcode isTorn}. Volumes that are to be quiet take no new client meanwhile; volumes that are about to be removed take
 * none any more.
 */
import { assert, present } from "../../storage/base/assert.ts";
import type { Catalogue, VolumeRecord } from "../../storage/catalogue.ts";
import { transactionIdMax } from "../../storage/catalogue_fields.ts";
import type { Slices } from "../../storage/slices.ts";
import { planSlices, planStep, removesSomething } from "./admin_plan.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { OpenVolume } from "./open_volumes.ts";
import type { AdminPlan, More, PlanRefused, PlanStep, Reconcile } from "./pool_messages.ts";
import type { VolumeStub } from "../volume/volume_messages.ts";

/** What a change works with. */
export interface ChangeContext {
  readonly kernel: Kernel;
  readonly catalogue: Catalogue;
  /** By uid. */
  readonly open: ReadonlyMap<string, OpenVolume>;
  /** Records in one slice. */
  readonly perSlice: number;
  newUid(): string;
  /** See {@linkcode PlanContext.hold}. */
  hold(uid: string): void;
  /** Why the pool takes no changes, if so. */
  refusal(): string | undefined;
}

/** A volume that is open and to be quiet, and its record before the change. */
interface QuietVolume {
  readonly stub: VolumeStub;
  readonly record: VolumeRecord;
  isSuspended: boolean;
}

/** See the head of this file. One change at a time. */
export class PoolChange {
  readonly #context: ChangeContext;
  /** Uids of volumes that are about to be removed. */
  readonly #leaving = new Set<string>();
  #planning: Slices<AdminPlan | PlanRefused> | undefined;
  #settling: Slices<void> | undefined;
  #isTorn = false;
  /** Uids of the volumes that the staged change keeps quiet. */
  #quiet: ReadonlySet<string> = new Set();
  /** Those of them that are open. */
  #quietOpen: QuietVolume[] = [];
  /** Whether the staged change leaves the records of the quiet volumes as they are. */
  #isCut = false;

  constructor(context: ChangeContext) {
    this.#context = context;
  }

  /** The catalogue shows a part of a change. */
  get isTorn(): boolean {
    return this.#isTorn;
  }

  /** Whether the volume may be about to change, so that clients that attach to it wait. */
  isQuiet(uid: string): boolean {
    return this.#quiet.has(uid);
  }

  /** Whether the volume is about to be removed. */
  isLeaving(uid: string): boolean {
    return this.#leaving.has(uid);
  }

  /** Does a slice of the plan for a step. */
  planSlice(step: PlanStep): AdminPlan | PlanRefused | More {
    this.#planning ??= this.#planSlices(step);
    const slice = this.#planning.next();
    if (!slice.done) return { kind: "more" };
    this.#planning = undefined;
    this.#isTorn = false;
    // A refused command removes nothing.
    if (slice.value.kind === "refused") this.#leaving.clear();
    return slice.value;
  }

  *#planSlices(step: PlanStep): Slices<AdminPlan | PlanRefused> {
    const { kernel, catalogue, open, perSlice } = this.#context;
    const refusal = this.#context.refusal();
    if (refusal !== undefined) return { kind: "refused", reason: refusal };
    if (catalogue.transactionId === transactionIdMax) {
      return {
        kind: "refused",
        reason: "The pool's transaction id has reached its end. Copy the volumes to a new pool.",
      };
    }
    const draft = yield* planSlices({
      catalogue,
      now: kernel.clock.wallTime(),
      timeAfter: (afterMs) => kernel.clock.wallTime(afterMs),
      newUid: () => this.#context.newUid(),
      claim: (uid) => this.#claim(uid),
      hold: (uid) => this.#context.hold(uid),
      clientsOf: (uid) => [...open.get(uid)?.clients.values() ?? []],
      perSlice,
    }, step);
    if (draft.kind === "refused") return draft;
    const staging = catalogue.stageSlices(draft.changes, perSlice);
    let staged = staging.next();
    for (; !staged.done; staged = staging.next()) {
      this.#isTorn = true;
      yield;
    }
    this.#quiet = draft.quiesceUids;
    this.#isCut = draft.quietUntil !== "settled";
    this.#quietOpen = this.#openOf(draft.quiesceUids);
    return {
      ...draft,
      kind: "plan",
      line: staged.value,
      room: { contentBytes: catalogue.stagedContentBytes, usesHeadroom: removesSomething(step, draft) },
      transactionId: catalogue.transactionId + 1n,
      quiesce: this.#quietOpen.filter(({ isSuspended }) => isSuspended).map(({ stub }) => stub),
      // What is not open has no clients.
      evict: draft.evict.filter((uid) => open.has(uid)),
    };
  }

  /** Applies a reconciliation in memory only, for a pool that is opened read-only. */
  adopt(step: Reconcile): void {
    const { kernel, catalogue } = this.#context;
    const draft = planStep({
      catalogue,
      now: kernel.clock.wallTime(),
      timeAfter: (afterMs) => kernel.clock.wallTime(afterMs),
      newUid: () => this.#context.newUid(),
      clientsOf: () => [],
      claim: () => 0,
      hold: () => {},
      perSlice: Infinity,
    }, step);
    assert(draft.kind === "draft", "a reconciliation was refused");
    catalogue.stage(draft.changes);
    catalogue.commitStaged();
  }

  #claim(uid: string): number {
    this.#leaving.add(uid);
    return this.#context.open.get(uid)?.clients.size ?? 0;
  }

  /**
   * Only a volume with clients has anything under way that a suspension could wait for. The others get none before the
   * change is settled.
   */
  #openOf(uids: ReadonlySet<string>): QuietVolume[] {
    const quiet: QuietVolume[] = [];
    for (const uid of uids) {
      const open = this.#context.open.get(uid);
      if (open === undefined) continue;
      quiet.push({ stub: open.stub, record: this.#recordOf(uid), isSuspended: open.clients.size > 0 });
    }
    return quiet;
  }

  /** The cut is made: the quiet volumes go on, though the change is not settled. It leaves their records as they are. */
  cutMade(): void {
    assert(this.#isCut, "a volume that is about to change stays quiet");
    for (const quiet of this.#quietOpen) this.#resume(quiet, quiet.record);
    this.#quiet = new Set();
  }

  /** Does a slice of the settling: the staged change is kept, or dropped. */
  settleSlice(isKept: boolean): "settled" | "more" {
    this.#settling ??= this.#settleSlices(isKept);
    this.#isTorn = !this.#settling.next().done;
    if (this.#isTorn) return "more";
    this.#settling = undefined;
    this.#quiet = new Set();
    this.#quietOpen = [];
    this.#leaving.clear();
    return "settled";
  }

  *#settleSlices(isKept: boolean): Slices<void> {
    const { catalogue, perSlice } = this.#context;
    // Resume the quiet volumes first: putting thousands of records in their places takes long.
    if (this.#isCut) { for (const quiet of this.#quietOpen) this.#resume(quiet, quiet.record); }
    if (isKept) yield* catalogue.commitStagedSlices(perSlice);
    else catalogue.abandonStaged();
    for (const quiet of this.#quietOpen) this.#resume(quiet, this.#recordOf(quiet.record.uid));
  }

  #resume(quiet: QuietVolume, now: VolumeRecord): void {
    const { record, stub } = quiet;
    const isResized = now.sizeBytes !== record.sizeBytes;
    if (!quiet.isSuspended && !isResized && now.thinId === record.thinId) return;
    quiet.isSuspended = false;
    stub.resume(now.thinId, now.sizeBytes);
    if (!isResized) return;
    for (const client of this.#context.open.get(record.uid)?.clients.keys() ?? []) {
      const resized = { type: "exportResized", uid: record.uid, sizeBytes: now.sizeBytes } as const;
      this.#context.kernel.tell(client, resized);
    }
  }

  #recordOf(uid: string): VolumeRecord {
    return present(this.#context.catalogue.byUid(uid), "a volume without a record");
  }
}
