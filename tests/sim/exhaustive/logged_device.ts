/**
 * Devices for the search: they answer in the turn in which they are asked, and keep a log of what they were asked.
 *
 * That the answer comes at once loses no schedule: the asking is a message, which the search delays as long as it likes,
 * and what follows from the answer is another.
 */
import type { JournalPort } from "../../../actors/control/catalogue_journal.ts";
import type { LineRoom } from "../../../actors/control/catalogue_room.ts";
import {
  type DevicePort,
  type IoDone,
  ioOk,
  type IoResult,
  type LocalStorage,
  type ReadTarget,
} from "../../../storage/device/port.ts";
import { lineOfSnapshot } from "../../../storage/catalogue_journal.ts";
import type { IntentPort } from "../../../storage/device/intent_port.ts";
import { intentFileBytes } from "../../../storage/intent_read.ts";

export type DeviceName = "data" | "metadata" | "journal" | "intents";

/** One operation that changes something. `bytes` is what the range holds after it, undefined for a flush. */
export interface Operation {
  readonly device: DeviceName;
  readonly kind: "write" | "flush" | "flushFailed";
  readonly offsetBytes: number;
  readonly bytes: Uint8Array;
  /** The index of the event in which it was asked. */
  readonly event: number;
}

const noBytes = new Uint8Array(0);

/** The operations of all devices, in the order of their effects. */
export class DeviceLog {
  readonly operations: Operation[] = [];
  /** The event in progress. */
  event = -1;
  /** The device of which one flush fails, and how many come before. Counted by device: flushes of different ones commute. */
  failing: { readonly device: DeviceName; flushesBefore: number } | undefined;
  hasFailed = false;

  note(device: DeviceName, kind: Operation["kind"], offsetBytes = 0, bytes = noBytes): void {
    this.operations.push({ device, kind, offsetBytes, bytes, event: this.event });
  }

  flush(device: DeviceName): IoResult {
    const { failing } = this;
    const isCounted = this.event >= 0 && failing?.device === device && !this.hasFailed;
    this.hasFailed ||= isCounted && failing.flushesBefore === 0;
    const isFailing = isCounted && this.hasFailed;
    if (isCounted) failing.flushesBefore -= 1;
    this.note(device, isFailing ? "flushFailed" : "flush");
    return isFailing ? { kind: "ioError", reason: "the search's error" } : ioOk;
  }
}

/** See the head of this file. */
export class LoggedDevice implements DevicePort, LocalStorage {
  readonly canDiscard = true;
  readonly #holes = new Set<number>();

  constructor(
    readonly bytes: Uint8Array,
    readonly log: DeviceLog,
    readonly name: "data" | "metadata",
    readonly holeBytes: number,
  ) {}

  get sizeBytes(): number {
    return this.bytes.length;
  }

  get local(): LocalStorage {
    return this;
  }

  read(target: ReadTarget, offsetBytes: number): IoResult {
    target.memory().set(this.bytes.subarray(offsetBytes, offsetBytes + target.lengthBytes));
    return ioOk;
  }

  readAtOnce(target: ReadTarget, offsetBytes: number): IoResult {
    return this.read(target, offsetBytes);
  }

  writeAtOnce(buffer: Uint8Array, offsetBytes: number): IoResult {
    return this.write(buffer, offsetBytes);
  }

  write(buffer: Uint8Array, offsetBytes: number): IoResult {
    this.bytes.set(buffer, offsetBytes);
    return this.#changed(offsetBytes, buffer.length);
  }

  zero(offsetBytes: number, lengthBytes: number): IoResult {
    this.bytes.fill(0, offsetBytes, offsetBytes + lengthBytes);
    return this.#changed(offsetBytes, lengthBytes);
  }

  copy(fromBytes: number, toBytes: number, lengthBytes: number): IoResult {
    this.bytes.copyWithin(toBytes, fromBytes, fromBytes + lengthBytes);
    return this.#changed(toBytes, lengthBytes);
  }

  discard(offsetBytes: number, lengthBytes: number): IoResult {
    this.zero(offsetBytes, lengthBytes);
    for (let at = offsetBytes; at < offsetBytes + lengthBytes; at += this.holeBytes) this.#holes.add(at);
    return ioOk;
  }

  isHole(offsetBytes: number, lengthBytes: number): boolean {
    const first = offsetBytes - offsetBytes % this.holeBytes;
    for (let at = first; at < offsetBytes + lengthBytes; at += this.holeBytes) {
      if (!this.#holes.has(at)) return false;
    }
    return true;
  }

  flush(): IoResult {
    return this.log.flush(this.name);
  }

  #changed(offsetBytes: number, lengthBytes: number): IoResult {
    const first = offsetBytes - offsetBytes % this.holeBytes;
    for (let at = first; at < offsetBytes + lengthBytes; at += this.holeBytes) this.#holes.delete(at);
    if (lengthBytes > 0) {
      this.log.note(
        this.name,
        "write",
        offsetBytes,
        this.bytes.slice(offsetBytes, offsetBytes + lengthBytes),
      );
    }
    return ioOk;
  }
}

/** The file of the intent journal. */
export class LoggedIntents implements IntentPort {
  readonly bytes: Uint8Array;
  readonly #log: DeviceLog;
  #generationLast = 0n;

  constructor(segmentBytes: number, log: DeviceLog) {
    this.bytes = new Uint8Array(intentFileBytes(segmentBytes));
    this.#log = log;
  }

  write(bytes: Uint8Array, offsetBytes: number): IoResult {
    this.bytes.set(bytes, offsetBytes);
    this.#log.note("intents", "write", offsetBytes, bytes.slice());
    return ioOk;
  }

  remove(): IoResult {
    throw new Error("this file can always be written");
  }

  newGeneration(): bigint {
    this.#generationLast += 1n;
    return this.#generationLast;
  }
}

/** The catalogue's journal. Its file is flushed before an operation is answered; the answer comes later. */
export class LoggedJournal implements JournalPort {
  text: string;
  readonly #log: DeviceLog;
  readonly #later: (() => void)[];
  #lineLengthLast = 0;

  constructor(text: string, log: DeviceLog, later: (() => void)[]) {
    this.text = text;
    this.#log = log;
    this.#later = later;
  }

  append(line: string, _room: LineRoom, done: IoDone): void {
    this.#lineLengthLast = line.length;
    this.#change(this.text + line, done);
  }

  retract(done: IoDone): void {
    this.#change(this.text.slice(0, this.text.length - this.#lineLengthLast), done);
  }

  /** The scenarios are too short for that. */
  isLong(): boolean {
    return false;
  }

  rewrite(): void {
    throw new Error("this journal never becomes long");
  }

  finishRewrite(): void {
    throw new Error("this journal never becomes long");
  }

  #change(text: string, done: IoDone): void {
    this.text = text;
    this.#log.note("journal", "write", 0, new TextEncoder().encode(text));
    this.#later.push(() => done(ioOk));
  }
}

/** The journal of a new pool. */
export function firstJournal(blockSizeBytes: number): string {
  const settings = { blockSizeBytes, metadataPath: "m", dataPath: "d" };
  return lineOfSnapshot({ transactionId: 0n, settings, nextThinId: 1, volumes: [] });
}
