import { cpuUsage } from "node:process";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { UserError } from "../../storage/base/errors.ts";
import { pause, SocketPair, TestFolder } from "../../tests/support/socket_pair.ts";
import { parseListenAddress } from "./listen_address.ts";
import { ListeningSocket } from "./sockets.ts";

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
