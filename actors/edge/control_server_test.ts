/** The control server against clients that do nothing, too much, or go away: none of them keeps another one out. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { controlCommandsMax, controlConnectionsMax, controlDumpsMax } from "../limits.ts";
import type { AdminResult } from "../control/admin_command.ts";
import { type CommandHandler, ControlServer } from "./control_server.ts";
import { type ControlTimes, controlTimes } from "./control_clients.ts";

/** A server on a socket of its own, whose commands are done at once or when the test says so. */
class Bench implements AsyncDisposable {
  readonly path: string;
  readonly log: string[] = [];
  readonly #folder = Deno.makeTempDirSync({ prefix: "gossamer-control-" });
  readonly #server: ControlServer;
  readonly #clients: RawHttp[] = [];

  constructor(
    handler: Partial<CommandHandler> = {},
    times: Partial<ControlTimes> = {},
    connectionsMax?: number,
  ) {
    this.path = `${this.#folder}/c.sock`;
    const all: CommandHandler = {
      log: (sentence) => this.log.push(sentence),
      command: () => Promise.resolve({ kind: "done" }),
      dump: () => Promise.resolve({ kind: "done" }),
      hold: () => Promise.resolve({ kind: "done" }),
      release: () => Promise.resolve({ kind: "done" }),
      ...handler,
    };
    this.#server = new ControlServer(
      Deno.listen({ transport: "unix", path: this.path }),
      all,
      { ...controlTimes, ...times },
      connectionsMax,
    );
  }

  async connect(): Promise<RawHttp> {
    const client = new RawHttp(await Deno.connect({ transport: "unix", path: this.path }));
    this.#clients.push(client);
    return client;
  }

  /** The status line and the body of what one request is answered with. */
  async ask(text = requestOf("POST", "/v1/commands", '{"verb":"status"}')): Promise<string> {
    const client = await this.connect();
    await client.send(text);
    return await client.answer();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.close();
    await this.#server.close();
    await Deno.remove(this.#folder, { recursive: true });
  }
}

/** A client that sends what it is told. */
class RawHttp {
  readonly #conn: Deno.Conn;
  #isClosed = false;

  constructor(conn: Deno.Conn) {
    this.#conn = conn;
  }

  async send(text: string): Promise<void> {
    const bytes = new TextEncoder().encode(text);
    for (let at = 0; at < bytes.length;) at += await this.#conn.write(bytes.subarray(at));
  }

  /** All that comes until the server closes, the status and the body where that is HTTP; "late" after five seconds. */
  async answer(): Promise<string> {
    let text = "";
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      this.close();
    }, 5000);
    const buffer = new Uint8Array(65536);
    for (;;) {
      const count = await this.#conn.read(buffer).catch(() => null);
      if (count === null) break;
      text += new TextDecoder().decode(buffer.subarray(0, count));
    }
    clearTimeout(timer);
    return isLate ? "late" : text.replace(/^HTTP\/1\.1 (\d+)[^]*?\r\n\r\n/, "$1 ");
  }

  close(): void {
    if (!this.#isClosed) this.#conn.close();
    this.#isClosed = true;
  }
}

