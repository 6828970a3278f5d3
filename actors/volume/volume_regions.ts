/**
 * The lock regions of one volume: contiguous ranges of its virtual blocks, made when the first bio needs one.
 *
 * Owns: which regions there are, and how many bios in flight may send a request to each. Part of the ThinVolume actor.
 */
import { assert, present } from "../../storage/base/assert.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { regionsPerVolumeMax } from "../limits.ts";
import { mailboxes } from "../mailboxes.ts";
import { LockRegion } from "../pool/lock_region.ts";
import { RegionLocks } from "../pool/region_locks.ts";
import type { Bio } from "./bio.ts";

interface Region {
  readonly locks: RegionLocks;
  /** The list for bios that lie in this region alone, made once. */
  readonly alone: readonly RegionLocks[];
  /** Bios in flight that may send requests to the region. */
  bios: number;
}

export class VolumeRegions {
  readonly #kernel: Kernel;
  readonly #volumeName: string;
  readonly #regions = new Map<number, Region>();
  readonly #idleMax: number;
  /** Virtual blocks in one region. */
  #regionBlocks: number;

  constructor(kernel: Kernel, volumeName: string, volumeBlocks: number) {
    this.#kernel = kernel;
    this.#volumeName = volumeName;
    this.#idleMax = kernel.knobs.idleRegionsMax;
    this.#regionBlocks = this.#regionBlocksOf(volumeBlocks);
  }

  /** The regions of the bio's blocks, ascending. They stay until {@linkcode leave}. */
  enter(bio: Bio): readonly RegionLocks[] {
    const first = Math.floor(bio.vblock / this.#regionBlocks);
    const last = Math.floor((bio.vblockEnd - 1) / this.#regionBlocks);
    if (first === last) return this.#enter(first).alone;
    const entered: RegionLocks[] = [];
    for (let index = first; index <= last; index += 1) entered.push(this.#enter(index).locks);
    return entered;
  }

  /**
   * The bio has ended. If there are more regions than `idleRegionsMax`, those that no bio in flight may use are retired;
   * otherwise a volume that is never idle would keep every region that it ever touched. The bio's task sent its last
   * unlocks before it told its end, so they are delivered before the retirement.
   */
  leave(bio: Bio): void {
    for (const locks of bio.regions) {
      const index = locks.blockBegin / this.#regionBlocks;
      const region = present(this.#regions.get(index), "a bio was in a region that is gone");
      assert(region.bios > 0, "more bios left a region than entered it");
      region.bios -= 1;
      if (region.bios > 0 || this.#regions.size <= this.#idleMax) continue;
      this.#regions.delete(index);
      locks.retire();
    }
  }

  /** Retires every region. No bio may be in one. */
  retire(): void {
    for (const region of this.#regions.values()) {
      assert(region.bios === 0, "retired a region that a bio uses");
      region.locks.retire();
    }
    this.#regions.clear();
  }

  /** Retires every region and makes the next ones for another size. */
  resize(volumeBlocks: number): void {
    this.retire();
    this.#regionBlocks = this.#regionBlocksOf(volumeBlocks);
  }

  #regionBlocksOf(volumeBlocks: number): number {
    return Math.max(this.#kernel.knobs.regionBlocksMin, Math.ceil(volumeBlocks / regionsPerVolumeMax));
  }

  #enter(index: number): Region {
    const region = this.#regions.get(index) ?? this.#make(index);
    region.bios += 1;
    return region;
  }

  #make(index: number): Region {
    const begin = index * this.#regionBlocks;
    const name = `region ${this.#volumeName} ${begin}`;
    const address = this.#kernel.spawn(
      name,
      mailboxes.volumeRegion,
      (self) => new LockRegion(this.#kernel, self),
    );
    const locks = new RegionLocks(this.#kernel, address, begin, begin + this.#regionBlocks);
    const region = { locks, alone: [locks], bios: 0 };
    this.#regions.set(index, region);
    assert(this.#regions.size <= regionsPerVolumeMax, "a volume has more regions than it is cut into");
    return region;
  }
}
