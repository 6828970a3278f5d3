/**
 * What requests that run at the same time may show, from the contract and per sector.
 *
 * One schedule stands for all that differ from it by the order of independent messages, and each of them is judged: in
 * each, other requests may have been answered before others were asked.
 */
import { blockSectors, initialSequence, noExport, type Op, snapshotsOf, volumeSectors } from "./scenario.ts";
import type { HeldPool } from "./held_pool.ts";
import { isIn } from "./execution.ts";
import { present } from "../../../storage/base/assert.ts";
import { checkMetadata } from "../../../storage/check.ts";
import { metadataBlockSizeBytes } from "../../../storage/base/ids.ts";

/** By sector: the sequence number of the write whose bytes are there, 0 for zeroes, -1 for anything else. */
export type Content = Int32Array;

const sectorWords = 128;

/** Tells whose bytes each sector holds. A stamp must be of this volume and of this sector, whole. */
export function contentOf(bytes: Uint8Array): Content {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const content = new Int32Array(bytes.length / 512);
  for (let sector = 0; sector < content.length; sector += 1) {
    const at = sector * sectorWords;
    content[sector] = sequenceAt(words, at, sector);
    for (let word = at + 4; word < at + sectorWords; word += 4) {
      if (words[word] !== words[at] || words[word + 3] !== words[at + 3]) content[sector] = -1;
    }
  }
  return content;
}

function sequenceAt(words: Uint32Array, at: number, sector: number): number {
  if (words[at] === 0) return words[at + 3] === 0 ? 0 : -1;
  const isOurs = words[at] === 0x7374616d && words[at + 1] === 1 && words[at + 2] === sector;
  return isOurs ? words[at + 3]! : -1;
}

/** Something that gave sectors a value: a request, or what was there before. */
export interface Writer {
  readonly op: Op | undefined;
  readonly value: number;
}

/** The operations that may have given the sector of a volume its value. */
export function writersOf(pool: HeldPool, sector: number, volume: Op["volume"] = "a"): Writer[] {
  const { state, layout } = pool.scenario;
  const isMapped = state !== "unmapped" && (layout === "two blocks" || sector < blockSectors);
  const initial = isMapped ? initialSequence : 0;
  const writers: Writer[] = [{ op: undefined, value: initial }];
  for (const op of pool.ops) {
    if (op.volume !== volume || op.kind === "read" || op.status === noExport) continue;
    if (sector < op.sectorBegin || sector >= op.sectorEnd) continue;
    if (op.kind === "rollback") {
      writers.push({ op, value: initial });
      continue;
    }
    const isZero = op.kind === "discard" || op.kind === "write-zeroes" || op.kind === "other's discard";
    writers.push({ op, value: isZero ? 0 : op.number + 1 });
  }
  return writers;
}

/** In one order of what a schedule stands for: which requests were answered before which were asked, as bits. */
export type Order = number;

function bitOf(a: Op, b: Op): number {
  return 1 << (a.number * opsMax + b.number);
}

const opsMax = 5;

/** Of what was there before (as `a`) and of the end of the run (as `b`) this is always true. */
export function precedes(order: Order, a: Op | undefined, b: Op | undefined): boolean {
  return a === undefined || b === undefined || (order & bitOf(a, b)) !== 0;
}

/** Every order of what a complete schedule stands for, as far as they differ in what precedes what. */
export function ordersOf(ops: readonly Op[]): readonly Order[] {
  const ends = ops.flatMap((op) => [
    { op, event: present(op.submitted, "an operation that was not submitted"), isAnswer: false },
    { op, event: present(op.answered, "an operation without an answer"), isAnswer: true },
  ]);
  const orders = new Set<Order>();
  const seen = new Set<string>();
  const extend = (placed: number, order: Order): void => {
    if (placed === (1 << ends.length) - 1) orders.add(order);
    const key = `${placed} ${order}`;
    if (seen.has(key)) return;
    seen.add(key);
    for (const [index, end] of ends.entries()) {
      if ((placed & (1 << index)) !== 0) continue;
      const isNext = ends.every((other, at) =>
        (placed & (1 << at)) !== 0 || other === end ||
        (other.event === end.event ? at > index : !isIn(end.event.past, other.event.index))
      );
      if (!isNext) continue;
      const answered = ends.filter((other, at) => other.isAnswer && (placed & (1 << at)) !== 0);
      const before = end.isAnswer ? 0 : answered.reduce((bits, { op }) => bits | bitOf(op, end.op), 0);
      extend(placed | (1 << index), order | before);
    }
  };
  extend(0, 0);
  return [...orders];
}

