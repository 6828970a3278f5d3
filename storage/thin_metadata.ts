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
import { BlockCache } from "./block_cache.ts";
import { DeviceAllowances } from "./device_allowances.ts";
import { type DeviceChange, type DeviceState, DeviceTable } from "./device_table.ts";
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
import { Growth } from "./growth.ts";
import { MappingRuns } from "./mapping_runs.ts";
import { MetadataCommit } from "./metadata_commit.ts";
import { MetadataOperation } from "./metadata_operation.ts";
import { MetadataHeadroom } from "./metadata_headroom.ts";
import { MetadataSpaceLoad } from "./metadata_space_load.ts";
import { DataSpaceMap } from "./space_map_data.ts";
import { MetadataSpaceLayout } from "./space_map_layout.ts";
import { MetadataSpaceMap } from "./space_map_metadata.ts";
import { SuperblockState } from "./superblock_state.ts";
import { leafEntriesMax, type MappedRange, type Mapping, ThinMappings } from "./thin_mappings.ts";
import { emptySuperblock, type EngineOptions, notesOnHints, openSuperblock } from "./thin_superblock.ts";
import { type CommitPlan, type HeldCommit, type PlannedBlock, Transaction } from "./transaction.ts";

export type { DeviceChange, DeviceState, SnapshotPair } from "./device_table.ts";
export type { GrowthRefusal } from "./growth.ts";
export type { MarkedRun, RunsWanted } from "./mapping_runs.ts";
export { MetadataFault, type MetadataFaultKind, OpenRefused } from "./metadata_fault.ts";
export type { MappedRange, MappedRun, Mapping } from "./thin_mappings.ts";
export type { EngineOptions } from "./thin_superblock.ts";
export type { CommitPlan, HeldCommit, PlannedBlock } from "./transaction.ts";

/** The metadata of one pool. */
export class ThinMetadata {
  readonly #transaction: Transaction;
  readonly #layout: MetadataSpaceLayout;
  readonly #headroom: MetadataHeadroom;
  readonly #data: DataSpaceMap;
  readonly #devices: DeviceTable;
  readonly #mappings: ThinMappings;
  /** Block status: which vblocks are mapped, and where two devices differ. */
  readonly runs: MappingRuns;
  /** More data blocks and metadata blocks. */
  readonly growth: Growth;
  /** Quotas and reserves of single devices; none until they are set. */
  readonly allowances: DeviceAllowances;
  readonly #readOnly: boolean;
  readonly #spaceLoad: MetadataSpaceLoad;
  readonly #superblock: SuperblockState;
  readonly #operation: MetadataOperation;
  readonly #commit: MetadataCommit;
  #isLoaded = false;
  /** Stored hints that were wrong, as sentences for the log. */
  readonly notes: string[] = [];

