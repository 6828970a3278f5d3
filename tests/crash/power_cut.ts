/**
 * What devices hold after a crash in the midst of a recorded run.
 *
 * A killed process leaves everything that was asked. A power cut leaves what flushes made durable, and of the rest any
 * part: each 512-byte sector of each operation on its own; of the journal's file any length and any sector besides.
 */
import { assert } from "../../storage/base/assert.ts";
import { sectorSizeBytes } from "../../storage/base/ids.ts";
import type { Recorded, RecordedName, RunLog } from "./recording_device.ts";

/** Decides what is left of one operation that was not durable: `record` is its place in the log. */
export type Keeps = (record: number, sector: number) => boolean;

interface Pending {
  readonly record: number;
  readonly offsetBytes: number;
  /** What memory held in the range after the operation. */
  readonly bytes: Uint8Array;
  isDurable: boolean;
  /** A flush failed after it: no later one makes it durable. */
  isDropped: boolean;
}

/** One device on its way through the log. */
export class DeviceReplay {
  readonly #device: RecordedName;
  /** What the host's memory holds: every operation so far. */
  readonly memory: Uint8Array;
  /** The effect of the operations before the first that is not durable. */
  readonly #base: Uint8Array;
  #pending: Pending[] = [];
  #next = 0;

  constructor(device: RecordedName, image: Uint8Array) {
    this.#device = device;
    this.memory = image.slice();
    this.#base = image.slice();
  }

  /** Whether a power cut now could lose anything. */
  get canLose(): boolean {
    return this.#pending.length > 0;
  }

  /** Goes on to just after the first `count` records. */
  advance(log: RunLog, count: number): void {
    for (; this.#next < count; this.#next += 1) {
      const record = log.records[this.#next]!;
      if (record.device === this.#device) this.#apply(record, this.#next);
    }
  }

  /** What a power cut leaves here, in `image`. */
  cut(image: Uint8Array, keeps: Keeps): Uint8Array {
    image.set(this.#base);
    for (const pending of this.#pending) {
      if (pending.isDurable) {
        image.set(pending.bytes, pending.offsetBytes);
        continue;
      }
      const end = pending.offsetBytes + pending.bytes.length;
      for (let begin = pending.offsetBytes; begin < end;) {
        const sector = Math.floor(begin / sectorSizeBytes);
        const next = Math.min(end, (sector + 1) * sectorSizeBytes);
        if (keeps(pending.record, sector)) {
          image.set(pending.bytes.subarray(begin - pending.offsetBytes, next - pending.offsetBytes), begin);
        }
        begin = next;
      }
    }
    return image;
  }

  /**
   * What a restart on the same host leaves in `image`, where it goes on from what the disk has: all that the host has still to
   * write, and of what it took for written after a flush that failed each sector or not.
   */
  reread(image: Uint8Array, keeps: Keeps): Uint8Array {
    for (const pending of this.#pending) pending.isDurable ||= !pending.isDropped;
    return this.cut(image, keeps);
  }

  #apply(record: Recorded, index: number): void {
    switch (record.kind) {
      case "write":
        this.memory.set(record.bytes, record.offsetBytes);
        return this.#keepPending(index, record.offsetBytes, record.bytes.length);
      case "zero":
      case "discard":
        this.memory.fill(0, record.offsetBytes, record.offsetBytes + record.lengthBytes);
        return this.#keepPending(index, record.offsetBytes, record.lengthBytes);
      case "copy":
        this.memory.copyWithin(record.offsetBytes, record.fromBytes, record.fromBytes + record.lengthBytes);
        return this.#keepPending(index, record.offsetBytes, record.lengthBytes);
      case "flush":
        for (const pending of this.#pending) {
          if (pending.record >= record.asked || record.unanswered.has(pending.record)) continue;
          if (!pending.isDropped) pending.isDurable = true;
        }
        return this.#applyDurable();
      case "flushFailed":
        for (const pending of this.#pending) pending.isDropped = true;
        return;
      case "truncate":
      case "replace":
        assert(false, "a device is not truncated");
    }
  }

  #keepPending(record: number, offsetBytes: number, lengthBytes: number): void {
    const bytes = this.memory.slice(offsetBytes, offsetBytes + lengthBytes);
    this.#pending.push({ record, offsetBytes, bytes, isDurable: false, isDropped: false });
  }

  #applyDurable(): void {
    let count = 0;
    for (; count < this.#pending.length && this.#pending[count]!.isDurable; count += 1) {
      this.#base.set(this.#pending[count]!.bytes, this.#pending[count]!.offsetBytes);
    }
    this.#pending.splice(0, count);
  }
}

/** Chooses what is left of the journal: 0 nothing of what was not durable, 1 all of it, else any part. */
export type JournalCut = "lost" | "kept" | ((end: number) => number);

/** The journal's file on its way through the log. */
export class JournalReplay {
  #durable: Uint8Array;
  #memory: Uint8Array;
  #isDropped = false;
  /** What came last is another file under the same name. */
  #isReplaced = false;
  #next = 0;

  constructor(bytes: Uint8Array) {
    this.#durable = bytes;
    this.#memory = bytes;
  }

  get memory(): Uint8Array {
    return this.#memory;
  }

  get canLose(): boolean {
    return this.#memory !== this.#durable;
  }

  /** Goes on to just after the first `count` records. */
  advance(log: RunLog, count: number): void {
    for (; this.#next < count; this.#next += 1) {
      const record = log.records[this.#next]!;
      if (record.device !== "journal") continue;
      if (record.kind === "write") this.#append(record.offsetBytes, record.bytes);
      if (record.kind === "replace") {
        this.#isDropped = false;
        this.#memory = record.bytes;
      }
      if (record.kind !== "flush" && record.kind !== "flushFailed") {
        this.#isReplaced = record.kind === "replace";
      }
      if (record.kind === "truncate") this.#memory = this.#memory.slice(0, record.lengthBytes);
      if (record.kind === "flushFailed") this.#isDropped = true;
      if (record.kind === "flush" && !this.#isDropped) this.#durable = this.#memory;
    }
  }

  /** What an append that failed may have left is gone when the next one writes in its place. */
  #append(offsetBytes: number, bytes: Uint8Array): void {
    this.#isDropped = false;
    this.#memory = new Uint8Array(offsetBytes + bytes.length);
    this.#memory.set(this.#durable.subarray(0, offsetBytes));
    this.#memory.set(bytes, offsetBytes);
  }

  /**
   * What a power cut leaves. An append may leave any length between before and after, and what lies past the old end is
   * there sector by sector or reads as zeroes.
   */
  cut(how: JournalCut): Uint8Array {
    if (how === "lost") return this.#durable;
    if (how === "kept" || !this.canLose) return this.#memory;
    // The name means one file or the other; the new one was flushed before it got the name.
    if (this.#isReplaced) return how(2) === 0 ? this.#durable : this.#memory;
    const [short, long] = this.#memory.length < this.#durable.length
      ? [this.#memory, this.#durable]
      : [this.#durable, this.#memory];
    const bytes = long.slice(0, short.length + how(long.length - short.length + 1));
    if (long === this.#durable || how(2) === 0) return bytes;
    for (let begin = short.length; begin < bytes.length;) {
      const end = Math.min(bytes.length, (Math.floor(begin / sectorSizeBytes) + 1) * sectorSizeBytes);
      if (how(2) === 0) bytes.fill(0, begin, end);
      begin = end;
    }
    return bytes;
  }
}