/** Whether a read that `reader` made (undefined: after the end) may show the value. */
function isAllowed(order: Order, writers: readonly Writer[], value: number, reader: Op | undefined): boolean {
  return writers.some((writer) => {
    // What a rollback keeps is without what it brings.
    if (writer.value !== value || (writer.op !== undefined && writer.op === reader)) return false;
    if (writer.op !== undefined && reader !== undefined && precedes(order, reader, writer.op)) return false;
    return !writers.some((other) =>
      other.op !== undefined && other.op !== writer.op && other.op.status === "ok" &&
      precedes(order, writer.op, other.op) && precedes(order, other.op, reader)
    );
  });
}

/** What is wrong with what a read or a snapshot shows from `sectorBegin` on, or undefined. */
function problemOfContent(
  pool: HeldPool,
  orders: readonly Order[],
  content: Content,
  sectorBegin: number,
  reader: Op | undefined,
  volume: Op["volume"] = "a",
): string | undefined {
  for (const [index, value] of content.entries()) {
    const sector = sectorBegin + index;
    const writers = writersOf(pool, sector, volume);
    if (orders.some((order) => !isAllowed(order, writers, value, reader))) {
      return `sector ${sector} shows ${describe(value)}`;
    }
  }
  return undefined;
}

export function describe(value: number): string {
  if (value === -1) return "bytes that the volume never held there";
  if (value === 0) return "zeroes";
  return value === initialSequence ? "what was there before" : `what request ${value} wrote`;
}

/** A snapshot that has a request has every one that was answered before that was asked. */
function problemOfInstant(pool: HeldPool, orders: readonly Order[], content: Content): string | undefined {
  for (const later of pool.ops) {
    if (snapshotsOf(later).length > 0 || !content.includes(later.number + 1)) continue;
    for (const earlier of pool.ops) {
      if (earlier === later || earlier.kind === "read" || earlier.status !== "ok") continue;
      if (!orders.some((order) => precedes(order, earlier, later))) continue;
      for (let sector = earlier.sectorBegin; sector < earlier.sectorEnd; sector += 1) {
        const [initial, ...writers] = writersOf(pool, sector);
        const isOld = content[sector] === initial!.value &&
          !writers.some((writer) => writer.value === initial!.value);
        if (isOld) {
          return `it has request ${later.number + 1} and not request ${earlier.number + 1} before that`;
        }
      }
    }
  }
  return undefined;
}

/** Statuses that are right without a fault. Space may be short where the scenario has no free block. */
function problemOfAnswers(pool: HeldPool): string | undefined {
  const mayFail = pool.scenario.failingFlush !== undefined;
  for (const op of pool.ops) {
    if (op.answers !== 1) return `request ${op.number + 1} (${op.kind}) was answered ${op.answers} times`;
    if (op.status === "ok" || op.status === noExport || mayFail) continue;
    if (op.status === "noDataSpace" && pool.scenario.dataBlocks < 4 && !pool.scenario.waits) continue;
    return `request ${op.number + 1} (${op.kind}) was answered ${op.status}`;
  }
  return undefined;
}

function problemOfReads(pool: HeldPool, orders: readonly Order[]): string | undefined {
  for (const op of pool.ops) {
    if (op.kind !== "read" || op.status !== "ok") continue;
    // A read may begin anywhere: the stamps count sectors of the volume.
    const whole = new Uint8Array(op.sectorEnd * 512);
    whole.set(op.data, op.sectorBegin * 512);
    const content = contentOf(whole).slice(op.sectorBegin);
    const problem = problemOfContent(pool, orders, content, op.sectorBegin, op);
    if (problem !== undefined) return `request ${op.number + 1} (read): ${problem}`;
  }
  return undefined;
}

/** What the volumes hold at the end of a run, by name. */
export type Found = ReadonlyMap<string, Content>;

/** Checks a complete schedule. Answers what is wrong or what was found at the end. */
export function checkEnd(pool: HeldPool): string | Found {
  const answered = problemOfAnswers(pool);
  if (answered !== undefined) return `${answered}; waiting: ${pool.kernel.tasksInFlight().join("; ")}`;
  if (pool.kernel.tasksRunning > 0) return `a task is left: ${pool.kernel.tasksInFlight().join("; ")}`;
  const orders = ordersOf(pool.ops);
  const read = problemOfReads(pool, orders);
  if (read !== undefined) return read;
  pool.release();
  const found = new Map<string, Content>();
  // A pool that has failed serves nothing: what it keeps is seen after a restart.
  if (pool.hasFailed) return problemOfRest(pool) ?? found;
  for (const op of pool.ops) {
    const problem = problemOfSnapshots(pool, orders, op, found);
    if (problem !== undefined) return `the snapshot of request ${op.number + 1}: ${problem}`;
  }
  const isBaseThere = pool.scenario.state === "shared" && !pool.ops.some((op) => op.kind === "rm");
  if (isBaseThere) {
    const base = contentOf(pool.readVolume("a@base"));
    found.set("a@base", base);
    for (const [sector, value] of base.entries()) {
      const before = writersOf(pool, sector)[0]!.value;
      if (value !== before) return `the old snapshot has changed: sector ${sector} shows ${describe(value)}`;
    }
  }
  const content = contentOf(pool.readVolume("a"));
  found.set("a", content);
  const final = problemOfContent(pool, orders, content, 0, undefined);
  if (final !== undefined) return `at the end ${final}`;
  const split = problemOfSplit(pool, found, () => true);
  if (split !== undefined) return split;
  if (hasOther(pool)) {
    const other = contentOf(pool.readVolume("b"));
    const problem = problemOfContent(pool, orders, other, 0, undefined, "b");
    found.set("b", other);
    if (problem !== undefined) return `at the end of the other volume ${problem}`;
  }
  return problemOfRest(pool) ?? found;
}

