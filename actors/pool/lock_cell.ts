/**
 * The lock state of one block: what is held, and which requests wait. Part of the LockRegion actor.
 *
 * Which lock may be granted beside a held one:
 *
 *   held             read    write   exclude writers   exclusive or range
 *   read             grant   grant   grant             wait
 *   write            grant   grant   wait              wait
 *   exclude writers  grant   wait    wait              wait
 *   range            wait    wait    wait              wait
 */
import { assert, unreachable } from "../../storage/base/assert.ts";
import type { Access, LockBlock, Promote, Unlock, Upgrade } from "./region_locks.ts";

/** A waiting lock request. Tickets ascend in the order of arrival at the region. */
export interface Waiter {
  readonly request: LockBlock;
  readonly ticket: number;
}

export class LockCell {
  readers = 0;
  writers = 0;
  /** A holder excludes writers; `exclusive`: and readers. */
  excluding = false;
  exclusive = false;
  /** The promotion that waits until the readers are gone, or was granted. */
  promotion: Promote | undefined;
  upgrades: Upgrade[] = [];
  waiting: Waiter[] = [];

  /** True if the block is not locked and no request waits for it. */
  get isIdle(): boolean {
    return this.readers === 0 && this.writers === 0 && !this.excluding && this.upgrades.length === 0 &&
      this.waiting.length === 0;
  }

  /** True if a range lock with this ticket must wait for the cell: for every holder and upgrade, and for earlier waiters. */
  isBefore(ticket: number): boolean {
    if (this.readers > 0 || this.writers > 0 || this.excluding || this.upgrades.length > 0) return true;
    return this.waiting.some((waiter) => waiter.ticket < ticket);
  }

  /** Whether the cell allows the access now. Range locks are the region's. */
  admits(access: Access): boolean {
    if (this.promotion !== undefined) return false;
    if (access !== "read" && (this.excluding || this.upgrades.length > 0)) return false;
    if (access === "exclusive" && (this.readers > 0 || this.writers > 0)) return false;
    return !this.exclusive;
  }

  /** Counts a granted access. */
  enter(access: Access): void {
    assert(!this.exclusive, "granted a lock beside an exclusive one");
    assert(this.promotion === undefined, "granted a lock in front of a promotion");
    if (access === "read") this.readers += 1;
    else if (access === "write") {
      assert(!this.excluding, "granted a write lock while writers are excluded");
      this.writers += 1;
    } else {
      assert(this.readers === 0 && this.writers === 0, "granted an exclusive lock of a held block");
      this.excluding = this.exclusive = true;
    }
  }

  /** Counts the release of what {@linkcode enter}, an upgrade or a promotion granted. */
  leave(held: Unlock["held"]): void {
    switch (held) {
      case "read":
        assert(this.readers > 0, "released a read lock that is not held");
        this.readers -= 1;
        return;
      case "write":
        assert(this.writers > 0, "released a write lock that is not held");
        this.writers -= 1;
        return;
      case "excludeWriters":
      case "exclusive":
        assert(this.excluding, "released an exclusive lock that is not held");
        assert(this.exclusive === (held === "exclusive"), "released a lock of another level");
        assert(
          this.writers === 0 && (!this.exclusive || this.readers === 0),
          "others hold an exclusive lock",
        );
        this.excluding = false;
        this.exclusive = false;
        this.promotion = undefined;
        return;
      default:
        unreachable(held);
    }
  }
}
