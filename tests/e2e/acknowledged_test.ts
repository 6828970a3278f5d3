/** A server that is killed loses nothing that it has acknowledged, flushed or not. */
import { assert, assertEquals, assertMatch, assertStringIncludes, equal } from "@std/assert";
import { hasPythonNbd, python } from "../support/programs.ts";
import { PoolOnDisk, type ServerProcess, soakTest } from "../support/server.ts";
import { Random } from "../support/world.ts";
import { hasThinTools } from "../support/thin_tools.ts";

const ignore = !hasPythonNbd() || !hasThinTools("0.9") || !hasThinTools("1.x");

/** Without any flush: writes to many blocks, a zeroed and a trimmed one; then the server is killed at once. */
const writeAndKill = `
import nbd, os, signal, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
for at in range(100):
    h.pwrite(bytes([at + 1]) * 65536, at * 3 * 65536)
h.trim(65536, 3 * 65536)
h.zero(65536, 6 * 65536)
h.pwrite(bytes([222]) * 512, 9 * 65536 + 512)
os.kill(int(sys.argv[2]), signal.SIGKILL)
`;

/** What is wrong with the volume. */
const verify = `
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
for at in range(100):
    found = h.pread(65536, at * 3 * 65536)
    wanted = bytes([0 if at in (1, 2) else at + 1]) * 65536
    if at == 3:
        wanted = wanted[:512] + bytes([222]) * 512 + wanted[1024:]
    if found != wanted:
        print("block", at, "begins with", found[0], "not", wanted[0])
`;

async function runPython(script: string, ...args: string[]): Promise<string> {
  const command = new Deno.Command(python, {
    args: ["-c", script, ...args],
    stdout: "piped",
    stderr: "piped",
  });
  const { stdout, stderr } = await command.output();
  return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
}

async function killed(pool: PoolOnDisk): Promise<void> {
  const server = await pool.serve();
  assertEquals((await pool.status()).intent_journal, "kept");
  assertEquals(await runPython(writeAndKill, server.url("v"), `${server.pid}`), "");
  await server.kill();
}

function superblockOf(pool: PoolOnDisk): Uint8Array {
  using file = Deno.openSync(pool.metadataPath);
  const superblock = new Uint8Array(4096);
  file.readSync(superblock);
  return superblock;
}

/**
 * Opens a killed pool, and kills that server too, so late after it has begun to read the intent journal. True if the replay was
 * committed by then.
 */
async function killAmidReplay(pool: PoolOnDisk, lateMs: number): Promise<boolean> {
  const before = superblockOf(pool);
  const intents = `${pool.directory}/intent.journal`;
  // The time of the last read is kept where it lies before that of the last write (mount option relatime, the default).
  Deno.utimeSync(intents, 0, Deno.statSync(intents).mtime!);
  await using server = pool.start(["serve", "--listen", `unix:${pool.path("nbd.sock")}`]);
  while (!server.hasEnded && Deno.statSync(intents).atime!.getTime() === 0) await sleep(1);
  await sleep(lateMs);
  assertEquals(server.hasEnded, false, server.stderr);
  server.signal("SIGKILL");
  await server.status;
  return !equal(before, superblockOf(pool));
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function problemsOf(server: ServerProcess): Promise<string> {
  return await runPython(verify, server.url("v"));
}

Deno.test({
  name: "what a server has acknowledged and not flushed is there after kill -9, whoever opens the pool first",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M");
    await pool.verb("create", "v", "32M");
    await killed(pool);
    // Read-only, it is replayed in memory, and the files stay as they are.
    const before = await Deno.readFile(pool.metadataPath);
    const reader = await pool.serve(["--read-only"]);
    assertEquals(await problemsOf(reader), "");
    await reader.stop();
    assertEquals((await pool.list()).find(({ name }) => name === "v")?.mapped_bytes, 98 * 65536);
    assertEquals(await Deno.readFile(pool.metadataPath), before);

    // `check` and `dump` read the last commit, and say so.
    for (const verb of ["check", "dump"]) {
      const read = await pool.cli([verb]);
      assertEquals(read.status, 0);
      assertMatch(read.stderr, /\d+ changes wait in the intent journal/);
    }
    const checked = await pool.cli(["check", "--json"]);
    assertMatch(checked.stdout, /^\{"sound":true,"problems":\[\],.*"intent_journal_waiting":[1-9]\d*\}\n$/);

    // A newer format is refused, and nothing is overwritten.
    const path = `${pool.directory}/intent.journal`;
    const ours = await Deno.readFile(path);
    const newer = ours.slice();
    newer[8] = 2;
    await Deno.writeFile(path, newer);
    const refused = await pool.cli(["create", "w", "1M"]);
    assertEquals(refused.status, 1);
    assertStringIncludes(refused.stderr, "format 2, which a newer version has written");
    assertEquals(await Deno.readFile(path), newer);
    await Deno.writeFile(path, ours);

    // A server that is killed in the midst of the replay leaves it to the next.
    const isCommitted = await killAmidReplay(pool, 30);
    let server = await pool.serve();
    assertEquals(server.stderr.includes("that a killed server had acknowledged"), !isCommitted);
    assertEquals(await problemsOf(server), "");
    // Killed again, with nothing acknowledged since.
    await server.kill();
    server = await pool.serve();
    assertEquals(await problemsOf(server), "");
    await server.stop();
    await pool.requireSound();
  },
});

const killedOpens = 40;

soakTest({
  name: `after ${killedOpens} kills of servers in the midst of a replay all that was acknowledged is there`,
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M");
    await pool.verb("create", "v", "32M");
    const random = new Random(Date.now());
    let [committed, replays, commitMs] = [0, 0, 50];
    while (committed + replays < killedOpens) {
      await killed(pool);
      let isCommitted = false;
      for (let opens = 0; opens < 4 && !isCommitted; opens += 1) {
        isCommitted = await killAmidReplay(pool, random.below(2 * commitMs));
        if (isCommitted) committed += 1;
        else replays += 1;
        // Half of the kills shall come before the commit, and half behind it, however fast the host is.
        commitMs = Math.ceil(isCommitted ? commitMs * 0.7 : commitMs * 1.3);
      }
      const server = await pool.serve();
      assertEquals(await problemsOf(server), "");
      await server.stop();
      await pool.requireSound();
      // What is written next maps new blocks again.
      await pool.verb("rm", "--wait", "v");
      await pool.verb("create", "v", "32M");
    }
    console.log(`${replays} kills before the commit of the replay, ${committed} behind it`);
    assert(replays > 4 && committed > 4, "the kills hardly met the commit of a replay");
  },
});
