import { assert, assertEquals } from "@std/assert";
import fs from "node:fs";
import { ioOk, type IoResult } from "../../storage/device/port.ts";
import { DiskCalm, hasManyDirtyPages } from "./disk_calm.ts";
import { FileWrites } from "./file_writes.ts";
import { openLibc } from "./libc.ts";

const ignore = openLibc() === undefined;

/** Calm now and then. */
class Moody extends DiskCalm {
  #asked = 0;

  override isCalm(): boolean {
    this.#asked += 1;
    return this.#asked % 3 === 0;
  }
  override waitMs(): number {
    return 0;
  }
}

Deno.test({
  name: "a write on this thread overtakes none that is under way on another",
  ignore,
  fn: async () => {
    const path = Deno.makeTempFileSync({ prefix: "gossamer-writes-" });
    const fd = fs.openSync(path, "r+");
    const writes = new FileWrites(fd, {
      isHereAlways: false,
      isLocal: true,
      calm: new Moody(),
      cachedReads: undefined,
    });
    let later = 0;
    const borrowed = new Uint8Array(200_000);
    for (let round = 1; round <= 200; round += 1) {
      const waiting: Promise<IoResult>[] = [];
      for (let at = 1; at <= 4; at += 1) {
        const { promise, resolve } = Promise.withResolvers<IoResult>();
        borrowed.fill(round * at & 255);
        const result = writes.write(borrowed, 0, resolve, true);
        if (result === "pending") later += 1;
        else resolve(result);
        waiting.push(promise);
      }
      borrowed.fill(0);
      assertEquals(await Promise.all(waiting), [ioOk, ioOk, ioOk, ioOk]);
      assert(writes.isIdle);
      assert(Deno.readFileSync(path).every((byte) => byte === (round * 4 & 255)), `round ${round}`);
    }
    assert(later > 0, "some were made on another thread");
    fs.closeSync(fd);
    Deno.removeSync(path);
  },
});

Deno.test("a disk is calm unless a flush takes long, a write was long, or the host has many dirty pages", () => {
  let isDirty = false;
  const calm = new DiskCalm(() => isDirty);
  assert(calm.isCalm(0) && calm.waitMs(0) > 0);
  const ends = calm.flushBegins(10);
  assert(calm.isCalm(11) && !calm.isCalm(13) && calm.waitMs(13) === 0);
  ends();
  assert(calm.isCalm(14));
  calm.wrote(5);
  for (let short = 0; short < 3; short += 1) {
    assert(!calm.isCalm(20) && calm.waitMs(20) === 0);
    calm.wrote(0.01);
  }
  assert(calm.isCalm(20));
  isDirty = true;
  assert(!calm.isCalm(500));
  isDirty = false;
  assert(calm.isCalm(1000));
});

Deno.test("this thread waits for others for a fifth of its time at most", () => {
  const calm = new DiskCalm(() => false);
  calm.waited(0.02, 0);
  assert(calm.waitMs(0.02) > 0, "the way there and back is not counted");
  calm.waited(1, 10);
  assertEquals([calm.waitMs(13.9), calm.waitMs(14)], [0, 1]);
});

Deno.test("dirty pages are many where the host writes them back, as its own figures say", () => {
  const text = (dirty: number) =>
    `nr_dirty ${dirty}\nnr_writeback 10\nnr_dirty_threshold 400\nnr_dirty_background_threshold 200\n`;
  assertEquals([text(100), text(191), ""].map(hasManyDirtyPages), [false, true, false]);
});
