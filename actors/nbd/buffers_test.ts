import { assertEquals, assertStrictEquals } from "@std/assert";
import { bufferBytes, BufferPool } from "./buffers.ts";
import { requestBytesMax } from "../limits.ts";

const KiB = 1024;

Deno.test("a payload pays for the power of two that holds it", () => {
  const lengths = [0, 1, 4096, 4097, 64 * KiB, 64 * KiB + 1, requestBytesMax - 1, requestBytesMax];
  const sizes = [0, 4096, 4096, 8192, 64 * KiB, 128 * KiB, requestBytesMax, requestBytesMax];
  assertEquals(lengths.map(bufferBytes), sizes);
});

Deno.test("a buffer is as long as asked for and comes back for the next request of its size", () => {
  const pool = new BufferPool();
  const first = pool.take(5000, 64 * KiB);
  assertEquals(first.length, 5000);
  pool.give(first, 64 * KiB);
  assertEquals(pool.spareBytes, 8192);
  const second = pool.take(8192, 64 * KiB);
  assertEquals(second.length, 8192);
  assertStrictEquals(second.buffer, first.buffer);
  assertEquals(pool.spareBytes, 0);
});

Deno.test("no more stays spare than allowed", () => {
  const pool = new BufferPool();
  const buffers = [pool.take(4096, 0), pool.take(4096, 0), pool.take(4096, 0)];
  for (const buffer of buffers) pool.give(buffer, 8192);
  assertEquals(pool.spareBytes, 8192);
});

Deno.test("spare buffers make way for one of another size", () => {
  const pool = new BufferPool();
  const buffers = [pool.take(4096, 0), pool.take(64 * KiB, 0)];
  for (const buffer of buffers) pool.give(buffer, 128 * KiB);
  pool.take(32 * KiB, 4096);
  assertEquals(pool.spareBytes, 4096);
});

Deno.test("a spare buffer is taken whole, once, and only for its size", () => {
  const pool = new BufferPool();
  const buffer = pool.take(3000, 0);
  pool.give(buffer, 8192);
  assertEquals(pool.takeSpare(5000, 8192), undefined);
  assertEquals([pool.takeSpare(4096, 8192)?.length, pool.takeSpare(4096, 8192)], [4096, undefined]);
});

Deno.test("what is asked for in vain leaves no more spare than is allowed", () => {
  const pool = new BufferPool();
  pool.give(new Uint8Array(4096), 8192);
  pool.takeSpare(8192, 0);
  assertEquals(pool.spareBytes, 0);
});
