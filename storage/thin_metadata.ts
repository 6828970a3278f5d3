/**
 * The metadata engine: dm-thin's mapping trees, devices and space maps as synchronous operations without any
 * I/O.
 *
 * Every operation either happens entirely or throws a {@linkcode MetadataFault} having changed nothing. After
 * "missing" the caller reads the block, {@linkcode ThinMetadata.supply}s it and runs the operation again. A
 * commit is planned in one call; operations go on while its blocks are being written, because none of them is
 * changed in place any more.
 */
import { assert } from "./base/assert.ts";
import type { DBlockRun } from "./block_set.ts";
import { BlockCache } from "./block_cache.ts";
import { type DeviceChange, DeviceRecord, DeviceTable, type SnapshotPair } from "./device_table.ts";
import { timeMax } from "./format/block_time.ts";
import type { DeviceDetails } from "./format/device_details.ts";
import { metadataBlocksMax } from "./format/metadata_index.ts";
import { flagNeedsCheck, packSuperblock, type Superblock } from "./format/superblock.ts";
import {
  type DBlock,
  type MetadataBlock,
  metadataBlock,
  metadataBlockSizeBytes,
  type ThinId,
  type VBlock,
} from "./base/ids.ts";
import { MetadataFault } from "./metadata_fault.ts";
import { MappingRuns } from "./mapping_runs.ts";
import { MetadataReserve } from "./metadata_reserve.ts";
import { MetadataSpaceLoad } from "./metadata_space_load.ts";
import { DataSpaceMap } from "./space_map_data.ts";
import { MetadataSpaceLayout } from "./space_map_layout.ts";
import { MetadataSpaceMap } from "./space_map_metadata.ts";
import { leafEntriesMax, type MappedRange, type Mapping, ThinMappings } from "./thin_mappings.ts";
import {
  emptySuperblock,
  type EngineOptions,
  type MetadataGeometry,
  notesOnHints,
  openSuperblock,
} from "./thin_superblock.ts";
import { type CommitPlan, type MetadataView, type PlannedBlock, Transaction } from "./transaction.ts";

export type { DeviceChange, SnapshotPair } from "./device_table.ts";
export type { MarkedRun, RunsWanted } from "./mapping_runs.ts";
export { MetadataFault, type MetadataFaultKind, OpenRefused } from "./metadata_fault.ts";
export type { MappedRange, MappedRun, Mapping } from "./thin_mappings.ts";
export type { EngineOptions, MetadataGeometry } from "./thin_superblock.ts";
export type { CommitPlan, MetadataView, PlannedBlock } from "./transaction.ts";

/** One pool's metadata. */
export class ThinMetadata {
  readonly #transaction: Transaction;
  readonly #layout: MetadataSpaceLayout;
  readonly #reserve: MetadataReserve;
  readonly #data: DataSpaceMap;
  readonly #devices: DeviceTable;
  readonly #mappings: ThinMappings;
  /** What is mapped, and what differs. */
  readonly runs: MappingRuns;
  readonly #readOnly: boolean;
  readonly #spaceLoad: MetadataSpaceLoad;
  #isLoaded = false;
  #isDirty = false;
  #time: number;
  #transactionId: bigint;
  #timeMark = 0;
  #transactionIdMark = 0n;
  /** The superblock that is on the device, and the one on its way there. */
  #durable: Superblock;
  #durableBytes: Uint8Array;
  #committing: { superblock: Superblock; bytes: Uint8Array } | undefined;
  /** What the stored hints said wrongly; nobody but us looks. */
  readonly notes: string[] = [];

