/** `serve --read-only`: no byte changes, others may read too, nobody may write. */
import { assertEquals, assertMatch } from "@std/assert";
import { hasProgram, hasPythonNbd, programPath } from "../support/programs.ts";
import { PoolOnDisk, runToEnd } from "../support/server.ts";
import { Agent } from "./agent.ts";

/** What there is in a pool directory: digest and time of change of every file. */
async function fingerprint(directory: string): Promise<string[]> {
  const lines: string[] = [];
  for await (const { name } of Deno.readDir(directory)) {
    const path = `${directory}/${name}`;
    const info = await Deno.stat(path);
    const digest = await crypto.subtle.digest("SHA-256", await Deno.readFile(path));
    lines.push(
      `${name} ${new Uint8Array(digest).toHex()} ${info.mtime?.getTime()} ${info.size} ${info.blocks}`,
    );
  }
  return lines.sort();
}

/** A small pool with a snapshot, and a change of its names that a crash interrupted, so that opening it is work. */
async function makePool(pool: PoolOnDisk, agent: Agent): Promise<void> {
  await pool.verb("create", "disk0", "8M");
  const server = await pool.serve();
  const range = { socket: server.socket, name: "disk0", byte: 5 };
  await agent.call("fill", { ...range, offset: 0, length: 1 << 20 });
  await pool.verb("snapshot", "disk0@s");
  await agent.call("fill", { ...range, offset: 70_000, byte: 6, length: 500_000 });
  await server.stop();
  // The catalogue as before a commit, the metadata as if that had never come.
  await Deno.copyFile(pool.metadataPath, pool.path("before"));
  await pool.verb("create", "interrupted", "1M");
  await Deno.copyFile(pool.path("before"), pool.metadataPath);
}

Deno.test({
  name: "serve --read-only changes no byte of the pool and no time of its files",
  ignore: !hasPythonNbd() || !hasProgram("nbdcopy"),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M", "--metadata-size=8M");
    await using agent = new Agent();
    await makePool(pool, agent);
    const before = await fingerprint(pool.directory);
    const server = await pool.serve(["--read-only"]);
    await runToEnd(programPath("nbdcopy")!, [server.url("disk0"), pool.path("out.img")]);
    await runToEnd(programPath("nbdcopy")!, [server.url("disk0@s"), pool.path("snapshot.img")]);
    const refusals = await agent.call<Record<string, string>>("try_to_change", {
      socket: server.socket,
      name: "disk0",
    });
    assertEquals(refusals, { write: "EPERM", trim: "EPERM", zero: "EPERM", cache: "", flush: "" });
    assertEquals((await pool.list()).map((volume) => volume.name), ["disk0", "disk0@s"]);
    await pool.verb("status");
    await pool.verb("dump");
    await pool.verb("check");
    await server.stop();
    assertEquals(await fingerprint(pool.directory), before);
    // It does show what was written: the volume differs from its snapshot.
    const contents = await Promise.all(
      ["out.img", "snapshot.img"].map((name) => Deno.readFile(pool.path(name))),
    );
    assertEquals([contents[0]![80_000], contents[1]![80_000]], [6, 5]);
  },
});

Deno.test("serve --read-only lets another reader in, and refuses a writer with a sentence", async () => {
  await using pool = await PoolOnDisk.make("--data-size=64M", "--metadata-size=8M");
  await pool.verb("create", "disk0", "8M");
  const first = await pool.serve(["--read-only"]);
  const second = await pool.serve(["--read-only"], {}, pool.path("second.sock"));
  for (const args of [["create", "other", "1M"], ["serve", "--listen", `unix:${pool.path("third.sock")}`]]) {
    const result = await pool.cli([...args, "--lock-wait", "0"]);
    assertEquals(result.status, 1, result.stdout);
    assertMatch(result.stderr, /another process has it open/);
    assertEquals(result.stderr.trim().split("\n").length, 1, result.stderr);
  }
  assertEquals((await pool.list()).length, 1);
  await second.stop();
  await first.stop();
  await pool.verb("create", "other", "1M");
});

Deno.test("while a server writes, serve --read-only is refused", async () => {
  await using pool = await PoolOnDisk.make("--data-size=64M", "--metadata-size=8M");
  const server = await pool.serve();
  const result = await pool.cli([
    "serve",
    "--lock-wait",
    "0",
    "--read-only",
    "--listen",
    `unix:${pool.path("second.sock")}`,
  ]);
  assertEquals(result.status, 1);
  assertMatch(result.stderr, /another process has it open/);
  await server.stop();
});
