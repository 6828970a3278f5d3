/**
 * Metadata: the mapping and device trees, both space maps, the transaction.
 *
 * Owns: the engine (storage/thin_metadata.ts) with its block cache, the operations that wait for a block, and the commit in
 * progress. An operation is done in one turn or not at all: if it needs a block that is not in memory, the engine undoes it,
 * the block is read, and the operation is started again from its beginning.
 *
 * A change that finds no free metadata block waits for commits as long as they give some back, and only then is refused.
 *
 * The transaction is all changes since the last freeze. A freeze starts the next transaction at once, so operations go on
 * while a commit writes. A commit request that arrives after the freeze waits for the next commit (group commit). Where
 * nothing has changed, a commit is a flush of the data device. At most `flushesMax` such flushes run beside each other; a
 * commit runs alone (the reason is in commit.ts).
 *
 * Failure policy: damage and read errors are answers, and end all changes. A commit that fails fails the pool: after a failed
 * flush the host may have dropped dirty pages, so a second try could succeed without them.
 */
import { assert, present, unreachable } from "../../storage/base/assert.ts";
import { reasonOfIo } from "../../storage/device/port.ts";
import type { MetadataBlock } from "../../storage/base/ids.ts";
import { MetadataFault, type ThinMetadata } from "../../storage/thin_metadata.ts";
import type { DeviceStub } from "./device_messages.ts";
import { commitTask, fetchTask, needsCheckTask } from "./commit.ts";
import type { Commit, CommitEnded, FlushEnded, Freeze, Frozen } from "./commit_messages.ts";
import { CommitRequests } from "./commit_requests.ts";
import type { Actor, Address, Request } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Knobs } from "../knobs.ts";
import { HeldCommits } from "./held_commits.ts";
import type { IntentJournal } from "./intent_journal.ts";
import { type Fetched, type MetadataMessage, MetadataStub, type Operation } from "./metadata_messages.ts";
import { MetadataNotices } from "./metadata_notices.ts";
import type { Done, MetadataFailure } from "./metadata_results.ts";
import { type ChangeOperation, executeChange, isServedByCommit, makesDirty } from "./metadata_changes.ts";
import { executeRead, metadataDone, serveFacts } from "./metadata_reads.ts";
import { serveAllowances } from "./metadata_allowances.ts";
import { type Attempt, WaitingOperations } from "./waiting_operations.ts";

export class Metadata implements Actor<MetadataMessage> {
  readonly #kernel: Kernel;
  readonly #knobs: Knobs;
  readonly #stub: MetadataStub;
  readonly #engine: ThinMetadata;
  readonly #dataDevice: DeviceStub;
  readonly #metadataDevice: DeviceStub;
  readonly #notices: MetadataNotices;
  readonly #intents: IntentJournal;
  readonly #waiting: WaitingOperations;
  readonly #held: HeldCommits;
  /** A commit task runs, before or after its freeze. */
  #committing = false;
  readonly #requests = new CommitRequests();
  /** A change has slices that are done and slices that are not. */
  #isChanging = false;
  /** The freeze of a commit that waits until flushes have ended or the last slice is done. */
  #freezeDelayed: Attempt | undefined;
  /** The answer to every change from now on. */
  #refusal: MetadataFailure | undefined;

