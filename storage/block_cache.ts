/**
 * Metadata blocks in memory. The number of clean blocks is bounded; the clock algorithm (second chance) evicts them.
 * Blocks of the running transaction (dirty) and of a commit under way (frozen) are not evicted.
 *
 * Progress: an operation that faults is run again, and then the blocks that it had touched must still be in the cache.
 * So they are pinned when it faults. They are unpinned when an operation that uses them succeeds, or after many other
 * operations ({@linkcode pinOperations}).
 */
import { assert } from "./base/assert.ts";
import type { BlockKind } from "./format/block_header.ts";
import { verifyBlock } from "./format/block_header.ts";
import { verifyNode } from "./format/btree_node.ts";
import { viewOf } from "./format/fields.ts";
import { type MetadataBlock, metadataBlockSizeBytes } from "./base/ids.ts";
import { pinOperations, spareBuffersMax } from "./base/limits.ts";
import { damaged, MetadataFault } from "./metadata_fault.ts";

/**
 * What a cached block has been verified as: one of the constants below, or, for a B-tree node, the size in bytes of the
 * tree's leaf values.
 */
export type CacheKind = number;
/** Read from the device, and not verified yet. */
const kindUnverified: CacheKind = 0;
/** A bitmap of either space map. */
export const kindBitmap: CacheKind = 1;
/** The index block of the metadata space map. */
export const kindMetadataIndex: CacheKind = 2;

/** The kind of block, which selects the salt of the checksum. */
export function blockKindOf(kind: CacheKind): BlockKind {
  if (kind === kindBitmap) return "bitmap";
  return kind === kindMetadataIndex ? "metadataIndex" : "btreeNode";
}

/**
 * clean: as on the device. dirty: of the running transaction. frozen: of a commit under way. gone: no longer in the
 * cache.
 */
export type CacheState = "clean" | "dirty" | "frozen" | "gone";

/** A block in the cache and what is known about it. */
export class CacheEntry {
  readonly block: MetadataBlock;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  kind: CacheKind;
  state: CacheState;
  /** Used since the clock's hand passed it last. */
  referenced = true;
  /** The operation that read it last. */
  touchedBy = 0;
  /** Not evicted before this operation number. */
  pinnedUntil = 0;
  /** The operation that allocated it, or saved its content for rollback. */
  savedBy = 0;
  /** Index in the ring of clean blocks. */
  ringIndex = -1;

  constructor(block: MetadataBlock, bytes: Uint8Array, kind: CacheKind, state: CacheState) {
    this.block = block;
    this.bytes = bytes;
    this.view = viewOf(bytes);
    this.kind = kind;
    this.state = state;
  }
}

/** The cache. */
export class BlockCache {
  readonly #entries = new Map<number, CacheEntry>();
  readonly #cleanMax: number;
  /** Clean entries in no particular order, and the clock hand over them. */
  readonly #ring: CacheEntry[] = [];
  #hand = 0;
  /**
   * Blocks whose read is under way. True: the block was allocated meanwhile, so the bytes that are read are stale.
   */
  readonly #wanted = new Map<number, boolean>();
  /**
   * Buffers for the next blocks. Without them a removal leaves gigabytes to the garbage collector, which stops all
   * actors.
   */
  readonly #spare: Uint8Array[] = [];
  readonly #touched: CacheEntry[] = [];
  #touchedLength = 0;
  #operation = 1;

  constructor(cleanMax: number) {
    assert(cleanMax > 0, "a cache holds at least one block");
    this.#cleanMax = cleanMax;
  }

  /** Number of the operation under way. */
  get operation(): number {
    return this.#operation;
  }

  /** Number of blocks that the operation under way has read. */
  get blocksTouched(): number {
    return this.#touchedLength;
  }

  /** Blocks in the cache, in any state. */
  get size(): number {
    return this.#entries.size;
  }

  /** Starts an operation, and the list of the blocks that it touches. */
  beginOperation(): void {
    this.#operation++;
    this.#touchedLength = 0;
  }

