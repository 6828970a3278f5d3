/** `run`: a program with a throw-away volume, with a server and without one, and each way in which it ends. */
import { assertEquals, assertMatch } from "@std/assert";
import { PoolOnDisk, type RunningCli, soakTest } from "../support/server.ts";

/** What qemu writes is there for the next program, the URI and the socket serve it, and only its owner may connect. */
const useTwice = 'test "$(stat -c %a "$unixsocket")" = 600 && nbdinfo --size "$uri" && ' +
  'qemu-io -f raw -c "write -P 7 0 64k" "$uri" > /dev/null && ' +
  'qemu-io -f raw -c "read -P 7 0 64k" "nbd:unix:$unixsocket" | grep -c "read 65536/65536" && nbdcopy "$uri" null: && qemu-img info "$uri" > /dev/null';

async function requireOnlyBase(pool: PoolOnDisk): Promise<void> {
  assertEquals((await pool.list()).map(({ name }) => name), ["base"]);
  assertEquals(socketsIn(pool), []);
}

function socketsIn(pool: PoolOnDisk): string[] {
  return [...Deno.readDirSync(pool.directory)].map(({ name }) => name).filter((name) =>
    name.startsWith("run-")
  );
}

/** A file that no one may execute. */
async function plainFile(pool: PoolOnDisk): Promise<string> {
  await Deno.writeTextFile(pool.path("plain"), "true\n", { mode: 0o644 });
  return pool.path("plain");
}

/** A program that says its process id and then waits; the id. */
const waits = 'echo "at $$ $unixsocket"; exec sleep 100';

async function begun(run: RunningCli): Promise<number> {
  return Number((await run.printed(/^at (\d+)\b/m))[1]);
}

Deno.test("run without a server serves the pool for its program, and leaves nothing behind, killed or not", async () => {
  await using pool = await PoolOnDisk.make();
  await pool.verb("create", "base", "16M");
  const ran = await pool.cli(["run", "--fork", "base", "--", useTwice]);
  assertEquals([ran.status, ran.stdout, ran.stderr], [0, "16777216\n1\n", ""]);
  await requireOnlyBase(pool);
  await using first = pool.start(["run", "--size", "1M", "--", waits]);
  const child = await begun(first);
  // A second one finds the pool served by the first.
  const second = await pool.cli([
    "run",
    "--size",
    "1M",
    "--",
    "/bin/echo",
    "at $unixsocket",
    "a  b",
    "--fork",
  ]);
  assertMatch(second.stdout, /^at \/.*\/run-[\w-]+\.sock a {2}b --fork\n$/, second.stderr);
  first.signal("SIGKILL");
  await first.status;
  Deno.kill(child, "SIGKILL");
  assertEquals(socketsIn(pool).length, 1);
  // The next opening that may write removes both.
  await pool.verb("quota", "base", "none");
  await requireOnlyBase(pool);
});