  constructor(
    kernel: Kernel,
    self: Address<MetadataMessage>,
    engine: ThinMetadata,
    devices: { readonly data: DeviceStub; readonly metadata: DeviceStub },
    options: { readonly readOnly: boolean; readonly intents: IntentJournal },
  ) {
    this.#kernel = kernel;
    this.#knobs = kernel.knobs;
    this.#waiting = new WaitingOperations(kernel.knobs.missesBeforeAlone);
    this.#stub = new MetadataStub(kernel, self);
    this.#engine = engine;
    this.#held = new HeldCommits(engine);
    this.#notices = new MetadataNotices(kernel, engine);
    this.#intents = options.intents;
    this.#dataDevice = devices.data;
    this.#metadataDevice = devices.metadata;
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
      case "grow":
      case "device":
      case "load":
      case "freeze":
        return this.#perform({ operation: message, misses: 0 });
      case "lookupAtOnce":
      case "facts":
      case "askGrowth":
      case "listThins":
      case "deviceStates":
        return serveFacts(this.#kernel, this.#engine, this.#intents.state, message);
      case "commit":
        return this.#commit(message);
      case "holdCommit":
        return this.#kernel.reply(message, this.#held.hold());
      case "releaseCommit":
        this.#held.release(message.hold);
        return this.#notices.tellSpace();
      case "commitEnded":
        return this.#commitEnded(message);
      case "flushEnded":
        return this.#flushEnded(message);
      case "fetched":
        return this.#fetched(message);
      case "tick":
        if (this.#engine.isDirty && this.#refusal === undefined) this.#startCommit();
        return;
      case "dataRetired":
      case "askRoom":
      case "setAllowances":
      case "beginCount":
      case "endCount":
      case "cancelCount":
      case "dropUnused":
        serveAllowances(this.#kernel, this.#engine, message);
        return message.type === "endCount" ? this.#notices.tellAllowances() : undefined;
      case "reportMappedFree":
        return this.#kernel.reply(
          message,
          this.#damaged(`the metadata counts data block ${message.dblock} as free, and it is mapped`),
        );
      case "connect":
        return this.#notices.connect(message);
      default:
        return unreachable(message);
    }
  }

  /** Does the operation and answers it, unless it must wait or needs a block that is not in memory. */
  #perform(attempt: Attempt): void {
    const mustWait = this.#waiting.mustWait(attempt);
    // A look-up with all its blocks in memory evicts none, so it need not wait.
    if (mustWait && attempt.operation.type !== "lookup") return this.#waiting.delay(attempt);
    if (!this.#waiting.isAlone(attempt) && this.#mustWaitForCommit(attempt.operation)) {
      this.#waiting.slowDown(attempt);
      return this.#startCommit();
    }
    if (attempt.operation.type === "freeze" && this.#mustDelayFreeze()) {
      assert(this.#freezeDelayed === undefined, "two commits wait to begin");
      this.#freezeDelayed = attempt;
      return;
    }
    let answer;
    try {
      answer = this.#execute(attempt.operation);
    } catch (error) {
      // The engine has undone the operation: these are results, not defects.
      if (!(error instanceof MetadataFault)) throw error;
      if (error.fault.kind === "missing") {
        if (mustWait) return this.#waiting.delay(attempt);
        if (attempt.operation.type === "lookup") this.#kernel.count("lookupMisses");
        if (this.#waiting.miss(attempt, error.fault.block)) this.#fetch(error.fault.block);
        return;
      }
      answer = this.#failureOf(error.fault);
      if (answer.kind === "noMetadataSpace") {
        if (isServedByCommit(this.#engine, attempt.operation, this.#isChanging)) {
          return this.#waitForSpace(attempt);
        }
        this.#notices.noteRefusal(attempt.operation);
      }
    }
    if (attempt.operation.type === "load") this.#loaded(answer);
    this.#kernel.reply(attempt.operation as Request<unknown>, answer);
    this.#afterOperation(attempt);
  }

  /** Nothing was changed yet, and no client is let in before this is answered. */
  #loaded(answer: unknown): void {
    this.#notices.announceGeometry();
    if (answer === metadataDone && this.#refusal === undefined) {
      this.#intents.start(this.#engine.durableSuperblock());
    }
  }

  /**
   * A freeze waits for the last slice of a change, because a commit of some slices would be a part of a command. After the
   * pool stopped writing the last slice never comes, so the freeze goes on and is refused. It waits for flushes to end if the
   * commit writes something or is the last.
   */
  #mustDelayFreeze(): boolean {
    if (this.#isChanging && this.#refusal === undefined) return true;
    if (this.#requests.flushes === 0) return false;
    return this.#engine.isDirty || this.#requests.isLastNext;
  }

  #resumeFreeze(): void {
    const delayed = this.#freezeDelayed;
    if (delayed === undefined || this.#mustDelayFreeze()) return;
    this.#freezeDelayed = undefined;
    this.#perform(delayed);
  }

  #execute(operation: Operation): unknown {
    switch (operation.type) {
      case "insert":
      case "removeRange":
      case "change":
      case "revoke":
      case "deleteSlice":
      case "grow":
      case "freeze":
        return this.#refusal ?? this.#executeChange(operation);
      default:
        return executeRead(this.#engine, operation);
    }
  }

  #executeChange(operation: ChangeOperation | Freeze): unknown {
    if (operation.type === "freeze") return this.#freeze();
    const answer = executeChange(this.#engine, operation, this.#intents, this.#knobs.leavesPerDeleteSlice);
    if (answer === undefined) {
      // A part of the change is in memory, so no commit may follow: damage ends all changes.
      return this.#damaged("a change that found no space for itself found none to be undone either");
    }
    if (operation.type === "change" || operation.type === "revoke") this.#isChanging = operation.hasMore;
    if (operation.type === "change" && operation.allowances !== undefined) this.#notices.tellAllowances();
    return answer;
  }

  #afterOperation(attempt: Attempt): void {
    this.#notices.tellFreed();
    const isMuch = this.#engine.dirtyBlocks > this.#knobs.dirtyBlocksMax || this.#intents.isHalfFull;
    if (isMuch && this.#refusal === undefined) this.#startCommit();
    for (const next of this.#waiting.end(attempt)) this.#perform(next);
    this.#resumeSlowedDown();
    this.#resumeFreeze();
  }

  /**
   * The blocks of a commit in progress cannot be evicted. So beside it at most `dirtyBlocksMax` others may become dirty. And
   * no change is done that the intent journal has no room for: the next transaction has a segment of its own.
   */
  #mustSlowDown(): boolean {
    if (this.#intents.isFull) return true;
    return this.#committing && this.#engine.dirtyBlocks > this.#knobs.dirtyBlocksMax;
  }

  /** Inserts queue behind an operation that waits for space, so that they do not take what the commit gives back. */
  #mustWaitForCommit(operation: Operation): boolean {
    if (this.#refusal !== undefined) return false;
    if (operation.type === "insert" && this.#waiting.isShort) return true;
    return makesDirty(operation) && this.#mustSlowDown();
  }

  #waitForSpace(attempt: Attempt): void {
    const delayed = this.#waiting.waitForSpace(attempt);
    this.#startCommit();
    assert(this.#committing, "an operation waits for a commit, and none runs");
    for (const next of delayed) this.#perform(next);
  }

  /** After a freeze, the end of a commit or a refusal. */
  #resumeSlowedDown(): void {
    if (this.#waiting.slowedDown === 0) return;
    if (this.#refusal === undefined && (this.#waiting.isShort || this.#mustSlowDown())) return;
    for (const next of this.#waiting.takeSlowedDown()) this.#perform(next);
  }

  #fetch(block: MetadataBlock): void {
    const bytes = this.#engine.takeBuffer();
    this.#kernel.start(`fetch ${block}`, fetchTask(this.#stub, this.#metadataDevice, block, bytes));
  }

  #fetched(message: Fetched): void {
    const waiting = this.#waiting.takeMissing(message.block);
    if (message.result.kind === "ok") {
      this.#engine.supply(message.block, message.bytes);
      for (const attempt of waiting) this.#perform(attempt);
      return;
    }
    const failure = this.#damaged(`reading metadata block ${message.block}: ${reasonOfIo(message.result)}`);
    for (const attempt of waiting) {
      this.#kernel.reply(attempt.operation as Request<unknown>, failure);
      this.#afterOperation(attempt);
    }
  }

  #failureOf(fault: Exclude<MetadataFault["fault"], { kind: "missing" }>): MetadataFailure {
    if (fault.kind !== "damaged") return fault;
    return this.#damaged(`metadata block ${fault.block} is damaged: ${fault.reason}`);
  }

  /** Ends all changes: metadata that cannot be read cannot be kept consistent. */
  #damaged(reason: string): MetadataFailure {
    this.#refusal ??= { kind: "readOnly" };
    this.#notices.trouble("damaged", reason);
    return { kind: "damaged", reason };
  }

  #commit(request: Commit): void {
    if (this.#refusal !== undefined) return this.#kernel.reply(request, this.#refusal);
    this.#requests.push(request);
    this.#startCommit();
  }

  /** Starts a commit or, where nothing has changed, a flush, unless one in progress must end first. */
  #startCommit(): void {
    if (this.#committing || (!this.#engine.isDirty && this.#requests.flushes === this.#knobs.flushesMax)) {
      return;
    }
    this.#committing = true;
    this.#kernel.start("commit", commitTask(this.#stub, this.#dataDevice, this.#metadataDevice));
  }

  #freeze(): Frozen {
    assert(this.#committing, "a transaction was frozen without a commit");
    const isAlone = this.#requests.waiting === 1 && this.#requests.flushes === 0;
    if (!this.#engine.isDirty) {
      // Nothing was freed either since the last commit, so the allocator need not be told.
      this.#committing = false;
      return { kind: "clean", flush: this.#requests.beginFlush(), isAlone };
    }
    const frozen: Frozen = { kind: "frozen", ...this.#engine.beginCommit(), isAlone };
    this.#intents.freeze(frozen.superblock);
    this.#requests.beginCommit();
    // What was freed so far is freed in this commit, so the allocator must be told of it before "frozen".
    this.#notices.tellFreed();
    this.#notices.tellAllocator({ type: "frozen" });
    return frozen;
  }

  #flushEnded(message: FlushEnded): void {
    const ended = this.#requests.endFlush(message.flush);
    if (message.failure !== undefined) this.#commitFailed(message.failure, ended);
    else this.#answer(ended, metadataDone);
    if (this.#freezeDelayed !== undefined) this.#resumeFreeze();
    else if (this.#requests.waiting > 0) this.#startCommit();
  }

  #commitEnded(message: CommitEnded): void {
    assert(this.#committing, "a commit ended that had not begun");
    this.#committing = false;
    const ended = this.#requests.endCommit();
    if (message.failure !== undefined) return this.#commitFailed(message.failure, ended);
    if (message.begun !== "frozen") return this.#commitRefused();
    this.#engine.commitDurable();
    this.#intents.durable();
    this.#kernel.count("commits");
    this.#notices.announceGeometry();
    this.#notices.tellAllocator({ type: "durable" });
    this.#notices.tellSpace();
    this.#answer(ended, metadataDone);
    this.#waiting.isShort = false;
    // Before the next commit begins: where space suffices now, there need not be one.
    this.#resumeSlowedDown();
    if (this.#requests.waiting > 0 || this.#waiting.slowedDown > 0) this.#startCommit();
  }

  /** The pool stopped writing before the commit began. Reads are still served. */
  #commitRefused(): void {
    const refusal = present(this.#refusal, "a commit was refused for no reason");
    this.#answer(this.#requests.takeNext(), refusal);
    this.#notices.tellAllocator({ type: "notCommitted" });
    this.#resumeSlowedDown();
  }

  /**
   * The pool fails, and sets needs_check: it is not opened for writing until that flag is cleared. If the flag cannot be written
   * any more, the next start goes on from the last durable commit. The superblock with the flag is made first: it must be that
   * of the last durable commit.
   */
  #commitFailed(reason: string, ended: readonly Commit[]): void {
    const refusal: MetadataFailure = { kind: "poolFailed" };
    const superblock = this.#engine.needsCheckSuperblock();
    this.#refusal = refusal;
    this.#intents.fail(`a commit failed: ${reason}`);
    this.#answer(ended, refusal);
    this.#answer(this.#requests.takeNext(), refusal);
    this.#notices.tellAllocator({ type: "notCommitted" });
    this.#kernel.start("set needs_check", needsCheckTask(this.#metadataDevice, superblock));
    this.#notices.trouble("commitFailed", reason);
    this.#resumeSlowedDown();
    this.#resumeFreeze();
  }

  #answer(requests: readonly Commit[], answer: Done | MetadataFailure): void {
    for (const request of requests) this.#kernel.reply(request, answer);
  }
}
