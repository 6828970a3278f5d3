/** The permissions that the README names are enough, and one that is missing is named in a sentence, never asked for. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { hasProgram, programPath } from "../support/programs.ts";
import { PoolOnDisk, runToEnd } from "../support/server.ts";

/** The permissions of each use, as the README gives them for a pool in this directory. */
function permissionsFor(directory: string) {
  const control = `${directory}/control.sock`;
  const [read, write] = [`--allow-read=${directory}`, `--allow-write=${directory}`];
  return {
    /** Commands that change a pool which no server has; `init` too, if it is given a size. */
    change: [read, write],
    /** Commands that only look at such a pool. */
    look: [read],
    /** Any command to a running server. */
    ask: [read, `--allow-write=${control}`, `--allow-net=unix:${control}`],
    serve: [read, write, `--allow-net=127.0.0.1,unix:${directory}/nbd.sock,unix:${control}`],
    /** `run` where no server has the pool. */
    runAlone: [read, write, `--allow-net=unix:${control},unix:${directory}/run-1.sock`, "--allow-run"],
    serveReadOnly: [read, "--allow-net=127.0.0.1"],
  };
}

/** Runs the command line with some permissions and gives its exit status and what it complained about. */
async function run(pool: PoolOnDisk, permissions: readonly string[], args: readonly string[]) {
  const { status, stderr } = await pool.cli(args, { permissions });
  return { status, stderr };
}

/** It failed with one sentence, which names the option that was missing. */
async function requireNamed(
  pool: PoolOnDisk,
  permissions: readonly string[],
  args: readonly string[],
  option: RegExp,
): Promise<void> {
  const result = await run(pool, permissions, args);
  const what = `${args.join(" ")} with ${permissions.join(" ")}: ${result.stderr}`;
  assertEquals(result.status, 1, what);
  assertMatch(result.stderr, option, what);
  assertEquals(result.stderr.trim().split("\n").length, 1, what);
}

const done = { status: 0, stderr: "" };
const tcp = ["--listen", "tcp:127.0.0.1:0"];

Deno.test("commands on a pool that no server has need to read it, and to write it if they change it", async () => {
  await using pool = await PoolOnDisk.folder();
  const { change, look } = permissionsFor(pool.directory);
  for (
    const args of [["init", "--data-size", "1G"], ["create", "a", "1M"], ["snapshot", "a@s"], ["rm", "a"]]
  ) {
    await requireNamed(pool, look, args, /--allow-write/);
    const { status, stderr } = await run(pool, change, args);
    assertEquals(status, 0, stderr);
    // What opens the pool for writing says what it cannot do without --allow-ffi, and nothing else.
    assertMatch(stderr, /^(Without the C library it is not verified [^\n]*\n)?$/, args.join(" "));
  }
  for (const verb of ["list", "status", "check", "dump"]) {
    await requireNamed(pool, [], [verb], /--allow-read/);
    assertEquals(await run(pool, look, [verb]), done, verb);
  }
});

Deno.test("making a pool as large as the host needs --allow-sys=statfs, and $GOSSAMER_POOL to be allowed", async () => {
  await using pool = await PoolOnDisk.folder();
  const { change, look } = permissionsFor(pool.directory);
  await requireNamed(pool, change, ["init"], /--allow-sys=statfs/);
  assertEquals(await run(pool, [...change, "--allow-sys=statfs"], ["init"]), done);
  const env = { GOSSAMER_POOL: pool.directory };
  const listed = await pool.cli(["list"], { permissions: [...look, "--allow-env=GOSSAMER_POOL"], env });
  assertEquals(listed.status, 0);
});

