/**
 * The locks of one region, as a task sees them: the messages and stubs of LockRegion (lock_region.ts), and the locks that are
 * held. A lock is given back by `using`, so a task that fails or is cancelled gives back all that it holds.
 */
import { assert } from "../../storage/base/assert.ts";
import type { Address, Message, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { ask, type Steps } from "../kernel/task.ts";

/** What a block lock is for. Reading and writing are shared. */
export type Access = "read" | "write" | "exclusive";

/** Answer: the lock is held. */
export type Locked = "locked";

/** Answer to an upgrade: held. "alone": no other request held the block for writing or waited for an upgrade. */
export type Upgraded = "alone" | "afterOthers";

/** Lock one block. Answered with `lock` when it is held. */
export interface LockBlock extends Request<BlockLock> {
  readonly type: "lockBlock";
  readonly block: number;
  readonly access: Access;
  readonly lock: BlockLock;
}

/** One block that a batch of bios is to lock, if that needs no wait. */
export interface WantedLock {
  readonly vblock: number;
  readonly access: "read" | "write";
  /** Set by the region. */
  isLocked: boolean;
}

/** Lock those of the blocks that can be locked at once. The others are not waited for. */
export interface LockAtOnce extends Request<"answered"> {
  readonly type: "lockAtOnce";
  readonly blocks: readonly WantedLock[];
}

/** Release what {@linkcode LockAtOnce} has locked. */
export interface UnlockTaken extends Message {
  readonly type: "unlockTaken";
  readonly blocks: readonly WantedLock[];
}

/** Give up a shared write lock and queue, ahead of waiting writes, to exclude writers. */
export interface Upgrade extends Request<Upgraded> {
  readonly type: "upgrade";
  readonly block: number;
}

/** Raise "exclude writers" to exclusive: admit no more readers, and wait until those that hold the block are gone. */
export interface Promote extends Request<Locked> {
  readonly type: "promote";
  readonly block: number;
}

/** Lock the blocks from `begin` to below `end` exclusively. */
export interface LockRange extends Request<Locked> {
  readonly type: "lockRange";
  readonly begin: number;
  readonly end: number;
}

/** Release a block lock, in the state it is held in. */
export interface Unlock extends Message {
  readonly type: "unlock";
  readonly block: number;
  readonly held: "read" | "write" | "excludeWriters" | "exclusive";
}

/** Release a range lock. */
export interface UnlockRange extends Message {
  readonly type: "unlockRange";
  readonly begin: number;
  readonly end: number;
}

/** End the region when the last lock is released. No lock may be requested after it. */
export interface RetireRegion extends Message {
  readonly type: "retireRegion";
}

/** What a lock region takes. */
export type LockRegionMessage =
  | LockBlock
  | Upgrade
  | Promote
  | LockRange
  | LockAtOnce
  | Unlock
  | UnlockTaken
  | UnlockRange
  | RetireRegion;

/** The stubs of one region. */
export class RegionLocks {
  constructor(
    readonly kernel: Kernel,
    readonly address: Address<LockRegionMessage>,
    /** The blocks of the region, half open. */
    readonly blockBegin: number,
    readonly blockEnd: number,
  ) {}

  /** Locks one block; held until disposed of. */
  block(block: number, access: Access): Steps<BlockLock> {
    const lock = new BlockLock(this, block, access);
    const request: LockBlock = { type: "lockBlock", replyTo: unasked, block, access, lock };
    return ask(this.address, request);
  }

  /** Locks those of the blocks that can be locked at once; held until disposed of. */
  *atOnce(blocks: readonly WantedLock[]): Steps<TakenLocks> {
    const request: LockAtOnce = { type: "lockAtOnce", replyTo: unasked, blocks };
    yield* ask(this.address, request);
    return new TakenLocks(this, blocks);
  }

  /** Locks the part of `[begin, end)` that lies in this region. */
  *range(begin: number, end: number): Steps<RangeLock> {
    const from = Math.max(begin, this.blockBegin);
    const to = Math.min(end, this.blockEnd);
    const request: LockRange = { type: "lockRange", replyTo: unasked, begin: from, end: to };
    yield* ask(this.address, request);
    return new RangeLock(this, from, to);
  }

  /** Ends the region once it is idle. */
  retire(): void {
    this.kernel.tell(this.address, { type: "retireRegion" });
  }
}

/** A held block lock; `using` releases it. */
export class BlockLock implements Disposable {
  readonly kind = "locked";
  readonly #locks: RegionLocks;
  readonly #block: number;
  #held: Unlock["held"] | undefined;

  constructor(locks: RegionLocks, block: number, held: Unlock["held"]) {
    this.#locks = locks;
    this.#block = block;
    this.#held = held;
  }

  /**
   * Gives up the shared hold and waits until no writer is left. Unless the answer is "alone", other writers may have held
   * the block meanwhile, and what was looked up before must be looked up again.
   */
  *upgrade(): Steps<Upgraded> {
    assert(this.#held === "write", "upgraded a lock that is not a shared write lock");
    this.#held = undefined;
    const request: Upgrade = { type: "upgrade", replyTo: unasked, block: this.#block };
    const upgraded = yield* ask(this.#locks.address, request);
    this.#held = "excludeWriters";
    return upgraded;
  }

  /** Waits until no reader is left either. Writers were excluded all the time, so what was looked up is still right. */
  *promote(): Steps<void> {
    assert(this.#held === "excludeWriters", "promoted a lock that does not exclude writers");
    const request: Promote = { type: "promote", replyTo: unasked, block: this.#block };
    yield* ask(this.#locks.address, request);
    this.#held = "exclusive";
  }

  [Symbol.dispose](): void {
    if (this.#held === undefined) return;
    const held = this.#held;
    this.#held = undefined;
    this.#locks.kernel.tell(this.#locks.address, { type: "unlock", block: this.#block, held });
  }
}

/** The locks of a batch in one region; `using` releases them. */
class TakenLocks implements Disposable {
  #isHeld = true;

  constructor(readonly locks: RegionLocks, readonly blocks: readonly WantedLock[]) {}

  [Symbol.dispose](): void {
    assert(this.#isHeld, "released the locks of a batch twice");
    this.#isHeld = false;
    this.locks.kernel.tell(this.locks.address, { type: "unlockTaken", blocks: this.blocks });
  }
}

/** A held range lock; `using` releases it. */
class RangeLock implements Disposable {
  #isHeld = true;

  constructor(readonly locks: RegionLocks, readonly begin: number, readonly end: number) {}

  [Symbol.dispose](): void {
    assert(this.#isHeld, "released a range lock twice");
    this.#isHeld = false;
    this.locks.kernel.tell(this.locks.address, { type: "unlockRange", begin: this.begin, end: this.end });
  }
}

/** Locks a range that may lie in several regions, in ascending order (invariant I5 of actors/ARCHITECTURE.md). */
export function* lockRange(regions: readonly RegionLocks[], begin: number, end: number): Steps<Disposable> {
  using held = new DisposableStack();
  for (const region of regions) held.use(yield* region.range(begin, end));
  return held.move();
}
