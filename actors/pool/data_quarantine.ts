/**
 * The quarantine: data blocks that lost their last reference and may not be leased yet. Part of the DataAllocator actor.
 *
 * Owns: the blocks in each step below, and the reclaim requests that wait for them.
 *
 * The steps of a freed block, in order:
 *
 *  1. `freed`: its last mapping was removed, in memory.
 *  2. `frozen`: a commit that does not map it has begun.
 *  3. `durable`: that commit is on disk.
 *  4. passed down: its range is discarded on the data device, under its data lock.
 *  5. It leaves the quarantine and is free.
 *
 * If we stop before step 3, the last commit may map the block, and its bytes are untouched. If it were passed down earlier,
 * that commit would map zeroes; if it were leased earlier, another volume's bytes. If we stop after step 3, no commit that
 * a restart can open maps the block, whatever has become of its bytes.
 */
import { assert } from "../../storage/base/assert.ts";
import { BlockSet, type DBlockRun } from "../../storage/block_set.ts";
import type { Geometry } from "../../storage/base/geometry.ts";
import type { DBlock } from "../../storage/base/ids.ts";
import type { Address, Message, Request } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { rest, type Steps } from "../kernel/task.ts";
import { queues } from "../queues.ts";
import type { DeviceStub } from "./device_messages.ts";
import type { DataLocks } from "./data_locks.ts";
import type { NotCommitted } from "./commit_messages.ts";
import type { MetadataStub } from "./metadata_messages.ts";

/**
 * Answered true when all blocks now in quarantine are free, for which a commit may be needed; false if no commit is possible.
 * With an empty quarantine answered at once: whether blocks became free since the last search that found none.
 */
export interface Reclaim extends Request<boolean> {
  readonly type: "reclaim";
}

/** From the passdown task: all its blocks have been passed down. */
export interface PassedDown extends Message {
  readonly type: "passedDown";
}

/** What the quarantine's tasks send requests to. */
export interface QuarantineParts {
  readonly metadata: MetadataStub;
  readonly device: DeviceStub;
  readonly locks: DataLocks;
}

export class DataQuarantine {
  readonly #kernel: Kernel;
  readonly #allocator: Address<PassedDown | NotCommitted>;
  readonly #parts: QuarantineParts;

  /** Bytes of a data block, from the first geometry on; the same in every later one. */
  #blockSizeBytes = 0;
  /** Freed since the last freeze. */
  #freedNow = new BlockSet();
  /** Freed in the commit in progress. */
  #freedFrozen = new BlockSet();
  /** Freed in a durable commit, and waiting until the passdown in progress ends. */
  #freedDurable = new BlockSet();
  /** The blocks of the passdown in progress. */
  #passingDown: BlockSet | undefined;

  /** Commits that have reached each step. A reclaim request waits until its commit has reached the last. */
  #commitsFrozen = 0;
  #commitsDurable = 0;
  #commitsPassingDown = 0;
  #commitsPassedDown = 0;
  #reclaims: { readonly request: Reclaim; readonly commits: number }[] = [];
  /** The commit, counted as those that were frozen, that {@linkcode hurry} has asked for. */
  #commitsHurried = 0;
  /** A commit failed or was refused, and so will every later one. */
  #commitsEnded = false;

  constructor(
    kernel: Kernel,
    allocator: Address<PassedDown | NotCommitted>,
    parts: QuarantineParts,
  ) {
    this.#kernel = kernel;
    this.#allocator = allocator;
    this.#parts = parts;
  }

