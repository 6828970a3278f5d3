import { assertEquals } from "@std/assert";
import { ShortFlushes } from "./short_flushes.ts";

/** Pairs of a write and a flush; tells how many flushes were done at once. */
class Pairs {
  readonly flushes: ShortFlushes;
  nowMs = 1000;

  constructor(isOn = true) {
    this.flushes = new ShortFlushes(isOn);
  }

  run(count: number, { bytes = 4096, ms = 0.1, isAlone = true } = {}): number {
    let atOnce = 0;
    for (let at = 0; at < count; at += 1) {
      this.flushes.wrote(bytes);
      const flush = this.flushes.begin(this.nowMs, isAlone);
      if (flush.isAtOnce) atOnce += 1;
      this.nowMs += ms;
      this.flushes.ended(flush, this.nowMs);
    }
    return atOnce;
  }
}

Deno.test("small flushes are done at once after the first have been short", () => {
  assertEquals(new Pairs().run(100), 92);
});

Deno.test("where it is not wanted, no flush is done at once", () => {
  assertEquals(new Pairs(false).run(1000), 0);
});

Deno.test("on a slow disk no flush is done at once", () => {
  assertEquals(new Pairs().run(1000, { ms: 5 }), 0);
});

Deno.test("a long flush at once, where others were heard, sends the next to the other thread for fifty times as long", () => {
  const pairs = new Pairs();
  pairs.run(100);
  pairs.flushes.disturbed();
  pairs.run(1);
  assertEquals(pairs.run(1, { ms: 5 }), 1);
  assertEquals(pairs.run(499, { ms: 0.5 }), 0);
  pairs.run(2, { ms: 0.5 });
  assertEquals(pairs.run(10), 10);
});

Deno.test("a long flush at once delays nobody where nobody was heard for a second: short ones soon go on", () => {
  const pairs = new Pairs();
  pairs.flushes.disturbed();
  pairs.run(1);
  pairs.run(100);
  pairs.nowMs += 1000;
  assertEquals(pairs.run(1, { ms: 5 }), 1);
  assertEquals(pairs.run(18, { ms: 0.5 }), 10);
});

Deno.test("a long flush by the other thread keeps nobody waiting, so short ones soon go at once again", () => {
  const pairs = new Pairs();
  pairs.run(100);
  assertEquals(pairs.run(1, { bytes: 1 << 20, ms: 50 }), 0);
  assertEquals(pairs.run(18), 10);
});

Deno.test("a flush after many bytes, many writes or a read goes to the other thread, and then they go on", () => {
  const pairs = new Pairs();
  pairs.run(100);
  assertEquals(pairs.run(1, { bytes: 1 << 20 }), 0);
  for (let at = 0; at < 17; at += 1) pairs.flushes.wrote(512);
  assertEquals(pairs.flushes.begin(pairs.nowMs, true).isAtOnce, false);
  pairs.flushes.disturbed();
  assertEquals(pairs.flushes.begin(pairs.nowMs, true).isAtOnce, false);
  assertEquals(pairs.run(10), 10);
});

Deno.test("a flush for which several wait, or beside another one, goes to the other thread", () => {
  const pairs = new Pairs();
  pairs.run(100);
  assertEquals(pairs.run(10, { isAlone: false }), 0);
  assertEquals(pairs.run(10), 10);
});

Deno.test("a flush is near after a write by a client that flushes after each, and not after many in a row", () => {
  const pairs = new Pairs();
  pairs.run(8);
  assertEquals(pairs.flushes.isFlushNear, false);
  pairs.flushes.wrote(4096);
  assertEquals(pairs.flushes.isFlushNear, true);
  pairs.flushes.wrote(4096);
  assertEquals(pairs.flushes.isFlushNear, false);
  pairs.flushes.begin(pairs.nowMs, true);
  pairs.flushes.wrote(4096);
  assertEquals(pairs.flushes.isFlushNear, false);
});
