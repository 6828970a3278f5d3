/**
 * Devices and a journal in memory that behave as the host's files do: some answers come later, discarded pages are holes,
 * and a chosen operation fails.
 */
import {
  type DevicePort,
  type IoDone,
  ioOk,
  type IoResult,
  type LocalStorage,
  type MappedSegment,
  type ReadDone,
  type ReadResult,
  type ReadTarget,
} from "../../storage/device/port.ts";
import { defaultKnobs } from "../../actors/knobs.ts";
import { assert } from "../../storage/base/assert.ts";
import type { LineRoom } from "../../actors/control/catalogue_room.ts";
import { MemoryJournal } from "../support/pool.ts";
import type { DeviceName } from "./recording_device.ts";

/** Answers that have not been given yet; whoever drives the run gives them in any order. */
export type Later = (() => void)[];

/** Which answers are writes, zeroes and copies of the data device: a driver may keep them waiting longer than others. */
export class SlowAnswers {
  readonly #answers = new WeakSet<() => void>();

  add(answer: () => void): void {
    this.#answers.add(answer);
  }

  has(answer: () => void): boolean {
    return this.#answers.has(answer);
  }
}

/** Fails one operation of one device. */
export class FaultPlan {
  /** Operations seen on the device. */
  count = 0;

  /** @param ordinal 0 for the first operation */
  constructor(readonly device: DeviceName, readonly ordinal: number, readonly result: IoResult) {}

  /** What the operation that is asked now must answer, if it is to fail. */
  next(device: DeviceName): IoResult | undefined {
    if (device !== this.device) return undefined;
    this.count += 1;
    return this.count - 1 === this.ordinal ? this.result : undefined;
  }

  get wasMet(): boolean {
    return this.count > this.ordinal;
  }
}

export interface SimulationOptions {
  readonly name: DeviceName;
  readonly later: Later;
  /** Told of answers to what changes the device. */
  readonly slow?: SlowAnswers;
  /** Whether an operation that a file answers at once is answered later, as other devices may. */
  readonly isLate?: () => boolean;
  readonly faults?: FaultPlan | undefined;
  /** It maps nothing and tells of no holes, as a device that is not of this host. Default false. */
  readonly isRemote?: boolean;
}

const pageBytes = 4096;

/** See the head of this file. */
export class SimulatedDevice implements DevicePort, LocalStorage {
  readonly canDiscard = true;
  readonly bytes: Uint8Array;
  readonly #options: SimulationOptions;
  /** By page: 1 where the host stores nothing. */
  readonly #holes: Uint8Array;
  #flushes = 0;

  constructor(bytes: Uint8Array, options: SimulationOptions) {
    this.bytes = bytes;
    this.#options = options;
    this.#holes = new Uint8Array(Math.ceil(bytes.length / pageBytes));
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  get local(): LocalStorage | undefined {
    return this.#options.isRemote ? undefined : this;
  }

  read(target: ReadTarget, offsetBytes: number, done: ReadDone): ReadResult | "pending" {
    const { lengthBytes } = target;
    const { isRemote = false } = this.#options;
    if (target.takesMapped && !isRemote && !this.#isLate()) return this.#segment(offsetBytes, lengthBytes);
    const buffer = target.memory();
    return this.#perform((result) => done(result, target), this.#isLate(), () => {
      buffer.set(this.bytes.subarray(offsetBytes, offsetBytes + lengthBytes));
    });
  }

  readAtOnce(target: ReadTarget, offsetBytes: number): ReadResult | undefined {
    if (this.#isLate()) return undefined;
    if (target.takesMapped && !this.#options.isRemote) return this.#segment(offsetBytes, target.lengthBytes);
    return this.#performNow(() => {
      target.memory().set(this.bytes.subarray(offsetBytes, offsetBytes + target.lengthBytes));
    });
  }

