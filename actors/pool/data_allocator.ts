/**
 * DataAllocator: finds free data blocks and leases them to bios.
 *
 * Owns: the search cursor, the free blocks it has fetched, the leases, and the quarantine. The counts themselves
 * are the metadata actor's. A block may be leased when nothing references it in the current state (metadata
 * says so), in the commit in progress and in the last durable one (the quarantine says so): invariant I7 of actors/ARCHITECTURE.md.
 *
 * The life of a freed block: `freed` (somebody unmapped it) -> `frozen` (a commit that does not map it has
 * begun) -> `durable` (that commit is on disk) -> passed down to the host -> free. If we stop before `durable`,
 * the last commit may still map the block, and its bytes are untouched; passing it down any earlier would
 * show zeroes through that mapping.
 *
 * Failure policy: no space is an answer; a passdown that fails is ignored, as in dm-thin: the unmapping stands,
 * and a block that is not known to be a hole is zeroed when it is provisioned.
 */
import { assert, unreachable } from "../../storage/base/assert.ts";
import { BlockSet, type DBlockRun } from "../../storage/block_set.ts";
import { type DBlock, dblock } from "../../storage/base/ids.ts";
import type { DeviceStub } from "./block_device.ts";
import type { Actor, Address, Message, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { ask, rest, type Steps } from "../kernel/task.ts";
import { freeBlocksFetched, retiredBlocksMax } from "../limits.ts";
import { lockRange } from "./lock_region.ts";
import type { DataLocks } from "./data_locks.ts";
import type { AllocatorNotice, MetadataStub } from "./metadata_messages.ts";
import type { RefusalsMessage } from "./refusals.ts";

/** A block, or none. */
export type Allocation =
  | { readonly kind: "allocated"; readonly dblock: DBlock }
  | { readonly kind: "noDataSpace" }
  | { readonly kind: "failed" };

/** Lease a free data block. */
export interface Allocate extends Request<Allocation> {
  readonly type: "allocate";
}

/** The leased block is mapped now. */
export interface Keep extends Message {
  readonly type: "keep";
  readonly dblock: DBlock;
}

/** The leased block was not used. */
export interface GiveBackBlock extends Message {
  readonly type: "giveBack";
  readonly dblock: DBlock;
}

/** If blocks wait in quarantine, commit, pass them down and answer true; else answer at once whether some came out of it. */
export interface Reclaim extends Request<boolean> {
  readonly type: "reclaim";
}

/** From the search task: what it found. */
export interface Found extends Message {
  readonly type: "found";
  readonly runs: readonly DBlockRun[];
  readonly next: DBlock;
  readonly failed: boolean;
}

/** From the passdown task: its blocks have been given back to the host. */
export interface PassedDown extends Message {
  readonly type: "passedDown";
}

/** The leased block could not be written: it is not leased again, unless too many are so. */
export interface Retire extends Message {
  readonly type: "retire";
  readonly dblock: DBlock;
}

export type DataAllocatorMessage =
  | Allocate
  | Keep
  | GiveBackBlock
  | Retire
  | Reclaim
  | Found
  | PassedDown
  | AllocatorNotice;

/** The stubs of the allocator. */
export class AllocatorStub {
  constructor(readonly kernel: Kernel, readonly address: Address<DataAllocatorMessage>) {}

  /** Leases a block. Wrap it in a {@linkcode Lease}, or it is lost until the pool is reopened. */
  allocate(): Steps<Allocation> {
    const request: Allocate = { type: "allocate", replyTo: unasked };
    return ask(this.address, request);
  }

  reclaim(): Steps<boolean> {
    const request: Reclaim = { type: "reclaim", replyTo: unasked };
    return ask(this.address, request);
  }
}

/** A leased block: given back when disposed of, unless kept. */
export class Lease implements Disposable {
  /** It is not ours to give back any more. */
  #gone = false;

  constructor(readonly allocator: AllocatorStub, readonly dblock: DBlock) {}

  /** The block is mapped: it is metadata's from now on. */
  keep(): void {
    this.#gone = true;
    this.allocator.kernel.tell(this.allocator.address, { type: "keep", dblock: this.dblock });
  }

  /** Filling the block ended so. One that takes no bytes must not be the next that is leased, and fail the next write too. */
  unfilled<Status extends string>(status: Status): Status {
    if (status !== "ioError") return status;
    this.#gone = true;
    this.allocator.kernel.tell(this.allocator.address, { type: "retire", dblock: this.dblock });
    return status;
  }

  [Symbol.dispose](): void {
    if (this.#gone) return;
    this.allocator.kernel.tell(this.allocator.address, { type: "giveBack", dblock: this.dblock });
  }
}

const runBlocksMax = 2 ** 16;

export class DataAllocator implements Actor<DataAllocatorMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<DataAllocatorMessage>;
  readonly #metadata: MetadataStub;
  readonly #device: DeviceStub;
  readonly #locks: DataLocks;
  readonly #blockSizeBytes: number;
  readonly #dataBlocks: number;

  /** Free blocks in hand: none is leased or in quarantine. How much of the first run is used. */
  #free: DBlockRun[] = [];
  #freeUsed = 0;
  /** Leased, or given back and waiting to be leased again: unreferenced, but not to be fetched a second time. */
  readonly #leased = new BlockSet();
  readonly #givenBack: DBlock[] = [];
  /** How many of the leased will not be given back in this run, as they could not be written. */
  #retired = 0;

  #cursor = dblock(0);
  #waiting: Allocate[] = [];
  /** Blocks that the search in progress has still to pass before it has seen the whole device. */
  #searchLeft = 0;
  #searching = false;
  /**
   * Times that blocks became free again: now, when the search in progress began, and when the last one that found nothing did.
   */
  #releases = 0;
  #releasesAtSearch = 0;
  #releasesAtRefusal = 0;
  /** Mapped since the search in progress began: what it finds may be older than that. */
  #keptSinceSearch = new BlockSet();

  /** Freed since the last freeze, and in the commit in progress. */
  #freedNow = new BlockSet();
  #freedFrozen = new BlockSet();
  /** Durable and waiting for the passdown in progress to end; and what that one is about. */
  #freedDurable = new BlockSet();
  #passingDown: BlockSet | undefined;

  /** Commits begun, durable, and passed down: how far each has come, to know whom to answer. */
  #commitsFrozen = 0;
  #commitsDurable = 0;
  #commitsPassingDown = 0;
  #commitsPassedDown = 0;
  readonly #refusals: Address<RefusalsMessage>;
  /** A bio found no space, and none has been leased since. */
  #saidExhausted = false;
  #reclaims: { readonly request: Reclaim; readonly commits: number }[] = [];
  /** A commit failed or was refused, and so will every later one. */
  #commitsEnded = false;

  constructor(
    kernel: Kernel,
    self: Address<DataAllocatorMessage>,
    pool: {
      readonly metadata: MetadataStub;
      readonly device: DeviceStub;
      readonly locks: DataLocks;
      readonly blockSizeBytes: number;
      readonly dataBlocks: number;
      readonly refusals: Address<RefusalsMessage>;
    },
  ) {
    this.#kernel = kernel;
    this.#self = self;
    this.#metadata = pool.metadata;
    this.#device = pool.device;
    this.#locks = pool.locks;
    this.#blockSizeBytes = pool.blockSizeBytes;
    this.#dataBlocks = pool.dataBlocks;
    this.#refusals = pool.refusals;
  }

  receive(message: DataAllocatorMessage): void {
    switch (message.type) {
      case "allocate":
        this.#waiting.push(message);
        return this.#serve();
      case "keep":
        if (this.#searching) this.#keptSinceSearch.add(message.dblock);
        return this.#leased.delete(message.dblock);
      case "giveBack":
        return this.#giveBack(message.dblock);
      case "retire":
        return this.#retire(message.dblock);
      case "reclaim":
        return this.#reclaim(message);
      case "freed":
        for (const run of message.runs) this.#freedNow.addRun(run);
        return;
      case "frozen":
        assert(this.#freedFrozen.size === 0, "a commit began before the last one was durable");
        this.#commitsFrozen += 1;
        this.#freedFrozen = this.#freedNow;
        this.#freedNow = new BlockSet();
        return;
      case "durable":
        return this.#durable();
      case "found":
        return this.#found(message);
      case "passedDown":
        this.#passingDown = undefined;
        this.#releases += 1;
        this.#sayThereIsSpace();
        this.#commitsPassedDown = this.#commitsPassingDown;
        this.#answerReclaims(this.#commitsPassedDown, true);
        return this.#passDown();
      case "notCommitted":
        this.#commitsEnded = true;
        return this.#answerReclaims(Infinity, false);
      default:
        return unreachable(message);
    }
  }

  #giveBack(block: DBlock): void {
    assert(this.#leased.has(block), "a block was given back that is not leased");
    this.#givenBack.push(block);
    this.#releases += 1;
    this.#serve();
  }

  /** It stays leased: so no search takes it in hand again. Where too many are bad, it is the device, and any is tried. */
  #retire(block: DBlock): void {
    if (this.#retired === retiredBlocksMax) return this.#giveBack(block);
    assert(this.#leased.has(block), "a block was retired that is not leased");
    this.#retired += 1;
    this.#kernel.tell(this.#metadata.address, { type: "dataRetired", blocks: this.#retired });
    this.#kernel.tell(this.#refusals, {
      type: "blockRetired",
      offsetBytes: block * this.#blockSizeBytes,
      blocks: this.#retired,
    });
  }

  /** Leases blocks to whoever waits, as far as they are in hand; else searches the whole device once. */
  #serve(): void {
    if (this.#lease() || this.#searching) return;
    this.#searchLeft = this.#dataBlocks;
    this.#releasesAtSearch = this.#releases;
    this.#search();
  }

  /** True if nobody waits any more. */
  #lease(): boolean {
    while (this.#waiting.length > 0) {
      const block = this.#takeFree();
      if (block === undefined) return false;
      this.#sayThereIsSpace();
      this.#kernel.reply(this.#waiting.shift()!, { kind: "allocated", dblock: block });
    }
    return true;
  }

  /** A block in hand, which is leased from now on. */
  #takeFree(): DBlock | undefined {
    const back = this.#givenBack.pop();
    if (back !== undefined) return back;
    const run = this.#free[0];
    if (run === undefined) return undefined;
    const block = dblock(run.begin + this.#freeUsed);
    this.#leased.add(block);
    this.#freeUsed += 1;
    if (this.#freeUsed === run.length) {
      this.#free.shift();
      this.#freeUsed = 0;
    }
    return block;
  }

  /**
   * Takes found blocks in hand, except those leased, in quarantine, or mapped after metadata looked: that a block is
   * mapped may be told before what a search found earlier. This is decided when they arrive and not when they are
   * leased: a block that is leased now and mapped later is no longer barred then, and not free.
   */
  #takeInHand(run: DBlockRun): void {
    let begin = run.begin as number;
    const end = run.begin + run.length;
    for (let block = begin; block < end; block += 1) {
      if (!this.#isBarred(dblock(block))) continue;
      if (block > begin) this.#free.push({ begin: dblock(begin), length: block - begin });
      begin = block + 1;
    }
    if (end > begin) this.#free.push({ begin: dblock(begin), length: end - begin });
  }

  #isBarred(block: DBlock): boolean {
    return this.#leased.has(block) || this.#freedNow.has(block) || this.#freedFrozen.has(block) ||
      this.#freedDurable.has(block) || (this.#passingDown?.has(block) ?? false) ||
      this.#keptSinceSearch.has(block);
  }

  #search(): void {
    if (this.#searchLeft === 0) {
      this.#sayExhausted();
      this.#releasesAtRefusal = this.#releasesAtSearch;
      return this.#refuseWaiting("noDataSpace");
    }
    this.#searching = true;
    this.#keptSinceSearch = new BlockSet();
    this.#kernel.start("search", searchTask(this.#kernel, this.#self, this.#metadata, this.#cursor));
  }

  /** The search goes from the cursor to the end of the device, and on from 0. */
  #found(message: Found): void {
    this.#searching = false;
    if (message.failed) return this.#refuseWaiting("failed");
    const passed = message.next - this.#cursor;
    assert(passed > 0, "a search made no progress");
    this.#searchLeft = Math.max(0, this.#searchLeft - passed);
    this.#cursor = message.next >= this.#dataBlocks ? dblock(0) : message.next;
    for (const run of message.runs) this.#takeInHand(run);
    if (!this.#lease()) this.#search();
  }

  /** Only if nothing is about to come out of quarantine, which the refused bios wait for. */
  #sayExhausted(): void {
    if (this.#quarantinedCount() > 0) return;
    this.#saidExhausted = true;
    this.#kernel.tell(this.#refusals, { type: "refused", what: "dataFull" });
  }

  #sayThereIsSpace(): void {
    if (!this.#saidExhausted) return;
    this.#saidExhausted = false;
    this.#kernel.tell(this.#refusals, { type: "served", what: "dataFull" });
  }

  #refuseWaiting(kind: "noDataSpace" | "failed"): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const request of waiting) this.#kernel.reply(request, { kind });
  }

  #reclaim(request: Reclaim): void {
    if (this.#quarantinedCount() === 0) {
      // What the asker was refused may have become free behind the search, and be there by now.
      return this.#kernel.reply(request, this.#releases > this.#releasesAtRefusal);
    }
    if (this.#commitsEnded) return this.#kernel.reply(request, false);
    // What is not frozen yet needs one more commit; the rest comes out of quarantine by itself.
    const commits = this.#commitsFrozen + (this.#freedNow.size > 0 ? 1 : 0);
    this.#reclaims.push({ request, commits });
    if (commits > this.#commitsFrozen) {
      this.#kernel.start("reclaim", reclaimTask(this.#kernel, this.#self, this.#metadata));
    }
  }

  #durable(): void {
    this.#commitsDurable = this.#commitsFrozen;
    this.#freedDurable.takeAll(this.#freedFrozen);
    this.#passDown();
  }

  #passDown(): void {
    if (this.#passingDown !== undefined) return;
    this.#commitsPassingDown = this.#commitsDurable;
    if (this.#freedDurable.size === 0) {
      this.#commitsPassedDown = this.#commitsDurable;
      return this.#answerReclaims(this.#commitsPassedDown, true);
    }
    this.#passingDown = this.#freedDurable;
    this.#freedDurable = new BlockSet();
    const runs = this.#passingDown.runs(runBlocksMax);
    const task = passdownTask(
      this.#kernel,
      this.#self,
      this.#device,
      this.#locks,
      runs,
      this.#blockSizeBytes,
    );
    this.#kernel.start("passdown", task);
  }

  #answerReclaims(commits: number, answer: boolean): void {
    const waiting = this.#reclaims;
    this.#reclaims = [];
    for (const reclaim of waiting) {
      if (reclaim.commits <= commits) this.#kernel.reply(reclaim.request, answer);
      else this.#reclaims.push(reclaim);
    }
  }

  #quarantinedCount(): number {
    return this.#freedNow.size + this.#freedFrozen.size + this.#freedDurable.size +
      (this.#passingDown?.size ?? 0);
  }
}

