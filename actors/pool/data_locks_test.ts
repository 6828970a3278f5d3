/** The regions of the data device: a lock excludes another of the same block, in whatever stripe and of whatever size. */
import { assertEquals } from "@std/assert";
import { dblock } from "../../storage/base/ids.ts";
import { startCollecting } from "../../tests/support/stand_ins.ts";
import { World } from "../../tests/support/world.ts";
import type { Steps } from "../kernel/task.ts";
import { defaultKnobs } from "../knobs.ts";
import { dataRegions } from "../limits.ts";
import { spawnDataLocks } from "./data_locks.ts";

/** A world with data locks, and locks that were asked for and those that are held. */
function lockedWorld() {
  const world = new World();
  const locks = spawnDataLocks(world.kernel);
  const start = (steps: Steps<Disposable>): Disposable[] => {
    const held: Disposable[] = [];
    startCollecting(world.kernel, steps, held);
    world.runReady();
    return held;
  };
  const release = (held: Disposable[]) => {
    held[0]![Symbol.dispose]();
    world.runReady();
  };
  return { locks, start, release };
}

const { dataStripeBlocks } = defaultKnobs;

/** The first block, the last before the stripes begin again with the first region, the first after it, and one far beyond. */
const roundBlocks = dataRegions * dataStripeBlocks;
const blocks = [0, roundBlocks - 1, roundBlocks, 5 * roundBlocks + 3];

for (const block of blocks) {
  Deno.test(`a lock of block ${block} is kept until it is released, whatever lies beyond it`, () => {
    const { locks, start, release } = lockedWorld();
    const fresh = start(locks.fresh(dblock(block)));
    assertEquals(fresh.length, 1);
    const passdown = start(locks.range(block, block + 1));
    const other = start(locks.range(block + 1, block + 2));
    assertEquals([passdown.length, other.length], [0, 1]);
    release(fresh);
    assertEquals(passdown.length, 1);
  });
}

Deno.test("two blocks of one region do not exclude each other", () => {
  const { locks, start } = lockedWorld();
  assertEquals(start(locks.fresh(dblock(0))).length, 1);
  assertEquals(start(locks.fresh(dblock(roundBlocks))).length, 1);
});

Deno.test("a range over several stripes waits for a block in each, and holds all of them", () => {
  const { locks, start, release } = lockedWorld();
  const end = 3 * dataStripeBlocks;
  const copies = [10, dataStripeBlocks, end - 1].map((block) => start(locks.source(dblock(block))));
  const range = start(locks.range(5, end));
  for (const copy of copies) {
    assertEquals(range.length, 0);
    release(copy);
  }
  assertEquals(range.length, 1);
  const after = [5, dataStripeBlocks + 7, end - 1].map((block) => start(locks.source(dblock(block))));
  assertEquals(after.map((held) => held.length), [0, 0, 0]);
  assertEquals(start(locks.source(dblock(end))).length, 1);
  release(range);
  assertEquals(after.map((held) => held.length), [1, 1, 1]);
});

Deno.test("a range that wraps around all regions is held whole", () => {
  const { locks, start, release } = lockedWorld();
  const begin = (dataRegions - 1) * dataStripeBlocks;
  const range = start(locks.range(begin, begin + 2 * dataStripeBlocks));
  assertEquals(range.length, 1);
  const late = start(locks.fresh(dblock(roundBlocks)));
  assertEquals([late.length, start(locks.fresh(dblock(0))).length], [0, 1]);
  release(range);
  assertEquals(late.length, 1);
});
