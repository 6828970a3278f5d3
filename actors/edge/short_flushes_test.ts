import { assertEquals } from "@std/assert";
import { ShortFlushes } from "./short_flushes.ts";

/** A write and a flush, so often; how many flushes were done at once. */
function pairs(flushes: ShortFlushes, count: number, { bytes = 4096, ms = 0.1 } = {}): number {
  let atOnce = 0;
  for (let at = 0; at < count; at += 1) {
    flushes.wrote(bytes);
    const flush = flushes.begin();
    if (flush.isAtOnce) atOnce += 1;
    flushes.ended(flush, ms);
  }
  return atOnce;
}

Deno.test("small flushes are done at once after the first have been short", () => {
  assertEquals(pairs(new ShortFlushes(true), 100), 92);
});

Deno.test("where it is not wanted, no flush is done at once", () => {
  assertEquals(pairs(new ShortFlushes(false), 1000), 0);
});

Deno.test("on a slow disk no flush is done at once", () => {
  assertEquals(pairs(new ShortFlushes(true), 1000, { ms: 5 }), 0);
});

Deno.test("one long flush sends the next hundreds to the other thread", () => {
  const flushes = new ShortFlushes(true);
  pairs(flushes, 100);
  assertEquals(pairs(flushes, 1, { ms: 5 }), 1);
  assertEquals(pairs(flushes, 256), 0);
  assertEquals(pairs(flushes, 10), 10);
});

Deno.test("a flush after many bytes, many writes or a read goes to the other thread, and then they go on", () => {
  const flushes = new ShortFlushes(true);
  pairs(flushes, 100);
  assertEquals(pairs(flushes, 1, { bytes: 1 << 20 }), 0);
  for (let at = 0; at < 17; at += 1) flushes.wrote(512);
  assertEquals(flushes.begin().isAtOnce, false);
  flushes.disturbed();
  assertEquals(flushes.begin().isAtOnce, false);
  assertEquals(pairs(flushes, 10), 10);
});
