/** libnbd requests of every kind at any offset, compared with plain arrays of bytes. */
import { assertEquals } from "@std/assert";
import { hasPythonNbd } from "../support/programs.ts";
import { PoolOnDisk, soak } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";
import { Agent } from "./agent.ts";

const ignore = !hasPythonNbd() || !hasThinTools("0.9") || !hasThinTools("1.x");

/** Sizes that end within a block, within a sector's reach of one, and at one. */
const volumes: readonly [string, number][] = [["a", 3 << 20], ["b", (2 << 20) + 512 * 3], [
  "c",
  (5 << 20) - 512,
]];

async function compareWithModel(blockSizeBytes: number, rounds: number): Promise<void> {
  await using pool = await PoolOnDisk.make("--data-size=192M", `--block-size=${blockSizeBytes}`);
  for (const [name, size] of volumes) await pool.verb("create", name, `${size}`);
  await using agent = new Agent();
  const server = await pool.serve();
  const seed = soak ? Date.now() % 100000 : 1;
  const counts = await agent.call<Record<string, number>>("model_run", {
    socket: server.socket,
    control_socket: `${pool.directory}/control.sock`,
    volumes,
    pool_block: blockSizeBytes,
    rounds,
    seed,
  }).catch((error) => {
    throw new Error(`seed ${seed}: ${error.message}; the server says: ${server.stderr.slice(-2000)}`);
  });
  const kinds = ["write", "trim", "zero", "no_hole", "fast", "fast_no_hole", "read", "flush"];
  assertEquals(kinds.filter((kind) => !(counts[kind]! > 100)), [], "kinds of request that hardly occurred");
  await server.stop();
  await pool.requireSound();
}

for (const blockSizeBytes of [65536, 3 * 65536]) {
  Deno.test({
    name:
      `with blocks of ${blockSizeBytes} bytes, requests of every kind leave what a plain array of bytes would hold`,
    ignore,
    fn: () => compareWithModel(blockSizeBytes, soak ? 400 : 40),
  });
}

Deno.test({
  name: "a flush on one connection covers what another connection wrote",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=1G");
    await pool.verb("create", "disk0", "64M");
    await using agent = new Agent();
    for (let round = 1; round <= 5; round++) {
      const server = await pool.serve();
      const range = { socket: server.socket, name: "disk0", offset: round * 100_001, length: 70_000 };
      await agent.call("write_on_one", { ...range, byte: round });
      await server.kill();
      await pool.requireSound();
      const next = await pool.serve();
      assertEquals(await agent.call("read_byte", range), round);
      await next.stop();
    }
  },
});
