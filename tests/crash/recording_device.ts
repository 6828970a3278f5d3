/**
 * Devices, a catalogue's journal and the file of an intent journal that record what is asked of them, in one order for all of them: a crash stops them
 * at the same instant. They wrap real ones, so a whole server can run on them.
 */
import type { JournalPort } from "../../actors/control/catalogue_journal.ts";
import type { LineRoom } from "../../actors/control/catalogue_room.ts";
import type { IntentPort } from "../../storage/device/intent_port.ts";
import type {
  DevicePort,
  IoDone,
  IoResult,
  LocalStorage,
  ReadDone,
  ReadResult,
  ReadTarget,
} from "../../storage/device/port.ts";

export type DeviceName = "metadata" | "data" | "journal";

/** The devices, and the file of the intent journal, which is never flushed. */
export type RecordedName = DeviceName | "intents";

/** What one operation changes. Bytes are copies. */
export type Change =
  | { readonly kind: "write"; readonly offsetBytes: number; readonly bytes: Uint8Array }
  | { readonly kind: "zero" | "discard"; readonly offsetBytes: number; readonly lengthBytes: number }
  | {
    readonly kind: "copy";
    readonly fromBytes: number;
    readonly offsetBytes: number;
    readonly lengthBytes: number;
  }
  /** The journal's file becomes this short. */
  | { readonly kind: "truncate"; readonly lengthBytes: number }
  /** The journal's name comes to mean a file with these bytes. */
  | { readonly kind: "replace"; readonly bytes: Uint8Array };

/** One entry of the log, in the order in which the devices were asked. */
export type Recorded =
  | (Change & { readonly device: RecordedName })
  /** Answered ok: what the device had answered before it was asked is durable. */
  | {
    readonly kind: "flush";
    readonly device: DeviceName;
    /** How many records there were when it was asked, and which of them were not answered then. */
    readonly asked: number;
    readonly unanswered: ReadonlySet<number>;
  }
  /** Answered with an error: the host may have dropped what was not durable, and tells nobody again. */
  | { readonly kind: "flushFailed"; readonly device: DeviceName };

/** The operations of a run on all its devices, in one order. */
export class RunLog {
  readonly records: Recorded[] = [];
}

/** Records of one device that have not been answered ok; a failed write stays here, as nobody knows what it did. */
class Unanswered {
  readonly #log: RunLog;
  readonly #device: DeviceName;
  readonly #indices = new Set<number>();

  constructor(log: RunLog, device: DeviceName) {
    this.#log = log;
    this.#device = device;
  }

  /** Records the change; the returned function passes its result on. */
  record(change: Change, done: IoDone): (result: IoResult | "pending") => IoResult | "pending" {
    const index = this.#log.records.push({ ...change, device: this.#device }) - 1;
    this.#indices.add(index);
    let isLater = false;
    return (result) => {
      if (result === "pending") {
        isLater = true;
        return result;
      }
      if (result.kind === "ok") this.#indices.delete(index);
      if (isLater) done(result);
      return result;
    };
  }

  /** Call when a flush is asked; call what it returns with the answer. */
  flush(): (result: IoResult) => void {
    const device = this.#device;
    const asked = this.#log.records.length;
    const unanswered = new Set(this.#indices);
    return (result) => {
      const isOk = result.kind === "ok";
      this.#log.records.push(
        isOk ? { kind: "flush", device, asked, unanswered } : { kind: "flushFailed", device },
      );
    };
  }
}

/** Passes everything on to `device` and keeps a record in `log`. */
export class RecordingDevice implements DevicePort, LocalStorage {
  readonly #device: DevicePort;
  readonly #unanswered: Unanswered;

  constructor(device: DevicePort, log: RunLog, name: DeviceName) {
    this.#device = device;
    this.#unanswered = new Unanswered(log, name);
  }

  get sizeBytes(): number {
    return this.#device.sizeBytes;
  }

  get local(): LocalStorage | undefined {
    return this.#device.local === undefined ? undefined : this;
  }

  get canDiscard(): boolean {
    return this.#device.local?.canDiscard === true;
  }

  read(target: ReadTarget, offsetBytes: number, done: ReadDone): ReadResult | "pending" {
    return this.#device.read(target, offsetBytes, done);
  }

  readAtOnce(target: ReadTarget, offsetBytes: number): ReadResult | undefined {
    return this.#device.readAtOnce?.(target, offsetBytes);
  }

  writeAtOnce(buffer: Uint8Array, offsetBytes: number): IoResult | undefined {
    const result = this.#device.writeAtOnce?.(buffer, offsetBytes);
    if (result === undefined) return undefined;
    const ended = this.#unanswered.record({ kind: "write", offsetBytes, bytes: buffer.slice() }, () => {});
    ended(result);
    return result;
  }