Deno.test("runs on a server end as their programs do, and with each signal, and leave nothing behind", async () => {
  await using pool = await PoolOnDisk.make();
  const server = await pool.serveAt(["--create", "base=16M", "--listen", "tcp:127.0.0.1:0"]);
  const forked = (...words: string[]) => pool.start(["run", "--fork", "base", "--", ...words]);
  await using killed = forked(waits);
  await using interrupted = forked(waits);
  await using served = forked(waits);
  await using used = forked(useTwice);
  // What stays behind in the background, attached, loses its volume.
  await using left = forked(
    'qemu-io -f raw -c "sleep 100000" "$uri" > /dev/null & echo "at $!"; sleep 0.2; exit 7',
  );
  await using missing = forked("/no/such/program", "$uri");
  await using plain = forked(await plainFile(pool), "$uri");
  await using shot = forked("kill -KILL $$");
  const child = await begun(killed);
  killed.signal("SIGKILL");
  await begun(interrupted);
  interrupted.signal("SIGINT");
  const statuses = [interrupted, left, missing, plain, shot, used].map(({ status }) => status);
  assertEquals(await Promise.all(statuses), [130, 7, 127, 126, 137, 0], used.stderr + left.stderr);
  assertEquals(used.stdout, "16777216\n1\n");
  await missing.complained(/^Cannot run "\/no\/such\/program": there is no such program\.\n$/);
  await plain.complained(/^Cannot run "\/.*\/plain": EACCES\.\n$/);
  assertEquals(shot.stderr, "");
  await begun(served);
  const names = (await pool.list()).map(({ name }) => name);
  // Also the volume of the run that was killed is gone, and its program goes on.
  assertEquals([names.length, names[0], socketsIn(pool).length], [2, "base", 1], names.join());
  Deno.kill(child, "SIGCONT");
  await server.stop();
  await served.complained(/The server has been stopped\. The volume is gone/);
  await requireOnlyBase(pool);
  served.signal("SIGTERM");
  assertEquals(await served.status, 143);
  for (const pid of [child, Number(/at (\d+)/.exec(left.stdout)![1])]) killIfThere(pid);
});

function killIfThere(pid: number): void {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch {
    // It has ended with its volume.
  }
}

const signals = ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"] as const;

/** Ends runs at chance times from their start on, by each signal, four at once. */
async function endRuns(pool: PoolOnDisk): Promise<void> {
  for (let round = 0; round < 10; round += 1) {
    await Promise.all(Array.from({ length: 4 }, async (_, at) => {
      await using run = pool.start(["run", "--fork", "base", "--", "echo at $$; exec sleep 3"]);
      const late = round % 2 === 0 ? run.printed(/^at /m).catch(() => {}) : undefined;
      const early = new Promise((resolve) => setTimeout(resolve, Math.random() * 2000));
      await (late ?? early);
      // One whose server is killed while it begins ends by itself.
      if (!run.hasEnded) run.signal(signals[(round + at) % signals.length]!);
      await run.status;
    }));
  }
}

soakTest({
  name:
    "runs that are ended at any time leave nothing on a server, and nothing for the next one after its crash",
  fn: async () => {
    await using pool = await PoolOnDisk.make();
    await pool.verb("create", "base", "16M");
    const tcp = ["--listen", "tcp:127.0.0.1:0"];
    const server = await pool.serveAt(tcp);
    await endRuns(pool);
    await requireOnlyBase(pool);
    await using run = pool.start(["run", "--fork", "base", "--", "echo at $$; exec sleep 5"]);
    await begun(run);
    await server.kill();
    await run.complained(/The server has ended\. The volume is gone/);
    assertEquals(socketsIn(pool).length, 1);
    const again = await pool.serveAt(tcp);
    await requireOnlyBase(pool);
    assertEquals(await run.status, 0);
    await again.stop();
    await pool.requireSound();
  },
});

soakTest({
  name: "runs that are ended at any time without a server leave nothing for the next opening",
  fn: async () => {
    await using pool = await PoolOnDisk.make();
    await pool.verb("create", "base", "16M");
    await endRuns(pool);
    await pool.verb("quota", "base", "none");
    await requireOnlyBase(pool);
    await pool.requireSound();
  },
});

soakTest({
  name: "run without a server ends as a shell would with a program that cannot run, or that a signal ends",
  fn: async () => {
    await using pool = await PoolOnDisk.make();
    await pool.verb("create", "base", "16M");
    const programs: readonly (readonly [number, ...string[]])[] = [
      [126, await plainFile(pool), "$uri"],
      [127, "/no/such/program", "$uri"],
      [137, "kill -KILL $$"],
      [143, "kill -TERM $$"],
      [5, "exit 5"],
    ];
    for (const [status, ...words] of programs) {
      const ran = await pool.cli(["run", "--fork", "base", "--", ...words]);
      assertEquals(ran.status, status, ran.stderr);
      await requireOnlyBase(pool);
    }
    await pool.requireSound();
  },
});
