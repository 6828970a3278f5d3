/**
 * A power cut and a kill after every device operation of a schedule, with every outcome for what was not flushed.
 *
 * A kill leaves all that the host was given, so the intent journal is replayed and all that was answered must be there,
 * unless a flush has failed; after a power cut it belongs to another boot, and what was flushed must be there.
 *
 * The order of an answer and of a freeze is not searched, though both write the intent journal: the simulator does that.
 *
 * Each unflushed write is lost, whole, or cut at a sector. Not every combination is materialized: whether a write was kept
 * is decided when the recovery reads its range. Combinations that differ only in what the recovery never reads are one
 * outcome, so every subset is covered. What a recovery reads, and what it comes to, is kept as a tree over the contents
 * read; the next crash that leaves the same contents is only looked up.
 *
 * A flush makes durable what was answered before it was asked, and "answered" is taken as late as can be: only when
 * something that follows from the answer has certainly come before the flush.
 */
import type { Survivor } from "../../crash/content.ts";
import { type Crash, CutImages } from "./cut_images.ts";
import type { Operation } from "./logged_device.ts";
import { type Content, describe, type Found, problemOfTwins, writersOf } from "./oracle.ts";
import { type Outcome, recover, type RecoveryRead } from "./recovery.ts";
import type { HeldPool } from "./held_pool.ts";
import { growthBlocks, isFua, type Op, snapshotsOf } from "./scenario.ts";
import type { Event } from "./search.ts";

/** How much was tried. */
export interface CrashCounts {
  points: number;
  outcomes: number;
  /** Different images that a recovery was run on. */
  recoveries: number;
  /** Those of them in which the intent journal was replayed. */
  replays: number;
}

/** What the recovery reads next, by what it has read so far; or what it came to. */
interface Step {
  read: RecoveryRead | undefined;
  outcome: Outcome | undefined;
  readonly next: Map<number, Step>;
}

/** Of so many recoveries with a replay, in one each operation of the replay is followed by another crash. */
const repeatsEvery = 64;

/** Remembers recoveries over all schedules of all scenarios with equally large devices. */
export class Crashes {
  readonly counts: CrashCounts = { points: 0, outcomes: 0, recoveries: 0, replays: 0 };
  #roots = newRoots();
  #steps = 0;

  /** Crashes a complete schedule after each of its device operations. Answers what is not survived. */
  findProblem(
    pool: HeldPool,
    operations: readonly Operation[],
    events: readonly Event[],
    found: Found | undefined,
  ): string | undefined {
    // The tree is only a memory.
    if (this.#steps > 200_000) {
      this.#roots = newRoots();
      this.#steps = 0;
    }
    const hashes = new Map<string, number>();
    for (let count = 0; count <= operations.length; count += 1) {
      this.counts.points += 1;
      const before = operations[count]?.event ?? Infinity;
      for (const crash of ["power cut", "kill"] as const) {
        const images = new CutImages(pool, events, operations.slice(0, count), before, hashes, crash);
        const hasFailed = operations.slice(0, count).some(({ kind }) => kind === "flushFailed");
        // The journal is void after that, but for an instant in which only a process killed by then leaves it valid.
        if (crash === "kill" && operations[count - 1]?.kind === "flushFailed") continue;
        const survivor = crash === "kill" && !hasFailed ? "answered" : "flushed";
        const problem = this.#problemOfCrash(
          images,
          (outcome) =>
            outcome.problem ?? problemOfOutcome(pool, outcome, before, found, survivor) ??
              problemOfCuts(pool, outcome, before, found),
        );
        if (problem === undefined) continue;
        return `after a ${crash} behind device operation ${count} of ${operations.length}` +
          `${images.describe()}: ${problem}`;
      }
    }
    return undefined;
  }

  #problemOfCrash(
    images: CutImages,
    problemOf: (outcome: Outcome) => string | undefined,
  ): string | undefined {
    do {
      this.counts.outcomes += 1;
      const problem = problemOf(this.#outcomeOf(images));
      if (problem !== undefined) return problem;
    } while (images.nextChoices());
    return undefined;
  }

  #outcomeOf(images: CutImages): Outcome {
    let step = this.#roots[images.crash];
    while (step.read !== undefined) {
      const hash = images.hash(step.read);
      const next = step.next.get(hash);
      if (next === undefined) return this.#recover(images);
      step = next;
    }
    return step.outcome ?? this.#recover(images);
  }

  /** Runs the recovery for real and adds what it read to the tree. */
  #recover(images: CutImages): Outcome {
    this.counts.recoveries += 1;
    const { outcome, reads } = recover((read) => images.bytes(read), images.sizes, {
      keepsIntents: images.crash === "kill",
      crashesAgain: this.counts.replays % repeatsEvery === 0,
    });
    if (outcome.isReplayed) this.counts.replays += 1;
    let step = this.#roots[images.crash];
    for (const read of reads) {
      step.read ??= read;
      const hash = images.hash(read);
      let next = step.next.get(hash);
      if (next === undefined) {
        next = { read: undefined, outcome: undefined, next: new Map() };
        step.next.set(hash, next);
        this.#steps += 1;
      }
      step = next;
    }
    step.outcome = outcome;
    return outcome;
  }
}

