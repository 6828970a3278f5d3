/**
 * The lock regions of the data device: a fixed number of them, made when the pool opens. Passdown and copies exclude each
 * other.
 *
 * The device is cut into stripes of `dataStripeBlocks` data blocks, and stripe n is in region n modulo the number of regions.
 * So the region of a block does not depend on the size of the device, and a device that grows moves no block to another
 * region: a lock taken before it grew and one taken after it exclude each other. A region keeps a cell for each block that is
 * locked, by its number, whatever stripe it lies in.
 */
import type { DBlock } from "../../storage/base/ids.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Steps } from "../kernel/task.ts";
import { dataRegions } from "../limits.ts";
import { mailboxes } from "../mailboxes.ts";
import { LockRegion } from "./lock_region.ts";
import { RegionLocks } from "./region_locks.ts";

/** See the head of this file. Each lock is held until it is disposed of. */
export class DataLocks {
  readonly #regions: readonly RegionLocks[];
  readonly #stripeBlocks: number;

  constructor(regions: readonly RegionLocks[], stripeBlocks: number) {
    this.#regions = regions;
    this.#stripeBlocks = stripeBlocks;
  }

  /** Locks a newly leased block exclusively. */
  *fresh(dblock: DBlock): Steps<Disposable> {
    return yield* this.#regionOf(dblock).block(dblock, "exclusive");
  }

  /** Locks the old block of a copy. The lock is shared, so that clones of one volume can copy the same block at the same time. */
  *source(dblock: DBlock): Steps<Disposable> {
    return yield* this.#regionOf(dblock).block(dblock, "read");
  }

  /** Locks the blocks from `begin` to below `end` exclusively, stripe by stripe in ascending order (invariant I5). */
  *range(begin: number, end: number): Steps<Disposable> {
    using held = new DisposableStack();
    let from = begin;
    while (from < end) {
      const stripeEnd = (Math.floor(from / this.#stripeBlocks) + 1) * this.#stripeBlocks;
      const to = Math.min(end, stripeEnd);
      held.use(yield* this.#regionOf(from).range(from, to));
      from = to;
    }
    return held.move();
  }

  #regionOf(block: number): RegionLocks {
    return this.#regions[Math.floor(block / this.#stripeBlocks) % this.#regions.length]!;
  }
}

/** Makes the lock regions of the data device. */
export function spawnDataLocks(kernel: Kernel): DataLocks {
  const regions = Array.from({ length: dataRegions }, (_, index) => {
    const address = kernel.spawn(
      `data region ${index}`,
      mailboxes.dataRegion,
      (self) => new LockRegion(kernel, self),
    );
    return new RegionLocks(kernel, address, 0, Infinity);
  });
  return new DataLocks(regions, kernel.knobs.dataStripeBlocks);
}