  private constructor(superblock: Superblock, bytes: Uint8Array, cacheBlocks: number, readOnly: boolean) {
    this.#superblock = new SuperblockState(superblock, bytes);
    this.#readOnly = readOnly;
    const space = new MetadataSpaceMap(superblock.metadataSpaceMap.blocks);
    this.#transaction = new Transaction(new BlockCache(cacheBlocks), space);
    this.#layout = new MetadataSpaceLayout(this.#transaction);
    this.#headroom = new MetadataHeadroom(space, this.#layout);
    this.#spaceLoad = new MetadataSpaceLoad(this.#transaction, superblock.metadataSpaceMap);
    this.#data = new DataSpaceMap(this.#transaction, superblock.dataSpaceMap);
    this.allowances = new DeviceAllowances(this.geometry.blockSizeBytes, this.#data);
    this.#devices = new DeviceTable(this.#transaction, superblock.mappingRoot, superblock.detailsRoot);
    this.#mappings = new ThinMappings(this.#transaction, this.#data, !readOnly, superblock.heldRoot !== 0);
    this.runs = new MappingRuns(this.#transaction, this.#devices);
    this.#operation = new MetadataOperation({
      transaction: this.#transaction,
      devices: this.#devices,
      data: this.#data,
      superblock: this.#superblock,
      headroom: this.#headroom,
    });
    this.growth = new Growth({
      space,
      headroom: this.#headroom,
      data: this.#data,
      operation: this.#operation,
    });
    this.#commit = new MetadataCommit({
      transaction: this.#transaction,
      layout: this.#layout,
      data: this.#data,
      devices: this.#devices,
      recentlyUnshared: this.#mappings.recentlyUnshared,
      superblock: this.#superblock,
      operation: this.#operation,
    });
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
    const space = metadata.#transaction.space;
    space.load(metadataBlock(0), 1);
    space.markAllDirty();
    metadata.#isLoaded = true;
    metadata.#operation.isAllowed = true;
    metadata.#operation.begin();
    metadata.#devices.format();
    metadata.#data.format();
    metadata.#data.grow(geometry.dataBlocks);
    metadata.#operation.succeed();
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
    this.#transaction.cache.beginOperation();
    if (!this.#readOnly) {
      this.#spaceLoad.load(this.#layout);
      this.#data.load();
    }
    this.#devices.load();
    this.#transaction.cache.endOperation();
    this.#isLoaded = true;
    this.#operation.isAllowed = !this.#readOnly;
    if (this.#readOnly) return;
    this.notes.push(...notesOnHints(this.#superblock.durable, {
      wrongEntries: this.#spaceLoad.wrongHints + this.#data.wrongHints,
      dataAllocated: this.#data.allocated,
      metadataAllocated: this.#transaction.space.used,
    }));
  }

  /**
   * Takes a block that was read after a "missing" fault, and keeps the buffer. At most one read of a block may be under
   * way.
   */
  supply(block: MetadataBlock, bytes: Uint8Array): void {
    this.#transaction.cache.supply(block, bytes);
  }

  /** A buffer to read a block into, which {@linkcode supply} then takes. */
  takeBuffer(): Uint8Array {
    return this.#transaction.cache.takeBuffer();
  }

  /** The sizes of the pool as of the last durable commit. The same object as long as they are the same. */
  get geometry(): Geometry {
    return this.#superblock.geometry;
  }
  get transactionId(): bigint {
    return this.#superblock.transactionId;
  }
  /** The snapshot clock. */
  get time(): number {
    return this.#superblock.time;
  }
  /** Data blocks in the current state: more than in {@linkcode geometry} until a growth is durable. */
  get dataBlocks(): number {
    return this.#data.blocks;
  }
  /** Data blocks without a reference in the current state. Some of them may be allocated only after a commit. */
  get dataFree(): number {
    return this.#data.blocks - this.#data.allocated;
  }
  /** Metadata blocks in the current state. */
  get metadataBlocks(): number {
    return this.#transaction.space.blocks;
  }
  /** Metadata blocks without a reference in the current state. Of a pool opened read-only, what the superblock says. */
  get metadataFree(): number {
    const root = this.#superblock.durable.metadataSpaceMap;
    return this.#readOnly ? root.blocks - root.allocated : this.metadataBlocks - this.#transaction.space.used;
  }
  /** Metadata blocks that operations other than removals may still use. */
  get metadataAvailable(): number {
    return this.#headroom.available(this.#readOnly ? this.metadataFree : undefined);
  }
  /** Blocks that a commit would write, without those of the space maps that it adds. */
  get dirtyBlocks(): number {
    return this.#transaction.space.newInUse;
  }
  /** Whether an operation has succeeded since the last beginCommit. */
  get isDirty(): boolean {
    return this.#operation.isDirty;
  }

  /** Ids of all devices, ascending. */
  thinIds(): ThinId[] {
    return this.#devices.thinIds();
  }

  /** The device's details in the current state, or undefined if there is no such device. */
  device(thin: ThinId): DeviceDetails | undefined {
    const record = this.#devices.get(thin);
    if (record === undefined) return undefined;
    const { mappedBlocks, transactionId, creationTime, snapshottedTime } = record;
    return { mappedBlocks, transactionId, creationTime, snapshottedTime };
  }

  /** What the device maps in the current state, and since when; undefined if there is no such device. */
  deviceState(thin: ThinId): DeviceState | undefined {
    const record = this.#devices.get(thin);
    if (record === undefined) return undefined;
    return { mappedBlocks: record.mappedBlocks, changedIn: record.changedIn };
  }

  /**
   * Makes thin devices and snapshots and sets the transaction id, in one operation. Origins must exist (the same change
   * may make them), and the new ids must not. A change of the transaction id alone may use the headroom.
   */
  change(change: DeviceChange): void {
    const { create, snapshots, tick, transactionId, allowances = [] } = change;
    this.#operation.run(() => {
      this.allowances.admitChange(snapshots, allowances);
      this.#superblock.transactionId = transactionId;
      if (tick) this.#superblock.tick();
      for (const thin of create) {
        this.#devices.create(thin, this.#mappings.makeTree().block, transactionId, this.time);
      }
      this.#devices.snapshot(snapshots, transactionId, this.time);
      if (create.length + snapshots.length > 0) this.#headroom.admit();
      else this.#headroom.admitFromHeadroom();
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
    const record = this.#devices.expect(thin);
    return this.#operation.removeBySlices(leafBudget * leafEntriesMax, (entriesMax) => {
      this.#devices.change(record);
      const isGone = this.#mappings.removeFromEnd(record, entriesMax);
      if (isGone) this.#devices.remove(record);
      return isGone;
    });
  }

  /** What a vblock maps to. */
  lookup(thin: ThinId, block: VBlock): Mapping {
    const record = this.#devices.expect(thin);
    this.#transaction.cache.beginOperation();
    const mapping = this.#mappings.lookup(record, block);
    this.#transaction.cache.endOperation();
    return mapping;
  }

  /**
   * Mapped runs in `[begin, end)`, at most `runsMax`. The work of one call is bounded; `next` is where the next call
   * continues, `end` if there is no more.
   */
  lookupRange(thin: ThinId, begin: VBlock, end: VBlock, runsMax: number): MappedRange {
    const record = this.#devices.expect(thin);
    this.#transaction.cache.beginOperation();
    const found = this.#mappings.lookupRange(record, begin, end, runsMax);
    this.#transaction.cache.endOperation();
    return found;
  }

  /** The highest mapped vblock. */
  highestMapped(thin: ThinId): VBlock | undefined {
    const record = this.#devices.expect(thin);
    this.#transaction.cache.beginOperation();
    const highest = this.#mappings.highestMapped(record);
    this.#transaction.cache.endOperation();
    return highest;
  }

  /**
   * Maps `block` to a data block without references; or again to the data block that it has, at the present time. Returns the
   * data block that it had.
   */
  insert(thin: ThinId, block: VBlock, mapped: DBlock): DBlock | undefined {
    return this.#insert(thin, block, mapped, () => this.#headroom.admit());
  }

  /** The same for a change that was answered already, and is done again: it may use the headroom. */
  insertFromHeadroom(thin: ThinId, block: VBlock, mapped: DBlock): DBlock | undefined {
    return this.#insert(thin, block, mapped, () => this.#headroom.admitFromHeadroom());
  }

  #insert(thin: ThinId, block: VBlock, mapped: DBlock, admit: () => void): DBlock | undefined {
    const record = this.#devices.expect(thin);
    const { allocated } = this.#data;
    let replaced: DBlock | undefined;
    this.#operation.run(() => {
      this.#devices.change(record);
      replaced = this.#mappings.insert(record, block, mapped, this.time);
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
    const record = this.#devices.expect(thin);
    this.#transaction.cache.beginOperation();
    const first = this.#mappings.firstMapped(record, begin, end);
    this.#transaction.cache.endOperation();
    if (first === undefined) return { next: end, removedBlocks: 0 }; // nothing to commit
    const [before, { allocated }] = [record.mappedBlocks, this.#data];
    const next = this.#operation.removeBySlices(leafEntriesMax, (entriesMax) => {
      this.#devices.change(record);
      return this.#mappings.removeInOneLeaf(record, first, end, entriesMax);
    });
    this.allowances.noteChange(thin, allocated);
    return { next, removedBlocks: before - record.mappedBlocks };
  }

  /**
   * Data blocks without references from `from` on. The work of one call is bounded; `next` is where the next call continues,
   * `dataBlocks` at the end.
   */
  findFreeData(from: DBlock, blocksWanted: number): { runs: DBlockRun[]; next: DBlock } {
    this.#transaction.cache.beginOperation();
    const found = this.#data.findFree(from, blocksWanted);
    this.#transaction.cache.endOperation();
    return found;
  }

  /**
   * Data blocks whose count reached 0 since the last call, as runs. The durable state may still map them, so the caller
   * must quarantine them until the commit after this is durable. To be called after every operation that may free
   * blocks, because findFreeData returns these blocks too.
   */
  takeFreed(): DBlockRun[] {
    return this.#data.takeFreed();
  }

  /** Number of mappings that refer to the data block. */
  dataReferenceCount(block: DBlock): number {
    this.#transaction.cache.beginOperation();
    const count = this.#data.count(block);
    this.#transaction.cache.endOperation();
    return count;
  }

  /** See {@linkcode MetadataCommit.begin}. */
  beginCommit(): CommitPlan {
    return this.#commit.begin();
  }

  /** The superblock of the commit under way is durable. See {@linkcode MetadataCommit.durable}. */
  commitDurable(): void {
    this.#commit.durable();
  }

  /** The last durable superblock with needs_check set, to be written after a commit failed. */
  needsCheckSuperblock(): Uint8Array {
    return this.#superblock.needsCheckBytes();
  }

  /** The bytes of the superblock of the last durable commit. */
  durableSuperblock(): Uint8Array {
    return this.#superblock.durableBytes();
  }

  /** See {@linkcode MetadataCommit.hold}. */
  holdCommit(): HeldCommit {
    return this.#commit.hold();
  }
}
