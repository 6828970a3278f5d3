/** Many forks in one command while a client works at depth 32 and flushes. With GOSSAMER_SOAK=1 there are 10,000. */
import { assertEquals } from "@std/assert";
import { assert } from "../../storage/base/assert.ts";
import { type AdminCommand, type AdminResult, runCommand } from "../../mod.ts";
import { hasProgram, programPath } from "../support/programs.ts";
import { PoolOnDisk, runToEnd, soak } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";

const forks = soak ? 10_000 : 500;
const seconds = soak ? 24 : 2;
/** When the fork begins; what comes before is compared with what comes meanwhile. */
const beginSeconds = soak ? 12 : 1;

/** Asks the running server, from this process: a command line would take a second more. */
function ask(pool: PoolOnDisk, command: AdminCommand): Promise<AdminResult> {
  return runCommand(pool.directory, command, () => Promise.resolve("taken"));
}

/** A request of fio's log: when it ended, and how long it took. */
interface Latency {
  readonly atMs: number;
  readonly tookMs: number;
}

/** Lines of the log: milliseconds since the start, nanoseconds, and more. */
function latenciesIn(path: string): Latency[] {
  return Deno.readTextFileSync(path).trimEnd().split("\n").map((line) => {
    const [atMs, nanoseconds] = line.split(",").map(Number);
    return { atMs: atMs!, tookMs: nanoseconds! / 1e6 };
  });
}

function percentilesOf(latencies: readonly Latency[]): string {
  const sorted = latencies.map(({ tookMs }) => tookMs).sort((a, b) => a - b);
  const at = (share: number) => (sorted[Math.floor((sorted.length - 1) * share)] ?? NaN).toFixed(1);
  return `${sorted.length} requests, p50 ${at(0.5)}, p99 ${at(0.99)}, p99.9 ${at(0.999)}, max ${at(1)} ms`;
}

Deno.test({
  name: `${forks} forks in one command beside a client at depth 32: all of them, and each is its source`,
  ignore: !hasProgram("fio") || !hasProgram("nbdcopy") || !hasThinTools("0.9") || !hasThinTools("1.x"),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=1G", "--metadata-size=64M");
    const server = await pool.serve(["--create", "base=16M", "--create", "busy=16M"]);
    const fio = (name: string, ...args: string[]) =>
      runToEnd(programPath("fio")!, [
        "--ioengine=nbd",
        `--uri=${server.url(name)}`,
        "--name=client",
        "--size=16M",
        "--output-format=terse",
        ...args,
      ]);
    for (const name of ["base", "busy"]) await fio(name, "--rw=write", "--bs=1M");
    const log = pool.path("latency");
    const load = ["--rw=randwrite", "--bs=4k", "--iodepth=32", "--fsync=64", "--time_based"];
    const client = fio("busy", ...load, `--runtime=${seconds}`, `--write_lat_log=${log}`);
    await new Promise((resolve) => setTimeout(resolve, beginSeconds * 1000));
    const begunMs = performance.now();
    const result = await ask(pool, {
      verb: "fork",
      source: "base",
      count: forks,
      name: "vm-%05d",
      ephemeral: false,
      lingerMs: null,
      ttlMs: null,
    });
    const tookMs = performance.now() - begunMs;
    assert(result.kind === "forked", JSON.stringify(result).slice(0, 200));
    assertEquals([result.volumes.length, result.volumes.at(-1)?.name], [
      forks,
      `vm-${String(forks).padStart(5, "0")}`,
    ]);
    await client;
    const latencies = latenciesIn(`${log}_clat.1.log`);
    // fio begins its clock somewhat later than this test.
    const [fromMs, toMs] = [beginSeconds * 1000 - 500, beginSeconds * 1000 + tookMs];
    const before = latencies.filter(({ atMs }) => atMs < fromMs);
    const during = latencies.filter(({ atMs }) => atMs >= fromMs && atMs <= toMs);
    if (soak) {
      console.log(`${forks} forks in ${tookMs.toFixed(0)} ms`);
      console.log(`before: ${percentilesOf(before)}\nduring: ${percentilesOf(during)}`);
    }
    assert(during.length > 0, "the client was served meanwhile");
    // The source shares its blocks with them still, and a fork is like its source.
    const last = `vm-${String(forks).padStart(5, "0")}`;
    await runToEnd(programPath("cmp")!, [
      await copyOf(pool, server.url("base"), "base"),
      await copyOf(pool, server.url(last), "fork"),
    ]);
    await server.stop();
    await pool.requireSound();
  },
});

async function copyOf(pool: PoolOnDisk, uri: string, name: string): Promise<string> {
  const path = pool.path(name);
  await runToEnd(programPath("nbdcopy")!, [uri, path]);
  return path;
}
