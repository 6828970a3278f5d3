/** Lock regions for tests: tasks that take a lock and do with it what the test says, one command at a time. */
import type { Actor, Address, Request } from "../../actors/kernel/address.ts";
import { unasked } from "../../actors/kernel/address.ts";
import type { Kernel } from "../../actors/kernel/kernel.ts";
import { ask, type Steps } from "../../actors/kernel/task.ts";
import { LockRegion } from "../../actors/pool/lock_region.ts";
import {
  type Access,
  type BlockLock,
  lockRange,
  RegionLocks,
  type WantedLock,
} from "../../actors/pool/region_locks.ts";
import { present } from "../../storage/base/assert.ts";
import { vblock } from "../../storage/base/ids.ts";
import { World } from "./world.ts";

/** What a holder can be told to do. */
export type Command = "upgrade" | "promote" | "release";

/** How far a holder has come. */
export type Progress = "waits" | "in" | "upgrades" | "excludes" | "promotes" | "promoted" | "gone";

interface Next extends Request<Command> {
  readonly type: "next";
  readonly name: string;
}

/** Keeps the holders waiting for their next command. */
class Gate implements Actor<Next> {
  readonly waiting = new Map<string, Next>();

  receive(message: Next): void {
    this.waiting.set(message.name, message);
  }
}

/** Makes a region of the blocks from `begin` to below `end`. */
export function spawnRegion(kernel: Kernel, name: string, begin: number, end: number): RegionLocks {
  const address = kernel.spawn(name, 10_000, (self) => new LockRegion(kernel, self));
  return new RegionLocks(kernel, address, begin, end);
}

/** Ends the regions and fails unless every one was empty. */
export function retireEmpty(kernel: Kernel, regions: readonly RegionLocks[]): void {
  const actorsBefore = kernel.mailboxHighWater().size;
  for (const region of regions) region.retire();
  kernel.run();
  const retired = actorsBefore - kernel.mailboxHighWater().size;
  if (retired !== regions.length) throw new Error("a lock region is not empty");
}

/** Regions of ten blocks each, and the tasks that hold and want their locks. */
export class LockBench {
  readonly world: World;
  readonly regions: readonly RegionLocks[];
  /** Whose upgrade was answered so. */
  readonly alone = new Set<string>();
  /** `name progress`, in the order it happened. */
  readonly log: string[] = [];
  readonly #progress = new Map<string, Progress>();
  readonly #gate = new Gate();
  readonly #gateAddress: Address<Next>;

  constructor(options: { readonly regionsCount?: number; readonly seed?: number } = {}) {
    this.world = new World(options.seed === undefined ? {} : { seed: options.seed });
    const { kernel } = this.world;
    this.#gateAddress = kernel.spawn("gate", 1000, () => this.#gate);
    const regions: RegionLocks[] = [];
    for (let begin = 0; begin < (options.regionsCount ?? 1) * 10; begin += 10) {
      regions.push(spawnRegion(kernel, `region ${begin}`, begin, begin + 10));
    }
    this.regions = regions;
  }

  /** Starts a task that wants the block, and lets happen what can. */
  block(name: string, block: number, access: Access): void {
    this.note(name, "waits");
    const region = this.regions[Math.floor(block / 10)]!;
    this.world.kernel.start(name, holdBlock(this, name, region.block(block, access)));
    this.world.runReady();
  }

  /** Starts a task that takes those of the blocks that it can lock at once, and answers which these are. */
  free(name: string, blocks: readonly number[], access: WantedLock["access"]): number[] {
    const wanted = blocks.map((block): WantedLock => ({ vblock: vblock(block), access, isLocked: false }));
    this.world.kernel.start(name, holdRange(this, name, this.regions[0]!.atOnce(wanted)));
    this.world.runReady();
    return wanted.filter(({ isLocked }) => isLocked).map((taken) => taken.vblock);
  }

  /** Starts a task that wants the range, and lets happen what can. */
  range(name: string, begin: number, end: number): void {
    this.note(name, "waits");
    const regions = this.regions.slice(Math.floor(begin / 10), Math.floor((end - 1) / 10) + 1);
    this.world.kernel.start(name, holdRange(this, name, lockRange(regions, begin, end)));
    this.world.runReady();
  }

  /** Tells a holder to go on, and lets happen what can. */
  say(name: string, command: Command): void {
    const next = present(this.#gate.waiting.get(name), "told a task that is not waiting to be told");
    this.#gate.waiting.delete(name);
    this.world.kernel.reply(next, command);
    this.world.runReady();
  }

  progressOf(name: string): Progress {
    return present(this.#progress.get(name), "no such holder");
  }

  /** How far each of these has come, for one comparison. */
  state(...names: string[]): string {
    return names.map((name) => `${name} ${this.progressOf(name)}`).join(", ");
  }

  /** Fails if a lock is held or waited for. */
  end(): void {
    retireEmpty(this.world.kernel, this.regions);
  }

  note(name: string, progress: Progress): void {
    this.#progress.set(name, progress);
    this.log.push(`${name} ${progress}`);
  }

  *next(name: string): Steps<Command> {
    const request: Next = { type: "next", replyTo: unasked, name };
    return yield* ask(this.#gateAddress, request);
  }
}

function* holdBlock(bench: LockBench, name: string, acquire: Steps<BlockLock>): Steps<void> {
  {
    using lock = yield* acquire;
    bench.note(name, "in");
    let command = yield* bench.next(name);
    if (command === "upgrade") {
      bench.note(name, "upgrades");
      if ((yield* lock.upgrade()) === "alone") bench.alone.add(name);
      bench.note(name, "excludes");
      command = yield* bench.next(name);
    }
    if (command === "promote") {
      bench.note(name, "promotes");
      yield* lock.promote();
      bench.note(name, "promoted");
      yield* bench.next(name);
    }
  }
  bench.note(name, "gone");
}

function* holdRange(bench: LockBench, name: string, acquire: Steps<Disposable>): Steps<void> {
  {
    using _lock = yield* acquire;
    bench.note(name, "in");
    yield* bench.next(name);
  }
  bench.note(name, "gone");
}
