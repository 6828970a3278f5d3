/** Nothing that a client of the control socket does, or leaves undone, ends the server or keeps others from it. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { hasProgram, programPath } from "../support/programs.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { PoolOnDisk, runToEnd } from "../support/server.ts";

const small = ["--data-size", "64M", "--metadata-size", "2M"];
const dumpRequest = 'POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n{"verb":"dump"}';

async function controlClient(pool: PoolOnDisk, text: string): Promise<Deno.UnixConn> {
  const conn = await Deno.connect({ transport: "unix", path: `${pool.directory}/control.sock` });
  await conn.write(new TextEncoder().encode(text));
  return conn;
}

/** Mappings that make no runs, in many devices: a dump that is larger than what a socket takes in advance. */
async function makeLargeDump(pool: PoolOnDisk, socket: string): Promise<void> {
  const client = await RawClient.attach({ path: socket }, "a");
  for (let at = 0; at < 512; at += 1) await client.write(at * 2 * 65536, new Uint8Array(512));
  await client.disconnect();
  await pool.verb("snapshot", ...Array.from({ length: 20 }, (_, index) => `a@${index}`));
}

Deno.test("readers of dumps that go away, one of them before its turn, end nothing", async () => {
  await using pool = await PoolOnDisk.make(...small);
  const server = await pool.serve(["--create", "a=64M"]);
  await makeLargeDump(pool, server.socket);
  const readers: Deno.UnixConn[] = [];
  // More than are made at once, which nothing reads; one that waits for its turn leaves.
  for (let count = 0; count < 5; count += 1) readers.push(await controlClient(pool, dumpRequest));
  await new Promise((resolve) => setTimeout(resolve, 500));
  // Nor do they delay what is no dump.
  assertEquals((await pool.list()).length, 21);
  readers.pop()!.close();
  await new Promise((resolve) => setTimeout(resolve, 200));
  for (const reader of readers) reader.close();
  assertEquals((await pool.list()).length, 21);
  await server.stop();
});

Deno.test("dumps whose readers leave at once, at any moment, end nothing", async () => {
  await using pool = await PoolOnDisk.make(...small);
  const server = await pool.serve(["--create", "a=64M"]);
  for (let count = 0; count < 40; count += 1) {
    const readers = await Promise.all(Array.from({ length: 6 }, () => controlClient(pool, dumpRequest)));
    await new Promise((resolve) => setTimeout(resolve, count % 4));
    for (const reader of readers) reader.close();
  }
  assertEquals((await pool.list()).length, 1);
  await server.stop();
});

Deno.test({
  name: "a server without a free descriptor says so once, and takes commands again when it has some",
  ignore: !hasProgram("prlimit"),
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    const server = await pool.serve(["--create", "a=1M"]);
    const open = [...Deno.readDirSync(`/proc/${server.pid}/fd`)].length;
    const limit = `--nofile=${open + 10}`;
    await runToEnd(programPath("prlimit")!, ["--pid", `${server.pid}`, limit]);
    const idle: Deno.UnixConn[] = [];
    for (let count = 0; count < 30; count += 1) idle.push(await controlClient(pool, ""));
    await new Promise((resolve) => setTimeout(resolve, 500));
    assertMatch(server.stderr, /^Cannot accept control connections: [^\n]*\n$/);
    for (const conn of idle) conn.close();
    assertEquals((await pool.list()).length, 1);
    await server.stop();
  },
});

Deno.test("what has the name of the control socket and is none is refused, and left alone", async () => {
  await using pool = await PoolOnDisk.make(...small);
  const path = `${pool.directory}/control.sock`;
  await Deno.writeTextFile(path, "mine");
  await assertRejects(
    () => pool.serve(),
    Error,
    "control.sock: what is there is no socket. Move it away.",
  );
  assertEquals(await Deno.readTextFile(path), "mine");
  // One that a killed server has left is replaced.
  await Deno.remove(path);
  const killed = await pool.serve(["--create", "a=1M"]);
  await killed.kill();
  assert(Deno.lstatSync(path).isSocket);
  const server = await pool.serve();
  assertEquals((await pool.list()).length, 1);
  await server.stop();
});
