/** A process that has few descriptors, or none left. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { freeDescriptorsMin } from "../../actors/limits.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { hasProgram, python } from "../support/programs.ts";
import { Lines, PoolOnDisk, runToEnd } from "../support/server.ts";
import { PoorServer, usageOf } from "../torture/poor_server.ts";

const starved = new URL("starved.ts", import.meta.url).pathname;
const cli = new URL("../../cli.ts", import.meta.url).pathname;

Deno.test("the pool's own files are opened when clients have taken all descriptors, and clients get none before those are back", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const told = await runToEnd(Deno.execPath(), ["run", "-A", starved, "kept", folder]);
    assertEquals(JSON.parse(told), [false, true, false, true, true]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test({
  name: "clients of an inherited socket are accepted again after there was no descriptor for one",
  ignore: !hasProgram("python3"),
  fn: async () => {
    const script = new URL("activate.py", import.meta.url).pathname;
    const folder = await Deno.makeTempDir();
    const path = `${folder}/s`;
    const args = [script, "PID", path, "--", Deno.execPath(), "run", "-A", starved, "accept"];
    const child = new Deno.Command(python, { args, stdin: "null", stdout: "piped", stderr: "piped" }).spawn();
    const [stdout, stderr] = [new Lines(child.stdout), new Lines(child.stderr)];
    const clients: Deno.Conn[] = [];
    const comes = async () => clients.push(await Deno.connect({ transport: "unix", path }));
    try {
      assert(await stdout.met((text) => text.includes("ready")), stderr.text);
      await comes();
      assert(await stdout.met((text) => text.includes("client 1")));
      child.kill("SIGUSR2");
      assert(await stdout.met((text) => text.includes("full")), stderr.text);
      await comes();
      await new Promise((resolve) => setTimeout(resolve, 500));
      child.kill("SIGHUP");
      assert(await stdout.met((text) => text.includes("free")), stderr.text);
      await comes();
      assert(await stdout.met((text) => text.includes("client 3")), stderr.text);
      assertMatch(stderr.text, /^Clients of [^\n]* were not accepted: /m);
    } finally {
      for (const client of clients) client.close();
      child.kill("SIGKILL");
      await Promise.all([child.status, stdout.ended, stderr.ended]);
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test("a server that may have 130 descriptors says how many clients that is, and serves commands beside them", async () => {
  await using pool = await PoolOnDisk.make("--data-size", "64M", "--metadata-size", "4M");
  await pool.verb("create", "d", "1M");
  const path = pool.path("s");
  const command = `ulimit -n 130; exec "$0" run -A "$1" --pool "$2" serve --listen "unix:$3"`;
  const args = ["-c", command, Deno.execPath(), cli, pool.directory, path];
  const child = new Deno.Command("/bin/bash", { args, stdin: "null", stdout: "piped", stderr: "piped" })
    .spawn();
  const [stdout, stderr] = [new Lines(child.stdout), new Lines(child.stderr)];
  const clients: RawClient[] = [];
  try {
    assert(await stdout.met((text) => text.includes("listening")), stderr.text);
    const said = /^Up to (\d+) clients at once, not 64: the process may have 130 files and sockets open/m
      .exec(stderr.text);
    const clientsMax = Number(said?.[1]);
    assert(clientsMax >= 10 && clientsMax < 64, stderr.text);
    for (let i = 0; i < clientsMax; i += 1) clients.push(await RawClient.attach({ path }, "d"));
    for (let i = 0; i < 60; i += 1) clients.push(await RawClient.connect({ path }));
    for (let i = 0; i < 3; i += 1) await pool.verb("create", `v${i}`, "1M");
    assertEquals((await pool.status()).attached, clientsMax);
    assertMatch(stderr.text, new RegExp(`refused [^\\n]*: ${clientsMax} clients are connected`));
    child.kill("SIGTERM");
    assertEquals((await child.status).code, 0, stderr.text);
  } finally {
    for (const client of clients) client.close();
    try {
      child.kill("SIGKILL");
    } catch {
      // It has ended, as it should.
    }
    await Promise.all([stdout.ended, stderr.ended]);
  }
});

Deno.test("that the last descriptors are free, which Deno needs to tell where an error comes from, is known", async () => {
  const told = await runToEnd(Deno.execPath(), ["run", "-A", starved, "free"]);
  assertEquals(JSON.parse(told), [false, false, true]);
});

Deno.test("control connections that do nothing take no descriptor that a client of a volume needs", async () => {
  await using pool = await PoolOnDisk.make("--data-size", "64M", "--metadata-size", "4M");
  const [descriptors, socket] = [100, pool.path("s")];
  const options = { pool: pool.directory, socket, descriptors, stderr: "no reader", arguments: [] } as const;
  await using server = await PoorServer.start(options);
  const path = `${pool.directory}/control.sock`;
  const clients: Deno.Conn[] = [];
  try {
    while (clients.length < 80) clients.push(await Deno.connect({ transport: "unix", path }));
    await new Promise((resolve) => setTimeout(resolve, 500));
    using client = await RawClient.connect({ path: socket }, { timeoutMs: 3_000 });
    await client.receiveOpening();
    const { descriptors: used } = usageOf(server.pid);
    assert(used <= descriptors - freeDescriptorsMin, `${used} of ${descriptors} descriptors are in use`);
  } finally {
    for (const client of clients) client.close();
  }
});
