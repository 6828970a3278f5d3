/** What a model of the engine (engine_model.ts) does, and how often. */

/** What a model does. */
export interface ModelOptions {
  readonly seed: number;
  readonly metadataBlocks: number;
  readonly dataBlocks: number;
  /** Virtual blocks are below this: small makes overwriting and sharing likely. */
  readonly vblocks: number;
  readonly devicesMax: number;
  readonly cacheBlocks: number;
  readonly operations: number;
  /** Chance that a device is snapshotted, and another deleted, before an operation. */
  readonly churn: number;
  /** Chance that a block read arrives with a flipped bit. */
  readonly flips: number;
  /** Chance that the devices grow before an operation, and by how many blocks at most. */
  readonly growth: number;
  readonly growthBlocksMax: number;
}
