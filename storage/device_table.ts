/**
 * All thin devices, in memory, and the two trees in which they are stored: device id to mapping root, and device id to
 * details.
 *
 * The root and the counters of a device change with every insertion. So they are kept in its record, and written into
 * the trees at the commit. The paths to its entries in both trees are shadowed at its first change in a transaction
 * already, for two reasons: the reference counts of mapping roots are then right for the current state, and the commit
 * needs no block from the device and no free block.
 */
import { assert, present } from "./base/assert.ts";
import type { CacheEntry } from "./block_cache.ts";
import { Btree, plainValues, type TreeValues } from "./btree.ts";
import { BtreeRemover } from "./btree_remove.ts";
import { childSizeBytes, nodeChild, nodeKey, nodeValueOffset, setNodeChild } from "./format/btree_node.ts";
import { deviceDetailsSizeBytes, packDeviceDetails, unpackDeviceDetails } from "./format/device_details.ts";
import { type MetadataBlock, metadataBlock, type ThinId, thinId, thinIdMax } from "./base/ids.ts";
import type { DeviceAllowance } from "./device_allowances.ts";
import { damaged } from "./metadata_fault.ts";
import type { Transaction } from "./transaction.ts";

/** A snapshot to be made. */
export interface SnapshotPair {
  readonly thin: ThinId;
  readonly origin: ThinId;
}

/** A change of the set of devices in one operation. */
export interface DeviceChange {
  /** Devices to make, empty. */
  readonly create: readonly ThinId[];
  /** Snapshots to make, all at one time of the snapshot clock. */
  readonly snapshots: readonly SnapshotPair[];
  /**
   * Whether the clock advances. Without a tick no origin may have a mapping of the present time, because the kernel's
   * time rule would take that mapping for unshared. A read-only snapshot has none.
   */
  readonly tick: boolean;
  /** The new transaction id of the pool, and that of the new devices. */
  readonly transactionId: bigint;
  /** Allowances of devices that are new with it, or have other allowances from then on. */
  readonly allowances?: readonly DeviceAllowance[];
}

/** What a device maps, and when that changed last. */
export interface DeviceState {
  readonly mappedBlocks: number;
  /**
   * The number of the transaction in which its mappings changed last; 0: in none since the metadata was opened. A commit with
   * this number or a higher one ({@linkcode HeldCommit.transaction}) has its mappings as they are.
   */
  readonly changedIn: number;
}

/** One thin device. A rollback restores the fields that operations change. */
export class DeviceRecord {
  readonly thin: ThinId;
  readonly transactionId: bigint;
  readonly creationTime: number;
  /** Root of its mapping tree. */
  root: MetadataBlock;
  mappedBlocks: number;
  /** Mappings older than this are shared with a snapshot, or were with one that is gone. */
  snapshottedTime: number;
  /** The transaction in which its paths in both trees were shadowed last. */
  ownedIn = 0;
  /** The transaction in which its fields changed last: the commit writes them into the trees. */
  changedIn = 0;
  /** A slice of it may be gone. A rollback does not reset this, because a deletion that began is carried on. */
  isBeingDeleted = false;

  /** The leaf of the last look-up, and the keys that belong in it. Most look-ups are near the last one. */
  leaf: CacheEntry | undefined;
  leafBegin = 0;
  leafEnd = 0;
  isLeafShared = false;
  /** {@linkcode MetadataSpaceMap.unshared} at that time. If it changed, a path that was shared may be unshared now. */
  leafFoundAt = 0;

  /** The fields as the operation `savedBy` found them. */
  savedBy = 0;
  savedRoot: MetadataBlock = metadataBlock(0);
  savedMappedBlocks = 0;
  savedSnapshottedTime = 0;
  savedOwnedIn = 0;
  savedChangedIn = 0;

  constructor(
    thin: ThinId,
    root: MetadataBlock,
    mappedBlocks: number,
    transactionId: bigint,
    creationTime: number,
    snapshottedTime: number,
  ) {
    this.thin = thin;
    this.root = root;
    this.mappedBlocks = mappedBlocks;
    this.transactionId = transactionId;
    this.creationTime = creationTime;
    this.snapshottedTime = snapshottedTime;
  }
}

/** The devices of a pool. */
export class DeviceTable {
  readonly #transaction: Transaction;
  readonly #mappingTree: Btree;
  readonly #mappingRemover: BtreeRemover;
  readonly #detailsTree: Btree;
  readonly #detailsRemover: BtreeRemover;
  #mappingRoot: MetadataBlock;
  #detailsRoot: MetadataBlock;
  readonly #records = new Map<ThinId, DeviceRecord>();
  /** Devices to write at the commit of this transaction. Some may be removed meanwhile. */
  #changed: DeviceRecord[] = [];
  /** The device id at which loading continues. */
  #loadNext = 0;

