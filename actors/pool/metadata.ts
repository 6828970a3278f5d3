/**
 * Metadata: the mapping and device trees, both space maps, the transaction.
 *
 * Owns: the engine (storage/thin_metadata.ts) with its block cache, the operations that wait for a block, and
 * the commit in progress. An operation either happens in one turn or not at all: the engine undoes it when it
 * meets a block that is not in memory; the block is read and the operation runs again.
 *
 * The transaction is everything since the last freeze. Freezing starts the next one at once, so operations go
 * on while a commit writes. Whoever asks for a commit after the freeze waits for the next (group commit). Where
 * nothing has changed a commit is a flush of the data; two of those run beside each other, and a commit alone.
 *
 * Failure policy: damage and errors on reading are answers, and stop the pool from writing. A commit that fails
 * fails the pool: the host may have dropped the pages of a failed flush, so it is never tried again.
 */
import { assert, present, unreachable } from "../../storage/base/assert.ts";
import { reasonOfIo } from "../../storage/device/port.ts";
import type { MetadataBlock, ThinId } from "../../storage/base/ids.ts";
import { MetadataFault, type ThinMetadata } from "../../storage/thin_metadata.ts";
import type { DeviceStub } from "./block_device.ts";
import { commitTask, fetchTask, needsCheckTask } from "./commit.ts";
import type { Actor, Address, Request } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { dirtyBlocksMax, flushesMax, missesBeforeAlone } from "../limits.ts";
import {
  type AllocatorNotice,
  type AskRuns,
  type Change,
  type Commit,
  type CommitEnded,
  type DeleteSlice,
  type DeviceFacts,
  type Done,
  type Facts,
  type Fetched,
  type FlushEnded,
  type Freeze,
  type Frozen,
  type HoldCommit,
  type Insert,
  type MetadataFailure,
  type MetadataMessage,
  MetadataStub,
  type MetadataTrouble,
  type Operation,
  type RemoveRange,
  type Revoke,
} from "./metadata_messages.ts";
import { takeBack } from "./metadata_revoke.ts";
import type { RefusalsMessage } from "./refusals.ts";

const done: Done = { kind: "done" };

interface Stalled {
  readonly operation: Operation;
  misses: number;
}

/** A slice is one turn: 500 mappings, each perhaps in a bitmap of its own that must be copied. */
const leavesPerDeleteSlice = 2;

export class Metadata implements Actor<MetadataMessage> {
  readonly #kernel: Kernel;
  readonly #stub: MetadataStub;
  readonly #engine: ThinMetadata;
  readonly #dataDevice: DeviceStub;
  readonly #metadataDevice: DeviceStub;
  #allocator: Address<AllocatorNotice> | undefined;
  #pool: Address<MetadataTrouble> | undefined;
  /** Operations that wait for a block, by block. */
  readonly #stalled = new Map<MetadataBlock, Stalled[]>();
  /** An operation that missed so often that it runs alone, so that nobody evicts what it needs. */
  #alone: Stalled | undefined;
  #heldUp: Stalled[] = [];
  /** Changes that wait until a commit has come far enough, as there are too many dirty blocks to make more of them. */
  #slowedDown: Stalled[] = [];
  readonly #held = new Map<number, { release(): void }>();
  #holdLast = 0;
  #committing = false;
  /** Who waits for the next commit, and for the one in progress. */
  #commitNext: Commit[] = [];
  #commitNow: Commit[] = [];
  /** Who waits for each flush of the data under way that found nothing to commit. */
  readonly #flushes = new Map<number, Commit[]>();
  #flushLast = 0;
  /** Some slices of a change are made, and others are to come. */
  #isChanging = false;
  /** The freeze of a commit that waits for those flushes to end, or for the last slice. */
  #freezeHeld: Stalled | undefined;
  #refusal: MetadataFailure | undefined;
  readonly #refusals: Address<RefusalsMessage>;
  /** It was said that there is no space. */
  #isFull = false;
  /** Free data blocks that are not leased, as they are bad. */
  #dataRetired = 0;