Deno.test({
  name: "serve needs its pool and its addresses, and commands to it the control socket",
  ignore: !hasProgram("nbdinfo"),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=1G");
    const { serve, ask } = permissionsFor(pool.directory);
    const socket = `${pool.directory}/nbd.sock`;
    const args = ["serve", ...tcp, "--listen", `unix:${socket}`];
    for (const missing of serve) {
      const rest = serve.filter((permission) => permission !== missing);
      // Without --allow-ffi there is another sentence, about what the host gets back.
      await requireNamed(pool, [...rest, "--allow-ffi"], args, new RegExp(missing.split("=")[0]!));
    }
    const server = await pool.serve(["--create", "b=1M", ...tcp], { permissions: serve }, socket);
    const address = /listening (nbd:.*)/.exec(server.stdout)![1]!;
    for (const url of [`${address}/b`, server.url("b")]) {
      assertEquals(await runToEnd(programPath("nbdinfo")!, ["--size", url]), "1048576\n");
    }
    for (const missing of ask) {
      const rest = ask.filter((permission) => permission !== missing);
      await requireNamed(pool, rest, ["list"], new RegExp(missing.split("=")[0]!));
    }
    assertEquals(await run(pool, ask, ["clone", "b", "c"]), done);
    assertEquals(await run(pool, ask, ["list"]), done);
    await server.stop();
    assert(!server.stderr.includes("NotCapable"), server.stderr);
    assert(
      server.stderr.includes("it is not verified that the disk has what the host's memory shows"),
      server.stderr,
    );
  },
});

Deno.test("run needs to ask the server and to run, and what serves the pool needs a private socket", async () => {
  await using pool = await PoolOnDisk.make("--data-size=1G");
  const { serve, ask, runAlone } = permissionsFor(pool.directory);
  const privateSocket = `unix:${pool.directory}/run-1.sock`;
  const args = ["run", "--size", "1M", "--", "echo $unixsocket"];
  const alone = await pool.cli(args, { permissions: runAlone });
  assertEquals([alone.status, alone.stdout], [0, `${pool.directory}/run-1.sock\n`], alone.stderr);
  const [read, write, net] = serve;
  const server = await pool.serveAt(tcp, { permissions: [read!, write!, `${net},${privateSocket}`] });
  await requireNamed(pool, ask, args, /--allow-run/);
  const permissions = [...ask, "--allow-run"];
  await using first = pool.start(
    ["run", "--size", "1M", "--", "echo at $unixsocket; exec sleep 100"],
    { permissions },
  );
  assertEquals((await first.printed(/^at (.*)$/m))[1], `${pool.directory}/run-1.sock`);
  // There is one private socket, and two runs at once would need two.
  await requireNamed(pool, permissions, args, /^Cannot open a private socket .*=unix:\/.*\/run-2\.sock\.\n$/);
  first.signal("SIGTERM");
  assertEquals([await first.status, first.stderr], [143, ""]);
  await server.stop();
});

Deno.test("an address that is not allowed is named with the option that allows it, and so is the control socket", async () => {
  await using pool = await PoolOnDisk.make("--data-size=1G");
  const { directory } = pool;
  const files = [`--allow-read=${directory}`, `--allow-write=${directory}`, "--allow-ffi"];
  const missing: readonly (readonly [listen: string, allowed: string, says: string])[] = [
    ["tcp:127.0.0.1:10809", "[::1]", "--allow-net=127.0.0.1:10809"],
    ["tcp:[::1]:10809", "127.0.0.1", "--allow-net=[::1]:10809"],
    [`unix:${directory}/s`, "127.0.0.1", `--allow-net=unix:${directory}/s`],
    [
      `unix:${pool.path("s")}`,
      "127.0.0.1",
      `--allow-net=unix:${pool.path("s")} --allow-read=${pool.path("s")} --allow-write=${pool.path("s")}`,
    ],
    ["tcp:127.0.0.1:0", "127.0.0.1", `--allow-net=unix:${directory}/control.sock`],
  ];
  for (const [listen, allowed, says] of missing) {
    const { status, stderr } = await run(pool, [...files, `--allow-net=${allowed}`], [
      "serve",
      "--listen",
      listen,
    ]);
    assertEquals(status, 1);
    assertMatch(stderr, /^Can ?not [^\n]*: Deno was not given the permission\. Add [^\n]*\.\n$/);
    assertEquals(stderr.split("Add ")[1], `${says}.\n`);
  }
});

Deno.test({
  name: "serve --read-only on TCP needs no permission to write",
  ignore: !hasProgram("nbdinfo"),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=1G");
    await pool.verb("create", "b", "1M");
    const { serveReadOnly } = permissionsFor(pool.directory);
    const server = await pool.serveAt(["--read-only", ...tcp], { permissions: serveReadOnly });
    const address = /listening (nbd:.*)/.exec(server.stdout)![1]!;
    assertEquals(await runToEnd(programPath("nbdinfo")!, ["--size", `${address}/b`]), "1048576\n");
    await server.stop();
  },
});
