/**
 * The metadata engine: dm-thin's mapping trees, thin devices and space maps, as synchronous operations without I/O.
 *
 * An operation either succeeds, or throws a {@linkcode MetadataFault} and has changed nothing. After "missing" the
 * caller reads the block, gives it to {@linkcode ThinMetadata.supply} and runs the operation again. A commit is planned
 * in one call. Operations can run while its blocks are being written, because these blocks are never changed in place
 * again.
 */
import { assert } from "./base/assert.ts";
import type { Geometry } from "./base/geometry.ts";
import type { DBlockRun } from "./block_set.ts";
import type { DeviceAllowances } from "./device_allowances.ts";
import type { DeviceChange, DeviceState } from "./device_table.ts";
import { EngineParts } from "./engine_parts.ts";
import type { DeviceDetails } from "./format/device_details.ts";
import { metadataBlocksMax } from "./format/metadata_index.ts";
import type { Superblock } from "./format/superblock.ts";
import {
  type DBlock,
  type MetadataBlock,
  metadataBlock,
  metadataBlockSizeBytes,
  type ThinId,
  type VBlock,
} from "./base/ids.ts";
import type { Growth } from "./growth.ts";
import type { MappingRuns } from "./mapping_runs.ts";
import { leafEntriesMax, type MappedRange, type Mapping } from "./thin_mappings.ts";
import { emptySuperblock, type EngineOptions, notesOnHints, openSuperblock } from "./thin_superblock.ts";
import type { CommitPlan, HeldCommit, PlannedBlock } from "./transaction.ts";

export type { DeviceChange, DeviceState, SnapshotPair } from "./device_table.ts";
export type { GrowthRefusal } from "./growth.ts";
export type { MarkedRun, RunsWanted } from "./mapping_runs.ts";
export { MetadataFault, type MetadataFaultKind, OpenRefused } from "./metadata_fault.ts";
export type { MappedRange, MappedRun, Mapping } from "./thin_mappings.ts";
export type { EngineOptions } from "./thin_superblock.ts";
export type { CommitPlan, HeldCommit, PlannedBlock } from "./transaction.ts";

/** The metadata of one pool. */
export class ThinMetadata {
  readonly #parts: EngineParts;
  readonly #readOnly: boolean;
  #isLoaded = false;
  /** Block status: which vblocks are mapped, and where two devices differ. */
  readonly runs: MappingRuns;
  /** More data blocks and metadata blocks. */
  readonly growth: Growth;
  /** Quotas and reserves of single devices; none until they are set. */
  readonly allowances: DeviceAllowances;
  /** Stored hints that were wrong, as sentences for the log. */
  readonly notes: string[] = [];

  private constructor(superblock: Superblock, bytes: Uint8Array, cacheBlocks: number, readOnly: boolean) {
    this.#readOnly = readOnly;
    this.#parts = new EngineParts(superblock, bytes, cacheBlocks, readOnly);
    this.runs = this.#parts.runs;
    this.growth = this.#parts.growth;
    this.allowances = this.#parts.allowances;
  }

  /**
   * Makes the blocks of an empty pool, the superblock last. The caller writes them in this order, with a flush before
   * the superblock and one after it. If it stops before the second flush is done, there may be no valid superblock, and
   * so no pool. The uuid has 16 bytes; the kernel writes zeroes too. Faults with noMetadataSpace if the metadata is too small for the data.
   */
  static format(geometry: Geometry, uuid: Uint8Array = new Uint8Array(16)): PlannedBlock[] {
    assert(
      geometry.metadataBlocks > 1 && geometry.metadataBlocks <= metadataBlocksMax,
      "the metadata has a legal size",
    );
    const metadata = new ThinMetadata(
      emptySuperblock(geometry, uuid),
      new Uint8Array(metadataBlockSizeBytes),
      1,
      false,
    );
    const space = metadata.#parts.transaction.space;
    space.load(metadataBlock(0), 1);
    space.markAllDirty();
    metadata.#isLoaded = true;
    metadata.#parts.operation.isAllowed = true;
    metadata.#parts.operation.begin();
    metadata.#parts.devices.format();
    metadata.#parts.data.format();
    metadata.#parts.data.grow(geometry.dataBlocks);
    metadata.#parts.operation.succeed();
    const plan = metadata.beginCommit();
    return [...plan.blocks, { block: metadataBlock(0), bytes: plan.superblock }];
  }

