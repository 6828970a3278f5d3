/** A pool that grows again and again under load, with clients that verify what they have written, and with kills. */
import { assertEquals } from "@std/assert";
import { assert } from "../../storage/base/assert.ts";
import { type AdminResult, type PoolSizes, runCommand } from "../../mod.ts";
import { hasProgram, hasPythonNbd, programPath } from "../support/programs.ts";
import { PoolOnDisk, runToEnd, soak } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";
import { Random } from "../support/world.ts";
import { Agent } from "./agent.ts";

const hasTools = hasThinTools("0.9") && hasThinTools("1.x");
const KiB = 1024;
const MiB = 1024 * KiB;

/** Asks the running server, from this process: a command line would take a second for each. */
function grow(pool: PoolOnDisk, dataBytes: number, metadataBytes: number): Promise<AdminResult> {
  const added = (bytes: number) => bytes === 0 ? null : { bytes, added: true };
  const command = { verb: "grow", data: added(dataBytes), metadata: added(metadataBytes) } as const;
  return runCommand(pool.directory, command, () => Promise.resolve("taken"));
}

Deno.test({
  name:
    "fio verifies its writes and reads while data and metadata grow again and again over the end of a bitmap",
  ignore: !hasProgram("fio") || !hasTools,
  fn: async () => {
    // The data begins just below the end of its first bitmap, the metadata below that of none.
    const dataBytes = 16_300 * 64 * KiB;
    await using pool = await PoolOnDisk.make(`--data-size=${dataBytes}`, "--metadata-size=2M");
    await pool.verb("create", "disk0", "2G");
    const server = await pool.serve();
    let isRunning = true;
    const fio = runToEnd(programPath("fio")!, [
      "--ioengine=nbd",
      `--uri=${server.url("disk0")}`,
      "--name=verified",
      "--rw=randrw",
      "--bsrange=4k-128k",
      "--iodepth=16",
      `--size=${soak ? 1024 : 96}M`,
      "--verify=crc32c",
      "--verify_fatal=1",
      "--verify_state_save=0",
      "--output-format=terse",
    ]).finally(() => isRunning = false);
    let sizes: PoolSizes = { data_total_bytes: dataBytes, metadata_total_bytes: 2 * MiB };
    let times = 0;
    for (; isRunning || times < (soak ? 1000 : 40); times++) {
      const result = await grow(pool, 64 * KiB * (1 + times % 7), times % 3 === 0 ? 4 * KiB : 0);
      assert(result.kind === "grown", JSON.stringify(result));
      assertEquals(result.sizes.data_total_bytes, sizes.data_total_bytes + 64 * KiB * (1 + times % 7));
      sizes = result.sizes;
    }
    await fio;
    assert(sizes.data_total_bytes > 16_320 * 64 * KiB, `it grew ${times} times only`);
    await server.stop();
    await pool.requireSound();
    assertEquals((await pool.status()).data_total_bytes, sizes.data_total_bytes);
  },
});

/** What the agent tells of a round that a kill has ended. */
interface Stopped {
  readonly problems: readonly string[];
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

Deno.test({
  name:
    "after kill -9 amid growth under load the pool has its old size or the new one, and all that was flushed",
  ignore: !hasPythonNbd() || !hasTools,
  fn: async () => {
    const seed = soak ? Date.now() % 100000 : 7;
    const random = new Random(seed);
    const names = ["a", "b"];
    const sizeBytes = 4 * MiB;
    await using pool = await PoolOnDisk.make("--data-size=16M", "--metadata-size=2M");
    for (const name of names) await pool.verb("create", name, `${sizeBytes}`);
    await using agent = new Agent();
    const control = `${pool.directory}/control.sock`;
    let server = await pool.serve();
    await agent.call("crash_world", { socket: server.socket, control, names, size: sizeBytes, seed });
    let dataBytes = 16 * MiB;
    for (let kill = 0; kill < (soak ? 100 : 4); kill++) {
      await agent.call("crash_start");
      let isAlive = true;
      let askedBytes = dataBytes;
      const growing = (async () => {
        while (isAlive) {
          askedBytes = dataBytes + 64 * KiB;
          // A server that is killed gives no answer, and then a command finds the pool locked, or opens it itself.
          const result = await grow(pool, 64 * KiB, random.below(2) * 4 * KiB).catch(() => undefined);
          if (result?.kind !== "grown") break;
          dataBytes = result.sizes.data_total_bytes;
        }
      })();
      await sleep(50 + random.below(1000));
      isAlive = false;
      await server.kill();
      await growing;
      assertEquals((await agent.call<Stopped>("crash_stop")).problems, [], `seed ${seed}, kill ${kill}`);
      await pool.requireSound();
      const { data_total_bytes } = await pool.status();
      assert(
        data_total_bytes >= dataBytes && data_total_bytes <= askedBytes,
        `seed ${seed}, kill ${kill}: ${data_total_bytes} bytes, ${dataBytes} promised, ${askedBytes} asked for`,
      );
      dataBytes = data_total_bytes;
      const there = (await pool.list()).map((volume) => volume.name);
      server = await pool.serve();
      assertEquals(await agent.call("crash_verify"), [], `seed ${seed}, kill ${kill}`);
      await agent.call("crash_forget", { there });
    }
    assert(dataBytes > 16 * MiB, "it has grown");
    await server.stop();
    await pool.requireSound();
  },
});
