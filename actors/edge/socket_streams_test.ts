/** What every client's socket does, whatever its bytes go through. */
import { assertEquals } from "@std/assert";
import { pause, SocketPair, socketWays, type SocketWorld } from "../../tests/support/socket_pair.ts";

/** A test of each kind of socket. */
function streamTest(name: string, run: (begin: () => SocketWorld) => Promise<void>): void {
  for (const way of socketWays) {
    Deno.test({ name: `${name} (${way.name})`, ignore: way.ignore, fn: () => run(way.begin) });
  }
}

streamTest("a socket tells what it received, that it sent, and the end of the stream", async (begin) => {
  await using pair = await SocketPair.make(begin());
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

streamTest("a socket that is closed with a read and a send under way says closed, once", async (begin) => {
  await using pair = await SocketPair.make(begin());
  pair.socket.read(new Uint8Array(100), false);
  pair.socket.send([new Uint8Array(16 * 1024 * 1024)]);
  await new Promise((resolve) => setTimeout(resolve, 20));
  pair.socket.close();
  pair.socket.close();
  assertEquals(await pair.notice(), { type: "closed" });
  await new Promise((resolve) => setTimeout(resolve, 20));
  assertEquals(pair.noticesWaiting, 0);
});

streamTest(
  "a socket whose client vanishes in the middle of a send says closed, with the reason",
  async (begin) => {
    await using pair = await SocketPair.make(begin());
    pair.socket.send([new Uint8Array(16 * 1024 * 1024)]);
    await new Promise((resolve) => setTimeout(resolve, 20));
    pair.client.close();
    const notice = await pair.notice();
    assertEquals([notice.type, "reason" in notice], ["closed", true]);
  },
);

streamTest(
  "a socket that is closed before it was asked for the first time says closed, once",
  async (begin) => {
    await using pair = await SocketPair.make(begin());
    pair.socket.read(new Uint8Array(100), false);
    pair.socket.close();
    assertEquals(await pair.notice(), { type: "closed" });
    await pair.client.write(Uint8Array.of(1)).catch(() => {});
    await pause(20);
    assertEquals(pair.noticesWaiting, 0);
  },
);

streamTest("a client that takes a large send in small bites gets every byte, in order", async (begin) => {
  await using pair = await SocketPair.make(begin());
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

streamTest(
  "a client that does not read sees the end of the stream when the server closes amidst a send",
  async (begin) => {
    await using pair = await SocketPair.make(begin());
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
  },
);

streamTest("clients that have gone leave no descriptor", async (begin) => {
  const descriptors = () => [...Deno.readDirSync("/proc/self/fd")].length;
  await (await SocketPair.make(begin()))[Symbol.asyncDispose]();
  await pause(10);
  const before = descriptors();
  for (let count = 0; count < 20; count += 1) {
    await using pair = await SocketPair.make(begin());
    pair.socket.read(new Uint8Array(100), false);
  }
  await pause(10);
  assertEquals(descriptors(), before);
});

streamTest(
  "the rest of a payload is received while its client sends it, in whatever pieces, to the end",
  async (begin) => {
    using sender = new Sender();
    await using pair = await SocketPair.with((path) => sender.connect(path), begin());
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
  },
);

for (const when of ["at once", "later"]) {
  streamTest(
    `a socket that is closed ${when} while the rest of a payload is awaited says closed, once`,
    async (begin) => {
      await using pair = await SocketPair.make(begin());
      pair.socket.readRest(new Uint8Array(100));
      if (when === "later") await pause(5);
      pair.socket.close();
      assertEquals(await pair.notice(), { type: "closed" });
      await pause(5);
      assertEquals(pair.noticesWaiting, 0);
    },
  );
}

streamTest("a client that vanishes amidst a payload is heard to have gone", async (begin) => {
  await using pair = await SocketPair.make(begin());
  pair.socket.send([new Uint8Array(10)]);
  assertEquals(await pair.notice(), { type: "sent" });
  await pair.client.write(Uint8Array.of(1));
  pair.socket.read(new Uint8Array(1), false);
  assertEquals((await pair.notice()).type, "received");
  // Closed with bytes that it has not read: the stream is broken.
  pair.client.close();
  pair.socket.readRest(new Uint8Array(100));
  assertEquals((await pair.notice()).type, "closed");
});

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