  write(buffer: Uint8Array, offsetBytes: number, done: IoDone): IoResult | "pending" {
    const ended = this.#unanswered.record({ kind: "write", offsetBytes, bytes: buffer.slice() }, done);
    return ended(this.#device.write(buffer, offsetBytes, ended));
  }

  zero(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    const ended = this.#unanswered.record({ kind: "zero", offsetBytes, lengthBytes }, done);
    return ended(this.#device.zero(offsetBytes, lengthBytes, ended));
  }

  copy(fromBytes: number, toBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    const ended = this.#unanswered.record(
      { kind: "copy", fromBytes, offsetBytes: toBytes, lengthBytes },
      done,
    );
    return ended(this.#device.copy(fromBytes, toBytes, lengthBytes, ended));
  }

  discard(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    const ended = this.#unanswered.record({ kind: "discard", offsetBytes, lengthBytes }, done);
    return ended(this.#device.local!.discard(offsetBytes, lengthBytes, ended));
  }

  isHole(offsetBytes: number, lengthBytes: number): boolean {
    return this.#device.local!.isHole(offsetBytes, lengthBytes);
  }

  flush(done: IoDone): IoResult | "pending" {
    const ended = this.#unanswered.flush();
    const result = this.#device.flush((later) => {
      ended(later);
      done(later);
    });
    if (result !== "pending") ended(result);
    return result;
  }
}

/** What is recorded: a journal that may tell that it refuses every change from now on, and so writes nothing. */
export interface RecordedJournal extends JournalPort {
  readonly refuses?: boolean;
}

/** Passes everything on to `journal` and keeps a record in `log`: a write at the end or a truncation, then a flush. */
export class RecordingJournal implements JournalPort {
  readonly #journal: RecordedJournal;
  readonly #unanswered: Unanswered;
  #lengthBytes: number;
  #lastLineBytes = 0;
  #rewritten = "";

  /** @param lengthBytes of the journal's file as it is now */
  constructor(journal: RecordedJournal, log: RunLog, lengthBytes: number) {
    this.#journal = journal;
    this.#unanswered = new Unanswered(log, "journal");
    this.#lengthBytes = lengthBytes;
  }

  append(line: string, room: LineRoom, done: IoDone): void {
    const bytes = new TextEncoder().encode(line);
    const change: Change = { kind: "write", offsetBytes: this.#lengthBytes, bytes };
    this.#record(change, (done) => this.#journal.append(line, room, done), (result) => {
      if (result.kind === "ok") this.#lastLineBytes = bytes.length;
      if (result.kind === "ok") this.#lengthBytes += bytes.length;
      done(result);
    });
  }

  retract(done: IoDone): void {
    const lengthBytes = this.#lengthBytes - this.#lastLineBytes;
    this.#record({ kind: "truncate", lengthBytes }, (done) => this.#journal.retract(done), (result) => {
      if (result.kind === "ok") this.#lengthBytes = lengthBytes;
      done(result);
    });
  }

  isLong(contentBytes: number): boolean {
    return this.#journal.isLong(contentBytes);
  }

  /** What is beside the journal is not looked at by a recovery, so only its taking the journal's place is recorded. */
  rewrite(piece: string, isFirst: boolean, done: IoDone): void {
    this.#rewritten = isFirst ? piece : this.#rewritten + piece;
    this.#journal.rewrite(piece, isFirst, done);
  }

  finishRewrite(contentBytes: number, done: IoDone): void {
    const bytes = new TextEncoder().encode(this.#rewritten);
    const operation = (done: IoDone) => this.#journal.finishRewrite(contentBytes, done);
    this.#record({ kind: "replace", bytes }, operation, (result) => {
      if (result.kind === "ok") [this.#lengthBytes, this.#lastLineBytes] = [bytes.length, 0];
      done(result);
    });
  }

  /** The port flushes before it answers. */
  #record(change: Change, operation: (done: IoDone) => void, done: IoDone): void {
    if (this.#journal.refuses === true) return operation(done);
    const ended = this.#unanswered.record(change, () => {});
    ended("pending");
    operation((result) => {
      ended(result);
      this.#unanswered.flush()(result);
      done(result);
    });
  }
}

/** Passes everything on to `port` and keeps a record in `log`. A removed file is recorded as one that is all zeroes. */
export class RecordingIntents implements IntentPort {
  readonly #port: IntentPort;
  readonly #log: RunLog;
  readonly #fileBytes: number;

  constructor(port: IntentPort, log: RunLog, fileBytes: number) {
    this.#port = port;
    this.#log = log;
    this.#fileBytes = fileBytes;
  }

  write(bytes: Uint8Array, offsetBytes: number): IoResult {
    this.#log.records.push({ device: "intents", kind: "write", offsetBytes, bytes: bytes.slice() });
    return this.#port.write(bytes, offsetBytes);
  }

  remove(): IoResult {
    const lengthBytes = this.#fileBytes;
    this.#log.records.push({ device: "intents", kind: "zero", offsetBytes: 0, lengthBytes });
    return this.#port.remove();
  }

  newGeneration(): bigint {
    return this.#port.newGeneration();
  }
}
