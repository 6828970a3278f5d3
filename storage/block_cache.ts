/**
 * Metadata blocks in memory. Clean blocks are bounded in number and leave by a clock (second chance); blocks
 * of the running transaction (dirty) and of a commit under way (frozen) stay.
 *
 * Progress: an operation that faults is run again, so the blocks it had already touched must still be there.
 * They are pinned when it faults and let go when an operation that uses them succeeds, or after many other
 * operations.
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
 * What a cached block has been verified as: one of the constants below, or the leaf value size of a tree's
 * nodes.
 */
export type CacheKind = number;
/** Read from the device, and not verified yet. */
const kindUnverified: CacheKind = 0;
/** A bitmap of either space map. */
export const kindBitmap: CacheKind = 1;
/** The index block of the metadata space map. */
export const kindMetadataIndex: CacheKind = 2;

/** The kind by which a block of this cache kind is sealed and verified. */
export function blockKindOf(kind: CacheKind): BlockKind {
  if (kind === kindBitmap) return "bitmap";
  return kind === kindMetadataIndex ? "metadataIndex" : "btreeNode";
}

/** Clean as on the device; dirty in the running transaction; frozen in a commit; gone from the cache. */
export type CacheState = "clean" | "dirty" | "frozen" | "gone";

/** A block in the cache and what is known about it. */
export class CacheEntry {
  readonly block: MetadataBlock;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  kind: CacheKind;
  state: CacheState;
  /** Used since the clock hand last passed. */
  referenced = true;
  /** The operation that last read it through the cache. */
  touchedBy = 0;
  /** Not evicted before this operation number. */
  pinnedUntil = 0;
  /** The operation that allocated it or saved its content for undo: no further pre-image is needed. */
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
   * Blocks whose read is under way; true once the block was allocated anew, so that the bytes read are stale.
   */
  readonly #wanted = new Map<number, boolean>();
  /** Left to the garbage collector, a removal would leave it gigabytes, and everybody would wait for that. */
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

  /** Blocks that the operation under way has read. */
  get blocksTouched(): number {
    return this.#touchedLength;
  }

  /** Blocks held, in any state. */
  get size(): number {
    return this.#entries.size;
  }

  /** Starts an operation: what it touches is remembered in case it faults. */
  beginOperation(): void {
    this.#operation++;
    this.#touchedLength = 0;
  }

  /** The operation succeeded: what it touched needs no pin. */
  endOperation(): void {
    for (let index = 0; index < this.#touchedLength; index++) this.#touched[index]!.pinnedUntil = 0;
  }

  /** The entry, or undefined; neither verified nor touched. */
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
   * Takes a block the caller has read after a "missing" fault. Ignored unless it is still wanted: bytes read
   * before the block was allocated anew are stale. At most one read of a block may be under way.
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

  /** A buffer for a block that is to be read, with any content. */
  takeBuffer(): Uint8Array {
    return this.#spare.pop() ?? new Uint8Array(metadataBlockSizeBytes);
  }

  /** Makes a zeroed dirty block. Returns it; `replaced` tells what it pushed out, for undo. */
  create(block: MetadataBlock, kind: CacheKind): CacheEntry {
    if (this.#wanted.has(block)) this.#wanted.set(block, true);
    const bytes = this.#spare.pop()?.fill(0) ?? new Uint8Array(metadataBlockSizeBytes);
    const entry = new CacheEntry(block, bytes, kind, "dirty");
    entry.savedBy = this.#operation;
    this.#entries.set(block, entry);
    return entry;
  }

  /**
   * Prepares for {@linkcode create} of the same number: the entry that it will replace, if that holds
   * unwritten content.
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

  /** Undoes a {@linkcode create}: puts back what it displaced. */
  uncreate(block: MetadataBlock, displaced: CacheEntry | undefined): void {
    const created = this.#entries.get(block)!;
    if (displaced === undefined) this.#entries.delete(block);
    else this.#entries.set(block, displaced);
    created.state = "gone";
    this.#spareBytes(created);
  }

  /** Forgets a dirty block that was freed in the transaction that made it. */
  forget(entry: CacheEntry): void {
    if (this.#entries.get(entry.block) === entry) this.#entries.delete(entry.block);
    entry.state = "gone";
    this.#spareBytes(entry);
  }

  /** A frozen block is on the device now. */
  clean(entry: CacheEntry): void {
    assert(entry.state === "frozen", "only a frozen block becomes clean");
    entry.state = "clean";
    this.#addToRing(entry);
  }

  /** Brings the number of clean blocks back under its bound. */
  trim(): void {
    this.#evict();
  }

  /** Drops a clean block that nobody will read again soon. */
  dropClean(block: MetadataBlock): void {
    const entry = this.#entries.get(block);
    if (entry !== undefined && entry.state === "clean") this.#drop(entry);
  }

  #verify(entry: CacheEntry, kind: CacheKind): void {
    // A block of ours was made as what it is; only one from the device may turn out to be something else.
    let reason = entry.kind === kindUnverified
      ? verifyBlock(entry.bytes, blockKindOf(kind), entry.block)
      : "it is used as two kinds of block";
    if (reason === undefined && kind > kindMetadataIndex) reason = verifyNode(entry.view, kind);
    if (reason !== undefined) {
      // Forgotten, so that the next use reads it again.
      if (entry.state === "clean") this.#drop(entry);
      damaged(entry.block, reason);
    }
    entry.kind = kind;
  }

  #missing(block: MetadataBlock): never {
    for (let index = 0; index < this.#touchedLength; index++) {
      this.#touched[index]!.pinnedUntil = this.#operation + pinOperations;
    }
    // A read already under way may be of older bytes: then its result is dropped and the block is missed
    // again.
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

  /** Nobody looks at the bytes of an entry that is gone. */
  #spareBytes(entry: CacheEntry): void {
    if (this.#spare.length < spareBuffersMax) this.#spare.push(entry.bytes);
  }

  /**
   * Two turns of the hand at most: if everything is pinned the bound gives way, not the operation. Blocks are evicted between
   * operations only, so nobody looks at their bytes any more: whoever kept an entry sees that it is gone.
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