function requestOf(method: string, path: string, body = "", host = "pool"): string {
  return `${method} ${path} HTTP/1.1\r\nHost: ${host}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

const done = '200 {"kind":"done"}';

Deno.test("a connection that sends nothing is closed when its time is up, and one that sent half a request is told", async () => {
  await using bench = new Bench({}, { requestMs: 50 });
  const [silent, slow, slower] = [await bench.connect(), await bench.connect(), await bench.connect()];
  await slow.send("POST /v1/commands HTTP/1.1\r\nHo");
  await slower.send("POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
  assertEquals(await silent.answer(), "");
  const late = '408 {"kind":"refused","reason":"The request took more than 0.05 s."}';
  assertEquals(await slow.answer(), late);
  assertEquals(await slower.answer(), late);
  assertEquals(await bench.ask(), done);
});

Deno.test("connections that do nothing keep no command out, however many there are", async () => {
  await using bench = new Bench();
  const idle: RawHttp[] = [];
  for (let count = 0; count < controlConnectionsMax + 3; count += 1) idle.push(await bench.connect());
  assertEquals(await bench.ask(), done);
  // The oldest made room.
  for (const client of idle.slice(0, 3)) assertEquals(await client.answer(), "");
  await idle.at(-1)!.send(requestOf("GET", "/v1/status"));
  assertEquals(await idle.at(-1)!.answer(), done);
});

Deno.test("more commands at once than are carried out are refused with a sentence, until one has ended", async () => {
  const running: ((result: AdminResult) => void)[] = [];
  const command = () => new Promise<AdminResult>((resolve) => running.push(resolve));
  await using bench = new Bench({ command });
  const clients: RawHttp[] = [];
  for (let count = 0; count < controlCommandsMax; count += 1) {
    const client = await bench.connect();
    await client.send(requestOf("POST", "/v1/commands", '{"verb":"status"}'));
    clients.push(client);
  }
  while (running.length < controlCommandsMax) await pause(5);
  assertMatch(
    await bench.ask(),
    /^503 \{"kind":"refused","reason":"The server carries out 32 commands already\./,
  );
  running[0]!({ kind: "done" });
  assertEquals(await clients[0]!.answer(), done);
  const next = bench.ask();
  while (running.length <= controlCommandsMax) await pause(5);
  for (const end of running) end({ kind: "done" });
  assertEquals(await next, done);
});

Deno.test("where few connections are allowed, running commands leave one of them to be told so", async () => {
  const running: ((result: AdminResult) => void)[] = [];
  const command = () => new Promise<AdminResult>((resolve) => running.push(resolve));
  const connectionsMax = 4;
  // One place is for what holds a volume.
  const commandsMax = connectionsMax - 2;
  await using bench = new Bench({ command }, {}, connectionsMax);
  for (let count = 0; count < commandsMax; count += 1) {
    const client = await bench.connect();
    await client.send(requestOf("GET", "/v1/status"));
    while (running.length <= count) await pause(2);
  }
  const last = await bench.connect();
  await last.send(requestOf("GET", "/v1/status"));
  assertMatch(await last.answer(), /^503 .*The server carries out 2 commands already\./);
  for (const end of running) end({ kind: "done" });
  assertEquals(running.length, commandsMax);
});

Deno.test("dumps leave room for other commands, also those whose readers have gone", async () => {
  const ends: (() => void)[] = [];
  const dump = () => new Promise<AdminResult>((resolve) => ends.push(() => resolve({ kind: "done" })));
  await using bench = new Bench({ dump });
  const request = requestOf("POST", "/v1/commands", '{"verb":"dump"}');
  for (let count = 0; count < controlDumpsMax; count += 1) {
    const client = await bench.connect();
    await client.send(request);
    while (ends.length <= count) await pause(2);
    if (count % 2 === 0) client.close();
  }
  assertMatch(
    await bench.ask(request),
    /^503 \{"kind":"refused","reason":"The server makes 8 dumps already\./,
  );
  assertEquals(await bench.ask(), done);
  for (const end of ends) end();
  const last = bench.ask(request);
  while (ends.length <= controlDumpsMax) await pause(2);
  ends.at(-1)!();
  assertMatch(await last, /^200 [^]*\{"kind":"done"\}/);
});

Deno.test("a client that takes nothing of its answer is closed when its time is up", async () => {
  const notes = Array.from(
    { length: 40_000 },
    (_, index) => `${index} is a problem that takes some bytes to tell`,
  );
  await using bench = new Bench(
    { command: () => Promise.resolve({ kind: "checked", problems: notes } as unknown as AdminResult) },
    { answerMs: 50, farewellMs: 50 },
  );
  const client = await bench.connect();
  await client.send(requestOf("POST", "/v1/commands", '{"verb":"check"}'));
  await pause(300);
  assert((await client.answer()).length < 1_000_000);
});

Deno.test("a dump's reader that goes away, or takes nothing more, is an answer to what writes the dump", async () => {
  for (const takes of ["nothing", "goes"]) {
    const ended = Promise.withResolvers<string>();
    const piece = "x".repeat(100_000);
    await using bench = new Bench({
      dump: async (write) => {
        for (let count = 0; count < 100; count += 1) {
          if (await write(piece) !== "gone") continue;
          ended.resolve(`gone, and ${await write(piece)} again`);
          return { kind: "refused", reason: "The dump broke off." };
        }
        ended.resolve("taken");
        return { kind: "done" };
      },
    }, { dumpPieceMs: 100 });
    const client = await bench.connect();
    await client.send(requestOf("POST", "/v1/commands", '{"verb":"dump"}'));
    if (takes === "goes") client.close();
    assertEquals(await ended.promise, "gone, and gone again");
  }
});

const malformed: readonly (readonly [what: string, request: string, status: number])[] = [
  ["a host that is none", requestOf("GET", "/v1/status", "", "[::1"), 400],
  ["no host", "GET /v1/status HTTP/1.1\r\n\r\n", 400],
  ["two hosts", "GET /v1/status HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400],
  ["an empty host", requestOf("GET", "/v1/status", "", ""), 400],
  ["a target with a broken host", requestOf("GET", "http://[::1/v1/status"), 400],
  ["a target that is no path", requestOf("OPTIONS", "*"), 400],
  ["a path that begins twice", requestOf("GET", "//v1/status"), 404],
  ["CONNECT", requestOf("CONNECT", "a:1"), 405],
  ["no HTTP", "garbage\r\n\r\n", 400],
  ["HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400],
  ["an unknown method", requestOf("BREW", "/v1/status"), 400],
  ["a NUL in the target", requestOf("GET", "/v1/sta\0tus"), 400],
  ["TLS", "\x16\x03\x01\x02\x00\x01\x00\x01", 400],
  ["a long header", `GET / HTTP/1.1\r\nHost: x\r\nX: ${"x".repeat(100_000)}\r\n\r\n`, 400],
  ["two lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde", 400],
  [
    "a length and chunks",
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    400,
  ],
  ["a broken chunk", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400],
  ["an unknown expectation", "GET / HTTP/1.1\r\nHost: x\r\nExpect: nonsense\r\n\r\n", 417],
];

Deno.test("a malformed request is answered with a status between 400 and 499, and says nothing of the program", async () => {
  await using bench = new Bench({}, { farewellMs: 100 });
  for (const [what, request, status] of malformed) {
    const answer = await bench.ask(request);
    assertEquals(answer.slice(0, 4), `${status} `, `${what}: ${answer}`);
    if (status !== 417) assertMatch(answer, /^\d+ \{"kind":"refused","reason":"[A-Z][^\n]*\."\}$/, what);
  }
  assertEquals(bench.log, []);
  assertEquals(await bench.ask(), done);
});

Deno.test("a connection carries one request: a second one is not served, and with garbage behind it not even the first", async () => {
  let count = 0;
  await using bench = new Bench({
    command: async () => {
      count += 1;
      await pause(20);
      return { kind: "done" };
    },
  });
  const request = requestOf("POST", "/v1/commands", '{"verb":"status"}');
  assertEquals(await bench.ask(request + request), done);
  assertEquals(count, 1);
  assertMatch(await bench.ask(`${request}garbage\r\n\r\n`), /^400 /);
  assertEquals(count, 1);
});

Deno.test("a handler that fails ends with its request: the others are served", async () => {
  let isFirst = true;
  await using bench = new Bench({
    command: () => {
      if (!isFirst) return Promise.resolve({ kind: "done" });
      isFirst = false;
      return Promise.reject(new Error("no"));
    },
  });
  assertMatch(await bench.ask(), /^500 \{"kind":"refused","reason":"The pool has failed\. [^\n]*"\}$/);
  assertEquals(await bench.ask(), done);
});
