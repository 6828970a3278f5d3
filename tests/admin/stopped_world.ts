/**
 * For tests of what a crash leaves: devices and a journal that stop the world after so many operations, and give back the
 * files as a killed process or a power cut leaves them.
 */
import { assert } from "@std/assert";
import {
  type DevicePort,
  type IoDone,
  ioOk,
  type IoResult,
  type LocalStorage,
  type ReadTarget,
} from "../../storage/device/port.ts";
import type { LineRoom } from "../../actors/control/catalogue_room.ts";
import { MemoryJournal, type TestingFiles } from "../support/pool.ts";
import type { Random } from "../support/world.ts";

const sectorBytes = 512;

/** Lets a number of operations happen; all later ones are never answered. */
export class Fuse {
  /** Operations that have happened. */
  count = 0;
  readonly #max: number;

  constructor(max = Infinity) {
    this.#max = max;
  }

  /** Whether an operation that was refused has stopped the world. */
  stopped = false;

  /** Whether the next operation happens. */
  admit(): boolean {
    if (this.count >= this.#max) this.stopped = true;
    else this.count += 1;
    return !this.stopped;
  }
}

/** What was written since the last flush; its sectors may be lost in a power cut, each for itself. */
interface Unflushed {
  readonly offsetBytes: number;
  readonly bytes: Uint8Array;
}

/** A device in memory that knows what of it is durable. */
class StoppableDevice implements DevicePort, LocalStorage {
  readonly canDiscard = true;
  readonly bytes: Uint8Array;
  readonly #durable: Uint8Array;
  readonly #fuse: Fuse;
  #unflushed: Unflushed[] = [];

  constructor(bytes: Uint8Array, fuse: Fuse) {
    this.bytes = bytes;
    this.#durable = bytes.slice();
    this.#fuse = fuse;
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  get local(): LocalStorage {
    return this;
  }

  read(target: ReadTarget, offsetBytes: number): IoResult | "pending" {
    if (this.#fuse.stopped) return "pending";
    target.memory().set(this.bytes.subarray(offsetBytes, offsetBytes + target.lengthBytes));
    return ioOk;
  }

  write(buffer: Uint8Array, offsetBytes: number): IoResult | "pending" {
    if (!this.#fuse.admit()) return "pending";
    this.bytes.set(buffer, offsetBytes);
    return this.#note(offsetBytes, buffer.length);
  }

  zero(offsetBytes: number, lengthBytes: number): IoResult | "pending" {
    if (!this.#fuse.admit()) return "pending";
    this.bytes.fill(0, offsetBytes, offsetBytes + lengthBytes);
    return this.#note(offsetBytes, lengthBytes);
  }

  copy(fromBytes: number, toBytes: number, lengthBytes: number): IoResult | "pending" {
    if (!this.#fuse.admit()) return "pending";
    this.bytes.copyWithin(toBytes, fromBytes, fromBytes + lengthBytes);
    return this.#note(toBytes, lengthBytes);
  }

  discard(offsetBytes: number, lengthBytes: number): IoResult | "pending" {
    return this.zero(offsetBytes, lengthBytes);
  }

  isHole(): boolean {
    return false;
  }

  flush(): IoResult | "pending" {
    if (!this.#fuse.admit()) return "pending";
    for (const { offsetBytes, bytes } of this.#unflushed) this.#durable.set(bytes, offsetBytes);
    this.#unflushed = [];
    return ioOk;
  }

  /** The bytes after a power cut: of what was not flushed, each sector is there or not. */
  afterPowerCut(random: Random): Uint8Array {
    const left = this.#durable.slice();
    for (const { offsetBytes, bytes } of this.#unflushed) {
      for (let at = 0; at < bytes.length; at += sectorBytes) {
        if (random.below(2) === 0) left.set(bytes.subarray(at, at + sectorBytes), offsetBytes + at);
      }
    }
    return left;
  }

  #note(offsetBytes: number, lengthBytes: number): IoResult {
    assert(offsetBytes % sectorBytes === 0 || lengthBytes < sectorBytes, "sectors are whole here");
    this.#unflushed.push({ offsetBytes, bytes: this.bytes.slice(offsetBytes, offsetBytes + lengthBytes) });
    return ioOk;
  }
}

class StoppableJournal extends MemoryJournal {
  /** A line that was being written when the world stopped. */
  torn = "";
  readonly #fuse: Fuse;

  constructor(text: string, fuse: Fuse) {
    super(text);
    this.#fuse = fuse;
  }

  override append(line: string, room: LineRoom, done: IoDone): void {
    if (this.#fuse.admit()) super.append(line, room, done);
    else if (this.torn === "") this.torn = line;
  }

  override rewrite(piece: string, isFirst: boolean, done: IoDone): void {
    if (this.#fuse.admit()) super.rewrite(piece, isFirst, done);
  }

  override finishRewrite(contentBytes: number, done: IoDone): void {
    if (this.#fuse.admit()) super.finishRewrite(contentBytes, done);
  }

  override retract(done: IoDone): void {
    if (this.#fuse.admit()) super.retract(done);
  }
}

/** The bytes of a pool's files. */
export interface Image {
  readonly data: Uint8Array;
  readonly metadata: Uint8Array;
  readonly journal: string;
}

/** The files of an image, which stop after `operationsMax` operations. The image stays as it is. */
export class StoppableFiles implements TestingFiles {
  readonly fuse: Fuse;
  readonly data: StoppableDevice;
  readonly metadata: StoppableDevice;
  readonly journal: StoppableJournal;

  constructor(image: Image, operationsMax = Infinity) {
    this.fuse = new Fuse(operationsMax);
    this.data = new StoppableDevice(image.data.slice(), this.fuse);
    this.metadata = new StoppableDevice(image.metadata.slice(), this.fuse);
    this.journal = new StoppableJournal(image.journal, this.fuse);
  }

  /** As the end of the process leaves them: what happened is there. */
  afterKill(): Image {
    return { data: this.data.bytes, metadata: this.metadata.bytes, journal: this.journal.text };
  }

  /** As a power cut leaves them. A line that was being appended may be there in part. */
  afterPowerCut(random: Random): Image {
    const { torn, text } = this.journal;
    return {
      data: this.data.afterPowerCut(random),
      metadata: this.metadata.afterPowerCut(random),
      journal: text + torn.slice(0, random.below(torn.length + 1)),
    };
  }
}
