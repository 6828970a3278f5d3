/** The control socket: what it answers to programs that send anything at all, and that none of them delays the server. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import http from "node:http";
import { RawClient } from "../nbd/raw_client.ts";
import { PoolOnDisk } from "../support/server.ts";

interface Answer {
  readonly status: number;
  readonly body: string;
}

/** One HTTP request on the control socket. */
function ask(pool: PoolOnDisk, method: string, path: string, body = ""): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const socketPath = `${pool.directory}/control.sock`;
  const headers = { "content-length": new TextEncoder().encode(body).length };
  const request = http.request({ socketPath, method, path, headers }, (response) => {
    let text = "";
    response.setEncoding("utf8");
    response.on("data", (piece: string) => text += piece);
    response.on("end", () => resolve({ status: response.statusCode ?? 0, body: text }));
    response.on("error", reject);
  });
  request.on("error", reject);
  request.end(body);
  return promise;
}

const small = ["--data-size", "64M", "--metadata-size", "2M"];

const socketsIn = (path: string) =>
  [...Deno.readDirSync(path)].map((entry) => entry.name).filter((name) => name.endsWith(".sock"));

const malformed: readonly string[] = [
  "",
  "garbage",
  "{",
  "null",
  "5",
  "[]",
  '"rm"',
  "{}",
  '{"verb":"nope"}',
  '{"verb":5}',
  '{"verb":"__proto__"}',
  '{"verb":"startPool"}',
  '{"verb":"reconcile","found":[],"lost":["a"]}',
  '{"verb":"forget","uids":[]}',
  '{"verb":"create"}',
  '{"verb":"create","name":5,"size_bytes":1}',
  '{"verb":"create","name":"x","size_bytes":"1"}',
  '{"verb":"create","name":"x","size_bytes":-1}',
  '{"verb":"create","name":"x","size_bytes":1.5}',
  '{"verb":"create","name":"x","size_bytes":1e300}',
  '{"verb":"create","name":"x","size_bytes":null}',
  '{"verb":"create","name":"a@x","size_bytes":1}',
  '{"verb":"create","name":"../x","size_bytes":1}',
  '{"verb":"create","name":"","size_bytes":1}',
  '{"verb":"snapshot","names":["a"]}',
  '{"verb":"snapshot","names":[]}',
  '{"verb":"clone","source":"a"}',
  '{"verb":"fork","source":"a","count":"2"}',
  '{"verb":"fork","source":"a","ephemeral":1}',
  '{"verb":"fork","source":"a","ttl_ms":-1}',
  '{"verb":"fork","source":"a","name":"%s"}',
  '{"verb":"rollback","snapshot":"a"}',
  '{"verb":"resize","name":"a"}',
  '{"verb":"rm","names":"a"}',
  '{"verb":"rm","names":[]}',
  '{"verb":"rm","names":["a",1]}',
  '{"verb":"rm","names":["a"],"dry_run":1}',
  '{"verb":"rm","names":["a"],"dry_run":"yes"}',
  '{"verb":"rm","names":["a"],"force":"no"}',
  '{"verb":"kick"}',
  '{"verb":"kick","client":"1"}',
  '{"verb":"kick","client":0}',
  '{"verb":"kick","client":1,"refuse_ms":-1}',
  '{"verb":"serve"}',
];

