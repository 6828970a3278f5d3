/**
 * Allowances of single thin devices: how many blocks one may map (quota), and how many data blocks are kept free for it (reserve).
 * They are settings of volumes, so the catalogue has them and the metadata does not; they are set after each load.
 *
 * The quota counts the device's mappings, which the metadata counts exactly. Blocks that it shares count as well.
 *
 * The reserve of a device promises it so many data blocks of its own: those that it alone maps, and for the rest free ones.
 * It is owed the rest. The rule: the free blocks are never fewer than what all devices are owed together. So
 *
 *  - a new block for a device that is owed none is refused if only owed blocks are left; one for a device that is owed some
 *    takes from its own;
 *  - a snapshot of a device shares all its blocks, so it is owed the whole reserve from then on. Where that would break the
 *    rule the snapshot is refused.
 *
 * How many blocks a device alone maps is not in the metadata. {@linkcode DeviceAllowances} keeps a number that is never too large:
 * a count by a walk, plus the blocks that the device took since, minus those that it gave back, and 0 after a snapshot of it.
 * It is too small where a snapshot or clone gave a shared block up: then more is kept free than promised, until the next count.
 */
import { assert, present } from "./base/assert.ts";
import type { ThinId } from "./base/ids.ts";
import { MetadataFault } from "./metadata_fault.ts";

/** The allowances of one device, as its volume has them; undefined: none. */
export interface DeviceAllowance {
  readonly thin: ThinId;
  readonly quotaBytes: number | undefined;
  readonly reserveBytes: number | undefined;
}

/** The blocks that a device alone maps, as a walk counted them. */
export interface OwnBlocks {
  readonly thin: ThinId;
  readonly blocks: number;
}

/** Why a device gets no new block: it has all that its quota allows, or what is free is owed to others. */
export type AllowanceRefusal = "quotaExceeded" | "reserved";

/** What is left of a pool for one device. */
export interface DeviceRoom {
  /** Blocks that the quota still allows it to map. */
  readonly quotaLeft: number;
  /** Free data blocks, without those owed to others. */
  readonly dataFree: number;
}

/** The data device's counts, as the space map has them in the current state. */
export interface AllocatedCounts {
  readonly blocks: number;
  readonly allocated: number;
}

/** A snapshot that is made of a device. */
interface Snapshotted {
  readonly origin: ThinId;
}

interface Allowance {
  readonly quotaBlocks: number;
  readonly reserveBlocks: number;
  /** At most what the device alone maps. */
  ownBlocks: number;
}

/** The walks that count a device just now. */
interface Count {
  /** Walks that began and did not end. */
  walks: number;
  /** The blocks given back since before the first of them began. */
  lostBlocks: number;
}

/** See the head of this file. */
export class DeviceAllowances {
  readonly #blockSizeBytes: number;
  readonly #data: AllocatedCounts;
  /** Also of devices without allowances, from the begin of their count until {@linkcode dropUnused}. */
  readonly #allowances = new Map<ThinId, Allowance>();
  /** The devices that a walk counts. */
  readonly #counts = new Map<ThinId, Count>();
  /** What all devices are owed together. */
  #owedBlocks = 0;
  /** Free data blocks that cannot be written: no device gets them. */
  retiredBlocks = 0;

  constructor(blockSizeBytes: number, data: AllocatedCounts) {
    this.#blockSizeBytes = blockSizeBytes;
    this.#data = data;
  }

  /** No device has an allowance, so nothing is to be asked. */
  get isEmpty(): boolean {
    return this.#allowances.size === 0;
  }

  /** Free data blocks that are kept for single devices. */
  get owedBlocks(): number {
    return this.#owedBlocks;
  }

