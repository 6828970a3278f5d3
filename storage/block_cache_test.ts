import { assert, assertEquals, assertThrows } from "@std/assert";
import { BlockCache, kindBitmap } from "./block_cache.ts";
import { sealBlock } from "./format/block_header.ts";
import { type MetadataBlock, metadataBlock, metadataBlockSizeBytes } from "./base/ids.ts";
import { MetadataFault } from "./metadata_fault.ts";

/** A sealed bitmap whose first byte of counts is `mark`. */
function sealedBitmap(block: MetadataBlock, mark: number): Uint8Array {
  const bytes = new Uint8Array(metadataBlockSizeBytes);
  bytes[16] = mark;
  sealBlock(bytes, "bitmap", block);
  return bytes;
}

/** Whether the block is there; a miss is a fault that asks for it. */
function isCached(cache: BlockCache, block: MetadataBlock): boolean {
  cache.beginOperation();
  try {
    cache.read(block, kindBitmap);
  } catch (error) {
    assert(error instanceof MetadataFault && error.fault.kind === "missing");
    return false;
  }
  cache.endOperation();
  return true;
}

function fill(cache: BlockCache, block: MetadataBlock, mark = 0): void {
  assertEquals(isCached(cache, block), false);
  cache.supply(block, sealedBitmap(block, mark));
}

Deno.test("clean blocks stay within the bound, and one used all the time is hardly ever missed", () => {
  const cache = new BlockCache(8);
  const hot = metadataBlock(1);
  let misses = 0;
  for (let block = 2; block <= 100; block++) {
    fill(cache, metadataBlock(block));
    assert(isCached(cache, metadataBlock(block)), "what was supplied is there");
    if (isCached(cache, hot)) continue;
    misses++;
    cache.supply(hot, sealedBitmap(hot, 0));
  }
  assertEquals(cache.size, 8);
  assert(misses <= 3, `missed ${misses} times`);
});

Deno.test("what a faulting operation touched stays until it succeeds", () => {
  const cache = new BlockCache(1);
  const [a, b] = [metadataBlock(1), metadataBlock(2)];
  fill(cache, a);
  assert(isCached(cache, a), "supplied");
  const both = (): void => {
    cache.beginOperation();
    cache.read(a, kindBitmap);
    cache.read(b, kindBitmap);
    cache.endOperation();
  };
  assertThrows(both, MetadataFault);
  for (let other = 10; other < 30; other++) {
    fill(cache, metadataBlock(other));
    isCached(cache, metadataBlock(other));
  }
  cache.supply(b, sealedBitmap(b, 0));
  both(); // neither is missing although the bound is one block
  fill(cache, metadataBlock(40));
  isCached(cache, metadataBlock(40));
  fill(cache, metadataBlock(41));
  assert(cache.size <= 2, "the pins are gone");
});

Deno.test("a block that nobody asked for, or that is here already, is ignored", () => {
  const cache = new BlockCache(3);
  const block = metadataBlock(7);
  cache.supply(block, sealedBitmap(block, 1));
  assertEquals(cache.size, 0);
  fill(cache, block, 2);
  cache.supply(block, sealedBitmap(block, 3));
  assertEquals(cache.read(block, kindBitmap).bytes[16], 2);
});

Deno.test("bytes read before their block was allocated anew are not taken", () => {
  const cache = new BlockCache(1);
  const block = metadataBlock(7);
  assertEquals(isCached(cache, block), false); // a read of the old content is under way
  const entry = cache.create(block, kindBitmap);
  entry.state = "frozen";
  cache.clean(entry);
  entry.referenced = false;
  fill(cache, metadataBlock(8)); // evicts the new content, which is on the device
  assertEquals(isCached(cache, block), false);
  cache.supply(block, sealedBitmap(block, 1)); // the old content arrives
  assertEquals(isCached(cache, block), false);
  cache.supply(block, sealedBitmap(block, 2));
  assert(isCached(cache, block), "a new read is taken");
  assertEquals(cache.read(block, kindBitmap).bytes[16], 2);
});

Deno.test("a damaged block is forgotten, so that the next use reads it again", () => {
  const cache = new BlockCache(3);
  const block = metadataBlock(7);
  assertEquals(isCached(cache, block), false);
  const bytes = sealedBitmap(block, 1);
  bytes[2000] = 9;
  cache.supply(block, bytes);
  cache.beginOperation();
  const fault = (assertThrows(() => cache.read(block, kindBitmap)) as MetadataFault).fault;
  assertEquals(fault, { kind: "damaged", block, reason: "its checksum is not that of a space map bitmap" });
  fill(cache, block, 5);
  assert(isCached(cache, block), "the block is sound now");
});

Deno.test("the buffer of an evicted block is used for another one, zeroed where that is made anew", () => {
  const cache = new BlockCache(1);
  for (const number of [1, 2, 3]) {
    fill(cache, metadataBlock(number), 0xee);
    assert(isCached(cache, metadataBlock(number)));
  }
  assertEquals(cache.size, 1);
  const made = cache.create(metadataBlock(9), kindBitmap);
  assertEquals(made.bytes, new Uint8Array(metadataBlockSizeBytes));
  assertEquals(cache.takeBuffer()[16], 0xee);
  assertEquals(cache.takeBuffer(), new Uint8Array(metadataBlockSizeBytes));
});

Deno.test("the buffer of a block that was undone or forgotten is the next block's, and zeroed", () => {
  const cache = new BlockCache(8);
  const [one, two] = [metadataBlock(1), metadataBlock(2)];
  cache.beginOperation();
  const undone = cache.create(one, kindBitmap);
  undone.bytes[16] = 0xee;
  cache.uncreate(one, undefined);
  assertEquals(undone.state, "gone");
  const next = cache.create(two, kindBitmap);
  assert(next.bytes === undone.bytes, "the buffer is used again");
  assertEquals(next.bytes[16], 0);
  cache.forget(next);
  assert(cache.takeBuffer() === next.bytes, "the buffer is used again");
});

Deno.test("of a block created twice in what is undone, both buffers are used again, each once", () => {
  const cache = new BlockCache(8);
  const block = metadataBlock(1);
  cache.beginOperation();
  const first = cache.create(block, kindBitmap);
  const displaced = cache.displace(block);
  const second = cache.create(block, kindBitmap);
  cache.uncreate(block, displaced);
  cache.uncreate(block, undefined);
  const taken = new Set([cache.takeBuffer(), cache.takeBuffer()]);
  assert(taken.has(first.bytes) && taken.has(second.bytes), "two buffers, and not one of them twice");
  assertEquals(cache.peek(block), undefined);
});
