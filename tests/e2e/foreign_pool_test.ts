/** Metadata that thin_restore made: opened, served, changed, and still what the real tools agree to. */
import { Random } from "../support/world.ts";
import { assertEquals } from "@std/assert";
import { hasPythonNbd } from "../support/programs.ts";
import { PoolOnDisk, runToEnd, type ServerProcess, soak } from "../support/server.ts";
import { hasThinTools, thinToolPath, type ThinToolsVersion } from "../support/thin_tools.ts";
import { Agent } from "./agent.ts";
import { blocksOf, type ForeignPool, makeForeignPool, stampOf, writeData, xmlOf } from "./foreign_pool.ts";

const ignore = !hasPythonNbd() || !hasThinTools("0.9") || !hasThinTools("1.x");

/** What a volume should hold: virtual block -> stamp, null for a hole; of large volumes a sample. */
type Expected = Map<number, number | null>;

/** What each volume should hold, every block of the small ones, of the large one so many. */
function expectedOf(pool: ForeignPool, sampleBlocks: number): Map<string, Expected> {
  const random = new Random(17);
  const all = new Map<string, Expected>();
  for (const device of pool.devices) {
    const blocks = [...blocksOf(device)];
    const share = sampleBlocks / blocks.length;
    const chosen = blocks.filter(() => share >= 1 || random.chance(share));
    all.set(
      `thin-${device.id}`,
      new Map(chosen.map(([vblock, dblock]) => [vblock, dblock === undefined ? null : stampOf(dblock)])),
    );
  }
  return all;
}

function* stampedBlocks(all: ReadonlyMap<string, Expected>): Generator<number> {
  for (const expected of all.values()) {
    for (const stamp of expected.values()) if (stamp !== null) yield stamp - 1;
  }
}

/** Dense files for metadata, sparse for data, and a pool directory around them. */
async function importForeign(
  pool: PoolOnDisk,
  foreign: ForeignPool,
  version: ThinToolsVersion,
  all: ReadonlyMap<string, Expected>,
): Promise<void> {
  pool.metadataPath = pool.path("foreign-metadata");
  const data = pool.path("foreign-data");
  await Deno.writeTextFile(pool.path("in.xml"), xmlOf(foreign));
  await Deno.writeFile(pool.metadataPath, new Uint8Array(32 << 20));
  await runToEnd(thinToolPath("thin_restore", version)!, [
    "-i",
    pool.path("in.xml"),
    "-o",
    pool.metadataPath,
  ]);
  writeData(data, foreign, stampedBlocks(all));
  await pool.verb("import", "--metadata", pool.metadataPath, "--data", data);
}

/** Reads what the volumes hold and compares. */
async function checkAll(
  agent: Agent,
  pool: PoolOnDisk,
  server: ServerProcess,
  all: ReadonlyMap<string, Expected>,
): Promise<void> {
  const path = pool.path("expected.json");
  for (const [name, expected] of all) {
    await Deno.writeTextFile(path, JSON.stringify([...expected]));
    const problems = await agent.call("check_mappings", {
      socket: server.socket,
      name,
      pool_block: 65536,
      expected_path: path,
    });
    assertEquals(problems, []);
  }
}

/** Writes, discards, snapshots and removes here and there, in the pool as in what is expected of it. */
async function change(
  agent: Agent,
  pool: PoolOnDisk,
  server: ServerProcess,
  all: Map<string, Expected>,
): Promise<void> {
  const random = new Random(23);
  const snapshots = ["thin-1", "thin-2", "thin-7", "thin-9"];
  await pool.verb("snapshot", ...snapshots.map((name) => `${name}@s`));
  for (const name of snapshots) all.set(`${name}@s`, new Map(all.get(name)!));
  for (const name of ["thin-1", "thin-2", "thin-3", "thin-6", "thin-9", "thin-10", "thin-1000"]) {
    const expected = all.get(name)!;
    const stamps: [number, number][] = [];
    for (const [vblock] of expected) {
      if (random.chance(Math.max(0.1, 2 / expected.size))) {
        stamps.push([vblock, 2 ** 40 + random.below(2 ** 30)]);
      }
    }
    const where = { socket: server.socket, name, pool_block: 65536 };
    await agent.call("put_stamps", { ...where, stamps });
    for (const [vblock, stamp] of stamps) expected.set(vblock, stamp);
    const discarded = { vblock: 10 + random.below(50), count: 200 };
    if (expected.size < 100) continue;
    await agent.call("discard", { ...where, ...discarded });
    for (const vblock of expected.keys()) {
      if (vblock >= discarded.vblock && vblock < discarded.vblock + discarded.count) {
        expected.set(vblock, null);
      }
    }
  }
  const doomed = ["thin-5", "thin-4", "thin-2", "thin-1003", "thin-1006"];
  await pool.verb("rm", "--wait", ...doomed);
  for (const name of doomed) all.delete(name);
}

for (const version of ["0.9", "1.x"] as const) {
  Deno.test({
    name: `metadata by thin_restore ${version} are served as the XML says, changed, and still sound`,
    ignore,
    fn: async () => {
      const foreign = makeForeignPool(new Random(41), soak ? 600_000 : 205_000);
      const all = expectedOf(foreign, 6000);
      await using pool = await PoolOnDisk.folder();
      await importForeign(pool, foreign, version, all);
      await pool.requireSound();

      await using agent = new Agent();
      const server = await pool.serve();
      assertEquals((await pool.list()).length, foreign.devices.length);
      await checkAll(agent, pool, server, all);
      await change(agent, pool, server, all);
      await checkAll(agent, pool, server, all);
      await server.stop();
      await pool.requireSound();

      // And everything is still there for the next server.
      const next = await pool.serve();
      await checkAll(agent, pool, next, all);
      await pool.verb("rm", "--wait", "thin-1", "thin-1@s");
      await next.stop();
      await pool.requireSound();
    },
  });
}