  private constructor(superblock: Superblock, bytes: Uint8Array, cacheBlocks: number, readOnly: boolean) {
    this.#durable = superblock;
    this.#durableBytes = bytes;
    this.#time = superblock.time;
    this.#transactionId = superblock.transactionId;
    this.#readOnly = readOnly;
    const space = new MetadataSpaceMap(superblock.metadataSpaceMap.blocks);
    this.#transaction = new Transaction(new BlockCache(cacheBlocks), space);
    this.#layout = new MetadataSpaceLayout(this.#transaction);
    this.#reserve = new MetadataReserve(space, this.#layout);
    this.#spaceLoad = new MetadataSpaceLoad(this.#transaction, superblock.metadataSpaceMap);
    this.#data = new DataSpaceMap(this.#transaction, superblock.dataSpaceMap);
    this.#devices = new DeviceTable(this.#transaction, superblock.mappingRoot, superblock.detailsRoot);
    const isHeld = superblock.heldRoot !== 0;
    this.#mappings = new ThinMappings(this.#transaction, this.#data, !readOnly, isHeld);
    this.runs = new MappingRuns(this.#transaction, this.#devices);
  }

  /**
   * Makes the blocks of an empty pool, the superblock last: whoever writes them flushes before it and after
   * it. Faults with noMetadataSpace if the metadata is too small for its data.
   */
  static format(geometry: MetadataGeometry): PlannedBlock[] {
    assert(
      geometry.metadataBlocks > 1 && geometry.metadataBlocks <= metadataBlocksMax,
      "the metadata has a legal size",
    );
    const metadata = new ThinMetadata(
      emptySuperblock(geometry),
      new Uint8Array(metadataBlockSizeBytes),
      1,
      false,
    );
    const space = metadata.#transaction.space;
    space.load(metadataBlock(0), 1);
    space.markAllDirty();
    metadata.#isLoaded = true;
    metadata.#begin();
    metadata.#devices.format();
    metadata.#data.format();
    metadata.#data.grow(geometry.dataBlocks);
    metadata.#succeed();
    const plan = metadata.beginCommit();
    return [...plan.blocks, { block: metadataBlock(0), bytes: plan.superblock }];
  }

  /**
   * Opens metadata by its superblock. {@linkcode load} must follow. Throws OpenRefused with the sentence to
   * show.
   */
  static open(superblockBytes: Uint8Array, options: EngineOptions): ThinMetadata {
    const superblock = openSuperblock(superblockBytes, options);
    return new ThinMetadata(superblock, superblockBytes.slice(), options.cacheBlocks, options.readOnly);
  }

  /** Reads what is kept in memory: metadata counts, the data space map's index, devices. Run until it returns. */
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
    if (this.#readOnly) return;
    this.notes.push(...notesOnHints(this.#durable, {
      wrongEntries: this.#spaceLoad.wrongHints + this.#data.wrongHints,
      dataAllocated: this.#data.allocated,
      metadataAllocated: this.#transaction.space.used,
    }));
  }

  /** Takes a block that was read after a "missing" fault, and owns the bytes. One read of a block at a time. */
  supply(block: MetadataBlock, bytes: Uint8Array): void {
    this.#transaction.cache.supply(block, bytes);
  }

  /** A buffer to read a block into, which {@linkcode supply} then takes. */
  takeBuffer(): Uint8Array {
    return this.#transaction.cache.takeBuffer();
  }