function newRoots(): Record<Crash, Step> {
  const root = () => ({ read: undefined, outcome: undefined, next: new Map() });
  return { "power cut": root(), kill: root() };
}

/** A power cut in the midst of the replay may lose what was not flushed, as any other. */
function problemOfCuts(
  pool: HeldPool,
  outcome: Outcome,
  before: number,
  found: Found | undefined,
): string | undefined {
  for (const [index, cut] of outcome.cuts.entries()) {
    const problem = cut.problem ?? problemOfOutcome(pool, cut, before, found, "flushed");
    if (problem !== undefined) return `power cut ${index} in the midst of the replay: ${problem}`;
  }
  return undefined;
}

/** Compares what a recovery found with what the contract allows at that instant. */
function problemOfOutcome(
  pool: HeldPool,
  outcome: Outcome,
  before: number,
  found: Found | undefined,
  survivor: Survivor,
): string | undefined {
  const { volumes } = outcome;
  const wasSubmitted = (op: Op) => op.submitted !== undefined && op.submitted.index < before;
  const wasDone = (op: Op) => op.status === "ok" && op.answered !== undefined && op.answered.index < before;
  for (const name of pool.scenario.state === "cloned" ? ["a", "b"] as const : ["a"] as const) {
    const volume = volumes.get(name);
    if (volume === undefined) return `the volume ${name} is gone`;
    const problem = problemOfVolume(pool, name, volume, wasSubmitted, wasDone, survivor);
    if (problem !== undefined) return `${name}: ${problem}`;
  }
  for (const op of pool.ops) {
    for (const name of snapshotsOf(op)) {
      const snapshot = volumes.get(name);
      if (snapshot === undefined && wasDone(op)) return `the snapshot of request ${op.number + 1} is gone`;
      if (snapshot !== undefined && !wasSubmitted(op)) return "there is a snapshot that was never asked for";
      const changed = problemOfChange(name, snapshot, found?.get(name));
      if (changed !== undefined) return changed;
    }
    const torn = problemOfTwins(op, volumes);
    if (torn !== undefined) return `the snapshots of request ${op.number + 1}: ${torn}`;
  }
  const size = problemOfSize(pool, outcome, wasSubmitted, wasDone);
  if (size !== undefined || pool.scenario.state !== "shared") return size;
  const removal = pool.ops.find((op) => op.kind === "rm");
  const base = volumes.get("a@base");
  if (base === undefined) {
    return removal !== undefined && wasSubmitted(removal) ? undefined : "the old snapshot is gone";
  }
  if (removal !== undefined && wasDone(removal)) return "the removed snapshot is there again";
  const expected = base.map((_, sector) => writersOf(pool, sector)[0]!.value);
  return problemOfChange("a@base", base, expected);
}

/** The old size or the new one, and the new one once the growth was answered. */
function problemOfSize(
  { ops, scenario }: HeldPool,
  { dataBlocks }: Outcome,
  wasSubmitted: (op: Op) => boolean,
  wasDone: (op: Op) => boolean,
): string | undefined {
  const growth = ops.find((op) => op.kind === "grow");
  const isOld = dataBlocks === scenario.dataBlocks;
  const isNew = growth !== undefined && dataBlocks === scenario.dataBlocks + growthBlocks.data;
  const isAllowed = growth !== undefined && wasDone(growth) ? isNew : isOld || isNew && wasSubmitted(growth);
  return isAllowed ? undefined : `the superblock has ${dataBlocks} data blocks`;
}

function problemOfVolume(
  pool: HeldPool,
  name: Op["volume"],
  content: Content,
  wasSubmitted: (op: Op) => boolean,
  wasDone: (op: Op) => boolean,
  survivor: Survivor,
): string | undefined {
  const isDurable = (op: Op) =>
    wasDone(op) && (survivor === "answered" || isFua(op.kind) ||
      pool.ops.some((flush) =>
        flush.kind === "flush" && flush.volume === op.volume && wasDone(flush) && isBefore(op, flush)
      ));
  for (const [sector, value] of content.entries()) {
    const writers = writersOf(pool, sector, name);
    const isAllowed = writers.some((writer) => {
      if (writer.value !== value || (writer.op !== undefined && !wasSubmitted(writer.op))) return false;
      return !writers.some(({ op }) =>
        op !== undefined && op !== writer.op && isDurable(op) &&
        (writer.op === undefined || isBefore(writer.op, op))
      );
    });
    if (!isAllowed) return `sector ${sector} shows ${describe(value)}`;
  }
  return undefined;
}

/** In this schedule, in which nothing else can be told of the instant of the crash. */
function isBefore(a: Op, b: Op): boolean {
  if (a.answered === undefined || b.submitted === undefined) return false;
  return a.answered.index < b.submitted.index;
}

function problemOfChange(
  name: string,
  now: Content | undefined,
  then: Content | undefined,
): string | undefined {
  if (now === undefined || then === undefined) return undefined;
  for (const [sector, value] of now.entries()) {
    if (value !== then[sector]) {
      return `the snapshot "${name}" has changed: sector ${sector} shows ${describe(value)}`;
    }
  }
  return undefined;
}