  /** Blocks in quarantine, whatever their step. */
  get blocks(): number {
    return this.#freedNow.size + this.#freedFrozen.size + this.#freedDurable.size +
      (this.#passingDown?.size ?? 0);
  }

  /** True if the block is in quarantine. */
  has(block: DBlock): boolean {
    return this.#freedNow.has(block) || this.#freedFrozen.has(block) ||
      this.#freedDurable.has(block) || (this.#passingDown?.has(block) ?? false);
  }

  /** The pool has its first geometry, or is larger. Blocks in quarantine stay where they are. */
  takeGeometry({ blockSizeBytes }: Geometry): void {
    this.#blockSizeBytes = blockSizeBytes;
  }

  /** Step 1. */
  freed(runs: readonly DBlockRun[]): void {
    for (const { begin } of runs) assert(!this.has(begin), "a block was freed that is in quarantine");
    for (const run of runs) this.#freedNow.addRun(run);
  }

  /** Step 2. */
  frozen(): void {
    assert(this.#freedFrozen.size === 0, "a commit began before the last one was durable");
    assert(this.#commitsFrozen === this.#commitsDurable, "two commits are in progress");
    this.#commitsFrozen += 1;
    this.#freedFrozen = this.#freedNow;
    this.#freedNow = new BlockSet();
  }

  /** Step 3. */
  durable(): void {
    assert(this.#commitsDurable < this.#commitsFrozen, "a commit became durable that had not begun");
    this.#commitsDurable = this.#commitsFrozen;
    this.#freedDurable.takeAll(this.#freedFrozen);
    assert(this.#freedFrozen.size === 0, "blocks of a durable commit stayed frozen");
    this.#passDown();
  }

  /** Step 4 has ended for the blocks that were being passed down; step 5. */
  passedDown(): void {
    assert(this.#passingDown !== undefined, "a passdown ended that had not begun");
    assert(
      this.#commitsPassingDown <= this.#commitsDurable,
      "blocks were passed down before their commit was durable",
    );
    this.#passingDown = undefined;
    this.#commitsPassedDown = this.#commitsPassingDown;
    this.#answerReclaims(this.#commitsPassedDown, true);
    this.#passDown();
  }

  /** No commit is possible any more: blocks before step 3 stay in quarantine until the pool is opened again. */
  notCommitted(): void {
    this.#commitsEnded = true;
    this.#answerReclaims(Infinity, false);
    assert(this.#reclaims.length === 0, "a task waits for blocks that never become free");
  }

  /** Answers the request when all blocks now in quarantine are free, and starts a commit if that needs one. */
  reclaim(request: Reclaim): void {
    assert(this.blocks > 0, "there is nothing to reclaim");
    if (this.#commitsEnded) return this.#kernel.reply(request, false);
    // Blocks before step 2 need one more commit; the others need none.
    const commits = this.#commitsFrozen + (this.#freedNow.size > 0 ? 1 : 0);
    assert(this.#reclaims.length < queues.reclaims, "more tasks wait for freed blocks than there can be");
    this.#reclaims.push({ request, commits });
    if (commits > this.#commitsFrozen) {
      this.#kernel.start("reclaim", reclaimTask(this.#kernel, this.#allocator, this.#parts.metadata));
    }
  }

  /** Bios wait for the blocks before step 2: starts the commit that they need, once. */
  hurry(): void {
    if (this.#commitsEnded || this.#freedNow.size === 0) return;
    if (this.#commitsHurried === this.#commitsFrozen + 1) return;
    this.#commitsHurried = this.#commitsFrozen + 1;
    this.#kernel.start("reclaim", reclaimTask(this.#kernel, this.#allocator, this.#parts.metadata));
  }

  #passDown(): void {
    if (this.#passingDown !== undefined) return;
    this.#commitsPassingDown = this.#commitsDurable;
    if (this.#freedDurable.size === 0) {
      this.#commitsPassedDown = this.#commitsDurable;
      return this.#answerReclaims(this.#commitsPassedDown, true);
    }
    assert(this.#commitsPassedDown <= this.#commitsPassingDown, "a passdown ended before it began");
    this.#passingDown = this.#freedDurable;
    this.#freedDurable = new BlockSet();
    const runs = this.#passingDown.runs(this.#kernel.knobs.passdownRunBlocksMax);
    this.#kernel.start(
      "passdown",
      passdownTask(this.#kernel, this.#allocator, this.#parts, runs, this.#blockSizeBytes),
    );
  }

  #answerReclaims(commits: number, answer: boolean): void {
    const waiting = this.#reclaims;
    this.#reclaims = [];
    for (const reclaim of waiting) {
      if (reclaim.commits <= commits) this.#kernel.reply(reclaim.request, answer);
      else this.#reclaims.push(reclaim);
    }
  }
}

function* reclaimTask(
  kernel: Kernel,
  allocator: Address<NotCommitted>,
  metadata: MetadataStub,
): Steps<void> {
  const committed = yield* metadata.commit();
  // Metadata tells the allocator of a commit that succeeds, not of a request for one that is refused.
  if (committed.kind !== "done") kernel.tell(allocator, { type: "notCommitted" });
}

/** Discards the runs on the data device. The iterable makes one run at a time, as there may be a million. */
function* passdownTask(
  kernel: Kernel,
  allocator: Address<PassedDown>,
  { device, locks }: QuarantineParts,
  runs: Iterable<DBlockRun>,
  blockSizeBytes: number,
): Steps<void> {
  if (device.canDiscard) {
    for (const run of runs) {
      yield* passDownRun(device, locks, run, blockSizeBytes);
      // Each run is answered at once, so without a rest a million of them would keep the event loop from its sockets.
      yield* rest();
    }
  }
  kernel.tell(allocator, { type: "passedDown" });
}

/** The data lock keeps a copy from reading a block while it is discarded. */
function* passDownRun(
  device: DeviceStub,
  locks: DataLocks,
  { begin, length }: DBlockRun,
  blockSizeBytes: number,
): Steps<void> {
  using _lock = yield* locks.range(begin, begin + length);
  yield* device.discard(begin * blockSizeBytes, length * blockSizeBytes);
}
