/** A real run: files of the host, a Unix socket, libnbd and fio, and an administrator; then crashes of the recording. */
import { assert, assertEquals } from "@std/assert";
import type { AdminCommand } from "../../actors/control/admin_command.ts";
import { openLibc } from "../../actors/edge/libc.ts";
import { hasProgram, hasPythonNbd, programPath, python } from "../support/programs.ts";
import { Random } from "../support/world.ts";
import { hasThinTools, mapAtOnce, runOnImage } from "../support/thin_tools.ts";
import { type CrashCounts, CrashReplay, cutStyles, problemOfRun, type Recording } from "./crash_points.ts";
import { soak } from "../support/server.ts";
import { type KillCounts, problemOfKills } from "./kill_points.ts";
import { problemOfDirectory } from "./directory.ts";
import { RecordedServer, type ServedPool } from "./recorded_server.ts";
import { problemOfMetadata } from "./recovery.ts";

// It stays loaded for good, so it may not be loaded first in a test.
openLibc();

const MiB = 1024 * 1024;
const loader = new URL("load.py", import.meta.url).pathname;
const seed = 5;

async function runToEnd(program: string, args: readonly string[]): Promise<void> {
  const command = new Deno.Command(program, { args: [...args], stdout: "piped", stderr: "piped" });
  const { success, stdout, stderr } = await command.output();
  const decoder = new TextDecoder();
  if (!success) throw new Error(`${program} failed: ${decoder.decode(stderr)}${decoder.decode(stdout)}`);
}

function load(place: ServedPool, name: string, bytes: number, requests: number, loadSeed: number) {
  const args = [loader, place.socketPath, name, bytes, requests, loadSeed].map(String);
  return runToEnd(python, args);
}

function fio(place: ServedPool, name: string, bytes: number): Promise<void> {
  return runToEnd(programPath("fio")!, [
    "--name=writes",
    "--ioengine=nbd",
    `--uri=nbd+unix:///${name}?socket=${place.socketPath}`,
    "--rw=randwrite",
    "--bsrange=512-96k",
    "--blockalign=512",
    `--size=${bytes}`,
    "--iodepth=16",
    "--fsync=20",
    "--refill_buffers",
    "--verify=crc32c",
    "--verify_interval=512",
    "--verify_state_save=0",
    `--randseed=${seed}`,
    "--output-format=terse",
  ]);
}

const rm = (...names: string[]) => ({ verb: "rm", names, dryRun: false, force: false }) as const;

/** What an administrator does while clients write. */
const commands: readonly AdminCommand[] = [
  { verb: "snapshot", names: ["a@1", "b@1"] },
  { verb: "clone", source: "a@1", name: "c" },
  { verb: "resize", name: "c", sizeBytes: MiB + 40960 },
  { verb: "snapshot", names: ["f@1"] },
  rm("b@1"),
  { verb: "rollback", snapshot: "a@1", force: true },
  { verb: "clone", source: "b", name: "e" },
  { verb: "rename", from: "c", to: "g" },
  { verb: "fork", source: "a", count: 3, name: "k%d", ephemeral: false, lingerMs: null, ttlMs: null },
  { verb: "snapshot", names: ["a@2", "b@2", "f@2"] },
  rm("a@1", "e"),
  { verb: "resize", name: "g", sizeBytes: 2 * MiB },
];

/** Loads and an administrator at once: each command comes when some more requests have come. */
async function record(place: ServedPool): Promise<RecordedServer> {
  const server = await RecordedServer.start(place);
  const sizes = { a: 2 * MiB, b: MiB + 512, f: MiB };
  for (const [name, sizeBytes] of Object.entries(sizes)) {
    await server.admin({ verb: "create", name, sizeBytes });
  }
  let isAdministered = false;
  const loads = Promise.all([
    fio(place, "f", sizes.f),
    // However slow this machine is, clients are there until the last command is done.
    ...(["a", "b"] as const).map(async (name, index) => {
      for (let round = 0; round < 2 || !isAdministered; round += 1) {
        await load(place, name, sizes[name], 150, seed + 2 * round + index);
      }
    }),
  ]);
  for (const command of commands) {
    // A load that fails ends the wait; the others go on until the last command.
    await Promise.race([server.requestsSeen(40), loads]);
    await server.admin(command);
  }
  isAdministered = true;
  await loads;
  await load(place, "g", 2 * MiB, 30, seed);
  await server.stop();
  return server;
}

/** Every prefix by our own checker; some of them, evenly spread, by the real ones. */
async function assertPrefixesSound(run: Recording): Promise<void> {
  const replay = new CrashReplay(run.images, run.log);
  const images: Uint8Array[] = [];
  const random = new Random(seed);
  for (let count = 0; count <= run.log.records.length; count += 1) {
    replay.advance(count);
    if (count > 0 && run.log.records[count - 1]!.device !== "metadata") continue;
    assertEquals(problemOfMetadata(replay.metadata), undefined, `killed after operation ${count}`);
    if (random.below(20) === 0) images.push(replay.metadata.slice());
  }
  assert(images.length > 10, `only ${images.length} prefixes`);
  for (const version of ["0.9", "1.x"] as const) {
    const results = await mapAtOnce(images, version === "0.9" ? 4 : 24, async (image) => {
      const { status, stdout, stderr } = await runOnImage("thin_check", version, image);
      return status === 0 ? [] : [stdout + stderr];
    });
    assertEquals(results.flat(), []);
  }
}

/** Some power cuts and kills, reopened from a pool directory by the program itself. */
async function assertDirectoriesOpen(run: Recording, place: ServedPool, cuts: number): Promise<void> {
  const replay = new CrashReplay(run.images, run.log);
  const random = new Random(seed);
  const total = run.log.records.length;
  for (let cut = 1; cut <= cuts; cut += 1) {
    const count = Math.floor(total * cut / cuts);
    replay.advance(count);
    const isKill = cut % 2 === 0;
    const images = isKill ? replay.killed() : replay.cut(cutStyles[cut % cutStyles.length]!, random);
    const problem = await problemOfDirectory(
      place.directory,
      images,
      run.history,
      run.history.instantAfter(count),
    );
    assertEquals(problem, undefined, `${isKill ? "killed" : "power cut"} after operation ${count}`);
  }
}

Deno.test({
  name:
    "a served pool survives a kill and a power cut at any moment of a run with libnbd, fio and an administrator",
  ignore: !hasPythonNbd() || !hasProgram("fio") || !hasThinTools("0.9") || !hasThinTools("1.x"),
  fn: async () => {
    const folder = await Deno.makeTempDir({ prefix: "gossamer-crash-" });
    const place: ServedPool = {
      directory: `${folder}/pool`,
      socketPath: `${folder}/nbd.sock`,
      dataBytes: 10 * MiB,
      metadataBytes: 2 * MiB,
    };
    try {
      const run = await record(place);
      for (const kind of ["write", "flush", "discard", "writeZeroes", "read"]) {
        assert((run.requests.get(kind) ?? 0) > 10, `only ${run.requests.get(kind)} of kind ${kind}`);
      }
      await assertPrefixesSound(run);
      const every = Math.ceil(run.log.records.length / 100);
      const kills: KillCounts = { points: 0, replays: 0, torn: 0 };
      assertEquals(problemOfKills(run, { seed, every: soak ? 1 : 4 * every }, kills), undefined);
      assert(kills.replays > (soak ? 100 : 2), JSON.stringify(kills));
      const counts: CrashCounts = { points: 0, crashes: 0 };
      assertEquals(problemOfRun(run, { chances: 1, seed, every }, counts), undefined);
      await assertDirectoriesOpen(run, place, 15);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
