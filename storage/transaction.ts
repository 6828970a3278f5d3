/**
 * All metadata changes since the last commit, and the rollback of the operation under way.
 *
 * Copy-on-write (`dm_tm_shadow_block`, drivers/md/persistent-data/dm-transaction-manager.c): a block of an older
 * transaction is never changed in place. It is shadowed: copied to a new block, which its parent then points to. So the
 * blocks below the last superblock are not changed.
 *
 * Owned means: allocated in this transaction and with one parent, so that the block may be changed in place.
 */
import { assert } from "./base/assert.ts";
import { BlockCache, blockKindOf, type CacheEntry, type CacheKind } from "./block_cache.ts";
import { initNode } from "./format/btree_node.ts";
import { sealBlock } from "./format/block_header.ts";
import { type MetadataBlock, metadataBlockSizeBytes } from "./base/ids.ts";
import { damaged } from "./metadata_fault.ts";
import type { MetadataSpaceMap } from "./space_map_metadata.ts";

/** A block of a commit, to be written before the superblock. */
export interface PlannedBlock {
  readonly block: MetadataBlock;
  /** As they are written, with checksum. */
  readonly bytes: Uint8Array;
}

/**
 * A block of the commit under way, which is not changed any more. It is sealed when its bytes are read: to compute the
 * checksums of thousands of blocks in the turn that freezes them would stop all actors for too long.
 */
class FrozenBlock implements PlannedBlock {
  readonly #entry: CacheEntry;
  #isSealed = false;

  constructor(entry: CacheEntry) {
    this.#entry = entry;
  }

  get block(): MetadataBlock {
    return this.#entry.block;
  }

  get bytes(): Uint8Array {
    const { bytes, kind, block } = this.#entry;
    if (!this.#isSealed) sealBlock(bytes, blockKindOf(kind), block);
    this.#isSealed = true;
    return bytes;
  }
}

/**
 * What a commit writes: first `blocks` in any order and a flush, then the superblock and a flush. The data device is
 * flushed after the plan is made and before the superblock is written (FORMAT.md, "How a commit survives a crash").
 */
export interface CommitPlan {
  readonly blocks: readonly PlannedBlock[];
  readonly superblock: Uint8Array;
}

/**
 * A durable commit whose blocks are not reused until it is released. It is held in memory only, so a crash releases it.
 */
export interface HeldCommit {
  readonly superblock: Uint8Array;
  /** Its number: see {@linkcode ThinMetadata.deviceState}. */
  readonly transaction: number;
  /** To be called once. */
  release(): void;
}

/** The running transaction and the operation in it. */
export class Transaction {
  readonly cache: BlockCache;
  readonly space: MetadataSpaceMap;
  /** Number of the running transaction. */
  #number = 1;
  #isOpen = false;
  #frozen: CacheEntry[] = [];
  #isCommitting = false;

  /** Blocks that this operation changed in place, and their bytes before. The buffers are used again. */
  readonly #savedEntries: CacheEntry[] = [];
  readonly #savedBytes: Uint8Array[] = [];
  #savedLength = 0;
  /** Blocks that this operation created, and the dirty cache entries that they replaced. */
  readonly #createdBlocks: MetadataBlock[] = [];
  readonly #displaced: (CacheEntry | undefined)[] = [];

  constructor(cache: BlockCache, space: MetadataSpaceMap) {
    this.cache = cache;
    this.space = space;
  }

  get number(): number {
    return this.#number;
  }
  /** Number of the last transaction that is durable. */
  get durableNumber(): number {
    return this.#number - (this.#isCommitting ? 2 : 1);
  }
  get isCommitting(): boolean {
    return this.#isCommitting;
  }

