/**
 * DataAllocator: finds free data blocks and leases them to bios.
 *
 * Owns: the search cursor, the free blocks it has fetched, the leases, and the quarantine (data_quarantine.ts). The
 * reference counts are the metadata actor's. A block may be leased when nothing references it in the current state (metadata
 * says so), in the commit in progress and in the last durable one (the quarantine says so): invariant I7 of
 * actors/ARCHITECTURE.md.
 *
 * The device may grow at any time. What was found, leased, given back, retired or is in quarantine lies below the old end
 * and stays as it is; what metadata finds beyond the end known here is left for after the next geometry.
 *
 * Failure policy: no space is an answer; a passdown that fails is ignored, as in dm-thin: the block stays unmapped, and it
 * is zeroed when it is provisioned, because the device does not know it as a hole.
 */
import { assert, present, unreachable } from "../../storage/base/assert.ts";
import { BlockSet, type DBlockRun } from "../../storage/block_set.ts";
import { canBecome, type Geometry } from "../../storage/base/geometry.ts";
import { type DBlock, dblock } from "../../storage/base/ids.ts";
import type { Actor, Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Steps } from "../kernel/task.ts";
import { retiredBlocksMax } from "../limits.ts";
import { queues } from "../queues.ts";
import type { Allocate, DataAllocatorMessage, Found } from "./allocator_messages.ts";
import { DataQuarantine, type QuarantineParts, type Reclaim } from "./data_quarantine.ts";
import type { MetadataStub } from "./metadata_messages.ts";
import type { RefusalsMessage } from "./refusals.ts";
import type { MaybeUnshared, SpaceCame } from "./space_messages.ts";

