/** fio, with random writes that it verifies by checksum, beside trims of its own and work of an administrator. */
import { hasProgram, programPath } from "../support/programs.ts";
import { PoolOnDisk, runToEnd, type ServerProcess, soak } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";

const ignore = !hasProgram("fio") || !hasThinTools("0.9") || !hasThinTools("1.x");
const MiB = 1024 * 1024;

/** Bytes of each of the three ranges; the odd sectors keep the ranges apart within one pool block. */
const rangeBytes = (soak ? 1024 : 128) * MiB + 3 * 512;

/** Two jobs that write and verify disjoint ranges, and one that trims the third. */
function fioArguments(server: ServerProcess, volume: string, seed: number): string[] {
  const job = (name: string, index: number, ...options: string[]) => [
    `--name=${name}`,
    `--offset=${index * rangeBytes}`,
    `--size=${rangeBytes}`,
    `--randseed=${seed + index}`,
    ...options,
  ];
  const verified = [
    "--rw=randwrite",
    "--bsrange=512-256k",
    "--blockalign=512",
    "--verify=crc32c",
    "--verify_interval=512",
    "--do_verify=1",
    "--verify_fatal=1",
  ];
  return [
    "--ioengine=nbd",
    `--uri=${server.url(volume)}`,
    "--iodepth=32",
    "--verify_state_save=0",
    "--output-format=terse",
    ...job("first", 0, ...verified),
    ...job("second", 1, ...verified),
    ...job("trims", 2, "--rw=randtrim", "--bsrange=512-4m", "--blockalign=512", "--norandommap", "--loops=4"),
  ];
}

async function runFio(server: ServerProcess, volume: string, seed: number): Promise<void> {
  await runToEnd(programPath("fio")!, fioArguments(server, volume, seed));
}

/** Something in the range that is trimmed, or trims would find nothing to do. */
async function fillTrimmedRange(server: ServerProcess, volume: string): Promise<void> {
  await runToEnd(programPath("fio")!, [
    "--ioengine=nbd",
    `--uri=${server.url(volume)}`,
    "--name=fill",
    "--rw=write",
    "--bs=1m",
    "--iodepth=8",
    `--offset=${2 * rangeBytes}`,
    `--size=${rangeBytes}`,
    "--output-format=terse",
  ]);
}

Deno.test({
  name: "fio verifies random writes of mixed sizes by two jobs while a third trims",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make(soak ? "--data-size=5G" : "--data-size=512M");
    await pool.verb("create", "disk0", "4G");
    const server = await pool.serve();
    await fillTrimmedRange(server, "disk0");
    await runFio(server, "disk0", 7);
    await server.stop();
    await pool.requireSound();
  },
});

/** What an administrator does meanwhile; every round leaves the pool with the names that it had. */
async function administrate(pool: PoolOnDisk, round: number): Promise<void> {
  await pool.verb("snapshot", "disk0@a", "side@a");
  await pool.verb("clone", "disk0@a", "fork");
  await pool.verb("resize", "side", round % 2 === 0 ? "100M" : "300M");
  await pool.verb("snapshot", "fork@b");
  await pool.verb("rm", "--wait", "disk0@a", "fork");
  await pool.verb("rename", "fork@b", "fork@c");
  await pool.verb("clone", "disk0", "late");
  await pool.verb("rm", "--wait", "fork@c", "side@a", "late");
}

Deno.test({
  name: "fio verifies its writes while snapshots and clones of the volume come and go and others are resized",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make(soak ? "--data-size=12G" : "--data-size=1536M");
    await pool.verb("create", "disk0", "4G");
    await pool.verb("create", "side", "200M");
    const server = await pool.serve();
    await fillTrimmedRange(server, "disk0");
    // Whole runs, so that every write is verified, until enough has happened beside them.
    for (let rounds = 0, run = 0; rounds < (soak ? 12 : 4); run++) {
      let running = true;
      const fio = runFio(server, "disk0", 11 + 10 * run).finally(() => running = false);
      while (running) await administrate(pool, rounds++);
      await fio;
    }
    await server.stop();
    await pool.requireSound();
  },
});
