/** How long commands wait: for a server that says nothing, for one that works, and for a pool that is open elsewhere. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import http from "node:http";
import { isTestable, programPath } from "../support/programs.ts";
import { PoolOnDisk } from "../support/server.ts";
import { cliArguments } from "./command_line.ts";

const small = ["--data-size", "64M", "--metadata-size", "2M"];
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

Deno.test("a server that is stopped is given up after --timeout, with a sentence, and serves when it goes on", async () => {
  await using pool = await PoolOnDisk.make(...small);
  const server = await pool.serve(["--create", "a=1M"]);
  server.signal("SIGSTOP");
  for (const words of [["list"], ["create", "b", "1M"]]) {
    const beginMs = Date.now();
    const { status, stdout, stderr } = await pool.cli([...words, "--timeout", "0.5"]);
    assertEquals([status, stdout], [1, ""]);
    assertMatch(stderr, /^The server at \S+control\.sock has said nothing for 0\.5 s\. [^\n]*--timeout\.\n$/);
    assert(Date.now() - beginMs < 10_000);
  }
  server.signal("SIGCONT");
  assertEquals((await pool.list())[0]?.name, "a");
  await server.stop();
});

/** A server that answers commands after so long, and everything else at once or never. */
async function slowServer(path: string, answerMs: number, isAlive: boolean): Promise<AsyncDisposable> {
  const timers = new Set<ReturnType<typeof setTimeout>>();
  const server = http.createServer((request, response) => {
    request.resume();
    if (request.method !== "POST") return isAlive ? void response.writeHead(404).end() : undefined;
    response.writeHead(200);
    response.write('{"text":"a piece\\n"}\n');
    timers.add(setTimeout(() => response.end('{"kind":"done"}\n'), answerMs));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    [Symbol.asyncDispose]: () => {
      for (const timer of timers) clearTimeout(timer);
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

Deno.test("a server that works on a long command is waited for while it shows that it is alive", async () => {
  await using pool = await PoolOnDisk.make(...small);
  {
    await using _server = await slowServer(`${pool.directory}/control.sock`, 2500, true);
    assertEquals(await pool.verb("dump", "--timeout", "0.5"), "a piece\n");
  }
  await using _server = await slowServer(`${pool.directory}/control.sock`, 20_000, false);
  const { status, stderr } = await pool.cli(["dump", "--timeout", "0.5"]);
  assertEquals(status, 1);
  assertMatch(stderr, /has said nothing for 0\.5 s/);
});

/** Runs a program without root's leave to open whatever it likes. */
async function withoutPrivileges(path: string, args: readonly string[]) {
  const drop = ["--bounding-set=-dac_override,-dac_read_search"];
  const isRoot = Deno.uid() === 0;
  const output = await new Deno.Command(isRoot ? programPath("setpriv")! : path, {
    args: isRoot ? [...drop, path, ...args] : [...args],
    env: { NO_COLOR: "1" },
  }).output();
  return { status: output.code, stderr: new TextDecoder().decode(output.stderr) };
}

Deno.test({
  name:
    "a control socket that may not be asked is told with its owner, and so is a directory that lets nobody in",
  ignore: !isTestable(Deno.uid() !== 0 || programPath("setpriv") !== undefined),
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    const server = await pool.serve();
    const socket = `${pool.directory}/control.sock`;
    const args = cliArguments(["--pool", pool.directory, "list"]);
    const mode = (path: string) => [path, Deno.statSync(path).mode! & 0o777] as const;
    for (const [path, usual] of [mode(socket), mode(pool.directory)]) {
      await Deno.chmod(path, 0);
      const { status, stderr } = await withoutPrivileges(Deno.execPath(), args);
      await Deno.chmod(path, usual);
      assertEquals(status, 1);
      assertEquals(stderr.split("\n").length, 2, stderr);
      assert(
        stderr.startsWith(
          `Cannot ask the server at ${socket}: it is not permitted, as "${path}" belongs to `,
        ),
        stderr,
      );
      assertMatch(stderr, /Run the command as \S+, for instance with sudo -u\.\n$/);
    }
    await server.stop();
  },
});

Deno.test("commands that are given at once on a pool without a server take turns", async () => {
  await using pool = await PoolOnDisk.make(...small);
  const names = ["a", "b", "c", "d", "e", "f"];
  const results = await Promise.all(names.map((name) => pool.cli(["create", name, "1M"])));
  assertEquals(results.map(({ status, stderr }) => [status, stderr]), names.map(() => [0, ""]));
  assertEquals((await pool.list()).map((volume) => volume.name), names);
});

Deno.test("a server waits for the pool that another one has, and a command no longer than --lock-wait", async () => {
  await using pool = await PoolOnDisk.make(...small);
  const first = await pool.serve(["--read-only"]);
  const beginMs = Date.now();
  const { status, stderr } = await pool.cli(["create", "a", "1M", "--lock-wait", "0.5"]);
  assertEquals(status, 1);
  assertMatch(
    stderr,
    /another process has it open\. Stop that one first\. This command waited 0\.5 s \(--lock-wait\)\.\n$/,
  );
  assert(Date.now() - beginMs >= 500);
  const second = pool.serve(["--create", "a=1M"]);
  await sleep(300);
  await first.stop();
  const server = await second;
  assertEquals((await pool.list())[0]?.name, "a");
  await server.stop();
});
