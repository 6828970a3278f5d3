import { cpuUsage } from "node:process";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { UserError } from "../../storage/base/errors.ts";
import type { Actor, Address } from "../kernel/address.ts";
import { Kernel } from "../kernel/kernel.ts";
import type { Connected } from "../nbd/messages.ts";
import type { SocketNotice, SocketPort } from "../nbd/socket_port.ts";
import { DenoClock } from "./deno_clock.ts";
import { parseListenAddress } from "./listen_address.ts";
import { ListeningSocket } from "./sockets.ts";
import { SocketGroup } from "./socket_group.ts";

Deno.test("port 0 is printed as the port that was bound", async () => {
  const socket = await ListeningSocket.open(parseListenAddress("tcp:127.0.0.1:0"));
  const { address } = socket;
  if (address?.transport !== "tcp") throw new Error("it is a TCP socket");
  assert(address.port > 0);
  await assertRejects(() => ListeningSocket.open(address), UserError, "Cannot listen on nbd://127.0.0.1:");
  socket.stop();
});

Deno.test("a Unix socket is its owner's only and goes with its server", async () => {
  await using folder = await TestFolder.make();
  const path = `${folder.path}/nbd.sock`;
  const socket = await ListeningSocket.open({ transport: "unix", path });
  assertEquals((Deno.lstatSync(path).mode ?? 0) & 0o777, 0o600);
  socket.stop();
  assertThrows(() => Deno.lstatSync(path), Deno.errors.NotFound);
});

Deno.test("a Unix socket that no server answers on is replaced", async () => {
  await using folder = await TestFolder.make();
  const path = `${folder.path}/nbd.sock`;
  // A server that was killed leaves its socket behind; one that is closed only removes what has the name it gave.
  const killed = Deno.listen({ transport: "unix", path: `${path}.new` });
  Deno.renameSync(`${path}.new`, path);
  killed.close();
  assertEquals(Deno.lstatSync(path).isSocket, true);
  (await ListeningSocket.open({ transport: "unix", path })).stop();
});

Deno.test("a Unix socket that a server answers on is left alone", async () => {
  await using folder = await TestFolder.make();
  const address = { transport: "unix", path: `${folder.path}/nbd.sock` } as const;
  const socket = await ListeningSocket.open(address);
  await assertRejects(() => ListeningSocket.open(address), UserError, "another server answers");
  (await Deno.connect(address)).close();
  socket.stop();
});

Deno.test("a file in the way of a Unix socket is left alone", async () => {
  await using folder = await TestFolder.make();
  const path = `${folder.path}/file`;
  Deno.writeTextFileSync(path, "precious");
  await assertRejects(
    () => ListeningSocket.open({ transport: "unix", path }),
    UserError,
    "a file of that name",
  );
  assertEquals(Deno.readTextFileSync(path), "precious");
});

Deno.test("a socket path may have 107 bytes and no more", async () => {
  await using folder = await TestFolder.make();
  const path = (lengthBytes: number) => `${folder.path}/${"x".repeat(lengthBytes - folder.path.length - 1)}`;
  (await ListeningSocket.open({ transport: "unix", path: path(107) })).stop();
  const tooLong = ListeningSocket.open({ transport: "unix", path: path(108) });
  await assertRejects(() => tooLong, UserError, "longer than 107 bytes");
});

Deno.test("a socket tells what it received, that it sent, and the end of the stream", async () => {
  await using pair = await SocketPair.make();
  pair.socket.read(new Uint8Array(100), false);
  await pair.client.write(Uint8Array.of(1, 2, 3));
  assertEquals(await pair.notice(), { type: "received", bytes: Uint8Array.of(1, 2, 3) });
  pair.socket.send([Uint8Array.of(4), Uint8Array.of(5, 6)]);
  assertEquals(await pair.notice(), { type: "sent" });
  assertEquals(pair.socket.sentBytes, 3);
  const received = new Uint8Array(3);
  for (let at = 0; at < 3;) at += (await pair.client.read(received.subarray(at))) ?? 3;
  assertEquals(received, Uint8Array.of(4, 5, 6));
  pair.socket.read(new Uint8Array(100), false);
  await pair.client.closeWrite();
  assertEquals(await pair.notice(), { type: "ended" });
  pair.socket.close();
  assertEquals(await pair.notice(), { type: "closed" });
});

Deno.test("a socket that is closed with a read and a send under way says closed, once", async () => {
  await using pair = await SocketPair.make();
  pair.socket.read(new Uint8Array(100), false);
  pair.socket.send([new Uint8Array(16 * 1024 * 1024)]);
  await new Promise((resolve) => setTimeout(resolve, 20));
  pair.socket.close();
  pair.socket.close();
  assertEquals(await pair.notice(), { type: "closed" });
  await new Promise((resolve) => setTimeout(resolve, 20));
  assertEquals(pair.noticesWaiting, 0);
});

