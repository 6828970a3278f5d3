/** What connections owe each other and the server, on real sockets: nothing of one that is gone, nothing of one that stalls. */
import { assert, assertEquals } from "@std/assert";
import { NBD_CMD_READ, NBD_CMD_WRITE } from "../../actors/nbd/wire/constants.ts";
import { MemoryServer } from "./memory_server.ts";
import type { MemoryVolume } from "./memory_pool.ts";
import { RawClient } from "./raw_client.ts";
import { dial, type ServerAddress } from "./raw_socket.ts";
import { go } from "./simulated_client.ts";
import { join, request, u32 } from "./wire_bytes.ts";

const mib = 1 << 20;

/** A server in memory with a volume of 256 MiB. */
async function withServer(
  test: (server: MemoryServer, address: ServerAddress, disk: MemoryVolume) => Promise<void>,
): Promise<void> {
  const server = await MemoryServer.start({ transport: "tcp", hostname: "127.0.0.1", port: 0 });
  try {
    const disk = server.pool.add("disk", 256 * mib).volume;
    disk.keepKinds = false;
    const { address } = server;
    if (address.transport !== "tcp") throw new Error("it listens elsewhere");
    await test(server, address, disk);
  } finally {
    await server.stop();
  }
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function until(isTrue: () => boolean, what: string): Promise<void> {
  for (let waitedMs = 0; !isTrue(); waitedMs += 10) {
    assert(waitedMs < 10_000, what);
    await sleep(10);
  }
}

/** Nobody is there, nothing is lent, and everything that may be lent still can be. */
async function requireNothingOwned(server: MemoryServer, address: ServerAddress): Promise<void> {
  await until(() => server.listener.clients === 0, "somebody is still there");
  assertEquals(server.listener.lentBytes, 0);
  const clients = await Promise.all(Array.from({ length: 5 }, () => RawClient.attach(address, "disk")));
  const large = new Uint8Array(32 * mib);
  await Promise.all(clients.map((client) => client.write(0, large)));
  for (const client of clients) await client.disconnect();
}

const halfWrite = join(
  request({ type: NBD_CMD_WRITE, cookie: [0, 9], offset: [0, 0], length: 32 * mib }),
  new Uint8Array(3 * mib),
);

Deno.test("clients that vanish in the middle of a write leave nothing half-owned", () =>
  withServer(async (server, address, disk) => {
    // More than what may be lent at once, so that some wait for their turn.
    const clients = await Promise.all(Array.from({ length: 8 }, () => RawClient.attach(address, "disk")));
    await Promise.all(clients.map((client) => client.send(halfWrite)));
    await until(() => server.listener.lentBytes > 0, "nothing was lent");
    for (const client of clients) client.close();
    await requireNothingOwned(server, address);
    assertEquals(disk.waiting, []);
  }));

Deno.test("clients that vanish with requests in flight give everything back when those end", () =>
  withServer(async (server, address, disk) => {
    disk.holdRequests = true;
    const clients = await Promise.all(Array.from({ length: 3 }, () => RawClient.attach(address, "disk")));
    for (const client of clients) {
      await client.sendCommand({ type: NBD_CMD_READ, lengthBytes: 32 * mib });
      for (let at = 0; at < 8; at++) {
        await client.sendCommand({
          type: NBD_CMD_WRITE,
          offsetBytes: at * mib,
          payload: new Uint8Array(65536),
        });
      }
    }
    await until(() => disk.waiting.length === 27, "not everything was submitted");
    assert(server.listener.lentBytes > 0);
    for (const client of clients) client.close();
    await sleep(50);
    // What is in flight belongs to the volume, and to a connection that waits for it.
    assertEquals(server.listener.clients, 3);
    server.release(disk);
    await requireNothingOwned(server, address);
  }));

Deno.test("a client that stops reading stalls itself, and nobody else", () =>
  withServer(async (server, address) => {
    using other = await RawClient.attach(address, "disk");
    await other.write(0, new Uint8Array(28 * mib).fill(1));
    const stalled = await RawClient.attach(address, "disk");
    for (let at = 0; at < 20; at++) {
      await stalled.sendCommand({ type: NBD_CMD_READ, offsetBytes: at * mib, lengthBytes: 8 * mib });
    }
    await until(() => server.listener.lentBytes > 0, "nothing was lent");
    const data = new Uint8Array(mib).fill(7);
    for (let at = 0; at < 32; at++) {
      await other.write(at * mib, data);
      assertEquals(await other.read(at * mib + 5, 100), data.subarray(0, 100));
    }
    await other.disconnect();
    stalled.close();
    await requireNothingOwned(server, address);
  }));

Deno.test("neighbouring bytes of one block, written from two connections at once, all survive", () =>
  withServer(async (_server, address) => {
    const clients = await Promise.all([RawClient.attach(address, "disk"), RawClient.attach(address, "disk")]);
    for (let round = 0; round < 20; round++) {
      await Promise.all(
        clients.map((client, mine) =>
          Promise.all(Array.from({ length: 64 }, (_, at) =>
            client.sendCommand({
              type: NBD_CMD_WRITE,
              offsetBytes: 65536 * round + 2 * at + mine,
              payload: Uint8Array.of(1 + mine),
            })))
        ),
      );
      for (const client of clients) {
        for (let at = 0; at < 64; at++) assertEquals((await client.receiveReply()).error, 0);
      }
      const written = await clients[0]!.read(65536 * round, 128);
      assertEquals(written, new Uint8Array(128).map((_, at) => 1 + at % 2));
    }
    for (const client of clients) await client.disconnect();
  }));

Deno.test("a client that is gone in the midst of attaching leaves nobody behind", () =>
  withServer(async (server, address) => {
    for (let at = 0; at < 50; at++) {
      const conn = await dial(address);
      await conn.write(join(u32(3), go("disk")));
      conn.close();
    }
    await requireNothingOwned(server, address);
  }));

Deno.test({
  name: "TCP keepalive is on, so that clients whose machine is gone are found out some day",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withServer(async (server, address) => {
      using client = await RawClient.attach(address, "disk");
      const { address: bound } = server;
      const port = ("port" in bound ? bound.port : 0).toString(16).toUpperCase().padStart(4, "0");
      // Columns: number, local address, remote address, state (01: established), queues, timer (02: keepalive).
      const isKept = () =>
        Deno.readTextFileSync("/proc/net/tcp").split("\n").map((line) => line.trim().split(/\s+/)).some((
          columns,
        ) => columns[1]?.endsWith(`:${port}`) && columns[3] === "01" && columns[5]?.startsWith("02"));
      await until(isKept, "no timer runs for it");
      await client.disconnect();
    }),
});
