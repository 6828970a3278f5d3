/**
 * A power cut and a kill after every device operation of a schedule, with every outcome for what was not flushed.
 *
 * A kill leaves all that the host was given, so the intent journal is replayed and all that was answered must be there,
 * unless a flush has failed; after a power cut it belongs to another boot, and what was flushed must be there.
 *
 * Between a flush that failed and the mark that makes the intent journal void there is an instant, in which no client has
 * heard of the failure. A kill then leaves a journal that is believed:
 * - As long as the host keeps the pages, all that was answered is there.
 * - If metadata was lost, the disk has an older superblock, which opening notices: then the journal is not believed, and what
 *   was flushed is there. Or it has the superblock on which the journal builds: then all that was answered is there.
 * - If data was lost, a change that is replayed may lead to a block whose bytes are lost. Nothing in the journal tells. So a
 *   volume that is changed by the replay may show anything in blocks that were written, and what was flushed is there besides.
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
import { type Crash, CutImages, durableOf } from "./cut_images.ts";
import type { Operation } from "./logged_device.ts";
import { isCommand } from "./held_commands.ts";
import { type Content, describe, type Found, problemOfSplit, problemOfTwins, writersOf } from "./oracle.ts";
import { superblockLocation } from "../../../storage/format/superblock.ts";
import { type Outcome, recover, type RecoveryRead } from "./recovery.ts";
import type { HeldPool } from "./held_pool.ts";
import { blockSectors, growthBlocks, isFua, keptName, type Op, snapshotsOf } from "./scenario.ts";
import type { Event } from "./execution.ts";
import type { Views } from "./views.ts";

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

  /** Crashes a complete schedule after each of its device operations. Answers what is not survived; `views` gets all. */
  findProblem(
    pool: HeldPool,
    operations: readonly Operation[],
    events: readonly Event[],
    found: Found | undefined,
    views?: Views,
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
      const done = operations.slice(0, count);
      for (const { crash, survivor, losesData } of crashesAfter(done, events, before)) {
        const images = new CutImages(pool, events, done, before, hashes, crash);
        const problem = this.#problemOfCrash(images, (outcome) => {
          views?.noteCrash(pool, crash, before, outcome);
          const allowed = { survivor, showsLost: losesData && outcome.isReplayed };
          return outcome.problem ?? problemOfOutcome(pool, outcome, before, found, allowed) ??
            problemOfCuts(pool, outcome, before, found, losesData);
        });
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
    let step = this.#rootOf(images);
    while (step.read !== undefined) {
      const hash = images.hash(step.read);
      const next = step.next.get(hash);
      if (next === undefined) return this.#recover(images);
      step = next;
    }
    return step.outcome ?? this.#recover(images);
  }

  #rootOf(images: CutImages): Step {
    return keepsIntents(images) ? this.#roots.believing : this.#roots.plain;
  }

  /** Runs the recovery for real and adds what it read to the tree. */
  #recover(images: CutImages): Outcome {
    this.counts.recoveries += 1;
    const { outcome, reads } = recover((read) => images.bytes(read), images.sizes, {
      keepsIntents: keepsIntents(images),
      crashesAgain: this.counts.replays % repeatsEvery === 0,
    });
    if (outcome.isReplayed) this.counts.replays += 1;
    let step = this.#rootOf(images);
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

/** By whether the intent journal is believed. */
function newRoots(): Record<"believing" | "plain", Step> {
  const root = () => ({ read: undefined, outcome: undefined, next: new Map() });
  return { believing: root(), plain: root() };
}

function keepsIntents({ crash }: CutImages): boolean {
  return crash === "kill" || crash === "lossy kill";
}

interface Expected {
  readonly crash: Crash;
  readonly survivor: Survivor;
  /** A data block that a replayed change leads to may be lost. */
  readonly losesData: boolean;
}

/** The crashes to try after these operations, and what must be there. See the head of this file. */
function crashesAfter(done: readonly Operation[], events: readonly Event[], before: number): Expected[] {
  const powerCut: Expected = { crash: "power cut", survivor: "flushed", losesData: false };
  const kill: Expected = { crash: "kill", survivor: "answered", losesData: false };
  const failed = done.find(({ kind }) => kind === "flushFailed");
  if (failed === undefined) return [powerCut, kill];
  // The intent journal is void from the next operation on.
  if (failed !== done.at(-1)) {
    return [powerCut, { crash: "lossy kill", survivor: "flushed", losesData: false }];
  }
  if (failed.device === "data") {
    return [powerCut, kill, { crash: "lossy kill", survivor: "flushed", losesData: true }];
  }
  const { isDropped } = durableOf(done, events, before);
  const isNoticed = done.some(({ device, kind, offsetBytes }, at) =>
    device === "metadata" && kind === "write" && offsetBytes === superblockLocation && isDropped[at] === true
  );
  return isNoticed
    ? [powerCut, kill, { crash: "noticed kill", survivor: "flushed", losesData: false }]
    : [powerCut, kill, { crash: "lossy kill", survivor: "answered", losesData: false }];
}

