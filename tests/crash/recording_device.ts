/**
 * A device that records what is asked of it, for replaying a run up to any instant and for power cuts that lose what was
 * not flushed. It wraps a real device, so a whole server can run on it.
 */
import { assert } from "../../storage/assert.ts";
import type { DevicePort, IoDone, IoResult } from "../../storage/device/port.ts";
import { sectorSizeBytes } from "../../storage/ids.ts";

/** One recorded change, in the order in which the device was asked. Bytes are copies. */
export type Recorded =
  | { readonly kind: "write"; readonly offsetBytes: number; readonly bytes: Uint8Array }
  | { readonly kind: "zero" | "discard"; readonly offsetBytes: number; readonly lengthBytes: number }
  | {
    readonly kind: "copy";
    readonly fromBytes: number;
    readonly offsetBytes: number;
    readonly lengthBytes: number;
  }
  /** A flush answered ok: from here on every record before `durableCount` is durable, except those unanswered when it was asked. */
  | { readonly kind: "flush"; readonly durableCount: number; readonly unanswered: readonly number[] }
  /** Whatever the test wants to find again, such as "client's flush answered". */
  | { readonly kind: "mark"; readonly label: string };

/** Passes everything on to `device` and keeps the {@linkcode Recorded} list. */
export class RecordingDevice implements DevicePort {
  readonly records: Recorded[] = [];
  readonly #device: DevicePort;
  readonly #unanswered = new Set<number>();

  constructor(device: DevicePort) {
    this.#device = device;
  }

  get sizeBytes(): number {
    return this.#device.sizeBytes;
  }

  get canDiscard(): boolean {
    return this.#device.canDiscard;
  }

  /** Notes that something happened between two operations. */
  mark(label: string): void {
    this.records.push({ kind: "mark", label });
  }

  read(buffer: Uint8Array, offsetBytes: number, done: IoDone): IoResult | "pending" {
    return this.#device.read(buffer, offsetBytes, done);
  }

  write(buffer: Uint8Array, offsetBytes: number, done: IoDone): IoResult | "pending" {
    const settle = this.#record({ kind: "write", offsetBytes, bytes: buffer.slice() }, done);
    return settle(this.#device.write(buffer, offsetBytes, settle));
  }

  zero(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    const settle = this.#record({ kind: "zero", offsetBytes, lengthBytes }, done);
    return settle(this.#device.zero(offsetBytes, lengthBytes, settle));
  }

  copy(fromBytes: number, toBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    const settle = this.#record({ kind: "copy", fromBytes, offsetBytes: toBytes, lengthBytes }, done);
    return settle(this.#device.copy(fromBytes, toBytes, lengthBytes, settle));
  }

  discard(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    const settle = this.#record({ kind: "discard", offsetBytes, lengthBytes }, done);
    return settle(this.#device.discard(offsetBytes, lengthBytes, settle));
  }

  isHole(offsetBytes: number, lengthBytes: number): boolean {
    return this.#device.isHole(offsetBytes, lengthBytes);
  }

  flush(done: IoDone): IoResult | "pending" {
    // Only what was answered before the flush is covered by it, whatever happens while it runs.
    const flush: Recorded = {
      kind: "flush",
      durableCount: this.records.length,
      unanswered: [...this.#unanswered],
    };
    const result = this.#device.flush((later) => {
      if (later.kind === "ok") this.records.push(flush);
      done(later);
    });
    if (result !== "pending" && result.kind === "ok") this.records.push(flush);
    return result;
  }

  /** Keeps the record, and its index among the unanswered until the returned function is told the result. */
  #record(record: Recorded, done: IoDone): Settle {
    const index = this.records.push(record) - 1;
    this.#unanswered.add(index);
    let isLater = false;
    return (result) => {
      if (result === "pending") {
        isLater = true;
        return result;
      }
      this.#unanswered.delete(index);
      if (isLater) done(result);
      return result;
    };
  }
}

type Settle = (result: IoResult | "pending") => IoResult | "pending";

/** The image after the first `count` records: what a killed process leaves, whose host lives on. Changes `image`. */
export function replay(image: Uint8Array, records: readonly Recorded[], count: number): Uint8Array {
  for (let index = 0; index < count; index += 1) applyWhole(image, at(records, index));
  return image;
}

/**
 * An image that a power cut right after the first `count` records may leave: what flushes made durable is there, and of the
 * rest each 512-byte sector of each record is kept if `keepsSector` says so. Changes `image`.
 * A sector that is kept holds what the host's memory held at that record, lost records included.
 */
export function replayPowerCut(
  image: Uint8Array,
  records: readonly Recorded[],
  count: number,
  keepsSector: (recordIndex: number, sector: number) => boolean,
): Uint8Array {
  const isDurable = durableRecords(records, count);
  let firstLost = isDurable.indexOf(0);
  if (firstLost === -1) firstLost = count;
  replay(image, records, firstLost);
  const memory = image.slice();
  for (let index = firstLost; index < count; index += 1) {
    const record = at(records, index);
    applyWhole(memory, record);
    const range = rangeOf(record);
    if (range === undefined) continue;
    let sector = Math.floor(range.offsetBytes / sectorSizeBytes);
    for (; sector * sectorSizeBytes < range.endBytes; sector += 1) {
      if (isDurable[index] === 0 && !keepsSector(index, sector)) continue;
      const from = sector * sectorSizeBytes;
      image.set(memory.subarray(from, from + sectorSizeBytes), from);
    }
  }
  return image;
}

/** One byte per record: 1 if a flush among the first `count` made it durable, or if there is nothing to lose. */
function durableRecords(records: readonly Recorded[], count: number): Uint8Array {
  const isDurable = new Uint8Array(count);
  let settledCount = 0;
  for (let index = 0; index < count; index += 1) {
    const record = at(records, index);
    if (record.kind === "mark" || record.kind === "flush") isDurable[index] = 1;
    if (record.kind !== "flush") continue;
    const unanswered = new Set(record.unanswered);
    for (let before = settledCount; before < record.durableCount; before += 1) {
      if (!unanswered.has(before)) isDurable[before] = 1;
    }
    while (isDurable[settledCount] === 1) settledCount += 1;
  }
  return isDurable;
}

function applyWhole(image: Uint8Array, record: Recorded): void {
  switch (record.kind) {
    case "write":
      image.set(record.bytes, record.offsetBytes);
      break;
    case "zero":
    case "discard":
      image.fill(0, record.offsetBytes, record.offsetBytes + record.lengthBytes);
      break;
    case "copy":
      image.copyWithin(record.offsetBytes, record.fromBytes, record.fromBytes + record.lengthBytes);
      break;
    case "flush":
    case "mark":
      break;
  }
}

/** The byte range that a record changes, if any. */
function rangeOf(record: Recorded): { readonly offsetBytes: number; readonly endBytes: number } | undefined {
  if (record.kind === "flush" || record.kind === "mark") return undefined;
  const lengthBytes = record.kind === "write" ? record.bytes.length : record.lengthBytes;
  return { offsetBytes: record.offsetBytes, endBytes: record.offsetBytes + lengthBytes };
}

function at(records: readonly Recorded[], index: number): Recorded {
  const record = records[index];
  assert(record !== undefined, "a record inside the recorded run");
  return record;
}
