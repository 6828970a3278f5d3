/**
 * A power cut after every device operation of a schedule, with every outcome for what was not flushed.
 *
 * Each unflushed write is lost, whole, or cut at a sector. Not every combination is materialized: whether a write was kept
 * is decided when the recovery reads its range. Combinations that differ only in what the recovery never reads are one
 * outcome, so every subset is covered. What a recovery reads, and what it comes to, is kept as a tree over the contents
 * read; the next crash that leaves the same contents is only looked up.
 *
 * A flush makes durable what was answered before it was asked, and "answered" is taken as late as can be: only when
 * something that follows from the answer has certainly come before the flush.
 */
import { sectorSizeBytes } from "../../../storage/base/ids.ts";
import type { DeviceName, Operation } from "./logged_device.ts";
import { type Content, describe, type Found, problemOfTwins, writersOf } from "./oracle.ts";
import { type Outcome, recover, type RecoveryRead } from "./recovery.ts";
import type { HeldPool } from "./held_pool.ts";
import { isFua, type Op, snapshotsOf, spareBlocks } from "./scenario.ts";
import { type Event, isIn } from "./search.ts";

/** How much was tried. */
export interface CrashCounts {
  points: number;
  outcomes: number;
  /** Different images that a recovery was run on. */
  recoveries: number;
}

/** What the recovery reads next, by what it has read so far; or what it came to. */
interface Step {
  read: RecoveryRead | undefined;
  outcome: Outcome | undefined;
  readonly next: Map<number, Step>;
}

type Choice = "lost" | "whole" | "cut";
const choices: readonly Choice[] = ["lost", "whole", "cut"];
/** Above so many writes that matter the outcomes are sampled. */
const choicesMax = 10;

/** Remembers recoveries over all schedules of all scenarios with equally large devices. */
export class Crashes {
  readonly counts: CrashCounts = { points: 0, outcomes: 0, recoveries: 0 };
  #root: Step = { read: undefined, outcome: undefined, next: new Map() };
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
      this.#root = { read: undefined, outcome: undefined, next: new Map() };
      this.#steps = 0;
    }
    const hashes = new Map<string, number>();
    for (let count = 0; count <= operations.length; count += 1) {
      this.counts.points += 1;
      const before = operations[count]?.event ?? Infinity;
      const images = new CutImages(pool, events, operations.slice(0, count), before, hashes);
      do {
        this.counts.outcomes += 1;
        const outcome = this.#outcomeOf(images);
        const problem = outcome.problem ?? problemOfOutcome(pool, outcome, before, found);
        if (problem === undefined) continue;
        return `after a power cut behind device operation ${count} of ${operations.length}` +
          `${images.describe()}: ${problem}`;
      } while (images.nextChoices());
    }
    return undefined;
  }

  #outcomeOf(images: CutImages): Outcome {
    let step = this.#root;
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
    const { outcome, reads } = recover((read) => images.bytes(read), images.sizes);
    let step = this.#root;
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

/** What the devices may hold after a power cut, decided as it is read. */
class CutImages {
  readonly #pool: HeldPool;
  readonly #operations: readonly Operation[];
  readonly #isDurable: boolean[];
  readonly #hashes: Map<string, number>;
  /** By operation. */
  readonly #chosen = new Map<number, Choice>();
  /** The operations decided, in order. */
  readonly #order: number[] = [];

  constructor(
    pool: HeldPool,
    events: readonly Event[],
    operations: readonly Operation[],
    before: number,
    hashes: Map<string, number>,
  ) {
    this.#pool = pool;
    this.#operations = operations;
    this.#hashes = hashes;
    this.#isDurable = durableOf(operations, events, before);
  }

  get sizes(): { readonly metadata: number; readonly data: number } {
    return { metadata: this.#pool.baseMetadata.length, data: this.#pool.baseData.length };
  }

  /** Goes on to the next combination; false after the last. */
  nextChoices(): boolean {
    for (;;) {
      const last = this.#order.pop();
      if (last === undefined) return false;
      const choice = this.#chosen.get(last)!;
      this.#chosen.delete(last);
      const canCut = this.#operations[last]!.bytes.length > sectorSizeBytes ||
        this.#operations[last]!.device === "journal";
      if (choice === "cut" || (choice === "whole" && !canCut) || this.#order.length >= choicesMax) continue;
      this.#decide(last, choices[choices.indexOf(choice) + 1]!);
      return true;
    }
  }

  #decide(index: number, choice: Choice): void {
    this.#chosen.set(index, choice);
    this.#order.push(index);
  }

  /** The operations that a read of the range sees, and how much of each. */
  #seen(read: RecoveryRead): readonly { readonly index: number; readonly choice: Choice }[] {
    const seen: { index: number; choice: Choice }[] = [];
    for (const [index, operation] of this.#operations.entries()) {
      if (operation.device !== read.device || operation.kind !== "write") continue;
      const end = operation.offsetBytes + operation.bytes.length;
      const isApart = end <= read.offsetBytes || read.offsetBytes + read.lengthBytes <= operation.offsetBytes;
      if (isApart && read.device !== "journal") continue;
      if (this.#isDurable[index]) {
        seen.push({ index, choice: "whole" });
        continue;
      }
      if (!this.#chosen.has(index)) {
        const sampled = choices[(index * 7 + this.#operations.length) % 3]!;
        this.#decide(index, this.#order.length >= choicesMax ? sampled : "lost");
      }
      const choice = this.#chosen.get(index)!;
      if (choice !== "lost") seen.push({ index, choice });
    }
    return seen;
  }

  hash(read: RecoveryRead): number {
    const seen = this.#seen(read);
    const key = `${read.device} ${read.offsetBytes} ${read.lengthBytes} ` +
      seen.map(({ index, choice }) => index + choice).join(" ");
    let hash = this.#hashes.get(key);
    if (hash === undefined) {
      hash = hashOf(this.bytes(read));
      this.#hashes.set(key, hash);
    }
    return hash;
  }

  bytes(read: RecoveryRead): Uint8Array {
    const seen = this.#seen(read);
    if (read.device === "journal") return this.#journal(seen);
    const base = read.device === "data" ? this.#pool.baseData : this.#pool.baseMetadata;
    const bytes = base.slice(read.offsetBytes, read.offsetBytes + read.lengthBytes);
    for (const { index, choice } of seen) {
      const operation = this.#operations[index]!;
      const kept = choice === "whole" ? operation.bytes.length : cutLength(operation, index);
      const begin = Math.max(operation.offsetBytes, read.offsetBytes);
      const end = Math.min(operation.offsetBytes + kept, read.offsetBytes + read.lengthBytes);
      if (begin >= end) continue;
      const part = operation.bytes.subarray(begin - operation.offsetBytes, end - operation.offsetBytes);
      bytes.set(part, begin - read.offsetBytes);
    }
    return bytes;
  }

  /** Each write of it is the whole text; a cut one leaves half of its last line. */
  #journal(seen: readonly { readonly index: number; readonly choice: Choice }[]): Uint8Array {
    let bytes: Uint8Array = new TextEncoder().encode(this.#pool.baseJournal);
    for (const { index, choice } of seen) {
      const next = this.#operations[index]!.bytes;
      bytes = choice === "whole" ? next : next.slice(0, Math.floor((bytes.length + next.length) / 2));
    }
    return bytes;
  }

  describe(): string {
    const parts = this.#order.map((index) => {
      const { device, offsetBytes, bytes } = this.#operations[index]!;
      return `${device} write of ${bytes.length} at ${offsetBytes} ${this.#chosen.get(index)}`;
    });
    return parts.length === 0 ? "" : ` (${parts.join(", ")})`;
  }
}