Deno.test("a socket whose client vanishes in the middle of a send says closed, with the reason", async () => {
  await using pair = await SocketPair.make();
  pair.socket.send([new Uint8Array(16 * 1024 * 1024)]);
  await new Promise((resolve) => setTimeout(resolve, 20));
  pair.client.close();
  const notice = await pair.notice();
  assertEquals([notice.type, "reason" in notice], ["closed", true]);
});

Deno.test("a socket that is closed before it was asked for the first time says closed, once", async () => {
  await using pair = await SocketPair.make();
  pair.socket.read(new Uint8Array(100), false);
  pair.socket.close();
  assertEquals(await pair.notice(), { type: "closed" });
  await pair.client.write(Uint8Array.of(1)).catch(() => {});
  await pause(20);
  assertEquals(pair.noticesWaiting, 0);
});

Deno.test("a client that takes a large send in small bites gets every byte, in order", async () => {
  await using pair = await SocketPair.make();
  const pieces = Array.from({ length: 40 }, (_, at) => new Uint8Array(100_000 + at).fill(at + 1));
  pair.socket.send(pieces);
  for (const piece of pieces) {
    const heard = new Uint8Array(piece.length);
    for (let at = 0; at < heard.length;) {
      at += await pair.client.read(heard.subarray(at, at + 7777)) ?? heard.length;
    }
    assertEquals(heard.findIndex((byte) => byte !== piece[0]), -1);
  }
  assertEquals(await pair.notice(), { type: "sent" });
  assertEquals(pair.socket.sentBytes, pieces.reduce((sum, { length }) => sum + length, 0));
});

Deno.test("a client that does not read sees the end of the stream when the server closes amidst a send", async () => {
  await using pair = await SocketPair.make();
  pair.socket.send([new Uint8Array(16 * 1024 * 1024)]);
  await pause(20);
  pair.socket.close();
  const late = setTimeout(() => pair.client.close(), 5000);
  const buffer = new Uint8Array(1 << 20);
  let heardBytes = 0;
  for (let count = await pair.client.read(buffer); count !== null; count = await pair.client.read(buffer)) {
    heardBytes += count;
  }
  clearTimeout(late);
  assertEquals(heardBytes > 0 && heardBytes < 16 * 1024 * 1024, true);
});

Deno.test("clients that have gone leave no descriptor", async () => {
  const descriptors = () => [...Deno.readDirSync("/proc/self/fd")].length;
  await (await SocketPair.make())[Symbol.asyncDispose]();
  await pause(10);
  const before = descriptors();
  for (let count = 0; count < 20; count += 1) {
    await using pair = await SocketPair.make();
    pair.socket.read(new Uint8Array(100), false);
  }
  await pause(10);
  assertEquals(descriptors(), before);
});

Deno.test("the rest of a payload is received while its client sends it, in whatever pieces, to the end", async () => {
  using sender = new Sender();
  await using pair = await SocketPair.with((path) => sender.connect(path));
  const totalBytes = 32_000_000;
  sender.say({ bytes: totalBytes, ends: true });
  const buffer = new Uint8Array(8_000_000);
  let doneBytes = 0;
  for (;;) {
    pair.socket.readRest(buffer.subarray(doneBytes % buffer.length));
    const notice = await pair.notice();
    if (notice.type !== "received") {
      assertEquals(notice, { type: "ended" });
      break;
    }
    assertEquals(notice.bytes.findIndex((byte, at) => byte !== (doneBytes + at) % 251), -1);
    doneBytes += notice.bytes.length;
  }
  assertEquals(doneBytes, totalBytes);
});

Deno.test("what is there of a payload's rest is received without the event loop", async () => {
  await using pair = await SocketPair.make();
  let byEventLoop = 0;
  const prototype = Object.getPrototypeOf(pair.client) as Deno.Conn;
  const { read } = prototype;
  prototype.read = function (buffer) {
    byEventLoop += 1;
    return read.call(this, buffer);
  };
  try {
    let attempts = 0;
    // Not if the machine holds us up for 2 ms.
    for (let readsBefore = -1; byEventLoop !== readsBefore && attempts < 100; attempts += 1) {
      await hearAlone(pair, () => pair.client.write(Uint8Array.of(1, 2, 3)));
      readsBefore = byEventLoop;
      pair.socket.readRest(new Uint8Array(2));
      assertEquals(await pair.notice(), { type: "received", bytes: Uint8Array.of(2, 3) });
    }
    assertEquals(attempts < 100, true);
  } finally {
    prototype.read = read;
  }
});

for (const when of ["at once", "later"]) {
  Deno.test(`a socket that is closed ${when} while the rest of a payload is awaited says closed, once`, async () => {
    await using pair = await SocketPair.make();
    pair.socket.readRest(new Uint8Array(100));
    if (when === "later") await pause(5);
    pair.socket.close();
    assertEquals(await pair.notice(), { type: "closed" });
    await pause(5);
    assertEquals(pair.noticesWaiting, 0);
  });
}