  readonly #savedRecords: DeviceRecord[] = [];
  readonly #undoThins: ThinId[] = [];
  readonly #undoRecords: (DeviceRecord | undefined)[] = [];
  #mark = { mappingRoot: metadataBlock(0), detailsRoot: metadataBlock(0), changed: 0 };

  constructor(transaction: Transaction, mappingRoot: MetadataBlock, detailsRoot: MetadataBlock) {
    this.#transaction = transaction;
    this.#mappingTree = new Btree(transaction, childSizeBytes, new RootReferences(transaction));
    this.#mappingRemover = new BtreeRemover(this.#mappingTree);
    this.#detailsTree = new Btree(transaction, deviceDetailsSizeBytes, plainValues);
    this.#detailsRemover = new BtreeRemover(this.#detailsTree);
    this.#mappingRoot = mappingRoot;
    this.#detailsRoot = detailsRoot;
  }

  get mappingRoot(): MetadataBlock {
    return this.#mappingRoot;
  }
  get detailsRoot(): MetadataBlock {
    return this.#detailsRoot;
  }

  /** Ids of all devices, ascending. */
  thinIds(): ThinId[] {
    return [...this.#records.keys()].sort((a, b) => a - b);
  }

  get(thin: ThinId): DeviceRecord | undefined {
    return this.#records.get(thin);
  }

  /** The record of a device, which must exist. */
  expect(thin: ThinId): DeviceRecord {
    return present(this.#records.get(thin), "the thin device does not exist");
  }

  /** Makes the two empty trees of a new pool. */
  format(): void {
    this.#mappingRoot = this.#transaction.allocateLeaf(childSizeBytes).block;
    this.#detailsRoot = this.#transaction.allocateLeaf(deviceDetailsSizeBytes).block;
  }

  /** Reads both trees; continues where the last call faulted. A device that is in one tree only is damage. */
  load(): void {
    const details = this.#detailsTree;
    const mappings = this.#mappingTree;
    while (details.seek(this.#detailsRoot, this.#loadNext)) {
      const key = nodeKey(details.leaf.view, details.index);
      const record = unpackDeviceDetails(
        details.leaf.view,
        nodeValueOffset(details.leaf.view, details.index),
      );
      if (key > thinIdMax) damaged(details.leaf.block, `device id ${key} is beyond 24 bits`);
      if (
        !mappings.seek(this.#mappingRoot, this.#loadNext) ||
        nodeKey(mappings.leaf.view, mappings.index) !== key
      ) {
        damaged(this.#mappingRoot, `the mapping tree and the details tree disagree about device ${key}`);
      }
      const root = nodeChild(mappings.leaf.view, mappings.index);
      if (!(root > 0 && root < this.#transaction.space.blocks)) {
        damaged(mappings.leaf.block, `the root of device ${key} lies outside the metadata`);
      }
      this.#transaction.space.countInUse(root);
      const thin = thinId(key);
      this.#records.set(
        thin,
        new DeviceRecord(
          thin,
          root,
          record.mappedBlocks,
          record.transactionId,
          record.creationTime,
          record.snapshottedTime,
        ),
      );
      this.#loadNext = key + 1;
    }
    if (mappings.seek(this.#mappingRoot, this.#loadNext)) {
      damaged(this.#mappingRoot, "it holds a device that the details tree does not know");
    }
  }

  /**
   * Makes devices that share every block with their origins. An origin may be made earlier in the same call. New
   * devices are written into the trees together, since consecutive insertions need no new search.
   */
  snapshot(pairs: readonly SnapshotPair[], transactionId: bigint, time: number): void {
    let made: DeviceRecord[] = [];
    const insertMade = () => {
      for (const record of made) this.insert(record);
      made = [];
    };
    for (const { thin, origin } of pairs) {
      if (!this.#records.has(origin)) insertMade();
      const from = this.expect(origin);
      this.own(from);
      this.#transaction.space.increment(from.root);
      // Written now, and not at the commit, which would have to write thousands in one turn.
      if (from.snapshottedTime !== time) this.write(from, time);
      made.push(new DeviceRecord(thin, from.root, from.mappedBlocks, transactionId, time, time));
    }
    insertMade();
  }

  /** Adds a device and writes it into both trees. */
  /** Makes an empty device. */
  create(thin: ThinId, root: MetadataBlock, transactionId: bigint, time: number): void {
    this.insert(new DeviceRecord(thin, root, 0, transactionId, time, time));
  }

  insert(record: DeviceRecord): void {
    assert(!this.#records.has(record.thin), "the thin device exists already");
    assert(record.thin >= 0 && record.thin <= thinIdMax, "a thin id has 24 bits");
    this.#undoThins.push(record.thin);
    this.#undoRecords.push(undefined);
    this.#records.set(record.thin, record);
    const mappings = this.#mappingTree;
    this.#mappingRoot = mappings.prepareInsert(this.#mappingRoot, record.thin);
    setNodeChild(mappings.leaf.view, mappings.index, record.root);
    const details = this.#detailsTree;
    this.#detailsRoot = details.prepareInsert(this.#detailsRoot, record.thin);
    packDeviceDetails(details.leaf.view, nodeValueOffset(details.leaf.view, details.index), record);
    record.ownedIn = this.#transaction.number;
  }

  /** Removes a device from both trees. The caller removes its mappings. */
  remove(record: DeviceRecord): void {
    this.#undoThins.push(record.thin);
    this.#undoRecords.push(record);
    this.#records.delete(record.thin);
    this.#mappingRoot = this.#mappingRemover.removeKey(this.#mappingRoot, record.thin);
    this.#detailsRoot = this.#detailsRemover.removeKey(this.#detailsRoot, record.thin);
  }

  /**
   * To be called before the fields of a record change: saves them for rollback, and shadows the paths to it in both
   * trees. The commit writes the fields.
   */
  change(record: DeviceRecord): void {
    this.own(record);
    if (record.changedIn === this.#transaction.number) return;
    record.changedIn = this.#transaction.number;
    this.#changed.push(record);
  }

  /** Like {@linkcode change} for a caller that calls {@linkcode write} itself, or changes no field. */
  own(record: DeviceRecord): void {
    record.leaf = undefined;
    if (record.savedBy !== this.#transaction.cache.operation) {
      record.savedBy = this.#transaction.cache.operation;
      record.savedRoot = record.root;
      record.savedMappedBlocks = record.mappedBlocks;
      record.savedSnapshottedTime = record.snapshottedTime;
      record.savedOwnedIn = record.ownedIn;
      record.savedChangedIn = record.changedIn;
      this.#savedRecords.push(record);
    }
    if (record.ownedIn === this.#transaction.number) return;
    this.#mappingRoot = this.#mappingTree.prepareInsert(this.#mappingRoot, record.thin);
    this.#detailsRoot = this.#detailsTree.prepareInsert(this.#detailsRoot, record.thin);
    record.ownedIn = this.#transaction.number;
  }

  /** Writes every changed record into the trees. Allocates no block. */
  flush(): void {
    for (const record of this.#changed) {
      if (this.#records.get(record.thin) === record) this.write(record);
    }
  }

  /** To be called after {@linkcode flush} succeeded and the transaction ended. */
  endTransaction(): void {
    this.#changed = [];
  }

  begin(): void {
    this.#savedRecords.length = 0;
    this.#undoThins.length = 0;
    this.#undoRecords.length = 0;
    this.#mark.mappingRoot = this.#mappingRoot;
    this.#mark.detailsRoot = this.#detailsRoot;
    this.#mark.changed = this.#changed.length;
  }

  rollback(): void {
    for (const record of this.#savedRecords) {
      record.root = record.savedRoot;
      record.mappedBlocks = record.savedMappedBlocks;
      record.snapshottedTime = record.savedSnapshottedTime;
      record.ownedIn = record.savedOwnedIn;
      record.changedIn = record.savedChangedIn;
      record.leaf = undefined;
    }
    for (let at = this.#undoThins.length - 1; at >= 0; at--) {
      const before = this.#undoRecords[at];
      if (before === undefined) this.#records.delete(this.#undoThins[at]!);
      else this.#records.set(this.#undoThins[at]!, before);
    }
    this.#mappingRoot = this.#mark.mappingRoot;
    this.#detailsRoot = this.#mark.detailsRoot;
    this.#changed.length = this.#mark.changed;
  }

  /** Writes the record's fields, with `snapshottedTime`, into the trees. The paths are shadowed already. */
  write(record: DeviceRecord, snapshottedTime = record.snapshottedTime): void {
    record.snapshottedTime = snapshottedTime;
    const mappings = this.#mappingTree;
    mappings.prepareOverwrite(this.#mappingRoot, record.thin);
    setNodeChild(mappings.leaf.view, mappings.index, record.root);
    const details = this.#detailsTree;
    details.prepareOverwrite(this.#detailsRoot, record.thin);
    packDeviceDetails(details.leaf.view, nodeValueOffset(details.leaf.view, details.index), record);
  }
}

/** The values of the top-level mapping tree: each is one reference to the root of a device's mapping tree. */
class RootReferences implements TreeValues {
  readonly #transaction: Transaction;

  constructor(transaction: Transaction) {
    this.#transaction = transaction;
  }

  increment(leaf: CacheEntry, index: number): void {
    this.#transaction.space.increment(nodeChild(leaf.view, index));
  }

  decrement(_leaf: CacheEntry, _index: number): void {
    assert(false, "a device's mappings are removed before its entry");
  }
}
