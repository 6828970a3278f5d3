/** The lock regions of the data device: a fixed table, made when the pool opens. Passdown and copies exclude each other. */
import { assert } from "../../storage/base/assert.ts";
import type { DBlock } from "../../storage/base/ids.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Steps } from "../kernel/task.ts";
import { dataRegionsMax, mailboxMax } from "../limits.ts";
import { LockRegion } from "./lock_region.ts";
import { RegionLocks } from "./region_locks.ts";

export class DataLocks {
  readonly #regions: readonly RegionLocks[];
  readonly #blocksPerRegion: number;

  constructor(regions: readonly RegionLocks[], blocksPerRegion: number) {
    this.#regions = regions;
    this.#blocksPerRegion = blocksPerRegion;
  }

  /** The regions of `[begin, end)`, ascending. */
  regionsOf(begin: number, end: number): readonly RegionLocks[] {
    const first = Math.floor(begin / this.#blocksPerRegion);
    const last = Math.floor((end - 1) / this.#blocksPerRegion);
    assert(last < this.#regions.length, "locked a block beyond the data device");
    return this.#regions.slice(first, last + 1);
  }

  /** Locks a newly leased block exclusively. */
  *fresh(dblock: DBlock): Steps<Disposable> {
    return yield* this.regionsOf(dblock, dblock + 1)[0]!.block(dblock, "exclusive");
  }

  /** Locks the old block of a copy. The lock is shared, so that clones of one volume can copy the same block at the same time. */
  *source(dblock: DBlock): Steps<Disposable> {
    return yield* this.regionsOf(dblock, dblock + 1)[0]!.block(dblock, "read");
  }
}

/** Makes the lock regions of a data device of so many blocks. */
export function spawnDataLocks(kernel: Kernel, dataBlocks: number): DataLocks {
  const blocksPerRegion = Math.max(kernel.knobs.dataRegionBlocksMin, Math.ceil(dataBlocks / dataRegionsMax));
  const regions: RegionLocks[] = [];
  for (let begin = 0; begin < dataBlocks; begin += blocksPerRegion) {
    const end = Math.min(dataBlocks, begin + blocksPerRegion);
    const address = kernel.spawn(
      `data region ${begin}-${end - 1}`,
      mailboxMax,
      (self) => new LockRegion(kernel, self),
    );
    regions.push(new RegionLocks(kernel, address, begin, end));
  }
  return new DataLocks(regions, blocksPerRegion);
}