  get dataBlockSizeSectors(): number {
    return this.#durable.dataBlockSizeSectors;
  }
  get transactionId(): bigint {
    return this.#transactionId;
  }
  /** The snapshot clock. */
  get time(): number {
    return this.#time;
  }
  get needsCheck(): boolean {
    return (this.#durable.flags & flagNeedsCheck) !== 0;
  }
  /** The kernel's metadata snapshot, 0 if there is none. It is kept. */
  get heldRoot(): MetadataBlock {
    return this.#durable.heldRoot;
  }
  get dataBlocks(): number {
    return this.#data.blocks;
  }
  /** Data blocks without a reference in the current state; some may be reused only after a commit. */
  get dataFree(): number {
    return this.#data.blocks - this.#data.allocated;
  }
  get metadataBlocks(): number {
    return this.#transaction.space.blocks;
  }
  /** Metadata blocks without a reference now. Of a pool opened read-only, what the superblock claims. */
  get metadataFree(): number {
    const root = this.#durable.metadataSpaceMap;
    return this.#readOnly ? root.blocks - root.allocated : this.metadataBlocks - this.#transaction.space.used;
  }
  /** Blocks that a commit would have to write, its own bookkeeping aside. */
  get dirtyBlocks(): number {
    return this.#transaction.space.bornLive;
  }
  /** Whether anything changed since the last beginCommit. */
  get isDirty(): boolean {
    return this.#isDirty;
  }

  /** Ids of all devices, ascending. */
  thinIds(): ThinId[] {
    return this.#devices.thinIds();
  }

  /** The device's numbers in the current state, or undefined if there is no such device. */
  device(thin: ThinId): DeviceDetails | undefined {
    const record = this.#devices.get(thin);
    if (record === undefined) return undefined;
    const { mappedBlocks, transactionId, creationTime, snapshottedTime } = record;
    return { mappedBlocks, transactionId, creationTime, snapshottedTime };
  }

  /**
   * Makes devices and snapshots and sets the opaque transaction id, all at one instant, all or none. Origins
   * must exist (they may be made by the same change), new ids must not. A change of the id alone may use the
   * reserve.
   */
  change(change: DeviceChange): void {
    const { create, snapshots, tick, transactionId } = change;
    if (tick && this.#time >= timeMax) throw new MetadataFault({ kind: "clockExhausted" });
    this.#begin();
    try {
      this.#transactionId = transactionId;
      if (tick) this.#time++;
      for (const thin of create) this.#createThin(thin);
      this.#devices.snapshot(snapshots, this.#transactionId, this.#time);
      if (create.length + snapshots.length > 0) this.#reserve.admit();
      else this.#reserve.admitFromReserve();
    } catch (error) {
      this.#rollback();
      throw error;
    }
    this.#succeed();
  }

  /** Makes an empty device, which must not exist. */
  createThin(thin: ThinId): void {
    this.change({ create: [thin], snapshots: [], tick: false, transactionId: this.#transactionId });
  }

  /** Makes every `thin` a snapshot of its `origin`: see {@linkcode DeviceChange}. */
  createSnapshots(snapshots: readonly SnapshotPair[], options: { readonly tick: boolean }): void {
    this.change({ create: [], snapshots, tick: options.tick, transactionId: this.#transactionId });
  }

  #createThin(thin: ThinId): void {
    const root = this.#mappings.makeTree().block;
    this.#devices.insert(new DeviceRecord(thin, root, 0, this.#transactionId, this.#time, this.#time));
  }

  /**
   * Deletes a slice of the device: the whole if at most `leafBudget` nodes are its own, else its last
   * `leafBudget` leaves, less when space is short. Each slice leaves a legal tree and a right count. Returns
   * true when the device is gone.
   */
  deleteThin(thin: ThinId, leafBudget: number): boolean {
    assert(leafBudget > 0, "a slice is at least one leaf");
    const record = this.#devices.expect(thin);
    return this.#removeBySlices(leafBudget * leafEntriesMax, (entriesMax) => {
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
   * Mapped runs in `[begin, end)`, at most `runsMax`, after bounded work; `next` is where to go on, `end` if
   * finished.
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

  /** Maps `block` to a data block without references; or again to the one it has, which is then its own. */
  insert(thin: ThinId, block: VBlock, mapped: DBlock): void {
    const record = this.#devices.expect(thin);
    this.#begin();
    try {
      this.#devices.change(record);
      this.#mappings.insert(record, block, mapped, this.#time);
      this.#reserve.admit();
    } catch (error) {
      this.#rollback();
      throw error;
    }
    this.#succeed();
  }

  /**
   * Unmaps what the first leaf with any holds of `[begin, end)`. `next` is where to go on, `end` if finished.
   */
  removeRange(thin: ThinId, begin: VBlock, end: VBlock): { next: VBlock; removedBlocks: number } {
    const record = this.#devices.expect(thin);
    this.#transaction.cache.beginOperation();
    const first = this.#mappings.firstMapped(record, begin, end);
    this.#transaction.cache.endOperation();
    if (first === undefined) return { next: end, removedBlocks: 0 }; // a hole is not worth a transaction
    const before = record.mappedBlocks;
    const next = this.#removeBySlices(leafEntriesMax, (entriesMax) => {
      this.#devices.change(record);
      return this.#mappings.removeInOneLeaf(record, first, end, entriesMax);
    });
    return { next, removedBlocks: before - record.mappedBlocks };
  }

  /**
   * Data blocks without references from `from` on. Bounded work; `next` is where to go on, `dataBlocks` at
   * the end.
   */
  findFreeData(from: DBlock, blocksWanted: number): { runs: DBlockRun[]; next: DBlock } {
    this.#transaction.cache.beginOperation();
    const found = this.#data.findFree(from, blocksWanted);
    this.#transaction.cache.endOperation();
    return found;
  }

  /**
   * Data blocks whose count reached 0 since the last call, as runs. They are not in the current state, but
   * the durable one may still map them. Take them after every operation that may free: findFreeData knows
   * nothing of quarantine.
   */
  takeFreed(): DBlockRun[] {
    return this.#data.takeFreed();
  }

  /** How many mappings hold the data block. */
  dataReferenceCount(block: DBlock): number {
    this.#transaction.cache.beginOperation();
    const count = this.#data.count(block);
    this.#transaction.cache.endOperation();
    return count;
  }

  /** Governs more data blocks. */
  growData(dataBlocks: number): void {
    this.#begin();
    try {
      this.#data.grow(dataBlocks);
      this.#reserve.admit();
    } catch (error) {
      this.#rollback();
      throw error;
    }
    this.#succeed();
  }

  /** Governs more metadata blocks, up to the format's limit; the device must have them. */
  growMetadata(blocks: number): void {
    this.#begin();
    if (Math.min(blocks, metadataBlocksMax) > this.metadataBlocks) {
      this.#transaction.space.grow(Math.min(blocks, metadataBlocksMax));
    }
    this.#succeed();
  }

  /**
   * Plans the commit of everything changed since the last one, and starts the next transaction. Nothing in it
   * is read from the device: paths were owned when they were first needed, and the metadata space map is in
   * memory.
   */
  beginCommit(): CommitPlan {
    assert(this.#committing === undefined, "one commit at a time");
    let metadataSpaceMap: Superblock["metadataSpaceMap"];
    this.#begin();
    try {
      this.#devices.flush();
      this.#data.flush();
      metadataSpaceMap = this.#layout.move(); // last: everything before it changes the counts it writes
    } catch (error) {
      this.#layout.rollback();
      this.#rollback();
      throw error;
    }
    this.#succeed();
    this.#layout.settle();
    this.#devices.settle();
    this.#data.settle();
    this.#mappings.recentlyUnshared.freeze();
    const blocks = this.#transaction.freeze();
    const superblock: Superblock = {
      ...this.#durable,
      time: this.#time,
      transactionId: this.#transactionId,
      dataSpaceMap: this.#data.root,
      metadataSpaceMap,
      mappingRoot: this.#devices.mappingRoot,
      detailsRoot: this.#devices.detailsRoot,
    };
    const bytes = packSuperblock(superblock, this.#durableBytes.slice());
    this.#committing = { superblock, bytes };
    this.#isDirty = false;
    return { blocks, superblock: bytes };
  }

  /** The superblock of the commit under way is durable: what that commit freed may be allocated. */
  commitDurable(): void {
    assert(this.#committing !== undefined, "a commit is under way");
    this.#durable = this.#committing.superblock;
    this.#durableBytes = this.#committing.bytes;
    this.#committing = undefined;
    this.#transaction.durable();
    this.#mappings.recentlyUnshared.durable();
  }

  /** The last durable superblock with needs_check set, to be written after a commit failed. */
  needsCheckSuperblock(): Uint8Array {
    const flagged: Superblock = { ...this.#durable, flags: this.#durable.flags | flagNeedsCheck };
    return packSuperblock(flagged, this.#durableBytes.slice());
  }

  /** Keeps the last durable commit readable on the device until it is released. */
  holdCommit(): MetadataView {
    const space = this.#transaction.space;
    const held = space.hold();
    return { superblock: this.#durableBytes.slice(), release: () => space.unhold(held) };
  }

  /**
   * Runs a removal that may use the reserve. If even that is too little (every mapping may lie in another
   * bitmap, which must be copied), a smaller slice is tried, down to one mapping: so space can always be won
   * back, commit by commit.
   */
  #removeBySlices<Result>(entriesMax: number, remove: (entriesMax: number) => Result): Result {
    for (let entries = entriesMax;; entries = Math.ceil(entries / 8)) {
      this.#begin();
      try {
        const result = remove(entries);
        this.#reserve.admitFromReserve();
        this.#succeed();
        return result;
      } catch (error) {
        this.#rollback();
        const isSpace = error instanceof MetadataFault && error.fault.kind === "noMetadataSpace";
        if (!isSpace || entries === 1) throw error;
      }
    }
  }

  #begin(): void {
    assert(this.#isLoaded && !this.#readOnly, "only loaded metadata, opened for writing, is changed");
    this.#transaction.begin();
    this.#devices.begin();
    this.#data.begin();
    this.#timeMark = this.#time;
    this.#transactionIdMark = this.#transactionId;
  }

  #succeed(): void {
    this.#transaction.succeed();
    this.#isDirty = true;
  }

  #rollback(): void {
    this.#data.rollback();
    this.#devices.rollback();
    this.#transaction.rollback();
    this.#time = this.#timeMark;
    this.#transactionId = this.#transactionIdMark;
  }
}
