/** READs that are sent from the host's page cache, without a copy: what clients see of them, whatever happens meanwhile. */
import fs from "node:fs";
import { assert, assertEquals } from "@std/assert";
import { CachedReads } from "../../actors/edge/cached_reads.ts";
import { fileSizeCheckMs } from "../../actors/limits.ts";
import { openLibc } from "../../actors/edge/libc.ts";
import { fromLibc, libraryName } from "../../actors/edge/libc_symbols.ts";
import {
  NBD_CMD_FLAG_DF,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_EIO,
} from "../../actors/nbd/wire/constants.ts";
import { PoolOnDisk } from "../support/server.ts";
import { HostilePool, pattern, pause } from "./hostile_pool.ts";
import { type Command, RawClient } from "./raw_client.ts";

const ignore = openLibc() === undefined;
const KiB = 1024;
const MiB = 1024 * KiB;
const block = 64 * KiB;

/** What the data device is asked while this is there. */
class Asked implements Disposable {
  /** Reads that were answered with a mapped segment. */
  mapped = 0;
  #reads = 0;

  constructor(readonly pool: HostilePool) {
    pool.process.kernel.trace = {
      record: ({ kind, from, to, text }) => {
        if (kind === "ask" && to === "data device" && text.startsWith("read")) this.#reads += 1;
        if (kind === "reply" && from === "data device" && text === "mapped") this.mapped += 1;
      },
    };
  }

  /** Reads into memory. */
  get reads(): number {
    return this.#reads - this.mapped;
  }

  [Symbol.dispose](): void {
    this.pool.process.kernel.trace = undefined;
  }
}

const calls = fromLibc(() =>
  Deno.dlopen(libraryName, {
    posix_fadvise: { parameters: ["i32", "i64", "i64", "i32"], result: "i32" },
  }).symbols
);
const adviceDontNeed = 4;

/** Has the host forget what it has of a file in memory, apart from what was sent from there. False if it has no disk. */
function forgetFile(path: string): boolean {
  const fd = fs.openSync(path, "r+");
  fs.fdatasyncSync(fd);
  calls?.posix_fadvise(fd, 0n, 0n, adviceDontNeed);
  const hasDisk = CachedReads.of(fd) !== undefined;
  fs.closeSync(fd);
  return hasDisk;
}

function viewTest(name: string, dataBytes: number, run: (pool: HostilePool) => Promise<void>): void {
  Deno.test({
    name,
    ignore,
    fn: async () => {
      await using pool = await HostilePool.serve(dataBytes);
      await run(pool);
      await pool.requireUnharmed();
    },
  });
}

/** Reads until the host is known to have it all in memory. */
async function warm(client: RawClient, lengthBytes: number): Promise<void> {
  for (let times = 0; times < 3; times += 1) {
    for (let at = 0; at < lengthBytes; at += MiB) await client.read(at, Math.min(MiB, lengthBytes - at));
  }
}

const same = (one: Uint8Array, other: Uint8Array) =>
  one.length === other.length && one.toHex() === other.toHex();

const readBytes = MiB;

/**
 * A client that has asked for the first MiB of `disk` and takes nothing of it, once that was seen and not read: where the
 * machine is so busy that the request takes several runs of the kernel, it is read after all.
 */
async function deaf(pool: HostilePool, structured: boolean): Promise<RawClient> {
  for (let times = 0; times < 20; times += 1) {
    const client = await pool.attach("disk", { structured });
    using asked = new Asked(pool);
    await client.sendCommand({ type: NBD_CMD_READ, lengthBytes: readBytes });
    // Until the server has answered as far as there was room.
    await pause(20);
    if (asked.mapped === 16 && asked.reads === 0) return client;
    client.close();
  }
  throw new Error("what is in the host's memory was read all the same");
}