  writeAtOnce(buffer: Uint8Array, offsetBytes: number): IoResult | undefined {
    return this.#isLate() ? undefined : this.#performNow(() => {
      this.#fill(offsetBytes, buffer.length);
      this.bytes.set(buffer, offsetBytes);
    });
  }

  /** What the device has in memory, until something else is written there. */
  #segment(offsetBytes: number, lengthBytes: number): MappedSegment {
    const copyTo = (buffer: Uint8Array, beginBytes: number) => {
      const begin = offsetBytes + beginBytes;
      buffer.set(this.bytes.subarray(begin, begin + buffer.length));
      return ioOk;
    };
    return { kind: "mapped", lengthBytes, drain: 0, address: 0, copyTo };
  }

  write(buffer: Uint8Array, offsetBytes: number, done: IoDone): IoResult | "pending" {
    return this.#perform(done, this.#isLate(), () => {
      this.#fill(offsetBytes, buffer.length);
      this.bytes.set(buffer, offsetBytes);
    });
  }

  zero(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    return this.#perform(done, this.#isLate(), () => {
      this.#fill(offsetBytes, lengthBytes);
      this.bytes.fill(0, offsetBytes, offsetBytes + lengthBytes);
    });
  }

  copy(fromBytes: number, toBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    return this.#perform(done, this.#isLate(), () => {
      this.#fill(toBytes, lengthBytes);
      this.bytes.copyWithin(toBytes, fromBytes, fromBytes + lengthBytes);
    });
  }

  discard(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    return this.#perform(done, true, (isFailing) => {
      // Where the host has punched nothing it tells of no hole.
      if (isFailing) return;
      this.bytes.fill(0, offsetBytes, offsetBytes + lengthBytes);
      const begin = Math.ceil(offsetBytes / pageBytes);
      this.#holes.fill(1, begin, Math.max(begin, Math.floor((offsetBytes + lengthBytes) / pageBytes)));
    });
  }

  isHole(offsetBytes: number, lengthBytes: number): boolean {
    const end = Math.ceil((offsetBytes + lengthBytes) / pageBytes);
    for (let page = Math.floor(offsetBytes / pageBytes); page < end; page += 1) {
      if (this.#holes[page] === 0) return false;
    }
    return true;
  }

  flush(done: IoDone): IoResult | "pending" {
    this.#flushes += 1;
    assert(this.#flushes <= defaultKnobs.flushesMax, "so many flushes at once are asked of no device");
    const result = this.#perform((later) => {
      this.#flushes -= 1;
      done(later);
    }, true);
    if (result !== "pending") this.#flushes -= 1;
    return result;
  }

  #isLate(): boolean {
    return this.#options.isLate?.() ?? false;
  }

  #fill(offsetBytes: number, lengthBytes: number): void {
    const end = Math.ceil((offsetBytes + lengthBytes) / pageBytes);
    this.#holes.fill(0, Math.floor(offsetBytes / pageBytes), end);
  }

  #performNow(effect: () => void): IoResult {
    const failed = this.#options.faults?.next(this.#options.name);
    effect();
    return failed ?? ioOk;
  }

  #perform(done: IoDone, isLate: boolean, effect?: (isFailing: boolean) => void): IoResult | "pending" {
    const failed = this.#options.faults?.next(this.#options.name);
    // A write that fails may have been done all the same; crashes keep or lose each sector of it.
    effect?.(failed !== undefined);
    const result = failed ?? ioOk;
    if (!isLate) return result;
    const answer = () => done(result);
    this.#options.later.push(answer);
    if (effect !== undefined) this.#options.slow?.add(answer);
    return "pending";
  }
}

/** Keeps the contract of JournalPort as the file does: see actors/edge/catalogue_file.ts. */
export class SimulatedJournal extends MemoryJournal {
  readonly #faults: FaultPlan | undefined;
  #lastLineLength = 0;
  #failure: IoResult | undefined;

  constructor(text: string, faults?: FaultPlan) {
    super(text);
    this.#faults = faults;
  }

  /** An earlier change may be half done, so there is none after it. */
  get refuses(): boolean {
    return this.#failure !== undefined;
  }

  override append(line: string, _room: LineRoom, done: IoDone): void {
    if (this.#failure !== undefined) return this.#answer(done, this.#failure);
    const failed = this.#faults?.next("journal");
    if (failed !== undefined) return this.#answer(done, failed);
    this.text += line;
    this.#lastLineLength = line.length;
    this.#sync(done);
  }

  override retract(done: IoDone): void {
    if (this.#failure !== undefined) return this.#answer(done, this.#failure);
    if (this.#lastLineLength === 0) throw new Error("there is no line to take back");
    this.#failure = this.#faults?.next("journal");
    if (this.#failure !== undefined) return this.#answer(done, this.#failure);
    this.text = this.text.slice(0, this.text.length - this.#lastLineLength);
    this.#lastLineLength = 0;
    this.#sync(done);
  }

  override rewrite(piece: string, isFirst: boolean, done: IoDone): void {
    const failed = this.#failure ?? this.#faults?.next("journal");
    if (failed !== undefined) return this.#answer(done, failed);
    super.rewrite(piece, isFirst, done);
  }

  /** The flush of the new file may fail, which leaves the old one, and that of the directory, after which none is known. */
  override finishRewrite(_contentBytes: number, done: IoDone): void {
    const failed = this.#failure ?? this.#faults?.next("journal");
    if (failed !== undefined) return this.#answer(done, failed);
    this.text = this.rewritten;
    this.#lastLineLength = 0;
    this.#sync(done);
  }

  #sync(done: IoDone): void {
    this.#failure = this.#faults?.next("journal");
    this.#answer(done, this.#failure ?? ioOk);
  }

  #answer(done: IoDone, result: IoResult): void {
    this.pending.push(() => done(result));
  }
}
