/** The metadata space map by itself: allocation rules, and its own move at a commit. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { BlockCache } from "./block_cache.ts";
import { type MetadataBlock, metadataBlock } from "./base/ids.ts";
import { MetadataFault } from "./metadata_fault.ts";
import { MetadataSpaceLayout } from "./space_map_layout.ts";
import { MetadataSpaceMap } from "./space_map_metadata.ts";
import { Transaction } from "./transaction.ts";

function makeSpace(blocks: number): MetadataSpaceMap {
  const space = new MetadataSpaceMap(blocks);
  space.load(metadataBlock(0), 1);
  return space;
}

function allocateAll(space: MetadataSpaceMap): MetadataBlock[] {
  const all: MetadataBlock[] = [];
  while (space.allocatable > 0) all.push(space.allocate());
  return all;
}

Deno.test("every block but the superblock's is handed out once, and then none", () => {
  const space = makeSpace(10);
  assertEquals(allocateAll(space), [1, 2, 3, 4, 5, 6, 7, 8, 9].map(metadataBlock));
  assertThrows(() => space.allocate(), MetadataFault);
});

Deno.test("a block freed in the transaction that made it is free at once", () => {
  const space = makeSpace(3);
  const [first] = allocateAll(space);
  space.decrement(first!);
  assertEquals(space.allocate(), first);
});

Deno.test("a block of the durable state is free only when the commit that freed it is durable", () => {
  const space = makeSpace(2);
  const block = space.allocate();
  space.freeze();
  space.durable();
  space.decrement(block);
  assertEquals(space.allocatable, 0);
  space.freeze();
  assertEquals(space.allocatable, 0);
  space.durable();
  assertEquals(space.allocatable, 1);
});

Deno.test("a block freed while its own commit is under way waits for the next one", () => {
  const space = makeSpace(2);
  const block = space.allocate();
  space.freeze();
  space.decrement(block);
  space.durable();
  assertEquals(space.allocatable, 0);
  space.freeze();
  space.durable();
  assertEquals(space.allocatable, 1);
});

Deno.test("a view holds what its commit had, and nothing younger", () => {
  const space = makeSpace(4);
  const old = space.allocate();
  space.freeze();
  space.durable();
  const held = space.hold();
  const young = space.allocate();
  space.freeze();
  space.durable();
  space.decrement(old);
  space.decrement(young);
  space.freeze();
  space.durable();
  assertEquals(allocateAll(space), [metadataBlock(3), young]);
  space.unhold(held);
  assertEquals(space.allocate(), old);
});

Deno.test("a rollback restores counts, flags and numbers", () => {
  const space = makeSpace(20);
  const [a, b] = [space.allocate(), space.allocate()];
  space.freeze();
  space.durable();
  const numbers =
    () => [space.used, space.allocatable, space.newInUse, space.overflowing, space.count(a), space.count(b)];
  const before = numbers();
  space.begin();
  for (let count = 0; count < 5; count++) space.increment(a);
  space.decrement(b);
  const made = space.allocate();
  space.decrement(made);
  space.rollback();
  assertEquals(numbers(), before);
  assert(!space.isNew(made), "what it allocated is not of this transaction");
});

Deno.test("a count below zero and a reference to a free block are damage", () => {
  const space = makeSpace(3);
  assertEquals(
    (assertThrows(() => space.decrement(metadataBlock(1))) as MetadataFault).fault.kind,
    "damaged",
  );
  assertEquals(
    (assertThrows(() => space.increment(metadataBlock(1))) as MetadataFault).fault.kind,
    "damaged",
  );
  assertEquals(
    (assertThrows(() => space.increment(metadataBlock(9))) as MetadataFault).fault.kind,
    "damaged",
  );
});

Deno.test("a move that finds no space is undone and works when there is space again", () => {
  const space = makeSpace(20);
  const transaction = new Transaction(new BlockCache(10), space);
  const layout = new MetadataSpaceLayout(transaction);
  space.markAllDirty();
  transaction.begin();
  layout.move();
  layout.endTransaction();
  transaction.succeed();
  transaction.freeze();
  transaction.durable();
  const used = space.used;

  transaction.begin();
  const filler = allocateAll(space);
  space.decrement(filler.pop()!); // room for the index block, but not for the bitmap
  transaction.succeed();
  transaction.begin();
  assertThrows(() => layout.move(), MetadataFault);
  layout.rollback();
  transaction.rollback();

  transaction.begin();
  for (const block of filler) space.decrement(block);
  const root = layout.move();
  layout.endTransaction();
  transaction.succeed();
  transaction.freeze();
  transaction.durable();
  assertEquals([space.used, root.allocated], [used, used]);
});