for (const structured of [true, false]) {
  const kind = structured ? "structured" : "simple";
  viewTest(
    `a READ not taken is as it was answered, though overwritten since, ${kind}`,
    64 * MiB,
    async (pool) => {
      using writer = await pool.attach("disk");
      const before = pattern(readBytes, 2);
      await writer.write(0, before);
      await warm(writer, readBytes);
      using reader = await deaf(pool, structured);
      const after = pattern(readBytes, 3);
      await writer.write(0, after);
      await writer.flush();
      assert(same((await reader.receiveReply()).data, before), "other bytes than when it was answered");
      assert(same(await reader.read(0, readBytes), after), "other bytes than were written");
      await writer.disconnect();
      await reader.disconnect();
    },
  );

  // 3 MiB of data, of which 1.4 are used: what the trim frees is used again for what another volume writes.
  viewTest(`..., though its blocks are another volume's since, ${kind}`, 3 * MiB, async (pool) => {
    using writer = await pool.attach("disk");
    using other = await pool.attach("huge");
    const before = pattern(readBytes, 4);
    await writer.write(0, before);
    await warm(writer, readBytes);
    using reader = await deaf(pool, structured);
    assertEquals((await writer.perform({ type: NBD_CMD_TRIM, lengthBytes: readBytes })).error, 0);
    await writer.flush();
    const theirs = pattern(2.5 * MiB, 5);
    await other.write(0, theirs);
    await other.flush();
    assert(same((await reader.receiveReply()).data, before), "bytes of another volume, or of none");
    assert(same(await other.read(0, theirs.length), theirs), "the other volume has other bytes");
    for (const client of [writer, other, reader]) await client.disconnect();
  });
}

/** Blocks of `disk`, each in a slice of its own of what is mapped: only those that are read twice before are seen. */
const mixed = "VRHVHRRVVR.VH";
const apartBytes = 2 * MiB;

/** Writes the blocks so that they lie apart on the data device, and has the views taken in. */
async function mix(pool: HostilePool, mixed: string): Promise<Uint8Array> {
  using client = await pool.attach("disk");
  using filler = await pool.attach("huge");
  const content = new Uint8Array(mixed.length * block);
  let fillerAt = 0;
  for (const [at, kind] of [...mixed].entries()) {
    if (kind === "H" || kind === ".") continue;
    const written = pattern(block, 10 + at);
    content.set(written, at * block);
    await client.write(at * block, written);
    await filler.write(fillerAt, new Uint8Array(apartBytes - block).fill(1));
    fillerAt += apartBytes - block;
  }
  for (const [at, kind] of [...mixed].entries()) {
    for (let times = 0; kind === "V" && times < 2; times += 1) await client.read(at * block + 5, 100);
  }
  await client.disconnect();
  await filler.disconnect();
  return content;
}

for (
  const [what, structured, flags] of [
    ["structured replies", true, 0],
    ["DF", true, NBD_CMD_FLAG_DF],
    ["simple replies", false, 0],
  ] as const
) {
  viewTest(`holes, what is read and what is seen make one READ, with ${what}`, 64 * MiB, async (pool) => {
    const content = await mix(pool, mixed);
    using client = await pool.attach("disk", { structured });
    // The memory that it is read into is not new.
    await client.write(40 * MiB, new Uint8Array(content.length - 999).fill(0xee));
    const kinds = [...mixed];
    using asked = new Asked(pool);
    const reply = await client.perform({
      type: NBD_CMD_READ,
      flags,
      offsetBytes: 777,
      lengthBytes: content.length - 999,
    });
    assert(same(reply.data, content.subarray(777, content.length - 222)), "other bytes");
    const data = kinds.filter((kind) => kind === "V" || kind === "R").length;
    const buffered = kinds.filter((kind) => kind === "R").length;
    // All of it was read after all if it took more than one run of the kernel, on a busy machine.
    assertEquals(asked.mapped, data - buffered);
    assert(asked.reads === buffered || asked.reads === buffered + data, `${asked.reads} reads`);
    if (structured) assertEquals(reply.chunks.length, flags === 0 ? mixed.match(/[VR]+|[H.]+/g)!.length : 1);
    // Each begin and end, by itself.
    for (let at = 0; at < mixed.length; at += 1) {
      const [begin, end] = [Math.max(0, at * block - 1), Math.min(content.length, (at + 2) * block + 1)];
      const part = await client.perform({
        type: NBD_CMD_READ,
        flags,
        offsetBytes: begin,
        lengthBytes: end - begin,
      });
      assert(same(part.data, content.subarray(begin, end)), `other bytes at block ${at}`);
    }
    await client.disconnect();
  });
}

