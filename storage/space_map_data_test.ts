/** The data space map by itself: a count that passes through the overflow tree and back into the bitmap. */
import { assertEquals } from "@std/assert";
import { BlockCache } from "./block_cache.ts";
import { dblock, metadataBlock } from "./base/ids.ts";
import { DataSpaceMap } from "./space_map_data.ts";
import { MetadataSpaceMap } from "./space_map_metadata.ts";
import { Transaction } from "./transaction.ts";

function makeMap(blocks: number): { map: DataSpaceMap; transaction: Transaction } {
  const space = new MetadataSpaceMap(100);
  space.load(metadataBlock(0), 1);
  const transaction = new Transaction(new BlockCache(100), space);
  const root = { blocks: 0, allocated: 0, bitmapRoot: metadataBlock(0), overflowRoot: metadataBlock(0) };
  const map = new DataSpaceMap(transaction, root);
  transaction.begin();
  map.format();
  map.grow(blocks);
  return { map, transaction };
}

Deno.test("a count goes up one by one to above 3, and down again to 0, where the block is freed", () => {
  const { map } = makeMap(10);
  const block = dblock(7);
  const up = Array.from({ length: 5 }, () => [map.increment(block), map.count(block)]);
  assertEquals(up, [[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]]);
  assertEquals([map.allocated, map.takeFreed()], [1, []]);
  const down = Array.from({ length: 5 }, () => [map.decrement(block), map.count(block)]);
  assertEquals(down, [[4, 4], [3, 3], [2, 2], [1, 1], [0, 0]]);
  assertEquals([map.allocated, map.takeFreed()], [0, [{ begin: block, length: 1 }]]);
});

Deno.test("an operation that is undone leaves counts, free blocks and the overflow tree as they were", () => {
  const { map, transaction } = makeMap(10);
  const [shared, fresh] = [dblock(3), dblock(4)];
  for (let count = 0; count < 4; count++) map.increment(shared);
  transaction.succeed();
  const root = map.root;
  map.begin();
  transaction.begin();
  map.increment(fresh);
  for (let count = 0; count < 4; count++) map.decrement(shared);
  map.rollback();
  transaction.rollback();
  transaction.begin();
  map.begin();
  assertEquals([map.root, map.count(shared), map.count(fresh), map.takeFreed()], [root, 4, 0, []]);
});