function problemOfSnapshots(
  pool: HeldPool,
  orders: readonly Order[],
  op: Op,
  found: Map<string, Content>,
): string | undefined {
  if (op.status !== "ok") return undefined;
  for (const name of snapshotsOf(op)) {
    const content = contentOf(pool.readVolume(name));
    found.set(name, content);
    const problem = problemOfContent(pool, orders, content, 0, op) ?? problemOfInstant(pool, orders, content);
    if (problem !== undefined) return problem;
  }
  return problemOfTwins(op, found);
}

/** Snapshots of one command are one point in time. */
export function problemOfTwins(op: Op, found: ReadonlyMap<string, Content>): string | undefined {
  const [first, ...others] = snapshotsOf(op).map((name) => found.get(name));
  for (const other of others) {
    if ((first === undefined) !== (other === undefined)) return "a part of the command is there";
    if (first?.some((value, sector) => value !== other![sector])) return "two of one command differ";
  }
  return undefined;
}

function hasOther({ scenario, ops }: HeldPool): boolean {
  return scenario.state === "cloned" || ops.some(({ kind, status }) => kind === "clone" && status === "ok");
}

/**
 * A write beside a rollback came before it, and is in what that kept; or after it, and is in the volume. If `isThere` says that it must
 * be found, it is in one of the two.
 */
export function problemOfSplit(
  pool: HeldPool,
  volumes: ReadonlyMap<string, Content>,
  isThere: (op: Op) => boolean,
): string | undefined {
  const rollback = pool.ops.find(({ kind }) => kind === "rollback");
  if (rollback === undefined) return undefined;
  const [now, kept] = [volumes.get("a"), volumes.get(snapshotsOf(rollback)[0]!)];
  if (now === undefined || kept === undefined) return undefined;
  for (const [sector, value] of now.entries()) {
    const [initial, ...writers] = writersOf(pool, sector);
    const [writer, ...others] = writers.filter(({ op }) => op !== rollback);
    // Where several wrote, one may have replaced the other.
    if (writer === undefined || others.length > 0 || writer.value === initial!.value) continue;
    const isIn = [kept[sector], value].filter((found) => found === writer.value).length;
    const { op } = writer;
    if (isIn === 2 || isIn === 0 && op!.status === "ok" && isThere(op!)) {
      const where = isIn === 0
        ? "neither in what the rollback kept nor"
        : "both in what the rollback kept and";
      return `sector ${sector} of request ${op!.number + 1} is ${where} in the volume`;
    }
  }
  return undefined;
}

/** The metadata is sound and counts what is mapped; nothing is leased, no lock is held, no mailbox was too full. */
function problemOfRest(pool: HeldPool): string | undefined {
  for (const [name, most] of pool.kernel.mailboxHighWater()) {
    if (most > mailboxBound) return `the mailbox of ${name} held ${most}`;
  }
  const { bytes } = pool.metadata;
  const metadata = () => problemOfMetadata((at, length) => bytes.subarray(at, at + length), bytes.length);
  if (pool.hasFailed) return metadata() ?? pool.problemOfLocks();
  // A range lock of everything is granted only if no other lock is held.
  pool.submit("discard", 0, new Uint8Array(0), volumeSectors);
  // A discard that waits for room in the intent journal is done after the commit that makes some.
  pool.drain();
  pool.submit("flush", 0, new Uint8Array(0), 0);
  pool.drain();
  if (pool.kernel.tasksRunning > 0) return `a lock is held: ${pool.kernel.tasksInFlight().join("; ")}`;
  return metadata() ?? pool.problemOfLeases() ?? pool.problemOfLocks();
}

/** Three requests of two blocks cause no more than this anywhere at once. */
const mailboxBound = 64;

/** What is wrong with metadata of which `range` gives any part, or undefined. */
export function problemOfMetadata(
  range: (offsetBytes: number, lengthBytes: number) => Uint8Array,
  sizeBytes: number,
): string | undefined {
  const check = checkMetadata({ deviceBlocks: sizeBytes / metadataBlockSizeBytes });
  let step = check.next();
  while (!step.done) step = check.next(range(step.value * metadataBlockSizeBytes, metadataBlockSizeBytes));
  return step.value.problemCount === 0
    ? undefined
    : `the metadata is not sound: ${step.value.problems.join(" ")}`;
}