Deno.test("a request that is no command is answered with a sentence, and changes nothing", async () => {
  await using pool = await PoolOnDisk.make(...small);
  const server = await pool.serve(["--create", "a=1M"]);
  const before = await ask(pool, "GET", "/v1/volumes");
  const expectRefused = ({ status, body }: Answer, wanted: number, what: string) => {
    assertEquals(status, wanted, `${what}: ${body}`);
    const { kind, reason } = JSON.parse(body);
    assertEquals(kind, "refused");
    assertMatch(reason, /^[A-Z"][^\n]*\.$/, what);
  };
  for (const body of malformed) expectRefused(await ask(pool, "POST", "/v1/commands", body), 400, body);
  const huge = JSON.stringify({ verb: "rm", names: Array(400_000).fill("a") });
  expectRefused(await ask(pool, "POST", "/v1/commands", huge), 400, "huge");
  const unknown = '{"verb":"rm","names":["a","nobody"]}';
  expectRefused(await ask(pool, "POST", "/v1/commands", unknown), 409, unknown);
  const tooLarge = '{"verb":"create","name":"x","size_bytes":9007199254740991}';
  expectRefused(await ask(pool, "POST", "/v1/commands", tooLarge), 409, tooLarge);
  for (const path of ["/", "/v1", "/v1/commands/", "/v1/volumes/a", "/../etc/passwd"]) {
    expectRefused(await ask(pool, "GET", path), 404, path);
  }
  expectRefused(await ask(pool, "GET", "/v1/commands"), 405, "GET");
  expectRefused(await ask(pool, "DELETE", "/v1/commands"), 405, "DELETE");
  for (const path of ["/v1/volumes", "/v1/status", "/v1/clients"]) {
    for (const method of ["POST", "DELETE"]) {
      expectRefused(await ask(pool, method, path, "{}"), 405, `${method} ${path}`);
    }
  }
  assertEquals(await ask(pool, "GET", "/v1/volumes"), before);
  await server.stop();
  assertMatch(server.stderr, /^stopping;[^\n]*\n$/);
});

Deno.test("the control socket answers what list and status print, and carries out commands", async () => {
  await using pool = await PoolOnDisk.make(...small);
  const server = await pool.serve(["--create", "a=1M"]);
  const done = { status: 200, body: '{"kind":"done"}' };
  assertEquals(await ask(pool, "POST", "/v1/commands", '{"verb":"snapshot","names":["a@s"]}'), done);
  assertEquals(await ask(pool, "POST", "/v1/commands", '{"verb":"clone","source":"a@s","name":"c"}'), done);
  assertEquals(await ask(pool, "POST", "/v1/commands", '{"verb":"rm","names":["a@s"]}'), done);
  assertEquals((await ask(pool, "GET", "/v1/volumes")).body, (await pool.verb("list", "--json")).trim());
  assertEquals(await ask(pool, "GET", "/v1/clients"), { status: 200, body: '{"clients":[]}' });
  // The host has other users.
  const apart = (status: string) => ({ ...JSON.parse(status), host_free_bytes: "any" });
  const status = await ask(pool, "GET", "/v1/status");
  assertEquals(apart(status.body), apart(await pool.verb("status", "--json")));
  await server.stop();
});

Deno.test("clients that never end their request, or never take their answer, do not keep the server from stopping", async () => {
  await using pool = await PoolOnDisk.make(...small);
  const server = await pool.serve(["--create", "a=64M"]);
  // A dump that is larger than what the socket takes in advance: mappings that make no runs, in many devices.
  const client = await RawClient.attach({ path: server.socket }, "a");
  for (let at = 0; at < 512; at += 1) await client.write(at * 2 * 65536, new Uint8Array(512));
  await client.disconnect();
  await pool.verb("snapshot", ...Array.from({ length: 20 }, (_, index) => `a@${index}`));
  const path = `${pool.directory}/control.sock`;
  const encoder = new TextEncoder();
  const requests = [
    "",
    "POST /v1/commands HTTP/1.1\r\nHo",
    "POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    'POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n{"verb":"dump"}',
  ];
  const conns: Deno.UnixConn[] = [];
  for (const text of requests) {
    const conn = await Deno.connect({ transport: "unix", path });
    conns.push(conn);
    if (text !== "") await conn.write(encoder.encode(text));
  }
  // Nor do they keep other commands from it.
  await pool.verb("snapshot", "a@last");
  const startMs = Date.now();
  await server.stop();
  assert(Date.now() - startMs < 15_000);
  for (const conn of conns) conn.close();
  assertEquals(socketsIn(pool.directory), []);
});

Deno.test("a server that is gone or failing is told in a sentence", async () => {
  await using pool = await PoolOnDisk.make(...small);
  const path = `${pool.directory}/control.sock`;
  const answers = [
    "HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\nOops",
    "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
    "",
    "?",
  ];
  for (const answer of answers) {
    const listener = Deno.listen({ transport: "unix", path });
    const served = (async () => {
      const conn = await listener.accept();
      await conn.read(new Uint8Array(4096));
      await conn.write(new TextEncoder().encode(answer));
      conn.close();
    })();
    const { status, stdout, stderr } = await pool.cli(["create", "a", "1M"]);
    assertEquals([status, stdout], [1, ""], answer);
    assertMatch(stderr, /^The server at [^\n]*control\.sock did not answer as it should: [^\n]*\.\n$/);
    await served;
    listener.close();
  }
  assertEquals(await pool.list(), []);
});
