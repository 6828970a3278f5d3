/**
 * What devices hold after a crash in the midst of a schedule. A choice is made when a recovery reads what it is about, and
 * all of them are tried: see crashes.ts.
 */
import { sectorSizeBytes } from "../../../storage/base/ids.ts";
import type { HeldPool } from "./held_pool.ts";
import type { DeviceName, Operation } from "./logged_device.ts";
import type { RecoveryRead, Sizes } from "./recovery.ts";
import { type Event, isIn } from "./execution.ts";

/**
 * `kill`: the process ends and the host goes on, with all that it was given. `lossy kill`: what a failed flush did not make
 * durable is lost with it, as opening the pool reads from the disks. `noticed kill`: the same, and opening finds that the host's
 * memory had another superblock than the disk, and removes the intent journal (actors/edge/disk_state.ts).
 */
export type Crash = "power cut" | "kill" | "lossy kill" | "noticed kill";

type Choice = "lost" | "whole" | "cut";
const choices: readonly Choice[] = ["lost", "whole", "cut"];
/** Above so many writes that matter the outcomes are sampled. */
const choicesMax = 10;

/** What the devices may hold after a crash, decided as it is read. */
export class CutImages {
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
    readonly crash: Crash,
  ) {
    this.#pool = pool;
    this.#operations = operations;
    this.#hashes = hashes;
    const { isDurable, isDropped } = durableOf(operations, events, before);
    this.#isDurable = crash === "power cut"
      ? isDurable
      : isDropped.map((isLost, at) => crash === "kill" || isDurable[at] === true || !isLost);
  }

  get sizes(): Sizes {
    const { baseMetadata, baseData, baseIntents } = this.#pool;
    return { metadata: baseMetadata.length, data: baseData.length, intents: baseIntents.length };
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
    const { baseData, baseMetadata, baseIntents } = this.#pool;
    const base = { data: baseData, metadata: baseMetadata, intents: baseIntents }[read.device];
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
export function durableOf(
  operations: readonly Operation[],
  events: readonly Event[],
  before: number,
): { readonly isDurable: boolean[]; readonly isDropped: boolean[] } {
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
  return { isDurable, isDropped };
}

function wasAnswered(operation: Operation, flush: Operation, events: readonly Event[]): boolean {
  const asked = events[flush.event]!;
  return events.some((event) =>
    event.causes.includes(operation.event) && (event === asked || isIn(asked.past, event.index))
  );
}

const nameNumbers: Readonly<Record<DeviceName, number>> = { data: 1, metadata: 2, journal: 3, intents: 4 };

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
