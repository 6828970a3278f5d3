/**
 * LockRegion: the lock state of a range of a volume's blocks, or of stripes of the data device (data_locks.ts).
 *
 * Owns: the cells of the blocks that are locked or waited for (lock_cell.ts has the table of grants), and the range locks.
 * Its messages, and the locks that a task holds, are in region_locks.ts.
 *
 * A block lock is shared, for reading or for writing, and can be raised: an upgrade gives up the shared hold and queues,
 * ahead of waiting writes, for "exclude writers"; a promotion then excludes readers too. A range lock is exclusive. A bio
 * holds its lock until its I/O has ended, so an exclusive grant means that the blocks are quiesced.
 *
 * Order and progress:
 *  - A waiting upgrade comes before every waiting write; upgrades are granted in the order of their requests.
 *  - A waiting range lock lets earlier requests pass and delays later ones that overlap it, so it does not starve. It does
 *    not deadlock with an upgrade, because a bio that waits for an upgrade holds nothing.
 *  - A waiting promotion delays new readers at once, so readers do not starve it.
 *  - An exclusive lock of one block is for a new data block, which no other task knows. It waits like a write; readers
 *    could starve it, but there are none.
 *
 * Failure policy: releasing what is not held is a defect.
 */
import { assert, present, unreachable } from "../../storage/base/assert.ts";
import type { Actor, Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { queues } from "../queues.ts";
import { LockCell } from "./lock_cell.ts";
import type {
  Access,
  LockAtOnce,
  LockBlock,
  LockRange,
  LockRegionMessage,
  Promote,
  Unlock,
  UnlockRange,
  UnlockTaken,
  Upgrade,
} from "./region_locks.ts";

interface Range {
  readonly request: LockRange;
  readonly ticket: number;
  held: boolean;
}

export class LockRegion implements Actor<LockRegionMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<LockRegionMessage>;
  readonly #cells = new Map<number, LockCell>();
  /** Idle cells to use again: making one costs more than the rest of a lock and unlock. */
  readonly #spareCells: LockCell[] = [];
  readonly #spareCellsMax: number;
  #ranges: Range[] = [];
  #ticketLast = 0;
  #retiring = false;

  constructor(kernel: Kernel, self: Address<LockRegionMessage>) {
    this.#kernel = kernel;
    this.#self = self;
    this.#spareCellsMax = kernel.knobs.spareCellsMax;
  }

  receive(message: LockRegionMessage): void {
    switch (message.type) {
      case "lockBlock":
        return this.#lockBlock(message);
      case "lockAtOnce":
        return this.#lockAtOnce(message);
      case "unlockTaken":
        return this.#unlockTaken(message);
      case "upgrade":
        return this.#upgrade(message);
      case "promote":
        return this.#promote(message);
      case "lockRange":
        return this.#lockRange(message);
      case "unlock":
        return this.#unlock(message);
      case "unlockRange":
        return this.#unlockRange(message);
      case "retireRegion":
        this.#retiring = true;
        return this.#retireIfIdle();
      default:
        return unreachable(message);
    }
  }

  #lockBlock(request: LockBlock): void {
    assert(!this.#retiring, "asked a retiring region for a lock");
    const ticket = this.#nextTicket();
    const cell = this.#cell(request.block);
    if (this.#mayEnter(cell, request.block, request.access, ticket)) this.#enter(cell, request);
    else {
      assert(cell.waiting.length < queues.lockWaits, "more tasks wait for a block than there can be");
      cell.waiting.push({ request, ticket });
    }
  }

  #lockAtOnce(request: LockAtOnce): void {
    assert(!this.#retiring, "asked a retiring region for a lock");
    const ticket = this.#nextTicket();
    for (const wanted of request.blocks) {
      assert(!wanted.isLocked, "a batch locks a block that it holds");
      const known = this.#cells.get(wanted.vblock);
      if (known !== undefined && known.waiting.length > 0) continue;
      const cell = known ?? this.#cell(wanted.vblock);
      if (this.#mayEnter(cell, wanted.vblock, wanted.access, ticket)) {
        cell.enter(wanted.access);
        wanted.isLocked = true;
      } else if (known === undefined) this.#forget(wanted.vblock, cell);
    }
    this.#kernel.reply(request, "answered");
  }

  #unlockTaken(message: UnlockTaken): void {
    for (const held of message.blocks) {
      if (!held.isLocked) continue;
      held.isLocked = false;
      const cell = this.#heldCell(held.vblock);
      cell.leave(held.access);
      this.#serve(held.vblock, cell);
    }
  }

  #upgrade(request: Upgrade): void {
    const cell = this.#heldCell(request.block);
    assert(cell.writers > 0 && !cell.excluding, "upgraded a lock that is not held");
    if (cell.writers === 1 && cell.upgrades.length === 0) {
      // A mapping changes only under a lock that excludes writers. None was granted since this shared hold was.
      cell.writers = 0;
      cell.excluding = true;
      return this.#kernel.reply(request, "alone");
    }
    assert(cell.upgrades.length < queues.lockWaits, "more tasks raise a lock than there can be");
    cell.writers -= 1;
    cell.upgrades.push(request);
    this.#serve(request.block, cell);
  }

  #promote(request: Promote): void {
    const cell = this.#heldCell(request.block);
    assert(cell.excluding && cell.promotion === undefined, "promoted a lock that does not exclude writers");
    assert(cell.writers === 0, "writers hold a block from which they are excluded");
    cell.promotion = request;
    this.#serve(request.block, cell);
  }

  #unlock(message: Unlock): void {
    const cell = this.#heldCell(message.block);
    cell.leave(message.held);
    this.#serve(message.block, cell);
  }

  /** Grants what the cell's new state allows, then forgets the cell if it is idle. */
  #serve(block: number, cell: LockCell): void {
    if (cell.promotion !== undefined && !cell.exclusive && cell.readers === 0) {
      cell.exclusive = true;
      this.#kernel.reply(cell.promotion, "locked");
    }
    const upgrade = cell.upgrades[0];
    if (upgrade !== undefined && cell.writers === 0 && !cell.excluding) {
      cell.upgrades.shift();
      assert(!cell.exclusive && cell.promotion === undefined, "a block is promoted and not held");
      cell.excluding = true;
      this.#kernel.reply(upgrade, "afterOthers");
    }
    if (cell.waiting.length > 0) this.#admitWaiting(cell);
    if (cell.isIdle) this.#forget(block, cell);
    if (this.#ranges.length > 0) this.#grantRanges();
    if (this.#retiring) this.#retireIfIdle();
  }

  #admitWaiting(cell: LockCell): void {
    const waiting = cell.waiting;
    cell.waiting = [];
    for (const waiter of waiting) {
      const { request: { block, access }, ticket } = waiter;
      if (this.#mayEnter(cell, block, access, ticket)) this.#enter(cell, waiter.request);
      else cell.waiting.push(waiter);
    }
  }

  #mayEnter(cell: LockCell, block: number, access: Access, ticket: number): boolean {
    if (!cell.admits(access)) return false;
    for (const range of this.#ranges) {
      if (range.held || range.ticket < ticket) {
        if (contains(range.request, block)) return false;
      }
    }
    return true;
  }

  #enter(cell: LockCell, request: LockBlock): void {
    cell.enter(request.access);
    this.#kernel.reply(request, request.lock);
  }

  #lockRange(request: LockRange): void {
    assert(!this.#retiring, "asked a retiring region for a lock");
    assert(request.begin < request.end, "locked an empty range");
    assert(this.#ranges.length < queues.lockedRanges, "more ranges are locked than there are tasks");
    this.#ranges.push({ request, ticket: this.#nextTicket(), held: false });
    this.#grantRanges();
  }

  #grantRanges(): void {
    for (const range of this.#ranges) {
      if (range.held || !this.#rangeMayEnter(range)) continue;
      range.held = true;
      this.#kernel.reply(range.request, "locked");
    }
  }

  #rangeMayEnter(range: Range): boolean {
    for (const other of this.#ranges) {
      if (other !== range && overlap(other.request, range.request)) {
        if (other.held || other.ticket < range.ticket) return false;
      }
    }
    const { begin, end } = range.request;
    if (end - begin <= this.#cells.size) {
      for (let block = begin; block < end; block += 1) {
        const cell = this.#cells.get(block);
        if (cell !== undefined && cell.isBefore(range.ticket)) return false;
      }
      return true;
    }
    for (const [block, cell] of this.#cells) {
      if (contains(range.request, block) && cell.isBefore(range.ticket)) return false;
    }
    return true;
  }

  #unlockRange(message: UnlockRange): void {
    const index = this.#ranges.findIndex((range) =>
      range.held && range.request.begin === message.begin && range.request.end === message.end
    );
    const range = present(this.#ranges[index], "released a range lock that is not held");
    assert(
      !this.#ranges.some((other) => other.held && other !== range && overlap(other.request, range.request)),
      "two ranges that overlap were locked at once",
    );
    this.#ranges.splice(index, 1);
    for (const [block, cell] of this.#cells) {
      if (!contains(message, block)) continue;
      this.#admitWaiting(cell);
      if (cell.isIdle) this.#forget(block, cell);
    }
    this.#grantRanges();
    if (this.#retiring) this.#retireIfIdle();
  }

  #retireIfIdle(): void {
    if (this.#cells.size === 0 && this.#ranges.length === 0) this.#kernel.retire(this.#self);
  }

  #cell(block: number): LockCell {
    let cell = this.#cells.get(block);
    if (cell === undefined) {
      assert(this.#cells.size < queues.lockedBlocks, "more blocks are locked than tasks can hold");
      cell = this.#spareCells.pop() ?? new LockCell();
      this.#cells.set(block, cell);
    }
    return cell;
  }

  #forget(block: number, cell: LockCell): void {
    assert(cell.promotion === undefined && !cell.exclusive, "an idle block is locked exclusively");
    this.#cells.delete(block);
    if (this.#spareCells.length < this.#spareCellsMax) this.#spareCells.push(cell);
  }

  #heldCell(block: number): LockCell {
    return present(this.#cells.get(block), "named a lock that is not held");
  }

  #nextTicket(): number {
    this.#ticketLast += 1;
    return this.#ticketLast;
  }
}

function contains(range: { readonly begin: number; readonly end: number }, block: number): boolean {
  return range.begin <= block && block < range.end;
}

function overlap(
  a: { readonly begin: number; readonly end: number },
  b: { readonly begin: number; readonly end: number },
): boolean {
  return a.begin < b.end && b.begin < a.end;
}
