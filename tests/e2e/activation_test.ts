/** Sockets that somebody else has bound: systemd's protocol for them, spoken by a small parent and by systemd's own tool. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { hasOpenssl, makeCertificates } from "../support/certificates.ts";
import { cliArguments } from "../cli/command_line.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { hasProgram, isProgram, isTestable, python, requiredProgram } from "../support/programs.ts";
import { Lines, PoolOnDisk, runToEnd } from "../support/server.ts";

const small = ["--data-size", "64M", "--metadata-size", "2M"];
const ignore = !isTestable(isProgram(python));

/** A server that a parent has started. */
class Started implements AsyncDisposable {
  readonly stdout: Lines;
  readonly stderr: Lines;
  readonly #child: Deno.ChildProcess;
  #hasEnded = false;

  constructor(path: string, args: readonly string[]) {
    this.#child = new Deno.Command(path, {
      args: [...args],
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.stdout = new Lines(this.#child.stdout);
    this.stderr = new Lines(this.#child.stderr);
    this.#child.status.then(() => this.#hasEnded = true);
  }

  /** With these sockets; see activate.py. */
  static with(
    whose: "PID" | "other",
    sockets: readonly string[],
    program: readonly string[],
  ): Started {
    const script = new URL("activate.py", import.meta.url).pathname;
    return new Started(python, [script, whose, ...sockets, "--", Deno.execPath(), ...program]);
  }

  /** The lines of so many addresses, once it listens there; those of its own come behind. */
  async listening(addresses: number): Promise<string[]> {
    const isThere = await this.stdout.met((text) => text.split("\n").length > addresses);
    assert(isThere, this.stderr.text);
    return this.stdout.text.split("\n").slice(0, addresses);
  }

  async stop(): Promise<void> {
    this.#child.kill("SIGTERM");
    assertEquals((await this.#ended()).code, 0, this.stderr.text);
  }

  async #ended(): Promise<Deno.CommandStatus> {
    const [status] = await Promise.all([this.#child.status, this.stdout.ended, this.stderr.ended]);
    return status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#hasEnded) this.#child.kill("SIGKILL");
    await this.#ended();
  }
}

async function writeAndRead(address: { path: string } | { hostname: string; port: number }): Promise<void> {
  using client = await RawClient.attach(address, "d");
  const data = new Uint8Array(300_000).map((_, at) => at * 13);
  await client.write(777, data);
  assertEquals(await client.read(777, data.length), data);
  await client.disconnect();
}

Deno.test({
  name: "inherited sockets, TCP and Unix, are served instead of the default ones, and stay where they are",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    await pool.verb("create", "d", "1M");
    const path = pool.path("a b.sock");
    const args = cliArguments(["--pool", pool.directory, "serve"]);
    await using started = Started.with("PID", ["0", path], args);
    const lines = await started.listening(2);
    assertMatch(lines[0]!, /^listening nbd:\/\/127\.0\.0\.1:\d+$/);
    assertEquals(lines.slice(1), [`listening nbd+unix:///?socket=${pool.folder}/a%20b.sock`]);
    await writeAndRead({ hostname: "127.0.0.1", port: Number(lines[0]!.split(":").at(-1)) });
    await writeAndRead({ path });
    assertMatch(started.stderr.text, /^127\.0\.0\.1:\d+ attached to "d"$/m);
    assertStringIncludes(started.stderr.text, `a client of ${path} attached to "d"\n`);
    await started.stop();
    // It belongs to whoever bound it.
    assert(Deno.lstatSync(path).isSocket);
  },
});

Deno.test({
  name: "an address given with --listen is served beside inherited sockets",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    await pool.verb("create", "d", "1M");
    const [theirs, ours] = [pool.path("theirs"), pool.path("ours")];
    const args = cliArguments(["--pool", pool.directory, "serve", "--listen", `unix:${ours}`]);
    await using started = Started.with("PID", [theirs], args);
    assertEquals(
      await started.listening(2),
      [theirs, ours].map((path) => `listening nbd+unix:///?socket=${path}`),
    );
    await writeAndRead({ path: theirs });
    await writeAndRead({ path: ours });
    await started.stop();
  },
});

Deno.test({
  name: "sockets that were meant for another process are left alone",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    const [theirs, ours] = [pool.path("theirs"), pool.path("ours")];
    const args = cliArguments(["--pool", pool.directory, "serve", "--listen", `unix:${ours}`]);
    await using started = Started.with("other", [theirs], args);
    assertEquals(await started.listening(1), [`listening nbd+unix:///?socket=${ours}`]);
    await started.stop();
    assertMatch(
      started.stderr.text,
      /^LISTEN_FDS promises sockets, but to the process \d+; this one is \d+\. They are left alone: [^\n]* npx [^\n]*\nstopping;/,
    );
  },
});

Deno.test({
  name:
    "inherited sockets need no permission for the network but for the control socket, only to see the two variables",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    await pool.verb("create", "d", "1M");
    const cli = new URL("../../cli.ts", import.meta.url).pathname;
    const serve = (permissions: readonly string[], path: string, ...options: readonly string[]) => {
      const allowed = [`--allow-read=${pool.directory}`, "--allow-env=LISTEN_FDS,LISTEN_PID", ...permissions];
      const words = ["--pool", pool.directory, "serve", ...options];
      return Started.with("PID", ["0", path], ["run", "--no-prompt", ...allowed, cli, ...words]);
    };
    {
      const path = pool.path("s");
      await using started = serve([], path, "--read-only");
      // The path itself is told by the C library alone, for which the permission is not there.
      assertEquals((await started.listening(2))[1], "listening nbd+unix:///?socket=");
      using client = await RawClient.attach({ path }, "d");
      assertEquals(await client.read(0, 3), new Uint8Array(3));
      await client.disconnect();
      await started.stop();
    }
    const control = `--allow-net=unix:${pool.directory}/control.sock`;
    const path = pool.path("t");
    await using started = serve([`--allow-write=${pool.directory}`, control], path);
    await started.listening(2);
    await writeAndRead({ path });
    await pool.verb("snapshot", "d@s");
    await started.stop();
  },
});

Deno.test({
  name: "TLS is spoken on inherited sockets too",
  ignore: ignore || !hasOpenssl() || !hasProgram("nbdcopy"),
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    await pool.verb("create", "d", "8M");
    const { server, client } = await makeCertificates(pool.folder);
    const tls = ["--tls", "require", "--tls-verify-peer", "--tls-certificates", server];
    const args = cliArguments(["--pool", pool.directory, "serve", ...tls]);
    await using started = Started.with("PID", ["0"], args);
    const [line] = await started.listening(1);
    const port = /^listening nbds:\/\/127\.0\.0\.1:(\d+)$/.exec(line!)?.[1];
    const url = `nbds://localhost:${port}/d?tls-certificates=${client}`;
    const [before, after] = [pool.path("before.raw"), pool.path("after.raw")];
    Deno.writeFileSync(before, new Uint8Array(8 << 20).map((_, at) => at ^ (at >> 12)));
    await runToEnd(requiredProgram("nbdcopy"), ["--flush", before, url]);
    await runToEnd(requiredProgram("nbdcopy"), [url, after]);
    await runToEnd("/usr/bin/cmp", [before, after]);
    await started.stop();
  },
});

Deno.test({
  name: "systemd-socket-activate starts the server for the first client and hands it over",
  ignore: !hasProgram("systemd-socket-activate"),
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    await pool.verb("create", "d", "1M");
    const path = pool.path("s");
    const args = [`--listen=${path}`, Deno.execPath(), ...cliArguments(["--pool", pool.directory, "serve"])];
    await using started = new Started(requiredProgram("systemd-socket-activate"), args);
    await started.stderr.met((text) => text.includes("Listening on"));
    await writeAndRead({ path });
    assertStringIncludes(started.stdout.text, `listening nbd+unix:///?socket=${path}\n`);
    await started.stop();
  },
});
