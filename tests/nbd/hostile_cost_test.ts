/** What hostile clients cost a server in a process of its own: its memory, and the time of those beside them. GOSSAMER_SOAK=1. */
import { assert } from "@std/assert";
import { NBD_CMD_READ } from "../../actors/nbd/wire/constants.ts";
import { hasProgram, programPath } from "../support/programs.ts";
import { PoolOnDisk, type ServerProcess, soakTest } from "../support/server.ts";
import { fuzzClients } from "./fuzz_live.ts";
import { diskBytes, pattern, pause, sendAnyhow, smallBytes } from "./hostile_pool.ts";
import { RawClient } from "./raw_client.ts";
import { randomNumbers, request, u32 } from "./wire_bytes.ts";

const MiB = 2 ** 20;

async function serve(): Promise<{ pool: PoolOnDisk; server: ServerProcess }> {
  const pool = await PoolOnDisk.make("--data-size=512M");
  await pool.verb("create", "disk", `${diskBytes}`);
  await pool.verb("create", "small", `${smallBytes}`);
  await pool.verb("snapshot", "small@monday");
  return { pool, server: await pool.serve() };
}

const mebibytes = (sizeBytes: number) => (sizeBytes / MiB).toFixed(1);

/** Fuzzed sessions, connects by the thousand, clients that go in the midst of large replies and of large payloads. */
async function beHostile(server: ServerProcess, seed: number): Promise<void> {
  const target = {
    connect: (timeoutMs: number) => RawClient.connect({ path: server.socket }, { timeoutMs }),
  };
  await fuzzClients(target, 20_000, seed);
  for (let i = 0; i < 2000; i += 1) {
    using client = await target.connect(10_000);
    // The server may have refused it: those before have not all been noticed to be gone.
    if (i % 2 === 0) await sendAnyhow(client, u32(3));
    // As many as a listening socket keeps until they are accepted.
    if (i % 32 === 0) await pause(20);
  }
  await pause(500);
  for (let i = 0; i < 40; i += 1) {
    using reader = await RawClient.attach({ path: server.socket }, "disk", { structured: false });
    for (let reads = 0; reads < 4; reads += 1) {
      await reader.sendCommand({ type: NBD_CMD_READ, lengthBytes: 32 * MiB });
    }
    await reader.receive(100);
    using writer = await RawClient.attach({ path: server.socket }, "disk");
    await writer.send(request({ type: 1, length: 32 * MiB }), new Uint8Array(MiB));
  }
}

const rounds = 8;

soakTest({
  name: "the memory of the server does not grow from round to round of hostile clients",
  fn: async () => {
    const { pool, server } = await serve();
    await using _ = pool;
    const sizes = [server.memoryBytes("VmRSS")];
    for (let round = 0; round < rounds; round += 1) {
      await beHostile(server, 1 + 1000 * round);
      await pause(3000);
      sizes.push(server.memoryBytes("VmRSS"));
    }
    const peak = server.memoryBytes("VmHWM");
    console.log(
      `VmRSS in MiB, idle and after each round: ${sizes.map(mebibytes).join(", ")}; peak ${mebibytes(peak)}`,
    );
    // What closed connections had goes when the collector comes, so single sizes tell little; a leak grows with every round.
    const [early, late] = [sizes.slice(1, 1 + rounds / 2), sizes.slice(1 + rounds / 2)];
    assert(Math.min(...late) < Math.max(...early), "it grows from round to round");
    await server.stop();
  },
});

/** Milliseconds of random READs of 4 KiB, one at a time, for so long; sorted. */
async function latencies(server: ServerProcess, forMs: number): Promise<number[]> {
  using client = await RawClient.attach({ path: server.socket }, "small");
  const random = randomNumbers(3);
  const took: number[] = [];
  const endMs = performance.now() + forMs;
  while (performance.now() < endMs) {
    const begunMs = performance.now();
    await client.read(Math.floor(random() * 1000) * 4096, 4096);
    took.push(performance.now() - begunMs);
  }
  await client.disconnect();
  return took.sort((a, b) => a - b);
}

function sentence(what: string, sorted: readonly number[]): string {
  const at = (part: number) => sorted[Math.floor(part * (sorted.length - 1))]!.toFixed(2);
  return `${what}: ${sorted.length} reads, p50 ${at(0.5)}, p99 ${at(0.99)}, most ${at(1)} ms`;
}

soakTest({
  name: "a reader of 4 KiB is served beside a client that does not read and one that floods",
  ignore: !hasProgram("fio"),
  fn: async () => {
    const { pool, server } = await serve();
    await using _ = pool;
    for (const name of ["small", "disk"]) {
      using filler = await RawClient.attach({ path: server.socket }, name);
      await filler.write(0, pattern(4 * MiB, 1));
      await filler.disconnect();
    }
    await latencies(server, 3000);
    console.log(sentence("alone", await latencies(server, 10_000)));
    using deaf = await RawClient.attach({ path: server.socket }, "disk");
    for (let reads = 0; reads < 100; reads += 1) {
      await deaf.sendCommand({ type: NBD_CMD_READ, lengthBytes: MiB });
    }
    console.log(sentence("beside one that does not read", await latencies(server, 10_000)));
    const child = new Deno.Command(programPath("fio")!, {
      args: [
        "--ioengine=nbd",
        `--uri=${server.url("disk")}`,
        "--name=flood",
        "--iodepth=128",
        "--bs=64k",
        "--size=32m",
      ]
        .concat([
          "--rw=randread",
          "--time_based",
          "--runtime=20",
          "--output-format=terse",
          "--terse-version=3",
        ]),
      stdout: "piped",
      stderr: "null",
    }).spawn();
    await pause(3000);
    console.log(sentence("beside that and a flood", await latencies(server, 10_000)));
    const { stdout } = await child.output();
    const fields = new TextDecoder().decode(stdout).split(";");
    console.log(`the flood: ${Math.round(Number(fields[7]))} reads of 64 KiB a second`);
    await server.stop();
  },
});
