/**
 * Lock regions against two models that share no code with them: which lock excludes which, under many tasks and thousands of
 * schedules, and exactly which requests wait, after every step.
 */
import { assert, assertEquals } from "@std/assert";
import { LockBench, type Progress, retireEmpty, spawnRegion } from "../../tests/support/locks.ts";
import { Random, World } from "../../tests/support/world.ts";
import type { Actor, Address, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import { ask, sleep, type Steps } from "../kernel/task.ts";
import { type Access, lockRange, type RegionLocks } from "./region_locks.ts";

/** Who is in which block, as the tasks themselves see it. Entering what is not free for it fails the test. */
class Occupancy {
  readonly #blocks = new Map<
    number,
    { readers: number; writers: number; excluder: boolean; alone: boolean }
  >();

  #at(block: number) {
    let at = this.#blocks.get(block);
    if (at === undefined) {
      this.#blocks.set(block, at = { readers: 0, writers: 0, excluder: false, alone: false });
    }
    return at;
  }

  read(block: number, by: 1 | -1): void {
    const at = this.#at(block);
    assert(!at.alone, "a reader beside an exclusive holder");
    at.readers += by;
  }

  write(block: number, by: 1 | -1): void {
    const at = this.#at(block);
    assert(!at.alone && !at.excluder, "a writer beside a holder that excludes writers");
    at.writers += by;
  }

  exclude(block: number): void {
    const at = this.#at(block);
    assert(!at.alone && !at.excluder && at.writers === 0, "excludes writers beside a writer");
    at.excluder = true;
  }

  beAlone(block: number): void {
    const at = this.#at(block);
    assert(!at.alone && at.readers === 0 && at.writers === 0, "alone beside others");
    at.alone = true;
  }

  leave(block: number): void {
    const at = this.#at(block);
    assert(at.excluder || at.alone, "left what it was not in");
    at.excluder = at.alone = false;
  }
}

interface Pause extends Request<void> {
  readonly type: "pause";
}

class Pauser implements Actor<Pause> {
  constructor(readonly world: World) {}

  receive(message: Pause): void {
    this.world.kernel.reply(message, undefined);
  }
}

/** What the tasks of one schedule share. */
interface Scene {
  readonly random: Random;
  readonly occupancy: Occupancy;
  readonly regions: readonly RegionLocks[];
  readonly pauser: Address<Pause>;
}

const blocksCount = 6;
const blocksPerRegion = 3;

function* pause(scene: Scene): Steps<void> {
  for (let left = scene.random.below(3); left > 0; left -= 1) {
    const request: Pause = { type: "pause", replyTo: unasked };
    yield* ask(scene.pauser, request);
  }
  if (scene.random.below(10) === 0) yield* sleep(scene.random.below(3));
}

function* readBlock(scene: Scene, block: number): Steps<void> {
  using _lock = yield* scene.regions[Math.floor(block / blocksPerRegion)]!.block(block, "read");
  scene.occupancy.read(block, 1);
  yield* pause(scene);
  scene.occupancy.read(block, -1);
}

function* writeBlock(scene: Scene, block: number): Steps<void> {
  using lock = yield* scene.regions[Math.floor(block / blocksPerRegion)]!.block(block, "write");
  scene.occupancy.write(block, 1);
  yield* pause(scene);
  scene.occupancy.write(block, -1);
  if (scene.random.below(2) === 0) return;
  yield* lock.upgrade();
  scene.occupancy.exclude(block);
  yield* pause(scene);
  if (scene.random.below(2) === 0) {
    yield* lock.promote();
    scene.occupancy.beAlone(block);
    yield* pause(scene);
  }
  scene.occupancy.leave(block);
}

function* takeBlock(scene: Scene, block: number): Steps<void> {
  using _lock = yield* scene.regions[Math.floor(block / blocksPerRegion)]!.block(block, "exclusive");
  scene.occupancy.beAlone(block);
  yield* pause(scene);
  scene.occupancy.leave(block);
}

function* takeRange(scene: Scene, begin: number, end: number): Steps<void> {
  const first = Math.floor(begin / blocksPerRegion);
  const last = Math.floor((end - 1) / blocksPerRegion);
  using _lock = yield* lockRange(scene.regions.slice(first, last + 1), begin, end);
  for (let block = begin; block < end; block += 1) scene.occupancy.beAlone(block);
  yield* pause(scene);
  for (let block = begin; block < end; block += 1) scene.occupancy.leave(block);
}

function* program(scene: Scene, stepsCount: number): Steps<void> {
  for (let step = 0; step < stepsCount; step += 1) {
    const block = scene.random.below(blocksCount);
    const kind = scene.random.below(20);
    if (kind < 6) yield* readBlock(scene, block);
    else if (kind < 15) yield* writeBlock(scene, block);
    else if (kind < 16) yield* takeBlock(scene, block);
    else yield* takeRange(scene, block, block + 1 + scene.random.below(blocksCount - block));
    yield* pause(scene);
  }
}