Deno.test("a client that vanishes amidst a payload is heard to have gone", async () => {
  await using pair = await SocketPair.make();
  pair.socket.send([new Uint8Array(10)]);
  assertEquals(await pair.notice(), { type: "sent" });
  await hearAlone(pair, () => pair.client.write(Uint8Array.of(1)));
  // Closed with bytes that it has not read: the stream is broken.
  pair.client.close();
  pair.socket.readRest(new Uint8Array(100));
  assertEquals((await pair.notice()).type, "closed");
});

for (const [what, everyMs] of [["says nothing", Infinity], ["says something every 10 ms", 10]] as const) {
  Deno.test(`a client that ${what} is waited for without work`, async () => {
    await using pair = await SocketPair.make();
    const buffer = new Uint8Array(100);
    pair.socket.read(buffer, true);
    await pause(50);
    const before = cpuUsage();
    const endMs = performance.now() + 500;
    while (performance.now() < endMs) {
      if (everyMs === Infinity) {
        await pause(500);
        continue;
      }
      await pause(everyMs);
      await pair.client.write(Uint8Array.of(1));
      assertEquals((await pair.notice()).type, "received");
      pair.socket.read(buffer, true);
    }
    const { user, system } = cpuUsage(before);
    assertEquals((user + system) / 1000 < 150, true, `${(user + system) / 1000} ms of 500`);
  });
}

/** The event loop hears a byte of the client, and of no other for so long that the client may be waited for. */
async function hearAlone(pair: SocketPair, say: () => void): Promise<void> {
  const buffer = new Uint8Array(1);
  pair.socket.read(buffer, false);
  await pair.client.write(Uint8Array.of(1));
  await pair.notice();
  await pause(15);
  pair.socket.read(buffer, false);
  say();
  assertEquals((await pair.notice()).type, "received");
}

/** A client on another thread, which sends bytes that count up to 250, and begin anew each time. */
class Sender implements Disposable {
  readonly #worker: Worker;

  constructor() {
    const program = `
      let conn;
      onmessage = async ({ data: { path, bytes, ends } }) => {
        if (path !== undefined) {
          conn = await Deno.connect({ transport: "unix", path });
          return postMessage("connected");
        }
        const all = new Uint8Array(bytes).map((_, at) => at % 251);
        for (let at = 0; at < bytes;) at += await conn.write(all.subarray(at));
        if (ends) conn.close();
      };`;
    this.#worker = new Worker(`data:text/javascript,${encodeURIComponent(program)}`, { type: "module" });
  }

  async connect(path: string): Promise<{ close(): void }> {
    const connected = new Promise((resolve) => this.#worker.onmessage = resolve);
    this.#worker.postMessage({ path });
    await connected;
    return { close: () => {} };
  }

  say(what: { readonly bytes: number; readonly ends?: boolean }): void {
    this.#worker.postMessage(what);
  }

  [Symbol.dispose](): void {
    this.#worker.terminate();
  }
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

class TestFolder {
  private constructor(readonly path: string) {}

  static async make(): Promise<TestFolder> {
    return new TestFolder(await Deno.makeTempDir());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

/** A server's socket and its client, and what the former tells its owner. */
class SocketPair<Client extends { close(): void } = Deno.Conn> {
  readonly #notices: SocketNotice[] = [];
  #wake: (() => void) | undefined;

  private constructor(
    readonly folder: TestFolder,
    readonly listening: ListeningSocket,
    readonly clock: DenoClock,
    readonly client: Client,
    readonly socket: SocketPort,
  ) {}

  static make(): Promise<SocketPair> {
    return SocketPair.with((path) => Deno.connect({ transport: "unix", path }));
  }

  /** With a client that is made by `connect`. */
  static async with<Client extends { close(): void }>(
    connect: (path: string) => Promise<Client>,
  ): Promise<SocketPair<Client>> {
    const folder = await TestFolder.make();
    const path = `${folder.path}/s`;
    const listening = await ListeningSocket.open({ transport: "unix", path });
    const clock = new DenoClock();
    const kernel = new Kernel({ clock });
    const client = await connect(path);
    const socket = await new Promise<SocketPort>((resolve) => {
      const acceptor: Actor<Connected> = { receive: (message) => resolve(message.socket) };
      listening.start(new SocketGroup(kernel), kernel.spawn("acceptor", 8, () => acceptor));
    });
    const pair = new SocketPair(folder, listening, clock, client, socket);
    const owner: Address<SocketNotice> = kernel.spawn("owner", 8, () => pair);
    socket.open(owner);
    return pair;
  }

  receive(notice: SocketNotice): void {
    this.#notices.push(notice);
    this.#wake?.();
  }

  get noticesWaiting(): number {
    return this.#notices.length;
  }

  async notice(): Promise<SocketNotice> {
    while (this.#notices.length === 0) await new Promise<void>((resolve) => this.#wake = resolve);
    return this.#notices.shift()!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.listening.closeAll();
    this.clock.close();
    try {
      this.client.close();
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
    await this.folder[Symbol.asyncDispose]();
  }
}