/** A power cut in the midst of the replay may lose what was not flushed, as any other. */
function problemOfCuts(
  pool: HeldPool,
  outcome: Outcome,
  before: number,
  found: Found | undefined,
  showsLost: boolean,
): string | undefined {
  for (const [index, cut] of outcome.cuts.entries()) {
    const allowed = { survivor: "flushed", showsLost } as const;
    const problem = cut.problem ?? problemOfOutcome(pool, cut, before, found, allowed);
    if (problem !== undefined) return `power cut ${index} in the midst of the replay: ${problem}`;
  }
  return undefined;
}

/** What the contract allows to be gone. */
interface Allowed {
  readonly survivor: Survivor;
  /** Blocks that were written may show anything. */
  readonly showsLost: boolean;
}

/** Compares what a recovery found with what the contract allows at that instant. */
function problemOfOutcome(
  pool: HeldPool,
  outcome: Outcome,
  before: number,
  found: Found | undefined,
  allowed: Allowed,
): string | undefined {
  const { volumes } = outcome;
  const wasSubmitted = (op: Op) => op.submitted !== undefined && op.submitted.index < before;
  const wasDone = (op: Op) => op.status === "ok" && op.answered !== undefined && op.answered.index < before;
  for (const name of ["a", "b"] as const) {
    const problem = problemOfVolume(pool, name, volumes, { wasSubmitted, wasDone, ...allowed });
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

/** What is known of the instant of the crash. */
interface Instant extends Allowed {
  readonly wasSubmitted: (op: Op) => boolean;
  readonly wasDone: (op: Op) => boolean;
}

/** Whether what a request did must be found after the crash. */
function isDurableOp(pool: HeldPool, op: Op, { wasDone, survivor }: Instant): boolean {
  return wasDone(op) && (survivor === "answered" || isFua(op.kind) || isCommand(op.kind) ||
    pool.ops.some((flush) =>
      flush.kind === "flush" && flush.volume === op.volume && wasDone(flush) && isBefore(op, flush)
    ));
}

function problemOfVolume(
  pool: HeldPool,
  name: Op["volume"],
  volumes: Outcome["volumes"],
  instant: Instant,
): string | undefined {
  const { wasSubmitted, showsLost } = instant;
  const isDurable = (op: Op) => isDurableOp(pool, op, instant);
  const content = volumes.get(name);
  if (content === undefined) return mayBeAbsent(pool, name, isDurable) ? undefined : "the volume is gone";
  const clone = name === "b" ? pool.ops.find((op) => op.kind === "clone") : undefined;
  if (clone !== undefined && !wasSubmitted(clone)) return "there is a clone that was never asked for";
  const kept = volumes.get(keptName);
  for (const [sector, value] of content.entries()) {
    // What a rollback kept tells whether it took place.
    const writers = writersOf(pool, sector, name).filter(({ op }) =>
      op?.kind !== "rollback" || kept !== undefined
    );
    if (showsLost && isBlockWritten(pool, sector, name)) continue;
    const isAllowed = writers.some((writer) => {
      if (writer.value !== value || (writer.op !== undefined && !wasSubmitted(writer.op))) return false;
      return !writers.some(({ op }) =>
        op !== undefined && op !== writer.op && isDurable(op) &&
        (writer.op === undefined || isBefore(writer.op, op))
      );
    });
    if (!isAllowed) return `sector ${sector} shows ${describe(value)}`;
  }
  return showsLost ? undefined : problemOfSplit(pool, volumes, isDurable);
}

/** A clone may be absent unless it is durable or something in it is. */
function mayBeAbsent(
  { ops, scenario }: HeldPool,
  name: Op["volume"],
  isDurable: (op: Op) => boolean,
): boolean {
  if (name === "a" || scenario.state === "cloned") return false;
  return !ops.some((op) => (op.kind === "clone" || op.volume === "b" && op.status === "ok") && isDurable(op));
}

/** Whether a change of the block that has the sector may be in the intent journal. */
function isBlockWritten({ ops }: HeldPool, sector: number, name: Op["volume"]): boolean {
  const begin = sector - sector % blockSectors;
  return ops.some(({ volume, kind, sectorBegin, sectorEnd }) =>
    volume === name && kind !== "read" && sectorBegin < begin + blockSectors && begin < sectorEnd
  );
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
