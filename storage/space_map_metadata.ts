/**
 * Reference counts of metadata blocks, all in memory (four bytes a block). So a change of a count allocates no block.
 * The kernel needs a queue against that recursion (dm-space-map-metadata.c); here the counts are written at the commit
 * (space_map_layout.ts).
 *
 * A block may be allocated when its count is 0 in the durable state, in the one being committed and in the current one,
 * and no held commit contains it. If we stop at any time, one of the first two states is restored, and its blocks must
 * be as they were. A block that is freed in the transaction that allocated it may be allocated again at once. Any other
 * freed block is quarantined until the commit that frees it is durable, and until no held commit contains it.
 */
import { assert } from "./base/assert.ts";
import { bitmapEntries } from "./format/bitmap.ts";
import { type MetadataBlock, metadataBlock } from "./base/ids.ts";
import { countedFree, damaged, MetadataFault } from "./metadata_fault.ts";
import { type HeldBlocks, MetadataHolds } from "./metadata_holds.ts";

/** Allocated in the current transaction. */
const flagNew = 1;
/** Freed, but a part of an older state that a crash can restore. */
const flagQuarantined = 2;
/** Allocated in the transaction whose commit is under way. */
const flagCommitting = 4;
/** Its exact count changed in the current transaction. */
const flagRecounted = 8;

/** Counts from this one on are in the overflow tree; the bitmap has 3 for all of them. */
export const overflowCountMin = 3;

/** The counts of metadata blocks. */
export class MetadataSpaceMap {
  #counts: Uint32Array;
  #flags: Uint8Array;
  /** Where the search for a free block continues. */
  #cursor = 1;
  #used = 0;
  #allocatable: number;
  #newInUse = 0;
  #overflowing = 0;
  #recounted: MetadataBlock[] = [];
  #unshared = 0;
  #dirtyOrdinals: Uint8Array;

  #new: MetadataBlock[] = [];
  #freed: MetadataBlock[] = [];
  #committingNew: MetadataBlock[] = [];
  #committingFreed: MetadataBlock[] = [];
  readonly #holds = new MetadataHolds();
  /** True once all counts were read. A pool opened read-only reads none. */
  isLoaded = false;

