/** What sectors of a volume may hold after a crash: every write that may be there, for each sector. */
import { sectorSizeBytes } from "../../storage/base/ids.ts";

/**
 * What a crash leaves for certain: what was flushed, or all that was answered. The end of the process leaves the second
 * where an intent journal is kept, because the host keeps what it was given.
 */
export type Survivor = "flushed" | "answered";

/** Times that no event has, and that all come after. */
export const never = Infinity;
export const always = -1;

/** Something that gave sectors a value. */
export interface Write {
  readonly sectorBegin: number;
  readonly sectorEnd: number;
  /** By sector from `sectorBegin`; undefined: zeroes. */
  readonly values: Float64Array | undefined;
  /** Instead of `values`: what a snapshot holds. */
  readonly from: Cut | undefined;
  /** Zeroes for which blocks are allocated all the same. */
  readonly allocates: boolean;
  readonly submitted: number;
  answered: number;
  /** Answered ok. One that failed may have happened, and replaces nothing. */
  isDone: boolean;
  durable: number;
}

/** What an open volume is, across renames, resizes and rollbacks. */
export interface Lineage {
  /** Writes that were answered and are not known to be durable. */
  unflushed: Write[];
}

/** A volume that can be written. */
export class WritableContent {
  /** By sector: all that it may hold, in order of submission. */
  readonly sectors: Write[][];
  /** The sectors that something was written to which maps their block, also beyond an end that has come nearer since. */
  readonly mapping = new Set<number>();
  /** What clones and rollbacks began with. */
  readonly bases: Cut[] = [];

  constructor(readonly lineage: Lineage, readonly sizeBytes: number) {
    this.sectors = Array.from({ length: sizeBytes / sectorSizeBytes }, () => []);
  }

  /** Whether a clone began with that. */
  beginsWith(cut: Cut): boolean {
    return this.sectors[0]?.[0]?.from === cut;
  }

  add(write: Write): void {
    const end = Math.min(write.sectorEnd, this.sectors.length);
    for (let sector = write.sectorBegin; sector < end; sector += 1) {
      this.sectors[sector]!.push(write);
      if (write.allocates || (write.values?.[sector - write.sectorBegin] ?? 0) !== 0) {
        this.mapping.add(sector);
      }
    }
    if (write.from !== undefined) this.bases.push(write.from);
  }

  /** It is what another content was, with another size. */
  inherit(old: WritableContent): void {
    for (const sector of old.mapping) this.mapping.add(sector);
    this.bases.push(...old.bases);
  }

  /** Whether a block of these sectors may be mapped, where zeroes map none: something else was written to it, here or in a base. */
  mayMap(sectorBegin: number, sectorEnd: number): boolean {
    for (let sector = sectorBegin; sector < sectorEnd; sector += 1) {
      if (this.mapping.has(sector)) return true;
    }
    return this.bases.some((base) => base.source.mayMap(sectorBegin, sectorEnd));
  }

  /** Whether a crash before `instant` may leave this value. */
  allows(sector: number, value: number, instant: number, survivor: Survivor = "flushed"): boolean {
    const isCertain = survivor === "flushed"
      ? (write: Write) => write.durable < instant
      : (write: Write) => write.isDone && write.answered < instant;
    return isPossible(this.sectors[sector]!, sector, value, instant, isCertain);
  }
}

/** A snapshot, or the content that a clone begins with. */
export class Cut {
  /** By sector, once it has been read. */
  pinned: Float64Array | undefined;
  endedAt = never;

  constructor(
    readonly source: WritableContent | Cut,
    readonly sizeBytes: number,
    readonly begunAt: number,
  ) {}

  allows(sector: number, value: number): boolean {
    if (this.pinned === undefined) return this.mayHold(sector, value);
    if (this.pinned[sector] === value) return true;
    // Where a write failed in the snapshot's source, the device itself may give now this and now that.
    return this.#hasFailure(sector) && this.mayHold(sector, value);
  }

  /** As its source, which may have got more since. */
  mayMap(sectorBegin: number, sectorEnd: number): boolean {
    return this.source.mayMap(sectorBegin, sectorEnd);
  }

  #hasFailure(sector: number): boolean {
    const { source } = this;
    if (source instanceof Cut) return source.#hasFailure(sector);
    return source.sectors[sector]!.some((write) => {
      if (write.from !== undefined) return write.from.#hasFailure(sector);
      return write.answered < never && !write.isDone;
    });
  }

  /** Whether the value was there at an instant while the snapshot was taken. */
  mayHold(sector: number, value: number): boolean {
    const { source } = this;
    if (source instanceof Cut) return source.allows(sector, value);
    return isPossible(source.sectors[sector]!, sector, value, this.endedAt, (write) => {
      return write.isDone && write.answered < this.begunAt;
    });
  }
}

/** Some write of the value, submitted before the instant, that no other one has certainly replaced. */
function isPossible(
  writes: readonly Write[],
  sector: number,
  value: number,
  instant: number,
  isCertain: (write: Write) => boolean,
): boolean {
  for (const write of writes) {
    if (write.submitted >= instant || !gives(write, sector, value)) continue;
    const isReplaced = writes.some((other) => write.answered < other.submitted && isCertain(other));
    if (!isReplaced) return true;
  }
  return false;
}

/** Whether the sector may hold that value after the write. */
function gives(write: Write, sector: number, value: number): boolean {
  const { from, values } = write;
  if (from !== undefined) return sector * sectorSizeBytes < from.sizeBytes && from.allows(sector, value);
  return value === (values === undefined ? 0 : values[sector - write.sectorBegin]!);
}

export type Content = WritableContent | Cut;
