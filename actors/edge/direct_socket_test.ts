import { assert, assertEquals, assertThrows } from "@std/assert";
import { present } from "../../storage/base/assert.ts";
import type { Piece } from "../nbd/wire/pieces.ts";
import { ioOk } from "../../storage/device/port.ts";
import { DirectSocket, KnownSockets, unreadable, wouldBlock } from "./direct_socket.ts";
import { openLibc } from "./libc.ts";

const ignore = openLibc() === undefined;
const known = new KnownSockets();
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A test in a folder of its own. */
function socketTest(name: string, run: (folder: string) => Promise<void>): void {
  Deno.test({
    name,
    ignore,
    fn: async () => {
      const folder = await Deno.makeTempDir();
      try {
        await run(folder);
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    },
  });
}

/** A socket that was accepted, its client, and the calls on it. */
class Pair implements Disposable {
  readonly direct: DirectSocket;
  #clientIsOpen = true;
  #serverIsOpen = true;

  constructor(readonly client: Deno.Conn, readonly conn: Deno.Conn) {
    this.direct = present(DirectSocket.of(conn, known), "the descriptor was not found");
  }

  static async on(listener: Deno.Listener): Promise<Pair> {
    const client = await connectTo(listener);
    return new Pair(client, await listener.accept());
  }

  static async at(path: string): Promise<Pair> {
    using listener = Deno.listen({ transport: "unix", path });
    return await Pair.on(listener);
  }

  static async tcp(hostname = "127.0.0.1"): Promise<Pair> {
    using listener = Deno.listen({ hostname, port: 0 });
    return await Pair.on(listener);
  }

  /** The descriptor is the right one: what each end says is heard at the other. */
  async requireTalk(): Promise<void> {
    await this.client.write(encoder.encode("ping"));
    assertEquals(received(this.direct), "ping");
    assertEquals(this.direct.send([encoder.encode("pong")], 0), 4);
    const buffer = new Uint8Array(10);
    assertEquals(decoder.decode(buffer.subarray(0, await this.client.read(buffer) ?? 0)), "pong");
  }

  closeClient(): void {
    if (this.#clientIsOpen) this.client.close();
    this.#clientIsOpen = false;
  }

  /** As ClientSocket does it. */
  closeServer(): void {
    this.direct.close();
    if (this.#serverIsOpen) this.conn.close();
    this.#serverIsOpen = false;
  }

  [Symbol.dispose](): void {
    this.closeServer();
    this.closeClient();
  }
}

function connectTo({ addr }: Deno.Listener): Promise<Deno.Conn> {
  if (addr.transport === "unix") {
    return Deno.connect({ transport: "unix", path: (addr as Deno.UnixAddr).path });
  }
  const { hostname, port } = addr as Deno.NetAddr;
  return Deno.connect({ hostname, port });
}

function received(direct: DirectSocket, atMostBytes = 100): string {
  const buffer = new Uint8Array(atMostBytes);
  return decoder.decode(buffer.subarray(0, direct.receive(buffer)));
}

const descriptors = () => [...Deno.readDirSync("/proc/self/fd")].length;

socketTest(
  "a socket receives what is there, no more than fits, and says that nothing is there",
  async (folder) => {
    using pair = await Pair.at(`${folder}/s`);
    assertEquals(pair.direct.receive(new Uint8Array(8)), wouldBlock);
    await pair.client.write(encoder.encode("hello world"));
    assertEquals([received(pair.direct, 5), received(pair.direct, 100)], ["hello", " world"]);
    assertEquals(pair.direct.receive(new Uint8Array(8)), wouldBlock);
  },
);

socketTest(
  "the end of a stream is no bytes, again and again, and what came before it is heard",
  async (folder) => {
    using pair = await Pair.at(`${folder}/s`);
    await pair.client.write(encoder.encode("bye"));
    await pair.client.closeWrite();
    assertEquals([received(pair.direct), received(pair.direct), received(pair.direct)], ["bye", "", ""]);
    // The other half is open.
    assertEquals(pair.direct.send([encoder.encode("you too")], 0), 7);
  },
);

socketTest(
  "a socket is waited for no longer than asked, and no longer than until something is there",
  async (folder) => {
    using pair = await Pair.at(`${folder}/s`);
    const beginMs = performance.now();
    assertEquals(pair.direct.waitFor(20), false);
    const waitedMs = performance.now() - beginMs;
    assert(waitedMs >= 20 && waitedMs < 1000, `${waitedMs} ms`);
    await pair.client.write(encoder.encode("hello"));
    assertEquals([pair.direct.waitFor(60_000), received(pair.direct)], [true, "hello"]);
    assertEquals(pair.direct.waitFor(0), false);
    await pair.client.closeWrite();
    assertEquals([pair.direct.waitFor(60_000), received(pair.direct)], [true, ""]);
  },
);

socketTest("a stream that was reset throws, receiving and sending", async (folder) => {
  using pair = await Pair.at(`${folder}/s`);
  assertEquals(pair.direct.send([new Uint8Array(10)], 0), 10);
  // Closed with bytes that were not read, which is how a client says that something was lost.
  pair.closeClient();
  await new Promise((resolve) => setTimeout(resolve, 10));
  assertThrows(() => pair.direct.receive(new Uint8Array(8)), Deno.errors.ConnectionReset, "os error 104");
  assertThrows(() => pair.direct.send([new Uint8Array(8)], 0), Deno.errors.ConnectionReset, "os error 32");
});

/** Deterministic bytes. */
const pattern = (lengthBytes: number, seed: number) =>
  Uint8Array.from({ length: lengthBytes }, (_, i) => (i * 31 + seed * 17 + (i >>> 8)) & 0xff);

/** Pieces of all kinds of lengths, empty ones too, some of them in the midst of a larger buffer. */
function manyPieces(count: number): Uint8Array[] {
  return Array.from({ length: count }, (_, i) => {
    const whole = pattern(i % 97 + 7, i);
    return i % 3 === 0 ? whole : whole.subarray(i % 7, i % 7 + i % 97);
  });
}

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/** Sends the pieces from `beginBytes` on while the client takes them, and returns what that has received. */
async function sentThrough(pair: Pair, pieces: readonly Piece[], beginBytes: number, endBytes: number) {
  const heard = new Uint8Array(endBytes - beginBytes);
  let heardBytes = 0;
  for (let at = beginBytes; at < endBytes;) {
    const count = pair.direct.send(pieces, at);
    if (count > 0) at += count;
    while (heardBytes < at - beginBytes) {
      heardBytes += await pair.client.read(heard.subarray(heardBytes)) ?? 0;
    }
  }
  return heard;
}

socketTest(
  "pieces are sent in order, more than one call takes, from a begin inside any of them",
  async (folder) => {
    const pieces = manyPieces(3000);
    const whole = joined(pieces);
    for (const make of [() => Pair.at(`${folder}/s`), () => Pair.tcp()]) {
      using pair = await make();
      // The begin of a piece, its last byte, past an empty one, and beyond the first 1024 of them.
      for (const begin of [0, 1, 6, 7, 8, 50_000, 100_000, whole.length - 1]) {
        const heard = await sentThrough(pair, pieces, begin, whole.length);
        assert(heard.toHex() === whole.subarray(begin).toHex(), `other bytes arrived, sent from ${begin}`);
      }
    }
  },
);

socketTest("a socket without room says so, and takes the rest when its client has read", async (folder) => {
  using pair = await Pair.at(`${folder}/s`);
  const piece = pattern(4 << 20, 1);
  let sent = 0;
  for (let count = 0; count !== wouldBlock; count = pair.direct.send([piece], sent)) sent += count;
  assert(sent > 0 && sent < piece.length, `${sent} bytes found room`);
  const first = new Uint8Array(sent);
  for (let at = 0; at < sent;) at += await pair.client.read(first.subarray(at)) ?? 0;
  const rest = await sentThrough(pair, [piece], sent, piece.length);
  assert(joined([first, rest]).toHex() === piece.toHex(), "other bytes arrived");
});

const tcpAddress = { transport: "tcp", hostname: "127.0.0.1", port: 0 } as const;

socketTest("of two clients that connect at once, each is found when it was accepted", async (folder) => {
  for (const options of [{ transport: "unix", path: `${folder}/s` }, tcpAddress] as const) {
    using listener = options.transport === "unix" ? Deno.listen(options) : Deno.listen(options);
    const clients = await Promise.all([connectTo(listener), connectTo(listener)]);
    // Who of them is accepted first is not known: Deno's own calls tell.
    const first = await listener.accept();
    const firstDirect = present(DirectSocket.of(first, known), "the first was not found");
    const second = await listener.accept();
    const secondDirect = present(DirectSocket.of(second, known), "the second was not found");
    await Promise.all(clients.map((client, at) => client.write(encoder.encode(`I am ${at}, yes ${at}`))));
    for (const [conn, direct] of [[first, firstDirect], [second, secondDirect]] as const) {
      const name = new Uint8Array(6);
      await conn.read(name);
      assert(direct !== undefined);
      const who = decoder.decode(name).at(-1);
      assertEquals(received(direct), `, yes ${who}`);
      direct.close();
      conn.close();
    }
    for (const client of clients) client.close();
  }
});

socketTest(
  "who is asked for after the next was accepted is not found, rather than taken for another",
  async (folder) => {
    using listener = Deno.listen({ transport: "unix", path: `${folder}/s` });
    const clients = [await connectTo(listener), await connectTo(listener)];
    const conns = [await listener.accept(), await listener.accept()];
    assertEquals(conns.map((conn) => DirectSocket.of(conn, known)), [undefined, undefined]);
    for (const conn of [...clients, ...conns]) conn.close();
  },
);

socketTest("clients of several addresses that were accepted at once are told apart", async (folder) => {
  const listeners = [
    Deno.listen({ transport: "unix", path: `${folder}/a` }),
    Deno.listen({ transport: "unix", path: `${folder}/b` }),
    Deno.listen(tcpAddress),
    Deno.listen(tcpAddress),
    ...(hasIpv6() ? [Deno.listen({ hostname: "::1", port: 0 })] : []),
  ];
  const clients = await Promise.all(listeners.map(connectTo));
  const conns = await Promise.all(listeners.map((listener) => listener.accept()));
  for (const [at, conn] of conns.entries()) {
    using pair = new Pair(clients[at]!, conn);
    await pair.requireTalk();
  }
  for (const listener of listeners) listener.close();
});

function hasIpv6(): boolean {
  return Deno.networkInterfaces().some(({ address }) => address === "::1");
}

for (
  const [what, name] of [
    ["is not ASCII", "Bäume-树-🌳.sock"],
    ["is as long as it may be", ""],
  ] as const
) {
  socketTest(`a client of a path that ${what} is found`, async (folder) => {
    const path = name === "" ? `${folder}/`.padEnd(107, "x") : `${folder}/${name}`;
    using pair = await Pair.at(path);
    await pair.requireTalk();
  });
}

socketTest("a thousand clients that come and go leave no descriptor", async (folder) => {
  using listener = Deno.listen({ transport: "unix", path: `${folder}/s` });
  (await Pair.on(listener))[Symbol.dispose]();
  const before = descriptors();
  for (let count = 0; count < 1000; count += 1) (await Pair.on(listener))[Symbol.dispose]();
  assertEquals(descriptors(), before);
});

socketTest("once closed, the number of the descriptor is somebody else's", async (folder) => {
  using pair = await Pair.at(`${folder}/s`);
  pair.direct.close();
  // The system gives the lowest numbers that are free, so one of these has it now.
  const files = Array.from(
    { length: 8 },
    (_, at) => Deno.openSync(`${folder}/${at}`, { create: true, write: true }),
  );
  pair.direct.close();
  assertThrows(() => pair.direct.send([encoder.encode("astray")], 0), Deno.errors.ConnectionReset);
  assertThrows(() => pair.direct.receive(new Uint8Array(8)), Deno.errors.ConnectionReset);
  for (const [at, file] of files.entries()) {
    file.writeSync(encoder.encode("precious"));
    file.close();
    assertEquals(Deno.readTextFileSync(`${folder}/${at}`), "precious");
  }
});

socketTest("a program that is started inherits none of it", async (folder) => {
  using pair = await Pair.at(`${folder}/s`);
  const program = new Deno.Command("sh", { args: ["-c", "ls -l /proc/self/fd"], stdin: "null" });
  assertEquals(new TextDecoder().decode((await program.output()).stdout).match(/socket:/g), null);
  await pair.requireTalk();
});

socketTest("a client hears of the end when the server's socket closes after the calls", async (folder) => {
  using pair = await Pair.at(`${folder}/s`);
  pair.direct.send([encoder.encode("last words")], 0);
  pair.closeServer();
  const buffer = new Uint8Array(100);
  assertEquals(await pair.client.read(buffer), 10);
  assertEquals(await pair.client.read(buffer), null);
});

socketTest("what cannot be read where it lies is not sent, and the stream stays open", async (folder) => {
  using unix = await Pair.at(`${folder}/s`);
  using tcp = await Pair.tcp();
  for (const pair of [unix, tcp]) {
    // Where nothing is mapped, as behind the end of a file that was cut.
    const gone: Piece = { kind: "mapped", drain: 0, lengthBytes: 4096, address: 4096, copyTo: () => ioOk };
    assertEquals(pair.direct.send([gone], 0), unreadable);
    // What comes before it may be on its way already.
    const sent = pair.direct.send([encoder.encode("head"), gone], 0);
    assert(sent === unreadable || sent === 4, `${sent} bytes`);
    if (sent === 4) assertEquals(pair.direct.send([encoder.encode("head"), gone], 4), unreadable);
    if (sent === 4) await pair.client.read(new Uint8Array(4));
    await pair.requireTalk();
  }
});