viewTest(
  "a READ that waits for one of its blocks is read whole, what was seen of it too",
  64 * MiB,
  async (pool) => {
    const content = await mix(pool, "VRV");
    using client = await pool.attach("disk");
    using asked = new Asked(pool);
    const isCold = forgetFile(pool.dataPath);
    assert(same(await client.read(0, content.length), content), "other bytes");
    assertEquals([asked.mapped, asked.reads], [2, isCold ? 4 : 1]);
    await client.disconnect();
  },
);

viewTest("32 MiB are read whole, several at once, by clients that read slowly", 128 * MiB, async (pool) => {
  using writer = await pool.attach("disk");
  const written = pattern(32 * MiB, 6);
  await writer.write(0, written);
  await warm(writer, 32 * MiB);
  const readers = await Promise.all([0, 1, 2].map(() => pool.attach("disk", { structured: false })));
  for (const reader of readers) {
    for (let times = 0; times < 2; times += 1) {
      await reader.sendCommand({ type: NBD_CMD_READ, lengthBytes: 32 * MiB });
    }
  }
  await pause(50);
  for (const reader of readers) {
    for (let times = 0; times < 2; times += 1) {
      assert(same((await reader.receiveReply()).data, written), "other bytes");
    }
    await reader.disconnect();
  }
  await writer.disconnect();
});

Deno.test({
  name: "a data file that somebody cuts off is an error of the reads, and the server lives",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M");
    await pool.verb("create", "disk", "16M");
    const server = await pool.serve();
    using client = await RawClient.attach({ path: server.socket }, "disk");
    await client.write(0, pattern(4 * MiB, 7));
    await client.flush();
    await warm(client, 4 * MiB);
    Deno.truncateSync(pool.dataPath, 0);
    for (const structured of [true, false]) {
      using reader = await RawClient.attach({ path: server.socket }, "disk", { structured });
      await reader.sendCommand({ type: NBD_CMD_READ, lengthBytes: 4 * MiB });
      const outcome = await reader.receiveReply().then(({ error }) => error !== 0, () => "ended");
      assert(outcome === true || outcome === "ended", "bytes that nobody has");
    }
    using alive = await RawClient.attach({ path: server.socket }, "disk");
    assertEquals(
      (await alive.perform({ type: NBD_CMD_READ, offsetBytes: 8 * MiB, lengthBytes: 512 })).error,
      0,
    );
    await server.kill();
  },
});

for (const structured of [true, false]) {
  const kind = structured ? "structured" : "simple";
  viewTest(
    `a data file cut below the server: errors for what is gone, and clients stay, ${kind}`,
    64 * MiB,
    async (pool) => {
      using client = await pool.attach("disk", { structured });
      const bytes = pattern(4 * MiB, 9);
      for (let at = 0; at < bytes.length; at += MiB) await client.write(at, bytes.subarray(at, at + MiB));
      await client.flush();
      await warm(client, bytes.length);
      Deno.truncateSync(pool.dataPath, 2 * MiB);
      await pause(2 * fileSizeCheckMs);
      const errorOf = async (command: Command) => (await client.perform(command)).error;
      assertEquals(
        await errorOf({ type: NBD_CMD_READ, offsetBytes: 3 * MiB, lengthBytes: 256 * KiB }),
        NBD_EIO,
      );
      assertEquals(await errorOf({ type: NBD_CMD_READ, offsetBytes: 3 * MiB, lengthBytes: 512 }), NBD_EIO);
      const payload = bytes.subarray(0, 4096);
      assertEquals(await errorOf({ type: NBD_CMD_WRITE, offsetBytes: 3 * MiB, payload }), NBD_EIO);
      assertEquals(await errorOf({ type: NBD_CMD_WRITE, offsetBytes: 8 * MiB, payload }), NBD_EIO);
      assert(same(await client.read(0, MiB), bytes.subarray(0, MiB)), "what is left has other bytes");
      assertEquals(Deno.statSync(pool.dataPath).size, 2 * MiB, "a write made the file longer again");
      assert(
        pool.log.some((line) =>
          /^The data device fails, reading at byte \d+: another program has made/.test(line)
        ),
      );
      await client.disconnect();
    },
  );
}