function* searchTask(
  kernel: Kernel,
  allocator: Address<DataAllocatorMessage>,
  metadata: MetadataStub,
  from: DBlock,
): Steps<void> {
  const found = yield* metadata.findFree(from, freeBlocksFetched);
  if (found.kind === "free") {
    kernel.tell(allocator, { type: "found", runs: found.runs, next: found.next, failed: false });
  } else kernel.tell(allocator, { type: "found", runs: [], next: from, failed: true });
}

function* reclaimTask(
  kernel: Kernel,
  allocator: Address<DataAllocatorMessage>,
  metadata: MetadataStub,
): Steps<void> {
  const committed = yield* metadata.commit();
  // The allocator hears of a commit that succeeds; of one that is refused nobody else tells it.
  if (committed.kind !== "done") kernel.tell(allocator, { type: "notCommitted" });
}

/**
 * Punches the runs out of the host's file, each under the data lock: no copy reads a block meanwhile. They are looked for
 * one at a time, as there can be a million.
 */
function* passdownTask(
  kernel: Kernel,
  allocator: Address<DataAllocatorMessage>,
  device: DeviceStub,
  locks: DataLocks,
  runs: Iterable<DBlockRun>,
  blockSizeBytes: number,
): Steps<void> {
  if (device.canDiscard) {
    for (const run of runs) {
      yield* passDownRun(device, locks, run, blockSizeBytes);
      // There can be a million, and each comes back so soon that the event loop would not look at its sockets.
      yield* rest();
    }
  }
  kernel.tell(allocator, { type: "passedDown" });
}

function* passDownRun(
  device: DeviceStub,
  locks: DataLocks,
  { begin, length }: DBlockRun,
  blockSizeBytes: number,
): Steps<void> {
  using _lock = yield* lockRange(locks.regionsOf(begin, begin + length), begin, begin + length);
  yield* device.discard(begin * blockSizeBytes, length * blockSizeBytes);
}