  /** Undo of the operation under way: block, count and flags before each change, newest last. */
  readonly #undoBlocks: MetadataBlock[] = [];
  readonly #undoCounts: number[] = [];
  readonly #undoFlags: number[] = [];
  #undoLength = 0;
  #mark = {
    used: 0,
    allocatable: 0,
    newInUse: 0,
    overflowing: 0,
    cursor: 0,
    new: 0,
    freed: 0,
    recounted: 0,
  };

  constructor(blocks: number) {
    this.#counts = new Uint32Array(blocks);
    this.#flags = new Uint8Array(blocks);
    this.#dirtyOrdinals = new Uint8Array(Math.ceil(blocks / bitmapEntries));
    this.#allocatable = blocks;
  }

  /** Blocks of the metadata device that the map counts. */
  get blocks(): number {
    return this.#counts.length;
  }
  /** Blocks with a count above zero in the current state. */
  get used(): number {
    return this.#used;
  }
  /** Blocks that may be allocated now. */
  get allocatable(): number {
    return this.#allocatable;
  }
  /** Blocks allocated in the current transaction and still in use: a commit would write them. */
  get newInUse(): number {
    return this.#newInUse;
  }
  /** Freed blocks that may be allocated once all changes so far are durable: those that a reader holds are left out. */
  get releasable(): number {
    let blocks = 0;
    for (const block of this.#committingFreed) if (!this.#holds.has(block)) blocks++;
    for (const block of this.#freed) if (!this.#holds.has(block)) blocks++;
    return blocks;
  }
  /** Number of blocks with a count of 3 or more. */
  get overflowing(): number {
    return this.#overflowing;
  }
  /** Blocks whose count was or became 3 or more by a change in the current transaction, each once. */
  get recounted(): readonly MetadataBlock[] {
    return this.#recounted;
  }
  /**
   * Number of times that a count fell from 2 to 1. While this number stays, a block that was shared is still shared.
   */
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
   * The count of a block that has a parent. Faults if it is 0, because the block could be allocated and overwritten. A
   * pool opened read-only has no counts and changes nothing, so there it does not fault.
   */
  countInUse(block: MetadataBlock): number {
    const count = this.#counts[block]!;
    if (count === 0 && this.isLoaded) damaged(block, countedFree);
    return count;
  }

  /**
   * Whether the block was allocated in this transaction. If its count is 1 too, it may be changed in place.
   */
  isNew(block: MetadataBlock): boolean {
    return (this.#flags[block]! & flagNew) !== 0;
  }

  /** The counts of one bitmap, as a subarray that is valid until the next change. */
  countsOf(ordinal: number): Uint32Array {
    return this.#counts.subarray(ordinal * bitmapEntries, (ordinal + 1) * bitmapEntries);
  }

  /** The blocks with a count of 3 or more, ascending. */
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
    assert(!this.#holds.has(found), "a block of a held commit was allocated");
    this.#record(found);
    this.#counts[block] = 1;
    this.#flags[block]! |= flagNew;
    this.#cursor = block + 1;
    this.#used++;
    this.#allocatable--;
    this.#newInUse++;
    assert(this.#used + this.#allocatable <= blocks, "more metadata blocks are used or free than there are");
    this.#new.push(found);
    return found;
  }

  /** The block, which is in use, has one more parent. */
  increment(block: MetadataBlock): void {
    const count = this.#counts[block];
    if (count === undefined) damaged(block, "it lies outside the metadata");
    if (count === 0) damaged(block, countedFree);
    if (count === 0xffff_ffff) damaged(block, "its reference count cannot rise any more");
    assert((this.#flags[block]! & flagQuarantined) === 0, "a block with a parent is in quarantine");
    this.#record(block);
    this.#counts[block] = count + 1;
    if (count + 1 >= overflowCountMin) this.#noteRecounted(block);
    if (count + 1 === overflowCountMin) this.#overflowing++;
  }

  /** The block has one parent less. Without a parent it is freed. */
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
    assert(this.#used > 0, "more metadata blocks were freed than were used");
    this.#used--;
    if ((this.#flags[block]! & flagNew) !== 0) {
      this.#flags[block]! &= ~flagNew;
      this.#newInUse--;
      this.#allocatable++;
    } else {
      assert((this.#flags[block]! & flagQuarantined) === 0, "a block went into quarantine twice");
      this.#flags[block]! |= flagQuarantined;
      this.#freed.push(block);
    }
  }

  /**
   * Sets a count that was read from the device at open, or that of block 0 of a new pool. Rollback does not undo it.
   */
  load(block: MetadataBlock, count: number): void {
    const before = this.#counts[block]!;
    if (before === 0 && count > 0) {
      this.#used++;
      this.#allocatable--;
    }
    if (before < overflowCountMin && count >= overflowCountMin) this.#overflowing++;
    this.#counts[block] = count;
  }

  /**
   * Grows the map to so many blocks; the new ones are free. The next commit writes the new bitmaps, and the last old one
   * if it was not whole: other programs may leave bits set behind its last block. Rollback does not undo it: it is the
   * last step of its operation.
   */
  grow(blocks: number): void {
    const added = blocks - this.#counts.length;
    assert(added > 0, "metadata only grows");
    const wholeBefore = Math.floor(this.#counts.length / bitmapEntries);
    this.#counts = extended(this.#counts, new Uint32Array(blocks));
    this.#flags = extended(this.#flags, new Uint8Array(blocks));
    this.#dirtyOrdinals = extended(this.#dirtyOrdinals, new Uint8Array(Math.ceil(blocks / bitmapEntries)));
    this.#dirtyOrdinals.fill(1, wholeBefore);
    this.#allocatable += added;
  }

  /** Marks every bitmap to be written, for a new pool. */
  markAllDirty(): void {
    this.#dirtyOrdinals.fill(1);
  }

  begin(): void {
    this.#undoLength = 0;
    const mark = this.#mark;
    mark.used = this.#used;
    mark.allocatable = this.#allocatable;
    mark.newInUse = this.#newInUse;
    mark.overflowing = this.#overflowing;
    mark.cursor = this.#cursor;
    mark.new = this.#new.length;
    mark.freed = this.#freed.length;
    mark.recounted = this.#recounted.length;
  }

  /**
   * Undoes all since {@linkcode begin}. Bitmaps stay marked dirty, so the next commit may write some that did not
   * change.
   */
  rollback(): void {
    while (this.#undoLength > 0) {
      const at = --this.#undoLength;
      const block = this.#undoBlocks[at]!;
      this.#counts[block] = this.#undoCounts[at]!;
      this.#flags[block] = this.#undoFlags[at]!;
    }
    const mark = this.#mark;
    assert(
      this.#new.length >= mark.new && this.#freed.length >= mark.freed &&
        this.#recounted.length >= mark.recounted,
      "an operation shortened a list of its transaction",
    );
    this.#used = mark.used;
    this.#allocatable = mark.allocatable;
    this.#newInUse = mark.newInUse;
    this.#overflowing = mark.overflowing;
    this.#cursor = mark.cursor;
    this.#new.length = mark.new;
    this.#freed.length = mark.freed;
    this.#recounted.length = mark.recounted;
  }

  /**
   * The current state becomes the one being committed. `live` are the blocks that were allocated in it and are in use:
   * from now on they are not changed in place. `dead` are those that it freed again: they are not written.
   */
  freeze(): { readonly live: readonly MetadataBlock[]; readonly dead: readonly MetadataBlock[] } {
    assert(this.#committingNew.length === 0 && this.#committingFreed.length === 0, "one commit at a time");
    const live: MetadataBlock[] = [];
    const dead: MetadataBlock[] = [];
    for (const block of this.#new) {
      if ((this.#flags[block]! & flagNew) === 0) {
        if (this.#counts[block] === 0) dead.push(block); // else it was allocated twice, and is in the list twice
        continue;
      }
      this.#flags[block] = (this.#flags[block]! & ~flagNew) | flagCommitting;
      live.push(block);
    }
    assert(live.length === this.#newInUse, "a commit has other blocks than were allocated and not freed");
    this.#committingNew = live;
    this.#committingFreed = this.#freed;
    this.#new = [];
    this.#freed = [];
    this.#newInUse = 0;
    this.#dirtyOrdinals.fill(0);
    const recounted = this.#recounted;
    for (let at = 0; at < recounted.length; at++) this.#flags[recounted[at]!]! &= ~flagRecounted;
    this.#recounted = [];
    return { live, dead };
  }

  /**
   * The state being committed is durable. The blocks that it freed may be allocated, unless a held commit contains
   * them.
   */
  durable(): void {
    for (const block of this.#committingNew) {
      assert((this.#flags[block]! & flagCommitting) !== 0, "a block became durable that was not committed");
      this.#flags[block]! &= ~flagCommitting;
    }
    const freed = this.#committingFreed;
    this.#committingNew = [];
    this.#committingFreed = [];
    this.#release(freed);
  }

  /** Keeps all blocks of the last durable commit from reuse. */
  hold(): HeldBlocks {
    const bits = new Uint8Array(Math.ceil(this.#counts.length / 8));
    for (let block = 0; block < this.#counts.length; block++) {
      const flags = this.#flags[block]!;
      const isInSomeState = this.#counts[block]! > 0 || (flags & flagQuarantined) !== 0;
      if (isInSomeState && (flags & (flagNew | flagCommitting)) === 0) bits[block >>> 3]! |= 1 << (block & 7);
    }
    const held: HeldBlocks = { bits };
    this.#holds.add(held);
    return held;
  }

  /** Ends a hold. */
  unhold(held: HeldBlocks): void {
    this.#release(this.#holds.delete(held));
  }

  #release(blocks: readonly MetadataBlock[]): void {
    for (const block of blocks) {
      if (this.#holds.has(block)) this.#holds.wait(block);
      else {
        assert(
          (this.#flags[block]! & flagQuarantined) !== 0,
          "a block left a quarantine in which it was not",
        );
        assert(this.#counts[block] === 0, "a block left the quarantine while it has a parent");
        this.#flags[block]! &= ~flagQuarantined;
        this.#allocatable++;
      }
    }
  }

  /** To be called after #record(), so that a rollback restores the flag too. */
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
