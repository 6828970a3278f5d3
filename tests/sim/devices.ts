/** The devices of one life: the simulated ones of the crash tests, which here also begin late, fail by chance, and stop. */
import {
  type DevicePort,
  type IoDone,
  ioOk,
  type IoResult,
  type LocalStorage,
  type MappedSegment,
  type ReadDone,
  readInto,
  type ReadResult,
  type ReadTarget,
} from "../../storage/device/port.ts";
import { assert } from "../../storage/base/assert.ts";
import { RecordingJournal, RunLog } from "../crash/recording_device.ts";
import type { DeviceName } from "../crash/recording_device.ts";
import { FaultPlan, type Later, SimulatedJournal } from "../crash/simulated_device.ts";
import type { Random } from "../support/world.ts";
import { MemoryJournal } from "../support/pool.ts";
import type { SimHost } from "./host.ts";
import type { LineRoom } from "../../actors/control/catalogue_room.ts";
import type { OperationKind, SimulatedName, Swarm } from "./swarm.ts";

/** Stops all devices after so many operations, as the crash does. */
export class Fuse {
  isBlown = false;
  /** Operations that happened. */
  count = 0;
  operationsMax = Infinity;
  readonly #blown: () => void;

  /** @param blown called when the first operation is asked that does not happen any more */
  constructor(blown: () => void) {
    this.#blown = blown;
  }

  admit(): boolean {
    if (this.isBlown) return false;
    if (this.count < this.operationsMax) {
      this.count += 1;
      return true;
    }
    this.blow();
    return false;
  }

  blow(): void {
    if (this.isBlown) return;
    this.isBlown = true;
    this.#blown();
  }
}

/** Fails operations by chance, each kind at the rate of its device in this run. */
export class SwarmFaults extends FaultPlan {
  isOn = false;
  /** What is asked next of the device. */
  kind: OperationKind = "write";
  #failed = 0;
  /** A flush of this life failed. */
  hasFailedFlush = false;
  readonly #swarm: Swarm;
  readonly #world: { readonly random: Random };
  readonly #host: SimHost;

  constructor(world: { readonly swarm: Swarm; readonly random: Random }, host: SimHost) {
    super("data", -1, ioOk);
    this.#swarm = world.swarm;
    this.#world = world;
    this.#host = host;
  }

  /** Faults in this life. A full host is one for the metadata; for the data it is not, because writes wait or are refused. */
  get faults(): number {
    return this.#failed + this.#host.refused.metadata;
  }

  override next(device: SimulatedName): IoResult | undefined {
    if (this.kind === "flush" && device !== "journal" && device !== "intents" && this.#host.failsFlush()) {
      this.#failed += 1;
      this.hasFailedFlush = true;
      return { kind: "noSpace" };
    }
    const rate = this.#swarm.errors[device][this.kind];
    if (!this.isOn || rate === 0 || this.#world.random.below(100_000) >= rate) return undefined;
    this.#failed += 1;
    if (this.kind === "flush") this.hasFailedFlush = true;
    // A host that is full says so about writes only.
    const isWrite = this.kind === "write" || this.kind === "copy" || this.kind === "zero";
    return isWrite && this.#world.random.below(100) < this.#swarm.noSpacePercent
      ? { kind: "noSpace" }
      : { kind: "ioError", reason: `the simulated ${device} failed a ${this.kind}` };
  }
}

/** What the devices of a life share. */
export interface DeviceWorld {
  readonly later: Later;
  readonly fuse: Fuse;
  readonly faults: SwarmFaults;
  readonly host: SimHost;
  /** What a slow data device does in its own time. */
  delay(event: () => void): void;
  isLateToStart(): boolean;
  /** The runs of the kernel: a view is good for the one in which it was made. */
  runs(): number;
  note(device: SimulatedName, kind: OperationKind): void;
}

/** Begins some operations later than they were asked, so that what was asked at the same time happens in any order. */
export class DelayedDevice implements DevicePort, LocalStorage {
  readonly #inner: DevicePort;
  readonly #name: DeviceName;
  readonly #world: DeviceWorld;