/** Sectors that a cut write leaves: at least one, not all. */
function cutLength(operation: Operation, index: number): number {
  const sectors = Math.max(1, operation.bytes.length / sectorSizeBytes);
  return (1 + (index * 5) % Math.max(1, sectors - 1)) * sectorSizeBytes;
}

/** Which operations no power cut can take back any more. A failed flush drops for ever what it would have covered. */
function durableOf(operations: readonly Operation[], events: readonly Event[], before: number): boolean[] {
  const isDurable = operations.map(() => false);
  const isDropped = operations.map(() => false);
  for (const [at, flush] of operations.entries()) {
    if (flush.kind === "write") {
      // The journal's file is flushed before its answer is given.
      if (flush.device === "journal") {
        isDurable[at] = events.some((event) => event.causes.includes(flush.event) && event.index < before);
      }
      continue;
    }
    for (let index = 0; index < at; index += 1) {
      const operation = operations[index]!;
      if (operation.device !== flush.device || operation.kind !== "write" || isDurable[index]) continue;
      if (flush.kind === "flushFailed") isDropped[index] = true;
      else if (!isDropped[index]) isDurable[index] = wasAnswered(operation, flush, events);
    }
  }
  return isDurable;
}

function wasAnswered(operation: Operation, flush: Operation, events: readonly Event[]): boolean {
  const asked = events[flush.event]!;
  return events.some((event) =>
    event.causes.includes(operation.event) && (event === asked || isIn(asked.past, event.index))
  );
}

const nameNumbers: Readonly<Record<DeviceName, number>> = { data: 1, metadata: 2, journal: 3 };

function hashOf(bytes: Uint8Array): number {
  let [low, high] = [nameNumbers.data, bytes.length];
  if (bytes.length % 4 !== 0) {
    for (const byte of bytes) {
      [low, high] = [Math.imul(low ^ byte, 0x01000193), Math.imul(high + byte, 0x9e3779b1)];
    }
  } else {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    for (const word of words) {
      low = Math.imul(low ^ word, 0x9e3779b1);
      low ^= low >>> 15;
      high = Math.imul(high + word, 0x85ebca6b) ^ (high >>> 13);
    }
  }
  return (low >>> 0) * 0x20_0000 + ((high >>> 0) & 0x1f_ffff);
}

/** Compares what a recovery found with what the contract allows at that instant. */
function problemOfOutcome(
  pool: HeldPool,
  outcome: Outcome,
  before: number,
  found: Found | undefined,
): string | undefined {
  const { volumes } = outcome;
  const wasSubmitted = (op: Op) => op.submitted !== undefined && op.submitted.index < before;
  const wasDone = (op: Op) => op.status === "ok" && op.answered !== undefined && op.answered.index < before;
  for (const name of pool.scenario.state === "cloned" ? ["a", "b"] as const : ["a"] as const) {
    const volume = volumes.get(name);
    if (volume === undefined) return `the volume ${name} is gone`;
    const problem = problemOfVolume(pool, name, volume, wasSubmitted, wasDone);
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
  const isNew = growth !== undefined && dataBlocks === scenario.dataBlocks + spareBlocks.data;
  const isAllowed = growth !== undefined && wasDone(growth) ? isNew : isOld || isNew && wasSubmitted(growth);
  return isAllowed ? undefined : `the superblock has ${dataBlocks} data blocks`;
}

function problemOfVolume(
  pool: HeldPool,
  name: Op["volume"],
  content: Content,
  wasSubmitted: (op: Op) => boolean,
  wasDone: (op: Op) => boolean,
): string | undefined {
  const isDurable = (op: Op) =>
    wasDone(op) && (isFua(op.kind) ||
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