  get #free(): number {
    return this.#data.blocks - this.#data.allocated - this.retiredBlocks;
  }

  /** Sets allowances, whether they can be kept or not: of the catalogue, at the start. */
  set(allowances: readonly DeviceAllowance[]): void {
    for (const allowance of allowances) this.#set(allowance);
  }

  /** What is left for this device, which maps so many blocks. */
  roomOf(thin: ThinId, mappedBlocks: number): DeviceRoom {
    const allowance = this.#allowances.get(thin);
    return {
      quotaLeft: Math.max(0, (allowance?.quotaBlocks ?? Infinity) - mappedBlocks),
      dataFree: Math.max(0, this.#free - this.#owedBlocks + owedTo(allowance)),
    };
  }

  /** Why this device, which maps so many blocks, gets no further data block; undefined if it does. `isNew`: for an unmapped block. */
  refusalOf(thin: ThinId, mappedBlocks: number, isNew: boolean): AllowanceRefusal | undefined {
    const { quotaLeft, dataFree } = this.roomOf(thin, mappedBlocks);
    if (isNew && quotaLeft === 0) return "quotaExceeded";
    return this.#owedBlocks > 0 && dataFree === 0 ? "reserved" : undefined;
  }

  /** To be called in the operation that maps a block, after it. Faults if an allowance is broken by it. */
  admitInsert(thin: ThinId, mappedBlocks: number, isNew: boolean, allocatedBefore: number): void {
    if (this.isEmpty) return;
    const allowance = this.#allowances.get(thin);
    if (isNew && allowance !== undefined && mappedBlocks > allowance.quotaBlocks) {
      throw new MetadataFault({ kind: "quotaExceeded" });
    }
    const taken = this.#data.allocated - allocatedBefore;
    if (taken <= 0) return;
    const owedAfter = this.#owedBlocks - Math.min(owedTo(allowance), taken);
    if (owedAfter > 0 && this.#free < owedAfter) throw new MetadataFault({ kind: "reserved" });
  }

  /** To be called after each operation of a device that mapped or unmapped blocks. */
  noteChange(thin: ThinId, allocatedBefore: number): void {
    const allowance = this.#allowances.get(thin);
    if (allowance === undefined) return;
    const taken = this.#data.allocated - allocatedBefore;
    const count = this.#counts.get(thin);
    if (taken < 0 && count !== undefined) count.lostBlocks -= taken;
    this.#own(allowance, allowance.ownBlocks + taken);
  }

  /** To be called in the operation that changes the set of devices. Faults if more would be owed than is free. */
  admitChange(snapshots: readonly Snapshotted[], allowances: readonly DeviceAllowance[]): void {
    let owedAfter = this.#owedBlocks;
    const origins = new Set(snapshots.map(({ origin }) => origin));
    for (const origin of origins) {
      const allowance = this.#allowances.get(origin);
      if (allowance !== undefined) owedAfter += allowance.reserveBlocks - owedTo(allowance);
    }
    for (const wanted of allowances) {
      const before = this.#allowances.get(wanted.thin);
      owedAfter += owedTo(this.#made(wanted, before)) - owedTo(before);
    }
    if (owedAfter > this.#owedBlocks && owedAfter > this.#free) throw new MetadataFault({ kind: "reserved" });
  }

  /** To be called after it: origins share all their blocks now, and the allowances hold. */
  noteDevices(snapshots: readonly Snapshotted[], allowances: readonly DeviceAllowance[]): void {
    if (!this.isEmpty) {
      for (const { origin } of snapshots) {
        const allowance = this.#allowances.get(origin);
        if (allowance !== undefined) this.#own(allowance, 0);
        this.#spoilCount(origin);
      }
    }
    this.set(allowances);
  }

  /**
   * A walk is about to count what these devices alone map, in a commit that begins after this. Where one counts already, what
   * was lost since the first began is taken off the numbers of both, so neither is too large.
   */
  beginCount(thins: readonly ThinId[]): void {
    for (const thin of thins) {
      if (!this.#allowances.has(thin)) this.#allowances.set(thin, { ...noAllowance });
      const count = this.#counts.get(thin);
      if (count === undefined) this.#counts.set(thin, { walks: 1, lostBlocks: 0 });
      else count.walks += 1;
    }
  }

  /**
   * The walk has counted all devices that it began with. What a device took meanwhile does not count, and what it gave back is
   * taken off, also if the commit had that already: so the number is not too large.
   */
  endCount(counted: readonly OwnBlocks[]): void {
    for (const { thin, blocks } of counted) {
      assert(blocks >= 0, "a device maps fewer blocks than none");
      const lostBlocks = this.#endWalk(thin);
      const allowance = this.#allowances.get(thin);
      // Its allowances have ended meanwhile.
      if (allowance === undefined) continue;
      this.#own(allowance, Math.max(allowance.ownBlocks, blocks - lostBlocks));
    }
  }

  /** The walk ended early, so the numbers stay as they are: they are not too large. */
  cancelCount(thins: readonly ThinId[]): void {
    for (const thin of thins) this.#endWalk(thin);
    this.dropUnused(thins);
  }

  /** Forgets the counts of devices that have got no allowance. */
  dropUnused(thins: readonly ThinId[]): void {
    for (const thin of thins) {
      const allowance = this.#allowances.get(thin);
      const isUnused = allowance?.quotaBlocks === Infinity && allowance.reserveBlocks === 0;
      if (isUnused && !this.#counts.has(thin)) this.#allowances.delete(thin);
    }
  }

  /** Answers what the device gave back meanwhile. */
  #endWalk(thin: ThinId): number {
    const count = present(this.#counts.get(thin), "a count that ends has begun");
    count.walks -= 1;
    assert(count.walks >= 0, "a count ends once");
    if (count.walks === 0) this.#counts.delete(thin);
    return count.lostBlocks;
  }

  #set(allowance: DeviceAllowance): void {
    const before = this.#allowances.get(allowance.thin);
    const made = this.#made(allowance, before);
    this.#owe(owedTo(made) - owedTo(before));
    if (made !== undefined) {
      this.#allowances.set(allowance.thin, made);
      return;
    }
    this.#allowances.delete(allowance.thin);
    // What it gives back from now on is not noted.
    this.#spoilCount(allowance.thin);
  }

  /** The walks that count this device just now count nothing. */
  #spoilCount(thin: ThinId): void {
    const count = this.#counts.get(thin);
    if (count !== undefined) count.lostBlocks = Infinity;
  }

  #made({ quotaBytes, reserveBytes }: DeviceAllowance, before: Allowance | undefined): Allowance | undefined {
    if (quotaBytes === undefined && reserveBytes === undefined) return undefined;
    return {
      quotaBlocks: quotaBytes === undefined ? Infinity : Math.floor(quotaBytes / this.#blockSizeBytes),
      reserveBlocks: reserveBytes === undefined ? 0 : Math.ceil(reserveBytes / this.#blockSizeBytes),
      ownBlocks: before?.ownBlocks ?? 0,
    };
  }

  #own(allowance: Allowance, blocks: number): void {
    const owedBefore = owedTo(allowance);
    allowance.ownBlocks = Math.max(0, blocks);
    this.#owe(owedTo(allowance) - owedBefore);
  }

  /** All changes of the sum are made here. */
  #owe(moreBlocks: number): void {
    this.#owedBlocks += moreBlocks;
    assert(this.#owedBlocks >= 0, "less is owed than nothing");
  }
}

function owedTo(allowance: Allowance | undefined): number {
  return allowance === undefined ? 0 : Math.max(0, allowance.reserveBlocks - allowance.ownBlocks);
}

const noAllowance: Allowance = { quotaBlocks: Infinity, reserveBlocks: 0, ownBlocks: 0 };