  constructor(inner: DevicePort, name: DeviceName, world: DeviceWorld) {
    this.#inner = inner;
    this.#name = name;
    this.#world = world;
  }

  get sizeBytes(): number {
    return this.#inner.sizeBytes;
  }

  get local(): LocalStorage | undefined {
    return this.#inner.local === undefined ? undefined : this;
  }

  get canDiscard(): boolean {
    return this.#inner.local?.canDiscard === true;
  }

  /** A read that begins late is one into memory: a mapped segment is an answer at once. */
  read(target: ReadTarget, offsetBytes: number, done: ReadDone): ReadResult | "pending" {
    if (this.#world.fuse.isBlown) return "pending";
    if (!this.#world.isLateToStart()) {
      this.#noteBegun("read");
      const found = this.#inner.read(target, offsetBytes, done);
      return found !== "pending" && found.kind === "mapped" ? new CheckedSegment(found, this.#world) : found;
    }
    const buffer = target.memory();
    const answer = (result: IoResult) => done(result, target);
    const event = () => {
      this.#noteBegun("read");
      const result = readInto(this.#inner, buffer, offsetBytes, answer);
      if (result !== "pending") answer(result);
    };
    this.#delay("read", event);
    return "pending";
  }

  readAtOnce(target: ReadTarget, offsetBytes: number): ReadResult | undefined {
    if (this.#world.fuse.isBlown || this.#world.isLateToStart()) return undefined;
    this.#noteBegun("read");
    const found = this.#inner.readAtOnce?.(target, offsetBytes);
    return found?.kind === "mapped" ? new CheckedSegment(found, this.#world) : found;
  }

  /** One that would have to wait may have been written in part. */
  writeAtOnce(buffer: Uint8Array, offsetBytes: number): IoResult | undefined {
    const isRefused = this.#world.isLateToStart();
    const isInPart = isRefused && this.#world.isLateToStart() && buffer.length > 512;
    if ((isRefused && !isInPart) || !this.#world.fuse.admit()) return undefined;
    this.#noteBegun("write");
    const written = isInPart ? buffer.subarray(0, 512) : buffer;
    const result = this.#inner.writeAtOnce?.(written, offsetBytes);
    return isInPart ? undefined : result;
  }

  write(buffer: Uint8Array, offsetBytes: number, done: IoDone): IoResult | "pending" {
    return this.#perform("write", done, (ended) => this.#inner.write(buffer, offsetBytes, ended));
  }

  zero(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    return this.#perform("zero", done, (ended) => this.#inner.zero(offsetBytes, lengthBytes, ended));
  }

  copy(fromBytes: number, toBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    return this.#perform("copy", done, (ended) => this.#inner.copy(fromBytes, toBytes, lengthBytes, ended));
  }

  discard(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    return this.#perform(
      "discard",
      done,
      (ended) => this.#inner.local!.discard(offsetBytes, lengthBytes, ended),
    );
  }

  isHole(offsetBytes: number, lengthBytes: number): boolean {
    return this.#inner.local!.isHole(offsetBytes, lengthBytes);
  }

  flush(done: IoDone): IoResult | "pending" {
    return this.#perform("flush", done, (ended) => this.#inner.flush(ended));
  }

  #perform(
    kind: OperationKind,
    done: IoDone,
    begin: (done: IoDone) => IoResult | "pending",
  ): IoResult | "pending" {
    if (this.#world.fuse.isBlown) return "pending";
    if (!this.#world.isLateToStart()) return this.#begin(kind, done, begin);
    this.#delay(kind, () => {
      const result = this.#begin(kind, done, begin);
      if (result !== "pending") done(result);
    });
    return "pending";
  }

  #delay(kind: OperationKind, event: () => void): void {
    this.#world.later.push(event);
    if (this.#name === "data" && kind !== "flush") this.#world.delay(event);
  }

  #begin(
    kind: OperationKind,
    done: IoDone,
    begin: (done: IoDone) => IoResult | "pending",
  ): IoResult | "pending" {
    if (!this.#world.fuse.admit()) return "pending";
    this.#noteBegun(kind);
    return begin(done);
  }

  /** Also of a read. That changes nothing, so a crash before it is a crash before what comes next. */
  #noteBegun(kind: OperationKind): void {
    this.#world.note(this.#name, kind);
    this.#world.faults.kind = kind;
  }
}

/** A segment that must not be looked at after the drain in which it was made. */
class CheckedSegment implements MappedSegment {
  readonly kind = "mapped";
  drain = 0;
  readonly address = 0;
  readonly #inner: MappedSegment;
  readonly #world: DeviceWorld;

  constructor(inner: MappedSegment, world: DeviceWorld) {
    this.#inner = inner;
    this.#world = world;
  }

  get lengthBytes(): number {
    return this.#inner.lengthBytes;
  }

  copyTo(buffer: Uint8Array, beginBytes: number): IoResult {
    assert(this.drain === this.#world.runs(), "a segment was used after its time");
    return this.#inner.copyTo(buffer, beginBytes);
  }
}

/** The catalogue's journal of one life, with a log of its own: it begins as one durable line. */
export class LifeJournal extends MemoryJournal {
  readonly log = new RunLog();
  readonly bytes: Uint8Array;
  readonly #recording: RecordingJournal;
  readonly #world: DeviceWorld;

  constructor(text: string, world: DeviceWorld) {
    super(text);
    this.#world = world;
    this.bytes = new TextEncoder().encode(text);
    const inner = new SimulatedJournal(text, world.faults);
    // So that it is written anew after every few commands.
    inner.changesCharsMax = 0;
    const port = {
      get refuses() {
        return inner.refuses;
      },
      append: (line: string, room: LineRoom, done: IoDone) => {
        inner.append(line, room, done);
        this.#takeOver(inner);
      },
      isLong: (contentBytes: number) => inner.isLong(contentBytes),
      rewrite: (piece: string, isFirst: boolean, done: IoDone) => {
        inner.rewrite(piece, isFirst, done);
        this.#takeOver(inner);
      },
      finishRewrite: (contentBytes: number, done: IoDone) => {
        inner.finishRewrite(contentBytes, done);
        this.#takeOver(inner);
      },
      retract: (done: IoDone) => {
        inner.retract(done);
        this.#takeOver(inner);
      },
    };
    this.#recording = new RecordingJournal(port, this.log, this.bytes.length);
  }

  /** The host is full, and nothing has changed. */
  #isRefused(done: IoDone): boolean {
    if (!this.#world.host.refuses("catalogue")) return false;
    this.#world.later.push(() => done({ kind: "noSpace" }));
    return true;
  }

  /** Its answers come among all others. */
  #takeOver(inner: MemoryJournal): void {
    this.#world.later.push(...inner.pending.splice(0));
  }

  override append(line: string, room: LineRoom, done: IoDone): void {
    if (!this.#world.fuse.admit()) return;
    if (!room.usesHeadroom && this.#isRefused(done)) return;
    this.#world.faults.kind = "write";
    this.#world.note("journal", "write");
    this.#recording.append(line, room, done);
  }

  override isLong(contentBytes: number): boolean {
    return this.#recording.isLong(contentBytes);
  }

  override rewrite(piece: string, isFirst: boolean, done: IoDone): void {
    if (!this.#world.fuse.admit()) return;
    if (this.#isRefused(done)) return;
    this.#world.faults.kind = "write";
    this.#world.note("journal", "write");
    this.#recording.rewrite(piece, isFirst, done);
  }

  override finishRewrite(contentBytes: number, done: IoDone): void {
    if (!this.#world.fuse.admit()) return;
    if (this.#isRefused(done)) return;
    this.#world.faults.kind = "flush";
    this.#world.note("journal", "flush");
    this.#recording.finishRewrite(contentBytes, done);
  }

  override retract(done: IoDone): void {
    if (!this.#world.fuse.admit()) return;
    this.#world.faults.kind = "flush";
    this.#world.note("journal", "flush");
    this.#recording.retract(done);
  }
}