export class DataAllocator implements Actor<DataAllocatorMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<DataAllocatorMessage>;
  readonly #metadata: MetadataStub;
  /** The pool's sizes, from the first `geometry` on. */
  #geometry: Geometry | undefined;

  /** Runs of free blocks that the search found; none of them is leased or in quarantine. */
  #free: DBlockRun[] = [];
  /** Blocks of the first run that were taken already. */
  #freeUsed = 0;
  // Metadata counts the blocks of these three sets as free, so the search finds them. None is in two of them.
  /** A bio has it. Each bio has one at most. */
  readonly #leased = new BlockSet();
  /** Given back, to be leased first. */
  readonly #givenBack = new BlockSet();
  /** They could not be written, and are not leased until the pool is opened again. */
  readonly #retired = new BlockSet();
  /** The blocks of `#givenBack`; the last is leased first. */
  readonly #givenBackOrder: DBlock[] = [];
  readonly #quarantine: DataQuarantine;

  #cursor = dblock(0);
  #waiting: Allocate[] = [];
  /** Blocks that the search in progress has still to pass before it has seen the whole device. */
  #searchLeft = 0;
  #searching = false;
  /** How often blocks have become free. */
  #releases = 0;
  /** `#releases` when the pass over the whole device that is in progress, or the last one, began. */
  #releasesAtSearch = 0;
  /** `#releases` when the last pass began that ended with bios refused. */
  #releasesAtRefusal = 0;
  /** Mapped since the search in progress began: what it finds may be older than that. */
  #keptSinceSearch = new BlockSet();

  readonly #refusals: Address<RefusalsMessage>;
  readonly #space: Address<SpaceCame | MaybeUnshared>;
  /** A bio was refused for want of space, and no block has become free since. */
  #isExhausted = false;

  constructor(
    kernel: Kernel,
    self: Address<DataAllocatorMessage>,
    pool: QuarantineParts & {
      readonly refusals: Address<RefusalsMessage>;
      /** Is told when blocks become free. */
      readonly space: Address<SpaceCame | MaybeUnshared>;
    },
  ) {
    this.#kernel = kernel;
    this.#self = self;
    this.#metadata = pool.metadata;
    this.#quarantine = new DataQuarantine(kernel, self, pool);
    this.#refusals = pool.refusals;
    this.#space = pool.space;
  }

  receive(message: DataAllocatorMessage): void {
    switch (message.type) {
      case "allocate":
        assert(
          this.#waiting.length + this.#leased.size < queues.allocations,
          "more bios ask for a block, or have one, than there can be",
        );
        this.#waiting.push(message);
        return this.#serve();
      case "keep":
        return this.#keep(message.dblock);
      case "giveBack":
        return this.#giveBack(message.dblock);
      case "retire":
        return this.#retire(message.dblock);
      case "reclaim":
        return this.#reclaim(message);
      case "freed":
        this.#quarantine.freed(message.runs);
        // Bios wait for these blocks, which come with the next commit.
        if (this.#isExhausted) this.#quarantine.hurry();
        return;
      case "frozen":
        return this.#quarantine.frozen();
      case "durable":
        if (this.#isExhausted) this.#kernel.tell(this.#space, { type: "maybeUnshared" });
        return this.#quarantine.durable();
      case "found":
        return this.#found(message);
      case "passedDown":
        this.#quarantine.passedDown();
        return this.#released();
      case "notCommitted":
        return this.#quarantine.notCommitted();
      case "geometry":
        return this.#takeGeometry(message.geometry);
      default:
        return unreachable(message);
    }
  }

  /**
   * The first geometry, or a larger one. The new blocks count as released: a bio that was refused before tries again. A
   * search in progress goes on from its cursor for as many blocks as the device has now, so it meets them too, wherever it
   * is. It may pass some blocks twice, which does no harm: what it found of them is leased or excluded.
   */
  #takeGeometry(geometry: Geometry): void {
    const before = this.#geometry;
    assert(before === undefined || canBecome(before, geometry), "the pool became smaller");
    this.#geometry = geometry;
    this.#quarantine.takeGeometry(geometry);
    if (before === undefined || geometry.dataBlocks === before.dataBlocks) return;
    this.#released();
    if (this.#searching) this.#searchLeft = geometry.dataBlocks;
  }

  /** The pool's sizes. The pool tells them before the first bio starts. */
  #known(): Geometry {
    return present(this.#geometry, "the allocator was used before it knew the geometry");
  }

  #keep(block: DBlock): void {
    assert(!this.#quarantine.has(block), "a block was mapped that is in quarantine");
    this.#endLease(block);
    if (this.#searching) this.#keptSinceSearch.add(block);
  }

  #giveBack(block: DBlock): void {
    this.#endLease(block);
    this.#givenBack.add(block);
    this.#givenBackOrder.push(block);
    // While a block is here, no other is leased but those that are here.
    assert(
      this.#leased.size + this.#givenBackOrder.length <= queues.allocations,
      "more blocks were leased at once than bios can have",
    );
    this.#released();
    this.#serve();
  }

  /** A lease ends once: the block is in the hands of no bio from now on. */
  #endLease(block: DBlock): void {
    assert(!this.#givenBack.has(block), "a lease ended of a block that was given back before");
    assert(this.#leased.has(block), "a lease ended of a block that is not leased");
    this.#leased.delete(block);
  }

  /** Blocks have become free. */
  #released(): void {
    this.#releases += 1;
    this.#isExhausted = false;
    // Also bios wait that never asked for a block: those that check for a whole range.
    this.#kernel.tell(this.#space, { type: "spaceCame", need: "data" });
  }

  /** No search returns it. Where too many are bad, the device as a whole is bad, and each is tried again. */
  #retire(block: DBlock): void {
    if (this.#retired.size === retiredBlocksMax) return this.#giveBack(block);
    this.#endLease(block);
    this.#retired.add(block);
    this.#kernel.tell(this.#metadata.address, { type: "dataRetired", blocks: this.#retired.size });
    this.#kernel.tell(this.#refusals, {
      type: "blockRetired",
      offsetBytes: block * this.#known().blockSizeBytes,
      blocks: this.#retired.size,
    });
  }

  /** Leases fetched blocks to waiting bios. If there are too few, searches the whole device once, unless it just did. */
  #serve(): void {
    if (this.#lease() || this.#searching) return;
    if (this.#isExhausted && this.#releases === this.#releasesAtRefusal) {
      return this.#refuseWaiting("noDataSpace");
    }
    this.#searchLeft = this.#known().dataBlocks;
    this.#releasesAtSearch = this.#releases;
    this.#search();
  }

  /** True if no bio waits any more. */
  #lease(): boolean {
    while (this.#waiting.length > 0) {
      const block = this.#takeFree();
      if (block === undefined) return false;
      this.#kernel.reply(this.#waiting.shift()!, { kind: "allocated", dblock: block });
    }
    return true;
  }

  /** Takes a fetched block, which is leased from now on; undefined if there is none. */
  #takeFree(): DBlock | undefined {
    const back = this.#givenBackOrder.pop();
    if (back !== undefined) {
      this.#givenBack.delete(back);
      assert(!this.#retired.has(back), "a block was leased that cannot be written");
      this.#leased.add(back);
      return back;
    }
    const run = this.#free[0];
    if (run === undefined) return undefined;
    const block = dblock(run.begin + this.#freeUsed);
    // I7: if it were leased now, a crash could bring back a mapping of it with other bytes.
    assert(!this.#quarantine.has(block), "a block in quarantine was leased");
    assert(!this.#retired.has(block), "a block was leased that cannot be written");
    this.#leased.add(block);
    this.#freeUsed += 1;
    if (this.#freeUsed === run.length) {
      this.#free.shift();
      this.#freeUsed = 0;
    }
    return block;
  }

  /**
   * Adds a found run to the free blocks, except blocks that are leased, in quarantine, or were mapped after metadata
   * searched: the `keep` of a block may arrive before an older result that has it as free. They must be excluded now and not
   * when they are leased: a block that is leased now may be mapped by then, and would no longer be excluded. Blocks beyond
   * the known end are dropped: metadata has grown, and that is not durable yet.
   */
  #addFree(run: DBlockRun): void {
    let begin = run.begin as number;
    const end = Math.min(run.begin + run.length, this.#known().dataBlocks);
    for (let block = begin; block < end; block += 1) {
      if (!this.#isExcluded(dblock(block))) continue;
      if (block > begin) this.#free.push({ begin: dblock(begin), length: block - begin });
      begin = block + 1;
    }
    if (end > begin) this.#free.push({ begin: dblock(begin), length: end - begin });
  }

  #isExcluded(block: DBlock): boolean {
    return this.#leased.has(block) || this.#givenBack.has(block) || this.#retired.has(block) ||
      this.#quarantine.has(block) || this.#keptSinceSearch.has(block);
  }

  #search(): void {
    if (this.#searchLeft === 0) {
      this.#isExhausted = true;
      this.#releasesAtRefusal = this.#releasesAtSearch;
      this.#quarantine.hurry();
      return this.#refuseWaiting("noDataSpace");
    }
    assert(!this.#searching, "a search began beside another");
    this.#searching = true;
    this.#keptSinceSearch = new BlockSet();
    this.#kernel.start("search", searchTask(this.#kernel, this.#self, this.#metadata, this.#cursor));
  }

  /** The search goes from the cursor to the end of the device, and on from 0. */
  #found(message: Found): void {
    assert(this.#searching, "a search ended that had not begun");
    this.#searching = false;
    if (message.failed) return this.#refuseWaiting("failed");
    const { dataBlocks } = this.#known();
    const passed = Math.min(message.next, dataBlocks) - this.#cursor;
    assert(passed > 0, "a search made no progress");
    this.#searchLeft = Math.max(0, this.#searchLeft - passed);
    this.#cursor = message.next >= dataBlocks ? dblock(0) : message.next;
    for (const run of message.runs) this.#addFree(run);
    if (!this.#lease()) this.#search();
  }

  #refuseWaiting(kind: "noDataSpace" | "failed"): void {
    assert(!this.#searching, "bios are refused while a search may find blocks for them");
    assert(this.#givenBackOrder.length === 0, "bios are refused beside a block that was given back");
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const request of waiting) this.#kernel.reply(request, { kind });
  }

  #reclaim(request: Reclaim): void {
    if (this.#quarantine.blocks > 0) return this.#quarantine.reclaim(request);
    // Blocks may have become free in a part of the device that the search had passed already.
    this.#kernel.reply(request, this.#releases > this.#releasesAtRefusal);
  }
}

function* searchTask(
  kernel: Kernel,
  allocator: Address<DataAllocatorMessage>,
  metadata: MetadataStub,
  from: DBlock,
): Steps<void> {
  const found = yield* metadata.findFree(from, kernel.knobs.freeBlocksFetched);
  if (found.kind === "free") {
    kernel.tell(allocator, { type: "found", runs: found.runs, next: found.next, failed: false });
  } else kernel.tell(allocator, { type: "found", runs: [], next: from, failed: true });
}
