/** The server killed at random moments: what was promised is there, and the metadata need no repair. */
import { Random } from "../support/world.ts";
import { assert, assertEquals } from "@std/assert";
import { hasPythonNbd } from "../support/programs.ts";
import { PoolOnDisk, soak } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";
import { Agent } from "./agent.ts";

const ignore = !hasPythonNbd() || !hasThinTools("0.9") || !hasThinTools("1.x");
const kills = soak ? 50 : 6;
// In a full pool a write waits for space. The load waits 60 seconds at most for an answer, the default's length.
const serving = ["--no-space-timeout", "1"];

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/**
 * No server has the pool: everything is sound, and every name has its device in the metadata. Beside those a device may
 * be there whose removal was interrupted: its name is gone already. Where nothing was interrupted there is none.
 */
async function requireAgreement(pool: PoolOnDisk, interrupted: boolean): Promise<string[]> {
  await pool.requireSound();
  const volumes = await pool.list();
  const dump = await pool.verb("dump");
  const devices = [...dump.matchAll(/<device dev_id="(\d+)"/g)].map((found) => Number(found[1]));
  const ids = volumes.map((volume) => volume.thin_id);
  assertEquals(ids.filter((id) => !devices.includes(id)), [], "names without a device");
  if (!interrupted) assertEquals(devices.filter((id) => !ids.includes(id)), [], "devices without a name");
  return volumes.map((volume) => volume.name);
}

/** What the agent knows of names after a crash. */
interface Stopped {
  /** These have to be there. */
  readonly certain: readonly string[];
  /** The server died while it was told something about these. */
  readonly uncertain: readonly string[];
  readonly counts: Readonly<Record<string, number>>;
  readonly problems: readonly string[];
}

Deno.test({
  name:
    "after kill -9 under load everything flushed is there, no block is torn, and snapshots are what they were",
  ignore,
  fn: async () => {
    const seed = soak ? Date.now() % 100000 : 5;
    const random = new Random(seed);
    const sizeBytes = 4 << 20;
    const poolBytes = 54 << 20;
    // Now and then too small, so that freed blocks are used again at once, and writes may fail.
    await using pool = await PoolOnDisk.make(`--data-size=${poolBytes}`);
    const names = ["a", "b", "c"];
    for (const name of names) await pool.verb("create", name, `${sizeBytes}`);
    await using agent = new Agent();
    const control = `${pool.directory}/control.sock`;
    let server = await pool.serve(serving);
    await agent.call("crash_world", { socket: server.socket, control, names, size: sizeBytes, seed });
    let stopped: Stopped | undefined;
    for (let kill = 0; kill < kills; kill++) {
      await agent.call("crash_start");
      await sleep(100 + random.below(1500));
      await server.kill();
      stopped = await agent.call<Stopped>("crash_stop");
      assertEquals(stopped.problems, [], `seed ${seed}, kill ${kill}`);

      const there = await requireAgreement(pool, true);
      const { certain, uncertain } = stopped;
      assertEquals(certain.filter((name) => !there.includes(name)), [], "names that were lost");
      const extra = there.filter((name) => !certain.includes(name) && !uncertain.includes(name));
      assertEquals(extra, [], "names that nobody gave");

      server = await pool.serve(serving);
      assertEquals(await agent.call("crash_verify"), [], `seed ${seed}, kill ${kill}`);
      await agent.call("crash_forget", { there });
    }
    assert((stopped?.counts.snapshots ?? 0) > 0, "snapshots were taken under load");

    // Once more without a crash: whatever became of requests in a full pool, all of its space can still be used.
    await agent.call("crash_start");
    await sleep(1500);
    assertEquals((await agent.call<Stopped>("crash_stop")).problems, []);
    const others = (await pool.list()).map((volume) => volume.name).filter((name) => !names.includes(name));
    await pool.verb("rm", "--wait", "--force", ...others);
    await pool.verb("create", "rest", `${poolBytes - names.length * sizeBytes}`);
    for (const volume of await pool.list()) {
      const all = { socket: server.socket, name: volume.name, offset: 0, length: volume.size_bytes, byte: 1 };
      await agent.call("fill", all);
    }
    assertEquals(await pool.used(), poolBytes);
    await server.stop();
    await requireAgreement(pool, false);
  },
});

/** Names, each with its size and the stamp at its beginning. */
type Contents = Readonly<Record<string, { readonly size: number; readonly content: string }>>;

function sorted(contents: Contents): [string, unknown][] {
  return Object.entries(contents).sort(([a], [b]) => a < b ? -1 : 1);
}

Deno.test({
  name: "after kill -9 amid changes of names the pool is as before the last command or as after it",
  ignore,
  fn: async () => {
    const seed = soak ? Date.now() % 100000 : 3;
    const random = new Random(seed);
    await using pool = await PoolOnDisk.make("--data-size=16M");
    await using agent = new Agent();
    let server = await pool.serve();
    const control = `${pool.directory}/control.sock`;
    await agent.call("names_begin", { socket: server.socket, control, seed });
    for (let kill = 0; kill < kills; kill++) {
      await agent.call("names_start");
      await sleep(random.below(800));
      // On a busy machine the last round goes on until every verb has had its turn.
      while (kill === kills - 1 && (await agent.call<string[]>("names_never_done")).length > 0) {
        await sleep(50);
      }
      await server.kill();
      type Ended = { states: [Contents, Contents]; problems: string[] };
      const { states, problems } = await agent.call<Ended>("names_stop");
      assertEquals(problems, [], `seed ${seed}, kill ${kill}`);
      const names = await requireAgreement(pool, true);
      const sizes = new Map((await pool.list()).map((volume) => [volume.name, volume.size_bytes]));
      server = await pool.serve();
      const stamps = await agent.call<Record<string, string>>("stamps", { socket: server.socket, names });
      const found = sorted(Object.fromEntries(
        names.map((name) => [name, { size: sizes.get(name)!, content: stamps[name]! }]),
      ));
      const which = states.findIndex((state) => JSON.stringify(sorted(state)) === JSON.stringify(found));
      // Where it is neither, show how it differs from what was there before.
      if (which < 0) assertEquals(found, sorted(states[0]), `seed ${seed}, kill ${kill}`);
      await agent.call("names_go_on_from", { which });
    }
    await server.stop();
    await requireAgreement(pool, false);
  },
});