  /** The operation succeeded: the blocks that it touched are unpinned. */
  endOperation(): void {
    for (let index = 0; index < this.#touchedLength; index++) this.#touched[index]!.pinnedUntil = 0;
  }

  /** The entry, or undefined. It is not verified and does not count as touched. */
  peek(block: MetadataBlock): CacheEntry | undefined {
    return this.#entries.get(block);
  }

  /** The block, verified as `kind`. Faults if it is missing or damaged. */
  read(block: MetadataBlock, kind: CacheKind): CacheEntry {
    const entry = this.#entries.get(block);
    if (entry === undefined) return this.#missing(block);
    if (entry.kind !== kind) this.#verify(entry, kind);
    entry.referenced = true;
    if (entry.touchedBy !== this.#operation) {
      entry.touchedBy = this.#operation;
      this.#touched[this.#touchedLength++] = entry;
    }
    return entry;
  }

  /**
   * Takes a block that was read after a "missing" fault. It is ignored if no operation missed it, or if the block was
   * allocated after the read began, because then the bytes are stale. At most one read of a block may be under way.
   */
  supply(block: MetadataBlock, bytes: Uint8Array): void {
    assert(bytes.length === metadataBlockSizeBytes, "a supplied block has 4096 bytes");
    const isStale = this.#wanted.get(block);
    this.#wanted.delete(block);
    if (isStale !== false || this.#entries.has(block)) return;
    const entry = new CacheEntry(block, bytes, kindUnverified, "clean");
    entry.pinnedUntil = this.#operation + pinOperations;
    this.#entries.set(block, entry);
    this.#addToRing(entry);
    this.#evict();
  }

  /** A buffer to read a block into. Its content is undefined. */
  takeBuffer(): Uint8Array {
    return this.#spare.pop() ?? new Uint8Array(metadataBlockSizeBytes);
  }

  /** Makes a zeroed dirty block. {@linkcode displace} comes before it, {@linkcode uncreate} undoes it. */
  create(block: MetadataBlock, kind: CacheKind): CacheEntry {
    if (this.#wanted.has(block)) this.#wanted.set(block, true);
    const bytes = this.#spare.pop()?.fill(0) ?? new Uint8Array(metadataBlockSizeBytes);
    const entry = new CacheEntry(block, bytes, kind, "dirty");
    entry.savedBy = this.#operation;
    this.#entries.set(block, entry);
    return entry;
  }

  /**
   * Prepares {@linkcode create} of the block. Returns the entry that `create` will replace if that entry is dirty, for
   * {@linkcode uncreate}.
   */
  displace(block: MetadataBlock): CacheEntry | undefined {
    const entry = this.#entries.get(block);
    if (entry === undefined) return undefined;
    if (entry.state === "clean") {
      this.#drop(entry);
      return undefined;
    }
    assert(entry.state === "dirty", "a block of a commit under way was allocated");
    return entry;
  }

  /** Undoes a {@linkcode create}, and restores the entry that it replaced. */
  uncreate(block: MetadataBlock, displaced: CacheEntry | undefined): void {
    const created = this.#entries.get(block)!;
    if (displaced === undefined) this.#entries.delete(block);
    else this.#entries.set(block, displaced);
    created.state = "gone";
    this.#spareBytes(created);
  }

  /** Drops a dirty block that was freed in the transaction that allocated it. */
  forget(entry: CacheEntry): void {
    if (this.#entries.get(entry.block) === entry) this.#entries.delete(entry.block);
    entry.state = "gone";
    this.#spareBytes(entry);
  }

  /** A frozen block has become durable. */
  clean(entry: CacheEntry): void {
    assert(entry.state === "frozen", "only a frozen block becomes clean");
    entry.state = "clean";
    this.#addToRing(entry);
  }

  /** Evicts clean blocks above the bound. */
  trim(): void {
    this.#evict();
  }

  /** Drops a clean block that will not be read again soon. */
  dropClean(block: MetadataBlock): void {
    const entry = this.#entries.get(block);
    if (entry !== undefined && entry.state === "clean") this.#drop(entry);
  }

  #verify(entry: CacheEntry, kind: CacheKind): void {
    // Blocks that were made here have their kind from the start. Only a block from the device can be of another kind.
    let reason = entry.kind === kindUnverified
      ? verifyBlock(entry.bytes, blockKindOf(kind), entry.block)
      : "it is used as two kinds of block";
    if (reason === undefined && kind > kindMetadataIndex) reason = verifyNode(entry.view, kind);
    if (reason !== undefined) {
      // Dropped, so that the next use reads it from the device again.
      if (entry.state === "clean") this.#drop(entry);
      damaged(entry.block, reason);
    }
    entry.kind = kind;
  }

  #missing(block: MetadataBlock): never {
    for (let index = 0; index < this.#touchedLength; index++) {
      this.#touched[index]!.pinnedUntil = this.#operation + pinOperations;
    }
    // If a read under way returns stale bytes, supply() drops them, and the block is missed again.
    if (!this.#wanted.has(block)) this.#wanted.set(block, false);
    throw MetadataFault.missing(block);
  }

  #addToRing(entry: CacheEntry): void {
    entry.ringIndex = this.#ring.length;
    this.#ring.push(entry);
  }

  #drop(entry: CacheEntry): void {
    const last = this.#ring.pop()!;
    if (last !== entry) {
      this.#ring[entry.ringIndex] = last;
      last.ringIndex = entry.ringIndex;
    }
    entry.ringIndex = -1;
    entry.state = "gone";
    this.#entries.delete(entry.block);
  }

  /** Keeps the buffer of an entry that is gone for the next block. */
  #spareBytes(entry: CacheEntry): void {
    if (this.#spare.length < spareBuffersMax) this.#spare.push(entry.bytes);
  }

  /**
   * The hand goes round twice at most: if all blocks are pinned, the cache grows above its bound and the operation goes
   * on. Blocks are evicted only between operations, so no operation uses their bytes. A kept entry shows the state
   * "gone".
   */
  #evict(): void {
    let steps = 2 * this.#ring.length;
    while (this.#ring.length > this.#cleanMax && steps-- > 0) {
      if (this.#hand >= this.#ring.length) this.#hand = 0;
      const entry = this.#ring[this.#hand]!;
      if (entry.pinnedUntil > this.#operation) this.#hand++;
      else if (entry.referenced) {
        entry.referenced = false;
        this.#hand++;
      } else {
        this.#drop(entry);
        this.#spareBytes(entry);
      }
    }
  }
}
