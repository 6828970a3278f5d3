import { assertEquals, assertThrows } from "@std/assert";
import { BlockSet } from "./block_set.ts";
import { Defect } from "./base/assert.ts";
import { dblock } from "./base/ids.ts";

function setOf(...blocks: number[]): BlockSet {
  const set = new BlockSet();
  for (const block of blocks) set.add(dblock(block));
  return set;
}

Deno.test("a set takes all blocks of another, near its own and far away, and leaves it empty", () => {
  const set = setOf(3, 4, 70_000);
  const other = setOf(5, 71_000, 200_000);
  set.takeAll(other);
  const runs = [...set.runs(100)].map(({ begin, length }) => [Number(begin), length]);
  assertEquals(runs, [[3, 3], [70_000, 1], [71_000, 1], [200_000, 1]]);
  assertEquals([set.size, other.size, [...other.runs(100)].length], [6, 0, 0]);
  other.add(dblock(200_001));
  assertEquals(set.has(dblock(200_001)), false);
});

Deno.test("a set refuses to take a block that it has", () => {
  assertThrows(() => setOf(3).takeAll(setOf(2, 3)), Defect, "twice");
});
