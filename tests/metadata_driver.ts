/** For tests: a metadata device in memory, and the loop that any caller of the engine runs. */
import { metadataBlock, metadataBlockSizeBytes } from "../storage/ids.ts";
import { MetadataFault, type MetadataGeometry, ThinMetadata } from "../storage/thin_metadata.ts";

export class MetadataDriver {
  /** The metadata device. */
  readonly image: Uint8Array;
  engine: ThinMetadata;
  readonly #cacheBlocks: number;
  /** How often an operation found a block missing. */
  misses = 0;

  constructor(image: Uint8Array, cacheBlocks: number, readOnly = false) {
    this.image = image;
    this.#cacheBlocks = cacheBlocks;
    this.engine = this.#open(readOnly);
  }

  /** A new pool, written as a caller would. */
  static format(geometry: MetadataGeometry, cacheBlocks = 1000): MetadataDriver {
    const image = new Uint8Array(geometry.metadataBlocks * metadataBlockSizeBytes);
    for (const { block, bytes } of ThinMetadata.format(geometry)) {
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
        if (!(error instanceof MetadataFault) || error.fault.kind !== "missing") throw error;
        this.misses++;
        const begin = error.fault.block * metadataBlockSizeBytes;
        this.engine.supply(error.fault.block, this.image.slice(begin, begin + metadataBlockSizeBytes));
      }
    }
  }

  /** A whole commit. */
  commit(): void {
    const plan = this.run((engine) => engine.beginCommit());
    for (const { block, bytes } of plan.blocks) this.image.set(bytes, block * metadataBlockSizeBytes);
    this.image.set(plan.superblock, metadataBlock(0));
    this.engine.commitDurable();
  }

  /** Forgets everything that was not committed. */
  reopen(readOnly = false): void {
    this.engine = this.#open(readOnly);
  }

  #open(readOnly: boolean): ThinMetadata {
    const superblock = this.image.slice(0, metadataBlockSizeBytes);
    const deviceBlocks = this.image.length / metadataBlockSizeBytes;
    this.engine = ThinMetadata.open(superblock, { cacheBlocks: this.#cacheBlocks, deviceBlocks, readOnly });
    this.run((engine) => engine.load());
    return this.engine;
  }
}
