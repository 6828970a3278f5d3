/** `clients` and `kick` of a real server with real clients. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { hasProgram, hasPythonNbd, python } from "../support/programs.ts";
import { Lines, PoolOnDisk, type ServerProcess } from "../support/server.ts";
import { run, runToFailure } from "./clients.ts";

const small = ["--data-size", "64M", "--metadata-size", "2M"];

/** A libnbd client that is attached, and tells how a READ ends that it sends when it reads a line. */
class HeldClient implements AsyncDisposable {
  readonly said: Lines;
  readonly #child: Deno.ChildProcess;

  constructor(url: string) {
    const script = `
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
print("attached", flush=True)
sys.stdin.readline()
try:
    h.pread(512, 0)
    print("read", flush=True)
except nbd.Error:
    print("closed", flush=True)
`;
    this.#child = new Deno.Command(python, {
      args: ["-c", script, url],
      stdin: "piped",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    this.said = new Lines(this.#child.stdout);
  }

  /** Resolves when it is attached. */
  async attached(): Promise<void> {
    assert(await this.said.met((text) => text.includes("attached")), "the client could not attach");
  }

  /** Stops it as one that is paused. */
  pause(): void {
    this.#child.kill("SIGSTOP");
  }

  /** Lets it go on and read, and tells how that ended. */
  async outcome(): Promise<string> {
    this.#child.kill("SIGCONT");
    const writer = this.#child.stdin.getWriter();
    await writer.write(new TextEncoder().encode("\n"));
    await writer.close();
    await this.#child.status;
    await this.said.ended;
    return this.said.text.split("\n")[1] ?? "";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.#child.status;
    await this.said.ended;
    await this.#child.stdin.close().catch(() => {});
  }
}

interface Listed {
  readonly id: number;
  readonly peer: string;
  readonly identity: string | null;
  readonly export: string | null;
  readonly since: string;
}

async function clientsOf(pool: PoolOnDisk): Promise<readonly Listed[]> {
  return JSON.parse(await pool.verb("clients", "--json")).clients;
}

function tcpUrl(server: ServerProcess, name: string): string {
  const port = /nbd:\/\/127\.0\.0\.1:(\d+)/.exec(server.stdout)?.[1];
  return `nbd://127.0.0.1:${port}/${name}`;
}

Deno.test({
  name: "a paused client that holds the only place is listed and kicked, and another one gets in",
  ignore: !hasPythonNbd() || !hasProgram("nbdinfo"),
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    const server = await pool.serve([
      "--create",
      "d=1M",
      "--listen",
      "tcp:127.0.0.1:0",
      "--max-clients",
      "2",
    ]);
    const url = tcpUrl(server, "d");
    await using held = new HeldClient(url);
    await held.attached();
    held.pause();
    await runToFailure("nbdinfo", ["--size", url]);
    await pool.verb("rename", "d", "e");
    const [client] = await clientsOf(pool);
    assertEquals([client?.identity, client?.export], ["127.0.0.1", "e"]);
    assertMatch(client?.peer ?? "", /^127\.0\.0\.1:\d+$/);
    assert(Math.abs(Date.now() - Date.parse(client?.since ?? "")) < 60_000);
    assertMatch(
      await pool.verb("clients"),
      /^ID {2}CLIENT +EXPORT {2}SINCE\n\d+ +127\.0\.0\.1:\d+ +e +\S+Z\n$/,
    );
    assertEquals(await pool.verb("kick", String(client?.id)), "");
    assertEquals(await run("nbdinfo", ["--size", tcpUrl(server, "e")]), "1048576\n");
    assertEquals(await held.outcome(), "closed");
    await server.stop();
    assertMatch(server.stderr, /closing the connection from 127\.0\.0\.1:\d+: the operator has kicked it\n/);
  },
});

Deno.test({
  name: "kick --for refuses the client's host for that time, and the Unix socket is served meanwhile",
  ignore: !hasPythonNbd() || !hasProgram("nbdinfo"),
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    const server = await pool.serve(["--create", "d=1M", "--listen", "tcp:127.0.0.1:0"]);
    const url = tcpUrl(server, "d");
    await using held = new HeldClient(url);
    await held.attached();
    const [client] = await clientsOf(pool);
    await pool.verb("kick", String(client?.id), "--for", "3s");
    const refusedMs = Date.now();
    await runToFailure("nbdinfo", ["--size", url]);
    assertEquals(await run("nbdinfo", ["--size", server.url("d")]), "1048576\n");
    await new Promise((resolve) => setTimeout(resolve, refusedMs + 3500 - Date.now()));
    assertEquals(await run("nbdinfo", ["--size", url]), "1048576\n");
    assertEquals(await held.outcome(), "closed");
    await server.stop();
  },
});

Deno.test("what kick cannot do is said in a sentence, with status 1", async () => {
  await using pool = await PoolOnDisk.make(...small);
  for (const args of [["clients"], ["clients", "--json"], ["kick", "1"]]) {
    const { status, stdout, stderr } = await pool.cli(args);
    assertEquals([status, stdout], [1, ""]);
    assertMatch(stderr, new RegExp(`^Cannot carry out ${args[0]}: no server [^\\n]*\\.\\n$`));
  }
  const server = await pool.serve(["--create", "d=1M"]);
  assertEquals(await pool.verb("clients"), "ID  CLIENT  EXPORT  SINCE\n");
  assertEquals(await pool.verb("clients", "--json"), '{"clients":[]}\n');
  const unknown = await pool.cli(["kick", "99"]);
  assertEquals([unknown.status, unknown.stdout], [1, ""]);
  assertMatch(unknown.stderr, /^Cannot kick client 99: there is none of this number\. [^\n]*\.\n$/);
  const long = await pool.cli(["kick", "99", "--for", "48h"]);
  assertEquals([long.status, long.stdout], [1, ""]);
  assertMatch(long.stderr, /more than 24 hours/);
  await server.stop();
});