  /**
   * Opens metadata by its superblock. {@linkcode load} must follow. Throws OpenRefused with a message for the user.
   */
  static open(superblockBytes: Uint8Array, options: EngineOptions): ThinMetadata {
    const superblock = openSuperblock(superblockBytes, options);
    return new ThinMetadata(superblock, superblockBytes.slice(), options.cacheBlocks, options.readOnly);
  }

  /** Loads what is kept in memory: metadata counts, the data space map's index, devices. To be run until it returns. */
  load(): void {
    assert(!this.#isLoaded, "metadata is loaded once");
    this.#parts.transaction.cache.beginOperation();
    if (!this.#readOnly) {
      this.#parts.spaceLoad.load(this.#parts.layout);
      this.#parts.data.load();
    }
    this.#parts.devices.load();
    this.#parts.transaction.cache.endOperation();
    this.#isLoaded = true;
    this.#parts.operation.isAllowed = !this.#readOnly;
    if (this.#readOnly) return;
    this.notes.push(...notesOnHints(this.#parts.superblock.durable, {
      wrongEntries: this.#parts.spaceLoad.wrongHints + this.#parts.data.wrongHints,
      dataAllocated: this.#parts.data.allocated,
      metadataAllocated: this.#parts.transaction.space.used,
    }));
  }

  /**
   * Takes a block that was read after a "missing" fault, and keeps the buffer. At most one read of a block may be under
   * way.
   */
  supply(block: MetadataBlock, bytes: Uint8Array): void {
    this.#parts.transaction.cache.supply(block, bytes);
  }

  /** A buffer to read a block into, which {@linkcode supply} then takes. */
  takeBuffer(): Uint8Array {
    return this.#parts.transaction.cache.takeBuffer();
  }

  /** The sizes of the pool as of the last durable commit. The same object as long as they are the same. */
  get geometry(): Geometry {
    return this.#parts.superblock.geometry;
  }
  get transactionId(): bigint {
    return this.#parts.superblock.transactionId;
  }
  /** The snapshot clock. */
  get time(): number {
    return this.#parts.superblock.time;
  }
  /** Data blocks in the current state: more than in {@linkcode geometry} until a growth is durable. */
  get dataBlocks(): number {
    return this.#parts.data.blocks;
  }
  /** Data blocks without a reference in the current state. Some of them may be allocated only after a commit. */
  get dataFree(): number {
    return this.#parts.data.blocks - this.#parts.data.allocated;
  }
  /** Metadata blocks in the current state. */
  get metadataBlocks(): number {
    return this.#parts.transaction.space.blocks;
  }
  /** Metadata blocks without a reference in the current state. Of a pool opened read-only, what the superblock says. */
  get metadataFree(): number {
    const root = this.#parts.superblock.durable.metadataSpaceMap;
    return this.#readOnly
      ? root.blocks - root.allocated
      : this.metadataBlocks - this.#parts.transaction.space.used;
  }
  /** Metadata blocks that operations other than removals may still use. */
  get metadataAvailable(): number {
    return this.#parts.headroom.available(this.#readOnly ? this.metadataFree : undefined);
  }
  /** The same once all changes so far are durable. */
  get metadataAvailableAfterCommit(): number {
    return this.#parts.headroom.availableAfterCommit();
  }
  /** Metadata blocks that were freed and may be used again once all changes so far are durable. */
  get metadataReleasable(): number {
    return this.#parts.transaction.space.releasable;
  }
  /** Blocks that a commit would write, without those of the space maps that it adds. */
  get dirtyBlocks(): number {
    return this.#parts.transaction.space.newInUse;
  }
  /** Whether an operation has succeeded since the last beginCommit. */
  get isDirty(): boolean {
    return this.#parts.operation.isDirty;
  }

  /** Ids of all devices, ascending. */
  thinIds(): ThinId[] {
    return this.#parts.devices.thinIds();
  }

  /** The device's details in the current state, or undefined if there is no such device. */
  device(thin: ThinId): DeviceDetails | undefined {
    const record = this.#parts.devices.get(thin);
    if (record === undefined) return undefined;
    const { mappedBlocks, transactionId, creationTime, snapshottedTime } = record;
    return { mappedBlocks, transactionId, creationTime, snapshottedTime };
  }

  /** What the device maps in the current state, and since when; undefined if there is no such device. */
  deviceState(thin: ThinId): DeviceState | undefined {
    const record = this.#parts.devices.get(thin);
    if (record === undefined) return undefined;
    return { mappedBlocks: record.mappedBlocks, changedIn: record.changedIn };
  }

  /**
   * Makes thin devices and snapshots and sets the transaction id, in one operation. Origins must exist (the same change
   * may make them), and the new ids must not. A change of the transaction id alone may use the headroom.
   */
  change(change: DeviceChange): void {
    const { create, snapshots, tick, transactionId, allowances = [] } = change;
    this.#parts.operation.run(() => {
      this.allowances.admitChange(snapshots, allowances);
      this.#parts.superblock.transactionId = transactionId;
      if (tick) this.#parts.superblock.tick();
      for (const thin of create) {
        this.#parts.devices.create(thin, this.#parts.mappings.makeTree().block, transactionId, this.time);
      }
      this.#parts.devices.snapshot(snapshots, transactionId, this.time);
      if (create.length + snapshots.length > 0) this.#parts.headroom.admit();
      else this.#parts.headroom.admitFromHeadroom();
    });
    this.allowances.noteDevices(snapshots, allowances);
  }

  /**
   * Deletes a slice of the device: all of it if at most `leafBudget` of its nodes are not shared, else its last
   * `leafBudget` leaves, or fewer if space is short. After each slice the tree and the mapped_blocks count are valid.
   * Returns true when the device is gone.
   */
  deleteThin(thin: ThinId, leafBudget: number): boolean {
    assert(leafBudget > 0, "a slice is at least one leaf");
    const record = this.#parts.devices.expect(thin);
    return this.#parts.operation.removeBySlices(leafBudget * leafEntriesMax, (entriesMax) => {
      this.#parts.devices.change(record);
      const isGone = this.#parts.mappings.removeFromEnd(record, entriesMax);
      if (isGone) this.#parts.devices.remove(record);
      return isGone;
    });
  }

  /** What a vblock maps to. */
  lookup(thin: ThinId, block: VBlock): Mapping {
    const record = this.#parts.devices.expect(thin);
    this.#parts.transaction.cache.beginOperation();
    const mapping = this.#parts.mappings.lookup(record, block);
    this.#parts.transaction.cache.endOperation();
    return mapping;
  }

  /**
   * Mapped runs in `[begin, end)`, at most `runsMax`. The work of one call is bounded; `next` is where the next call
   * continues, `end` if there is no more.
   */
  lookupRange(thin: ThinId, begin: VBlock, end: VBlock, runsMax: number): MappedRange {
    const record = this.#parts.devices.expect(thin);
    this.#parts.transaction.cache.beginOperation();
    const found = this.#parts.mappings.lookupRange(record, begin, end, runsMax);
    this.#parts.transaction.cache.endOperation();
    return found;
  }

  /** The highest mapped vblock. */
  highestMapped(thin: ThinId): VBlock | undefined {
    const record = this.#parts.devices.expect(thin);
    this.#parts.transaction.cache.beginOperation();
    const highest = this.#parts.mappings.highestMapped(record);
    this.#parts.transaction.cache.endOperation();
    return highest;
  }

  /**
   * Maps `block` to a data block without references; or again to the data block that it has, at the present time. Returns the
   * data block that it had.
   */
  insert(thin: ThinId, block: VBlock, mapped: DBlock): DBlock | undefined {
    return this.#insert(thin, block, mapped, () => this.#parts.headroom.admit());
  }

  /** The same for a change that was answered already, and is done again: it may use the headroom. */
  insertFromHeadroom(thin: ThinId, block: VBlock, mapped: DBlock): DBlock | undefined {
    return this.#insert(thin, block, mapped, () => this.#parts.headroom.admitFromHeadroom());
  }

  #insert(thin: ThinId, block: VBlock, mapped: DBlock, admit: () => void): DBlock | undefined {
    const record = this.#parts.devices.expect(thin);
    const { allocated } = this.#parts.data;
    let replaced: DBlock | undefined;
    this.#parts.operation.run(() => {
      this.#parts.devices.change(record);
      replaced = this.#parts.mappings.insert(record, block, mapped, this.time);
      admit();
      this.allowances.admitInsert(thin, record.mappedBlocks, replaced === undefined, allocated);
    });
    this.allowances.noteChange(thin, allocated);
    return replaced;
  }

  /**
   * Removes the mappings in `[begin, end)` that are in the first leaf with any. `next` is where the next call continues,
   * `end` if there is no more.
   */
  removeRange(thin: ThinId, begin: VBlock, end: VBlock): { next: VBlock; removedBlocks: number } {
    const record = this.#parts.devices.expect(thin);
    this.#parts.transaction.cache.beginOperation();
    const first = this.#parts.mappings.firstMapped(record, begin, end);
    this.#parts.transaction.cache.endOperation();
    if (first === undefined) return { next: end, removedBlocks: 0 }; // nothing to commit
    const [before, { allocated }] = [record.mappedBlocks, this.#parts.data];
    const next = this.#parts.operation.removeBySlices(leafEntriesMax, (entriesMax) => {
      this.#parts.devices.change(record);
      return this.#parts.mappings.removeInOneLeaf(record, first, end, entriesMax);
    });
    this.allowances.noteChange(thin, allocated);
    return { next, removedBlocks: before - record.mappedBlocks };
  }

  /**
   * Data blocks without references from `from` on. The work of one call is bounded; `next` is where the next call continues,
   * `dataBlocks` at the end.
   */
  findFreeData(from: DBlock, blocksWanted: number): { runs: DBlockRun[]; next: DBlock } {
    this.#parts.transaction.cache.beginOperation();
    const found = this.#parts.data.findFree(from, blocksWanted);
    this.#parts.transaction.cache.endOperation();
    return found;
  }

  /**
   * Data blocks whose count reached 0 since the last call, as runs. The durable state may still map them, so the caller
   * must quarantine them until the commit after this is durable. To be called after every operation that may free
   * blocks, because findFreeData returns these blocks too.
   */
  takeFreed(): DBlockRun[] {
    return this.#parts.data.takeFreed();
  }

  /** Number of mappings that refer to the data block. */
  dataReferenceCount(block: DBlock): number {
    this.#parts.transaction.cache.beginOperation();
    const count = this.#parts.data.count(block);
    this.#parts.transaction.cache.endOperation();
    return count;
  }

  /** See `begin` of metadata_commit.ts. */
  beginCommit(): CommitPlan {
    return this.#parts.commit.begin();
  }

  /** The superblock of the commit under way is durable. See `durable` of metadata_commit.ts. */
  commitDurable(): void {
    this.#parts.commit.durable();
  }

  /** The last durable superblock with needs_check set, to be written after a commit failed. */
  needsCheckSuperblock(): Uint8Array {
    return this.#parts.superblock.needsCheckBytes();
  }

  /** The bytes of the superblock of the last durable commit. */
  durableSuperblock(): Uint8Array {
    return this.#parts.superblock.durableBytes();
  }

  /** See `hold` of metadata_commit.ts. */
  holdCommit(): HeldCommit {
    return this.#parts.commit.hold();
  }
}
