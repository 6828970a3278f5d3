/**
 * Reference counts of metadata blocks, all in memory (four bytes a block), so that changing them needs no
 * blocks itself: the recursion that dm-space-map-metadata.c of the kernel solves with a queue is solved at commit time (space_map_layout.ts).
 *
 * A block may be allocated when its count is zero in the durable, in the committing and in the current state,
 * and no view holds it. A block freed in the transaction that allocated it is free at once. Any other freed
 * block is quarantined until the commit that freed it is durable, and then as long as a view of an older
 * commit holds it.
 */
import { assert } from "./base/assert.ts";
import { bitmapEntries } from "./format/bitmap.ts";
import { type MetadataBlock, metadataBlock } from "./base/ids.ts";
import { countedFree, damaged, MetadataFault } from "./metadata_fault.ts";

/** Allocated in the current transaction. */
const flagBorn = 1;
/** Freed, but still part of an older state that must survive. */
const flagQuarantined = 2;
/** Allocated in the transaction whose commit is under way. */
const flagYoung = 4;
/** Its exact count changed in the current transaction. */
const flagRecounted = 8;

/** A count from which on the exact number lives in the overflow tree. */
export const overflowCountMin = 3;

/** The blocks of one durable commit, kept from reuse while somebody reads it. */
export interface HeldBlocks {
  /** One bit per block. */
  readonly bits: Uint8Array;
}

/** The counts of metadata blocks. */
export class MetadataSpaceMap {
  #counts: Uint32Array;
  #flags: Uint8Array;
  /** Where the search for a free block goes on. */
  #cursor = 1;
  #used = 0;
  #allocatable: number;
  #bornLive = 0;
  #overflowing = 0;
  #recounted: MetadataBlock[] = [];
  #unshared = 0;
  #dirtyOrdinals: Uint8Array;

  #born: MetadataBlock[] = [];
  #freed: MetadataBlock[] = [];
  #committingBorn: MetadataBlock[] = [];
  #committingFreed: MetadataBlock[] = [];
  #viewHeld: MetadataBlock[] = [];
  readonly #views = new Set<HeldBlocks>();
  /** All counts have been read. A pool opened read-only reads none. */
  isLoaded = false;