  constructor(
    kernel: Kernel,
    self: Address<MetadataMessage>,
    engine: ThinMetadata,
    devices: { readonly data: DeviceStub; readonly metadata: DeviceStub },
    options: { readonly readOnly: boolean; readonly refusals: Address<RefusalsMessage> },
  ) {
    this.#kernel = kernel;
    this.#stub = new MetadataStub(kernel, self);
    this.#engine = engine;
    this.#dataDevice = devices.data;
    this.#metadataDevice = devices.metadata;
    this.#refusals = options.refusals;
    if (options.readOnly) this.#refusal = { kind: "readOnly" };
  }

  receive(message: MetadataMessage): void {
    switch (message.type) {
      case "lookup":
      case "lookupRange":
      case "askRuns":
      case "insert":
      case "removeRange":
      case "findFree":
      case "change":
      case "revoke":
      case "deleteSlice":
      case "device":
      case "load":
      case "freeze":
        return this.#perform({ operation: message, misses: 0 });
      case "commit":
        return this.#commit(message);
      case "facts":
        return this.#kernel.reply(message, this.#facts());
      case "listThins":
        return this.#kernel.reply(message, this.#engine.thinIds());
      case "holdCommit":
        return this.#holdCommit(message);
      case "releaseCommit":
        this.#held.get(message.hold)?.release();
        this.#held.delete(message.hold);
        return;
      case "commitEnded":
        return this.#commitEnded(message);
      case "flushEnded":
        return this.#flushEnded(message);
      case "fetched":
        return this.#fetched(message);
      case "tick":
        if (this.#engine.isDirty && this.#refusal === undefined) this.#startCommit();
        return;
      case "spaceRefused":
        return this.#sayFull();
      case "dataRetired":
        this.#dataRetired = message.blocks;
        return;
      case "reportMappedFree":
        return this.#kernel.reply(
          message,
          this.#damaged(`the metadata counts data block ${message.dblock} as free, and it is mapped`),
        );
      case "connect":
        this.#allocator = message.allocator;
        this.#pool = message.pool;
        return;
      case "stopWriting":
        this.#refusal ??= { kind: "readOnly" };
        return this.#goOnFreezing();
      default:
        return unreachable(message);
    }
  }

  /** Runs the operation; if it misses a block, fetches that and runs it again. */
  #perform(stalled: Stalled): void {
    const isHeldUp = this.#alone !== undefined && this.#alone !== stalled;
    // A look-up that finds everything in memory evicts nothing, so it need not wait.
    if (isHeldUp && stalled.operation.type !== "lookup") {
      this.#heldUp.push(stalled);
      return;
    }
    if (makesDirty(stalled.operation) && this.#alone !== stalled && this.#isTooDirty()) {
      this.#slowedDown.push(stalled);
      return;
    }
    if (stalled.operation.type === "freeze" && this.#mustHoldFreeze()) {
      this.#freezeHeld = stalled;
      return;
    }
    let answer;
    try {
      answer = this.#execute(stalled.operation);
    } catch (error) {
      // The engine has undone the operation: these are results, not defects.
      if (!(error instanceof MetadataFault)) throw error;
      if (error.fault.kind === "missing") {
        if (isHeldUp) this.#heldUp.push(stalled);
        else this.#stall(stalled, error.fault.block);
        return;
      }
      answer = this.#failureOf(error.fault);
      if (answer.kind === "noMetadataSpace" && stalled.operation.type === "change") this.#sayFull();
    }
    this.#kernel.reply(stalled.operation as Request<unknown>, answer);
    if (answer === done && this.#isFull) this.#sayNotFull(stalled.operation);
    this.#afterOperation(stalled);
  }

