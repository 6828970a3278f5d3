/** What volumes cost, in blocks of the pool and in blocks of the host. */
import { assert, assertEquals } from "@std/assert";
import { hasProgram, hasPythonNbd } from "../support/programs.ts";
import { PoolOnDisk, type ServerProcess } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";
import { Agent } from "./agent.ts";

const ignore = !hasPythonNbd() || !hasThinTools("0.9") || !hasThinTools("1.x");
const KiB = 1024;
const MiB = 1024 * KiB;
const blockBytes = 64 * KiB;

/** Bytes that a file takes on the host. */
function hostBytes(path: string): number {
  return Deno.statSync(path).blocks! * 512;
}

interface Range {
  readonly name: string;
  readonly offset: number;
  readonly length: number;
}

/** One volume of 100 GiB, its server and a client. */
class Fixture implements AsyncDisposable {
  readonly pool: PoolOnDisk;
  readonly agent = new Agent();
  server: ServerProcess;

  private constructor(pool: PoolOnDisk, server: ServerProcess) {
    this.pool = pool;
    this.server = server;
  }

  static async make(dataSize = "200G", permissions: readonly string[] = ["-A"]): Promise<Fixture> {
    const pool = await PoolOnDisk.make(`--data-size=${dataSize}`);
    await pool.verb("create", "disk0", "100G");
    return new Fixture(pool, await pool.serve([], { permissions }));
  }

  /** Writes bytes that are not zero, then flushes, so that the host has them too. */
  async write(range: Range): Promise<void> {
    await this.agent.call("fill", { socket: this.server.socket, ...range, byte: 7 });
  }

  async trim(range: Range): Promise<void> {
    await this.agent.call("trim", { socket: this.server.socket, ...range });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.agent[Symbol.asyncDispose]();
    await this.pool[Symbol.asyncDispose]();
  }
}

Deno.test({
  name:
    "a volume of 100 GiB costs nothing, and a first write of 4 KiB one block of the pool and 4 KiB of the host",
  ignore,
  fn: async () => {
    await using made = await Fixture.make();
    const { pool } = made;
    assertEquals(await pool.used(), 0);
    const before = hostBytes(pool.dataPath);
    assert(before < 64 * KiB, `the empty data file takes ${before} bytes`);
    await made.write({ name: "disk0", offset: 50 * 1024 * MiB + 4 * KiB, length: 4 * KiB });
    assertEquals(await pool.used(), blockBytes);
    const grown = hostBytes(pool.dataPath) - before;
    assert(grown >= 4 * KiB && grown <= 12 * KiB, `the host file grew by ${grown} bytes`);
    await made.server.stop();
    await pool.requireSound();
  },
});

Deno.test({
  name: "a snapshot costs nothing until one side changes, then one block for each that does",
  ignore,
  fn: async () => {
    await using made = await Fixture.make();
    const { pool } = made;
    await made.write({ name: "disk0", offset: 0, length: 4 * MiB });
    const full = hostBytes(pool.dataPath);
    await pool.verb("snapshot", "disk0@s");
    await pool.verb("clone", "disk0@s", "fork");
    assertEquals(await pool.used(), 4 * MiB);
    assert(hostBytes(pool.dataPath) - full <= 8 * KiB);
    await made.write({ name: "disk0", offset: 100, length: 1 });
    assertEquals(await pool.used(), 4 * MiB + blockBytes);
    await made.write({ name: "disk0", offset: 5000, length: 1 });
    assertEquals(await pool.used(), 4 * MiB + blockBytes, "the block is its own now");
    await made.write({ name: "fork", offset: 2 * MiB - 1, length: 2 });
    assertEquals(await pool.used(), 4 * MiB + 3 * blockBytes);
    const listed = new Map((await pool.list()).map((volume) => [volume.name, volume]));
    assertEquals(listed.get("disk0")!.exclusive_bytes, blockBytes);
    assertEquals(listed.get("fork")!.exclusive_bytes, 2 * blockBytes);
    assertEquals(listed.get("disk0@s")!.exclusive_bytes, 0);
    await made.server.stop();
    await pool.requireSound();
  },
});

for (const ffi of [true, false]) {
  Deno.test({
    name: ffi
      ? "TRIM brings the pool's blocks back, and the host's"
      : "without --allow-ffi TRIM brings the pool's blocks back, says once that the host's stay, and shows no old bytes",
    ignore: ignore || !hasProgram("cmp"),
    fn: async () => {
      // So small that blocks are used again at once.
      await using made = await Fixture.make(
        "8M",
        ffi ? ["-A"] : ["--allow-read", "--allow-write", "--allow-net", "--allow-env", "--allow-sys"],
      );
      const { pool, server } = made;
      const before = hostBytes(pool.dataPath);
      const range = { name: "disk0", offset: 3 * blockBytes, length: 8 * MiB };
      await made.write(range);
      assertEquals(await pool.used(), 8 * MiB);
      await made.trim(range);
      assertEquals(await pool.used(), 0);
      const complaints = server.stderr.split("\n").filter((line) =>
        line.includes("does not get their space back")
      );
      if (ffi) {
        // Punching follows the commit that freed the blocks.
        for (let waits = 0; waits < 50 && hostBytes(pool.dataPath) - before > 64 * KiB; waits++) {
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
        const kept = hostBytes(pool.dataPath) - before;
        assert(kept <= 64 * KiB, `${kept} bytes stayed with the host`);
        assertEquals(complaints, []);
      } else {
        assertEquals(complaints.length, 1, server.stderr);
      }
      // Every block is used again: of what was in it nothing may be seen beside what is new.
      for (let index = 0; index < 128; index++) {
        await made.write({ name: "disk0", offset: (1000 + index) * blockBytes + 777, length: 1 });
      }
      assertEquals(await pool.used(), 8 * MiB);
      const stale = await made.agent.call("nonzero_bytes", {
        socket: server.socket,
        name: "disk0",
        offset: 1000 * blockBytes,
        length: 8 * MiB,
      });
      assertEquals(stale, 128, "the bytes written and no other are not zero");
      await server.stop();
      await pool.requireSound();
    },
  });
}