  /** Undo of the operation under way: block, count and flags before each change, newest last. */
  readonly #undoBlocks: MetadataBlock[] = [];
  readonly #undoCounts: number[] = [];
  readonly #undoFlags: number[] = [];
  #undoLength = 0;
  #mark = {
    used: 0,
    allocatable: 0,
    bornLive: 0,
    overflowing: 0,
    cursor: 0,
    born: 0,
    freed: 0,
    recounted: 0,
  };

  constructor(blocks: number) {
    this.#counts = new Uint32Array(blocks);
    this.#flags = new Uint8Array(blocks);
    this.#dirtyOrdinals = new Uint8Array(Math.ceil(blocks / bitmapEntries));
    this.#allocatable = blocks;
  }

  /** Blocks governed. */
  get blocks(): number {
    return this.#counts.length;
  }
  /** Blocks with a count above zero in the current state. */
  get used(): number {
    return this.#used;
  }
  /** Blocks that could be allocated now. */
  get allocatable(): number {
    return this.#allocatable;
  }
  /** Blocks of the current transaction that a commit would write. */
  get bornLive(): number {
    return this.#bornLive;
  }
  /** Blocks with a count of three and more. */
  get overflowing(): number {
    return this.#overflowing;
  }
  /** Blocks whose count changed in the current transaction from three and more, or to that; each once. */
  get recounted(): readonly MetadataBlock[] {
    return this.#recounted;
  }
  /** Counts how often a block was left with one parent: as long as it stays the same, what was shared is. */
  get unshared(): number {
    return this.#unshared;
  }
  /** Number of bitmaps. */
  get ordinals(): number {
    return this.#dirtyOrdinals.length;
  }

  count(block: MetadataBlock): number {
    return this.#counts[block]!;
  }

  /**
   * The count of a block that something points to. Faults where it is 0: the block would be given away and overwritten. Where
   * no counts were read it is 0 of every block, and nothing is changed.
   */
  countInUse(block: MetadataBlock): number {
    const count = this.#counts[block]!;
    if (count === 0 && this.isLoaded) damaged(block, countedFree);
    return count;
  }

  /**
   * Whether the block was allocated in this transaction, so that it may be changed in place (if its count is
   * 1).
   */
  isBorn(block: MetadataBlock): boolean {
    return (this.#flags[block]! & flagBorn) !== 0;
  }

  /** The counts that one bitmap holds, to be read at once. */
  countsOf(ordinal: number): Uint32Array {
    return this.#counts.subarray(ordinal * bitmapEntries, (ordinal + 1) * bitmapEntries);
  }

  /** The blocks with a count of three and more, ascending. */
  overflowingBlocks(): Uint32Array {
    const found = new Uint32Array(this.#overflowing);
    const counts = this.#counts;
    let length = 0;
    for (let block = 0; length < found.length; block++) {
      if (counts[block]! >= overflowCountMin) found[length++] = block;
    }
    return found;
  }

  isDirtyOrdinal(ordinal: number): boolean {
    return this.#dirtyOrdinals[ordinal] !== 0;
  }

  /** The next free block, with count 1. Faults if there is none. */
  allocate(): MetadataBlock {
    if (this.#allocatable === 0) throw new MetadataFault({ kind: "noMetadataSpace" });
    const blocks = this.#counts.length;
    let block = this.#cursor;
    let steps = 0;
    for (;; block++) {
      if (block >= blocks) block = 1; // block 0 is the superblock
      assert(steps++ <= blocks, "a free metadata block was counted but not found");
      if (this.#counts[block] === 0 && (this.#flags[block]! & flagQuarantined) === 0) break;
    }
    const found = metadataBlock(block);
    this.#record(found);
    this.#counts[block] = 1;
    this.#flags[block]! |= flagBorn;
    this.#cursor = block + 1;
    this.#used++;
    this.#allocatable--;
    this.#bornLive++;
    this.#born.push(found);
    return found;
  }

  /** One more parent points to a block that is in use. */
  increment(block: MetadataBlock): void {
    const count = this.#counts[block];
    if (count === undefined) damaged(block, "it lies outside the metadata");
    if (count === 0) damaged(block, countedFree);
    if (count === 0xffff_ffff) damaged(block, "its reference count cannot rise any more");
    this.#record(block);
    this.#counts[block] = count + 1;
    if (count + 1 >= overflowCountMin) this.#noteRecounted(block);
    if (count + 1 === overflowCountMin) this.#overflowing++;
  }

  /** One parent less; frees the block when it was the last. */
  decrement(block: MetadataBlock): void {
    const count = this.#counts[block];
    if (count === undefined) damaged(block, "it lies outside the metadata");
    if (count === 0) damaged(block, "its reference count would fall below 0");
    this.#record(block);
    this.#counts[block] = count - 1;
    if (count >= overflowCountMin) this.#noteRecounted(block);
    if (count === overflowCountMin) this.#overflowing--;
    if (count === 2) this.#unshared++;
    if (count > 1) return;
    this.#used--;
    if ((this.#flags[block]! & flagBorn) !== 0) {
      this.#flags[block]! &= ~flagBorn;
      this.#bornLive--;
      this.#allocatable++;
    } else {
      this.#flags[block]! |= flagQuarantined;
      this.#freed.push(block);
    }
  }

  /** Sets a count read from the device while loading, or block 0's while formatting. Not undone. */
  load(block: MetadataBlock, count: number): void {
    const before = this.#counts[block]!;
    if (before === 0 && count > 0) {
      this.#used++;
      this.#allocatable--;
    }
    if (before < overflowCountMin && count >= overflowCountMin) this.#overflowing++;
    this.#counts[block] = count;
  }

  /** Governs more blocks, all free. Not undone: nothing that can fail follows it. */
  grow(blocks: number): void {
    const added = blocks - this.#counts.length;
    assert(added > 0, "metadata only grows");
    const ordinalsBefore = this.#dirtyOrdinals.length;
    this.#counts = extended(this.#counts, new Uint32Array(blocks));
    this.#flags = extended(this.#flags, new Uint8Array(blocks));
    this.#dirtyOrdinals = extended(this.#dirtyOrdinals, new Uint8Array(Math.ceil(blocks / bitmapEntries)));
    this.#dirtyOrdinals.fill(1, ordinalsBefore);
    this.#allocatable += added;
  }

  /** Every bitmap must be written: the metadata is being made. */
  markAllDirty(): void {
    this.#dirtyOrdinals.fill(1);
  }

  begin(): void {
    this.#undoLength = 0;
    const mark = this.#mark;
    mark.used = this.#used;
    mark.allocatable = this.#allocatable;
    mark.bornLive = this.#bornLive;
    mark.overflowing = this.#overflowing;
    mark.cursor = this.#cursor;
    mark.born = this.#born.length;
    mark.freed = this.#freed.length;
    mark.recounted = this.#recounted.length;
  }

  /**
   * Undoes everything since {@linkcode begin}. Bitmaps stay marked dirty, which only writes them once in
   * vain.
   */
  rollback(): void {
    while (this.#undoLength > 0) {
      const at = --this.#undoLength;
      const block = this.#undoBlocks[at]!;
      this.#counts[block] = this.#undoCounts[at]!;
      this.#flags[block] = this.#undoFlags[at]!;
    }
    const mark = this.#mark;
    this.#used = mark.used;
    this.#allocatable = mark.allocatable;
    this.#bornLive = mark.bornLive;
    this.#overflowing = mark.overflowing;
    this.#cursor = mark.cursor;
    this.#born.length = mark.born;
    this.#freed.length = mark.freed;
    this.#recounted.length = mark.recounted;
  }

  /**
   * The current state becomes the committing one. Returns the blocks allocated in it and still in use, which
   * from here on are not changed in place, and those it freed again, which need not be written.
   */
  freeze(): { readonly live: readonly MetadataBlock[]; readonly dead: readonly MetadataBlock[] } {
    assert(this.#committingBorn.length === 0 && this.#committingFreed.length === 0, "one commit at a time");
    const live: MetadataBlock[] = [];
    const dead: MetadataBlock[] = [];
    for (const block of this.#born) {
      if ((this.#flags[block]! & flagBorn) === 0) {
        if (this.#counts[block] === 0) dead.push(block); // else it is listed twice, and live
        continue;
      }
      this.#flags[block] = (this.#flags[block]! & ~flagBorn) | flagYoung;
      live.push(block);
    }
    this.#committingBorn = live;
    this.#committingFreed = this.#freed;
    this.#born = [];
    this.#freed = [];
    this.#bornLive = 0;
    this.#dirtyOrdinals.fill(0);
    const recounted = this.#recounted;
    for (let at = 0; at < recounted.length; at++) this.#flags[recounted[at]!]! &= ~flagRecounted;
    this.#recounted = [];
    return { live, dead };
  }

  /** The committing state is durable: what it freed may be allocated, unless a view holds it. */
  durable(): void {
    for (const block of this.#committingBorn) this.#flags[block]! &= ~flagYoung;
    const freed = this.#committingFreed;
    this.#committingBorn = [];
    this.#committingFreed = [];
    this.#release(freed);
  }

  /** Keeps every block of the last durable commit from reuse. */
  hold(): HeldBlocks {
    const bits = new Uint8Array(Math.ceil(this.#counts.length / 8));
    for (let block = 0; block < this.#counts.length; block++) {
      const flags = this.#flags[block]!;
      const isInSomeState = this.#counts[block]! > 0 || (flags & flagQuarantined) !== 0;
      if (isInSomeState && (flags & (flagBorn | flagYoung)) === 0) bits[block >>> 3]! |= 1 << (block & 7);
    }
    const held: HeldBlocks = { bits };
    this.#views.add(held);
    return held;
  }

  /** Ends a hold. */
  unhold(held: HeldBlocks): void {
    assert(this.#views.delete(held), "a view is released once");
    const waiting = this.#viewHeld;
    this.#viewHeld = [];
    this.#release(waiting);
  }

  #release(blocks: readonly MetadataBlock[]): void {
    for (const block of blocks) {
      if (this.#isHeld(block)) this.#viewHeld.push(block);
      else {
        this.#flags[block]! &= ~flagQuarantined;
        this.#allocatable++;
      }
    }
  }

  #isHeld(block: MetadataBlock): boolean {
    for (const view of this.#views) {
      // A view older than a growth has no bit for the new blocks.
      if (((view.bits[block >>> 3] ?? 0) & (1 << (block & 7))) !== 0) return true;
    }
    return false;
  }

  /** After it was recorded, so that an undo takes the flag back too. */
  #noteRecounted(block: MetadataBlock): void {
    if ((this.#flags[block]! & flagRecounted) !== 0) return;
    this.#flags[block]! |= flagRecounted;
    this.#recounted.push(block);
  }

  #record(block: MetadataBlock): void {
    const at = this.#undoLength++;
    this.#undoBlocks[at] = block;
    this.#undoCounts[at] = this.#counts[block]!;
    this.#undoFlags[at] = this.#flags[block]!;
    this.#dirtyOrdinals[Math.floor(block / bitmapEntries)] = 1;
  }
}

function extended<Bytes extends Uint8Array | Uint32Array>(before: Bytes, after: Bytes): Bytes {
  after.set(before);
  return after;
}
