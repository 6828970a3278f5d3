/** Attacks on one real server, one after another, as any local client of its socket can make them. */
import { assert, assertEquals } from "@std/assert";
import { PoolOnDisk } from "../support/server.ts";
import { isThere } from "../e2e/clients.ts";
import { PoorServer } from "./poor_server.ts";
import { sleep } from "./repeated.ts";

const encoder = new TextEncoder();

function post(body: string, host = "pool"): Uint8Array {
  const head = `POST /v1/commands HTTP/1.1\r\nhost: ${host}\r\ncontent-type: application/json\r\n`;
  return encoder.encode(`${head}content-length: ${body.length}\r\n\r\n${body}`);
}

const dump = post('{"verb":"dump"}');

async function ask(path: string, request: Uint8Array): Promise<Deno.Conn> {
  const conn = await Deno.connect({ transport: "unix", path });
  await conn.write(request);
  return conn;
}

/** The beginning of an answer: its status line at least. */
async function answerTo(path: string, request: Uint8Array): Promise<string> {
  using conn = await ask(path, request);
  const buffer = new Uint8Array(64 * 1024);
  return new TextDecoder().decode(buffer.subarray(0, await conn.read(buffer) ?? 0));
}

Deno.test("dumps that are left in every way, a Host that is none and a log that nothing reads end no server, and SIGHUP stops it well", async () => {
  await using pool = await PoolOnDisk.make("--data-size=64M", "--metadata-size=4M");
  const control = `${pool.directory}/control.sock`;
  const create = Array.from({ length: 40 }, (_, index) => ["--create", `v${index}=1M`]).flat();
  const options = { pool: pool.directory, socket: pool.path("s"), descriptors: 256, arguments: create };
  await using server = await PoorServer.start({ ...options, stderr: "no reader" });
  for (let round = 0; round < 60; round++) {
    const conn = await ask(control, dump);
    // Before, while and after the answer begins.
    await sleep(round % 6);
    conn.close();
  }
  const unread = await Promise.all(Array.from({ length: 4 }, () => ask(control, dump)));
  await sleep(100);
  const fifth = await ask(control, dump);
  await sleep(100);
  fifth.close();
  for (const conn of unread) {
    conn.close();
    await sleep(5);
  }
  const malformed = await answerTo(control, post('{"verb":"status"}', "[::1"));
  assert(!malformed.startsWith("HTTP/1.1 5"), malformed);
  const answer = await answerTo(control, post('{"verb":"status"}'));
  assert(answer.startsWith("HTTP/1.1 200"), answer);
  assertEquals(server.status, undefined);
  Deno.kill(server.pid, "SIGHUP");
  await server.ended;
  assertEquals(server.status?.code, 0);
  assertEquals([isThere(control), isThere(options.socket)], [false, false]);
});