  /** A bio has tried again after a commit; a command does not. */
  #sayFull(): void {
    this.#isFull = true;
    this.#kernel.tell(this.#refusals, { type: "refused", what: "metadataFull" });
  }

  /** What is admitted only above the reserve was: removals are admitted below it too. */
  #sayNotFull(operation: Operation): void {
    const isAboveReserve = operation.type === "insert" ||
      operation.type === "change" && operation.create.length + operation.snapshots.length > 0;
    if (!isAboveReserve) return;
    this.#isFull = false;
    this.#kernel.tell(this.#refusals, { type: "served", what: "metadataFull" });
  }

  /**
   * For the end of flushes, if the commit writes something or is the last. For the end of a change in slices: a commit of
   * some of them would be a part of a command. Where the pool writes no more that has no end, and the freeze is refused.
   */
  #mustHoldFreeze(): boolean {
    if (this.#isChanging && this.#refusal === undefined) return true;
    if (this.#flushes.size === 0) return false;
    return this.#engine.isDirty || this.#commitNext.some(({ isLast }) => isLast);
  }

  #goOnFreezing(): void {
    const held = this.#freezeHeld;
    if (held === undefined || this.#mustHoldFreeze()) return;
    this.#freezeHeld = undefined;
    this.#perform(held);
  }

  #execute(operation: Operation): unknown {
    const engine = this.#engine;
    switch (operation.type) {
      case "lookup":
        return engine.lookup(operation.thin, operation.vblock);
      case "lookupRange":
        return {
          kind: "range",
          ...engine.lookupRange(operation.thin, operation.begin, operation.end, operation.runsMax),
        };
      case "askRuns":
        return this.#runs(operation);
      case "findFree":
        return { kind: "free", ...engine.findFreeData(operation.from, operation.blocksWanted) };
      case "device":
        return this.#device(operation.thin);
      case "load":
        engine.load();
        return done;
      default:
        return this.#refusal ?? this.#executeChange(operation);
    }
  }

  #runs(question: AskRuns): NonNullable<AskRuns["reply"]> {
    const { thin, other } = question;
    const runs = other === undefined
      ? this.#engine.runs.mapped(thin, question)
      : this.#engine.runs.differing(thin, other, question);
    return runs === undefined ? { kind: "noDevice" } : { kind: "runs", runs };
  }

  #executeChange(operation: Insert | RemoveRange | Change | Revoke | DeleteSlice | Freeze): unknown {
    const engine = this.#engine;
    switch (operation.type) {
      case "insert":
        engine.insert(operation.thin, operation.vblock, operation.dblock);
        return done;
      case "removeRange":
        return {
          kind: "removed",
          next: engine.removeRange(operation.thin, operation.begin, operation.end).next,
        };
      case "change":
        engine.change(operation);
        this.#isChanging = operation.hasMore;
        return done;
      case "revoke":
        return this.#revoke(operation);
      case "deleteSlice":
        return { kind: "deleted", gone: engine.deleteThin(operation.thin, leavesPerDeleteSlice) };
      case "freeze":
        return this.#freeze();
      default:
        return unreachable(operation);
    }
  }

  #revoke(operation: Revoke): Done | MetadataFailure {
    // What is in memory is a part of a change otherwise: no commit may follow.
    if (!takeBack(this.#engine, operation)) {
      return this.#damaged("a change that found no space for itself found none to be undone either");
    }
    this.#isChanging = operation.hasMore;
    return done;
  }

  #device(thin: ThinId): DeviceFacts {
    const device = this.#engine.device(thin);
    if (device === undefined) return { kind: "noDevice" };
    return { kind: "device", mappedBlocks: device.mappedBlocks, highest: this.#engine.highestMapped(thin) };
  }

  #afterOperation(stalled: Stalled): void {
    this.#tellFreed();
    if (this.#engine.dirtyBlocks > dirtyBlocksMax && this.#refusal === undefined) this.#startCommit();
    if (this.#alone === stalled) {
      this.#alone = undefined;
      const heldUp = this.#heldUp;
      this.#heldUp = [];
      for (const next of heldUp) this.#perform(next);
    }
    this.#goOnSlowedDown();
    this.#goOnFreezing();
  }

  /** What a commit writes cannot be evicted: while it is on its way, at most as much again is changed beside it. */
  #isTooDirty(): boolean {
    return this.#committing && this.#refusal === undefined && this.#engine.dirtyBlocks > dirtyBlocksMax;
  }

  /** After whatever ends that: a freeze, the end of a commit, a refusal. */
  #goOnSlowedDown(): void {
    if (this.#slowedDown.length === 0 || this.#isTooDirty()) return;
    const slowedDown = this.#slowedDown;
    this.#slowedDown = [];
    for (const next of slowedDown) this.#perform(next);
  }

  #stall(stalled: Stalled, block: MetadataBlock): void {
    stalled.misses += 1;
    if (stalled.misses > missesBeforeAlone) this.#alone ??= stalled;
    const others = this.#stalled.get(block);
    if (others !== undefined) {
      others.push(stalled);
      return;
    }
    this.#stalled.set(block, [stalled]);
    this.#kernel.start(
      `fetch ${block}`,
      fetchTask(this.#stub, this.#metadataDevice, block, this.#engine.takeBuffer()),
    );
  }

  #fetched(message: Fetched): void {
    const waiting = this.#stalled.get(message.block);
    assert(waiting !== undefined, "fetched a block that nobody waits for");
    this.#stalled.delete(message.block);
    if (message.result.kind === "ok") {
      this.#engine.supply(message.block, message.bytes);
      for (const stalled of waiting) this.#perform(stalled);
      return;
    }
    const failure = this.#damaged(`reading metadata block ${message.block}: ${reasonOfIo(message.result)}`);
    for (const stalled of waiting) {
      this.#kernel.reply(stalled.operation as Request<unknown>, failure);
      this.#afterOperation(stalled);
    }
  }

  #failureOf(fault: Exclude<MetadataFault["fault"], { kind: "missing" }>): MetadataFailure {
    if (fault.kind !== "damaged") return fault;
    return this.#damaged(`metadata block ${fault.block} is damaged: ${fault.reason}`);
  }

  /** Damage stops every change from now on: what cannot be read cannot be kept consistent. */
  #damaged(reason: string): MetadataFailure {
    this.#refusal ??= { kind: "readOnly" };
    this.#trouble("damaged", reason);
    return { kind: "damaged", reason };
  }

  #trouble(what: MetadataTrouble["what"], reason: string): void {
    if (this.#pool !== undefined) this.#kernel.tell(this.#pool, { type: "metadataTrouble", what, reason });
  }

  #commit(request: Commit): void {
    if (this.#refusal !== undefined) return this.#kernel.reply(request, this.#refusal);
    this.#commitNext.push(request);
    this.#startCommit();
  }

  /** Begins a commit, or where nothing has changed a flush, unless what is under way has to end before. */
  #startCommit(): void {
    if (this.#committing || (!this.#engine.isDirty && this.#flushes.size === flushesMax)) return;
    this.#committing = true;
    this.#kernel.start("commit", commitTask(this.#stub, this.#dataDevice, this.#metadataDevice));
  }

  #freeze(): Frozen {
    if (!this.#engine.isDirty) return this.#beginFlush();
    const isAlone = this.#commitNext.length === 1;
    const frozen: Frozen = { kind: "frozen", ...this.#engine.beginCommit(), isAlone };
    this.#commitNow = this.#commitNext;
    this.#commitNext = [];
    // What was freed so far belongs to this commit; the allocator hears of it in the same order.
    this.#tellFreed();
    this.#tellAllocator({ type: "frozen" });
    return frozen;
  }

  /** The last commit is all there is, but for the data: nothing was freed either, so the allocator need not hear of it. */
  #beginFlush(): Frozen {
    this.#committing = false;
    const isAlone = this.#commitNext.length === 1 && this.#flushes.size === 0;
    this.#flushLast += 1;
    this.#flushes.set(this.#flushLast, this.#commitNext);
    this.#commitNext = [];
    return { kind: "clean", flush: this.#flushLast, isAlone };
  }

  #flushEnded(message: FlushEnded): void {
    const answered = present(this.#flushes.get(message.flush), "a flush ended twice");
    this.#flushes.delete(message.flush);
    if (message.failure !== undefined) this.#commitFailed(message.failure, answered);
    else for (const request of answered) this.#kernel.reply(request, done);
    if (this.#freezeHeld !== undefined) this.#goOnFreezing();
    else if (this.#commitNext.length > 0) this.#startCommit();
  }

  #commitEnded(message: CommitEnded): void {
    this.#committing = false;
    const answered = this.#commitNow;
    this.#commitNow = [];
    if (message.failure !== undefined) return this.#commitFailed(message.failure, answered);
    if (message.begun !== "frozen") return this.#commitRefused();
    this.#engine.commitDurable();
    this.#tellAllocator({ type: "durable" });
    for (const request of answered) this.#kernel.reply(request, done);
    if (this.#commitNext.length > 0 || this.#slowedDown.length > 0) this.#startCommit();
    this.#goOnSlowedDown();
  }

  /** The pool stopped writing before the commit began; what can be read can still be read. */
  #commitRefused(): void {
    const refusal = present(this.#refusal, "a commit was refused for no reason");
    const waiting = this.#commitNext;
    this.#commitNext = [];
    for (const request of waiting) this.#kernel.reply(request, refusal);
    this.#tellAllocator({ type: "notCommitted" });
    this.#goOnSlowedDown();
  }

  /** The pool fails until it is restarted from the last durable commit. */
  #commitFailed(reason: string, answered: readonly Commit[]): void {
    const refusal: MetadataFailure = { kind: "poolFailed" };
    const superblock = this.#engine.needsCheckSuperblock();
    this.#refusal = refusal;
    for (const request of answered) this.#kernel.reply(request, refusal);
    for (const request of this.#commitNext) this.#kernel.reply(request, refusal);
    this.#commitNext = [];
    this.#tellAllocator({ type: "notCommitted" });
    this.#kernel.start("set needs_check", needsCheckTask(this.#metadataDevice, superblock));
    this.#trouble("commitFailed", reason);
    this.#goOnSlowedDown();
    this.#goOnFreezing();
  }

  #tellFreed(): void {
    const runs = this.#engine.takeFreed();
    if (runs.length > 0) this.#tellAllocator({ type: "freed", runs });
  }

  #tellAllocator(message: AllocatorNotice): void {
    if (this.#allocator !== undefined) this.#kernel.tell(this.#allocator, message);
  }

  #holdCommit(request: HoldCommit): void {
    this.#holdLast += 1;
    const held = this.#engine.holdCommit();
    this.#held.set(this.#holdLast, held);
    this.#kernel.reply(request, { kind: "held", hold: this.#holdLast, superblock: held.superblock });
  }

  #facts(): Facts {
    const engine = this.#engine;
    return {
      kind: "facts",
      transactionId: engine.transactionId,
      dataBlockSizeBytes: engine.dataBlockSizeSectors * 512,
      dataBlocks: engine.dataBlocks,
      dataFree: Math.max(0, engine.dataFree - this.#dataRetired),
      metadataBlocks: engine.metadataBlocks,
      metadataFree: engine.metadataFree,
      dirtyBlocks: engine.dirtyBlocks,
      clock: engine.time,
    };
  }
}

/** Whether bios may ask for it by the thousand. A command's change is one, and a commit waits for none of these. */
function makesDirty(operation: Operation): boolean {
  return operation.type === "insert" || operation.type === "removeRange" || operation.type === "deleteSlice";
}
