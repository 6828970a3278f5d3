/** Files on a disk: what the host keeps of them, and what it can be made to let go of. */
import { assert, assertEquals } from "@std/assert";
import fs from "node:fs";
import {
  cachedPages,
  cachedPagesByMapping,
  isNotedFlushed,
  letGo,
  noteFlushed,
  readPastCache,
} from "./page_cache.ts";

const tmpfsType = 0x0102_1994;
/** tmpfs has nothing behind its page cache, and so nothing to let go of. */
const isOnDisk = fs.statfsSync("/tmp").type !== tmpfsType;
const sizeBytes = 100 * 4096;

function testOnFile(name: string, test: (path: string, fd: number) => Promise<void>): void {
  Deno.test({
    name,
    ignore: !isOnDisk,
    fn: async () => {
      const path = await Deno.makeTempFile({ prefix: "gossamer-cache-" });
      const fd = fs.openSync(path, "r+");
      try {
        fs.writeSync(fd, new Uint8Array(sizeBytes).fill(7), 0, sizeBytes, 0);
        await test(path, fd);
      } finally {
        fs.closeSync(fd);
        await Deno.remove(path);
      }
    },
  });
}

testOnFile(
  "the host lets go of all that it has written, and is asked in two ways whether it did",
  async (_path, fd) => {
    assertEquals([cachedPages(fd, sizeBytes), cachedPagesByMapping(fd, sizeBytes)], [100, 100]);
    fs.fdatasyncSync(fd);
    assertEquals(await letGo(fd, sizeBytes), 0);
    assertEquals([cachedPages(fd, sizeBytes), cachedPagesByMapping(fd, sizeBytes)], [0, 0]);
    fs.readSync(fd, new Uint8Array(1), 0, 1, 5 * 4096);
    assert(cachedPages(fd, sizeBytes)! > 0);
  },
);

testOnFile("reading past the page cache gives what the file holds", (path, fd) => {
  fs.writeSync(fd, new Uint8Array(8).fill(9), 0, 8, 4096);
  fs.fdatasyncSync(fd);
  const read = readPastCache(path, 2 * 4096);
  assertEquals([read?.length, read?.[0], read?.[4096], read?.[4104]], [8192, 7, 9, 7]);
  return Promise.resolve();
});

testOnFile(
  "a file is as flushed as noted until it is written again, and another file never is",
  async (path, fd) => {
    assert(!isNotedFlushed(fd));
    noteFlushed(fd);
    assert(isNotedFlushed(fd));
    await Deno.utime(path, 1000, 2000);
    assert(!isNotedFlushed(fd));
    noteFlushed(fd);
    fs.writeSync(fd, new Uint8Array(1), 0, 1, 0);
    assert(!isNotedFlushed(fd));
  },
);
