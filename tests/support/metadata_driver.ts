/** For tests: a metadata device in memory, and the loop that any caller of the engine runs. */
import type { Geometry } from "../../storage/base/geometry.ts";
import { superblockLocation } from "../../storage/format/superblock.ts";
import { type MetadataBlock, metadataBlockSizeBytes, type ThinId } from "../../storage/base/ids.ts";
import {
  type CommitPlan,
  MetadataFault,
  type SnapshotPair,
  ThinMetadata,
} from "../../storage/thin_metadata.ts";

export class MetadataDriver {
  /** The metadata device. */
  image: Uint8Array;
  engine: ThinMetadata;
  readonly #cacheBlocks: number;
  readonly #takesSmallBlocks: boolean;
  /** How often an operation found a block missing. */
  misses = 0;
  /** Whether the next block read is handed over with a flipped bit, and then once more without. */
  flipsNext: () => boolean = () => false;
  readonly #flipped = new Set<MetadataBlock>();

  constructor(image: Uint8Array, cacheBlocks: number, readOnly = false, takesSmallBlocks = false) {
    this.image = image;
    this.#cacheBlocks = cacheBlocks;
    this.#takesSmallBlocks = takesSmallBlocks;
    this.engine = this.#open(readOnly);
  }

  /** A new pool, written as a caller would. */
  static format(geometry: Geometry, cacheBlocks = 1000, uuid?: Uint8Array): MetadataDriver {
    const image = new Uint8Array(geometry.metadataBlocks * metadataBlockSizeBytes);
    for (const { block, bytes } of ThinMetadata.format(geometry, uuid)) {
      image.set(bytes, block * metadataBlockSizeBytes);
    }
    return new MetadataDriver(image, cacheBlocks);
  }

  /** Runs an operation until it does not miss a block any more. */
  run<Result>(operation: (engine: ThinMetadata) => Result): Result {
    for (;;) {
      try {
        return operation(this.engine);
      } catch (error) {
        if (!(error instanceof MetadataFault)) throw error;
        if (error.fault.kind === "missing") this.#supply(error.fault.block);
        else if (error.fault.kind !== "damaged" || !this.#flipped.delete(error.fault.block)) throw error;
      }
    }
  }

  #supply(block: MetadataBlock): void {
    this.misses++;
    const begin = block * metadataBlockSizeBytes;
    const bytes = this.image.slice(begin, begin + metadataBlockSizeBytes);
    if (this.flipsNext()) {
      bytes[40]! ^= 4;
      this.#flipped.add(block);
    }
    this.engine.supply(block, bytes);
  }

  /** A whole commit. */
  commit(): void {
    this.write(this.engine.beginCommit());
    this.engine.commitDurable();
  }

  /** Writes a planned commit. */
  write(plan: CommitPlan): void {
    for (const { block, bytes } of plan.blocks) this.image.set(bytes, block * metadataBlockSizeBytes);
    this.image.set(plan.superblock, superblockLocation);
  }

  /** The device became larger. */
  replaceImage(image: Uint8Array): void {
    this.image = image;
  }

  /** Forgets everything that was not committed. */
  reopen(readOnly = false): void {
    this.engine = this.#open(readOnly);
  }

  #open(readOnly: boolean): ThinMetadata {
    const superblock = this.image.slice(0, metadataBlockSizeBytes);
    const deviceBlocks = this.image.length / metadataBlockSizeBytes;
    this.engine = ThinMetadata.open(superblock, {
      cacheBlocks: this.#cacheBlocks,
      deviceBlocks,
      readOnly,
      takesSmallBlocks: this.#takesSmallBlocks,
    });
    this.run((engine) => engine.load());
    return this.engine;
  }
}

/** Makes an empty device, which must not exist. */
export function createThin(engine: ThinMetadata, thin: ThinId): void {
  engine.change({ create: [thin], snapshots: [], tick: false, transactionId: engine.transactionId });
}

/** Makes every `thin` a snapshot of its `origin`: see {@linkcode DeviceChange}. */
export function createSnapshots(
  engine: ThinMetadata,
  snapshots: readonly SnapshotPair[],
  options: { readonly tick: boolean },
): void {
  engine.change({ create: [], snapshots, tick: options.tick, transactionId: engine.transactionId });
}