  /** Starts an operation that changes something. Ends by {@linkcode succeed} or {@linkcode rollback}. */
  begin(): void {
    assert(!this.#isOpen, "one metadata operation at a time");
    this.#isOpen = true;
    this.#savedLength = 0;
    this.#createdBlocks.length = 0;
    this.#displaced.length = 0;
    this.cache.beginOperation();
    this.space.begin();
  }

  succeed(): void {
    assert(this.#isOpen, "an operation ends once");
    this.#isOpen = false;
    this.cache.endOperation();
  }

  /**
   * Undoes the operation. The newest change is undone first, since a block may have been created twice.
   */
  rollback(): void {
    assert(this.#isOpen, "an operation ends once");
    this.#isOpen = false;
    for (let index = this.#createdBlocks.length - 1; index >= 0; index--) {
      this.cache.uncreate(this.#createdBlocks[index]!, this.#displaced[index]);
    }
    for (let index = 0; index < this.#savedLength; index++) {
      this.#savedEntries[index]!.bytes.set(this.#savedBytes[index]!);
    }
    this.space.rollback();
  }

  /** A block verified as `kind`. Faults if it is missing or damaged. */
  read(block: MetadataBlock, kind: CacheKind): CacheEntry {
    if (!(block > 0 && block < this.space.blocks)) damaged(block, "it lies outside the metadata");
    return this.cache.read(block, kind);
  }

  /** A new zeroed block with count 1. */
  allocate(kind: CacheKind): CacheEntry {
    assert(this.#isOpen, "blocks are allocated inside an operation");
    const block = this.space.allocate();
    this.#createdBlocks.push(block);
    this.#displaced.push(this.cache.displace(block));
    return this.cache.create(block, kind);
  }

  /** A new empty leaf. */
  allocateLeaf(kind: CacheKind): CacheEntry {
    const leaf = this.allocate(kind);
    initNode(leaf.view, true, kind);
    return leaf;
  }

  /** Whether the block may be changed in place: it was allocated in this transaction, and has one parent. */
  isOwned(block: MetadataBlock): boolean {
    return this.space.isNew(block) && this.space.count(block) === 1;
  }

  /**
   * The block itself if it is owned, else a copy in a new block; the old block loses a reference. The caller writes the
   * new block number into the parent, and, if the node was shared, increments the counts of its children.
   */
  shadow(entry: CacheEntry): CacheEntry {
    if (this.isOwned(entry.block)) return entry;
    const copy = this.allocate(entry.kind);
    copy.bytes.set(entry.bytes);
    this.space.decrement(entry.block);
    return copy;
  }

  /** To be called before an owned block is changed: saves its bytes for the rollback. */
  edit(entry: CacheEntry): void {
    assert(entry.state === "dirty" && this.#isOpen, "only a block of this transaction is changed in place");
    if (entry.savedBy === this.cache.operation) return;
    entry.savedBy = this.cache.operation;
    const at = this.#savedLength++;
    this.#savedEntries[at] = entry;
    const buffer = this.#savedBytes[at] ??= new Uint8Array(metadataBlockSizeBytes);
    buffer.set(entry.bytes);
  }

  /**
   * Ends the transaction and freezes its blocks: the next transaction shadows them, so they do not change while they
   * are being written. The caller makes the superblock.
   */
  freeze(): PlannedBlock[] {
    assert(!this.#isOpen && !this.#isCommitting, "one commit at a time");
    this.#isCommitting = true;
    this.#number++;
    const plan: PlannedBlock[] = [];
    const { live, dead } = this.space.freeze();
    for (const block of dead) {
      const entry = this.cache.peek(block);
      if (entry !== undefined && entry.state === "dirty") this.cache.forget(entry);
    }
    for (const block of live) {
      const entry = this.cache.peek(block);
      assert(entry !== undefined && entry.state === "dirty", "a block of the transaction is in the cache");
      entry.state = "frozen";
      this.#frozen.push(entry);
      plan.push(new FrozenBlock(entry));
    }
    return plan;
  }

  /** The superblock above the frozen blocks is durable. */
  durable(): void {
    assert(this.#isCommitting, "a commit is under way");
    this.#isCommitting = false;
    for (const entry of this.#frozen) this.cache.clean(entry);
    this.#frozen = [];
    this.space.durable();
    this.cache.trim();
  }
}