Deno.test("under thousands of schedules no task meets one that it excludes, all finish, and nothing is left", () => {
  for (let seed = 0; seed < 4000; seed += 1) {
    const world = new World({ seed });
    const random = new Random(-seed - 1);
    const scene: Scene = {
      random,
      occupancy: new Occupancy(),
      regions: [0, 3].map((begin) =>
        spawnRegion(world.kernel, `region ${begin}`, begin, begin + blocksPerRegion)
      ),
      pauser: world.kernel.spawn("pauser", 100, () => new Pauser(world)),
    };
    const programs: Steps<void>[] = [];
    for (let count = 2 + random.below(10); count > 0; count -= 1) programs.push(program(scene, 4));
    world.runAll(programs);
    retireEmpty(world.kernel, scene.regions);
  }
});

/** One lock wanted or held, as the exact model sees it. */
interface Entry {
  readonly name: string;
  readonly ticket: number;
  readonly access: Access | "range";
  readonly begin: number;
  readonly end: number;
  state: Progress;
  /** When it asked for its upgrade. */
  upgradeTicket: number;
}

/** Exactly which requests wait, written down from the rules as one list. */
class WaitingModel {
  readonly entries: Entry[] = [];
  #ticketLast = 0;

  add(name: string, access: Entry["access"], begin: number, end: number): void {
    const ticket = this.ticket();
    this.entries.push({ name, ticket, access, begin, end, state: "waits", upgradeTicket: 0 });
    this.runReady();
  }

  ticket(): number {
    return this.#ticketLast += 1;
  }

  release(entry: Entry): void {
    this.entries.splice(this.entries.indexOf(entry), 1);
    this.runReady();
  }

  /** Grants until no request can be granted any more; promotions and upgrades before the others. */
  runReady(): void {
    for (let granted = true; granted;) {
      granted = this.#grantOne("promotes", "promoted") || this.#grantOne("upgrades", "excludes") ||
        this.#grantOne("waits", "in");
    }
  }

  #grantOne(from: Progress, to: Progress): boolean {
    const waiting = this.entries.filter((entry) => entry.state === from);
    waiting.sort((a, b) => a.upgradeTicket - b.upgradeTicket || a.ticket - b.ticket);
    const entry = waiting.find((candidate) => !this.#mustWait(candidate));
    if (entry !== undefined) entry.state = to;
    return entry !== undefined;
  }

  #mustWait(entry: Entry): boolean {
    return this.entries.some((other) => {
      if (other === entry || other.end <= entry.begin || entry.end <= other.begin) return false;
      return this.#holdsUp(other, entry);
    });
  }

  #holdsUp(other: Entry, entry: Entry): boolean {
    const isEarlier = other.ticket < entry.ticket;
    if (entry.state === "promotes") return other.state === "in" && other.access === "read";
    if (entry.state === "upgrades") {
      if (other.state === "upgrades") return other.upgradeTicket < entry.upgradeTicket;
      return excludesWriters(other) || (other.state === "in" && other.access === "write");
    }
    if (entry.access === "range") return other.state !== "waits" || isEarlier;
    if (other.access === "range") return other.state === "in" || isEarlier;
    if (other.state === "waits") return false;
    if (other.state === "promotes" || isAlone(other)) return true;
    if (entry.access === "exclusive") return true;
    return entry.access === "write" && (excludesWriters(other) || other.state === "upgrades");
  }
}

function isAlone(entry: Entry): boolean {
  return entry.state === "promoted" || (entry.state === "in" && entry.access === "exclusive");
}

function excludesWriters(entry: Entry): boolean {
  return entry.state === "excludes" || entry.state === "promotes" || isAlone(entry);
}

/** One random step: a new wish, or something that a holder does next. */
function step(random: Random, bench: LockBench, model: WaitingModel, ordinal: number): void {
  const able = model.entries.filter((entry) =>
    entry.state === "in" || entry.state === "excludes" || entry.state === "promoted"
  );
  if (able.length === 0 || (model.entries.length < 12 && random.below(2) === 0)) {
    const name = `t${ordinal}`;
    const block = random.below(4);
    const access = (["read", "write", "write", "exclusive", "range"] as const)[random.below(5)]!;
    const end = access === "range" ? block + 1 + random.below(4 - block) : block + 1;
    model.add(name, access, block, end);
    if (access === "range") bench.range(name, block, end);
    else bench.block(name, block, access);
    return;
  }
  const entry = able[random.below(able.length)]!;
  if (random.below(2) === 0 && entry.state === "in" && entry.access === "write") {
    entry.state = "upgrades";
    entry.upgradeTicket = model.ticket();
    model.runReady();
    bench.say(entry.name, "upgrade");
  } else if (random.below(2) === 0 && entry.state === "excludes") {
    entry.state = "promotes";
    model.runReady();
    bench.say(entry.name, "promote");
  } else {
    model.release(entry);
    bench.say(entry.name, "release");
  }
}

Deno.test("after every step exactly those requests wait that must", () => {
  for (let seed = 0; seed < 300; seed += 1) {
    const random = new Random(seed);
    const bench = new LockBench({ seed });
    const model = new WaitingModel();
    for (let ordinal = 0; ordinal < 60; ordinal += 1) {
      step(random, bench, model, ordinal);
      const expected = model.entries.map((entry) => `${entry.name} ${entry.state}`).join(", ");
      assertEquals(bench.state(...model.entries.map((entry) => entry.name)), expected, `seed ${seed}`);
    }
  }
});
