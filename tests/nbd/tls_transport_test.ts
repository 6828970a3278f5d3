/** TLS on real sockets, from its bytes: what goes in, what comes out, and how it ends. */
import { Random } from "../support/world.ts";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { ByteStream } from "../../actors/edge/byte_stream.ts";
import { ClientSocket } from "../../actors/edge/client_socket.ts";
import { SocketGroup } from "../../actors/edge/socket_group.ts";
import { DenoClock } from "../../actors/edge/deno_clock.ts";
import { readTlsKeys } from "../../actors/edge/tls_keys.ts";
import { Kernel } from "../../actors/kernel/kernel.ts";
import type { SocketNotice } from "../../actors/nbd/socket_port.ts";
import { NBD_CMD_READ, NBD_CMD_WRITE, NBD_OPT_LIST } from "../../actors/nbd/wire/constants.ts";
import { RawClient } from "./raw_client.ts";
import { join, option, request } from "./wire_bytes.ts";
import { identity, mib, sClient, sleep, TlsServer, tlsTest } from "./tls_server.ts";

tlsTest("what was written over TLS reads equal, also in requests of the largest kind", async (server) => {
  using client = await server.secured();
  await client.negotiateStructuredReplies();
  await client.go("disk");
  const random = new Random(3);
  const sample = Uint8Array.from({ length: 64 * 1024 }, () => random.below(256));
  const large = new Uint8Array(32 * mib);
  for (let at = 0; at < 512; at++) large.set(sample.map((byte) => byte ^ at), at * sample.length);
  await client.write(4097, large);
  await client.write(1, sample.subarray(0, 3));
  assert(equalBytes(await client.read(4097, large.length), large));
  assertEquals(await client.read(0, 5), Uint8Array.of(0, ...sample.subarray(0, 3), 0));
});

tlsTest("a connection that ends says so inside TLS", async (server) => {
  const client = await server.secured();
  await client.go("disk");
  // Throws if the stream ends without a word, which could be anybody's doing.
  await client.disconnect();
});

tlsTest("a server that stops answers what is in flight and takes its leave inside TLS", async (server) => {
  using client = await server.secured();
  await client.go("disk");
  server.disk.holdRequests = true;
  await client.sendCommand({ type: NBD_CMD_WRITE, payload: Uint8Array.of(1, 2, 3) });
  while (server.disk.waiting.length === 0) await sleep(5);
  const stopped = server.stop();
  await sleep(20);
  server.server.release(server.disk);
  assertEquals((await client.receiveReply()).error, 0);
  // Throws if the stream ends without a word.
  assertEquals(await client.isClosedByServer(), true);
  await stopped;
});

tlsTest("several clients speak at once, inside TLS and without it", async (server) => {
  using inside = await server.secured();
  using outside = await RawClient.attach(server.address, "disk");
  await inside.go("disk");
  for (let at = 0; at < 64; at++) {
    const bytes = new Uint8Array(5000).fill(at + 1);
    await Promise.all([inside.write(at * 10_000, bytes), outside.write(at * 10_000 + 5000, bytes)]);
  }
  const all = await inside.read(0, 640_000);
  assert(all.every((byte, at) => byte === Math.floor(at / 10_000) + 1));
});

tlsTest("a client that is not read inside TLS stalls where it is", async (server) => {
  using client = await server.secured();
  await client.go("disk");
  server.disk.holdRequests = true;
  let sentBytes = 0;
  const flood = (async () => {
    for (let at = 0; at < 60; at++) {
      await client.sendCommand({ type: NBD_CMD_WRITE, offsetBytes: 0, payload: new Uint8Array(2 * mib) });
      sentBytes += 2 * mib;
    }
  })();
  let stalledAtBytes = -1;
  while (stalledAtBytes !== sentBytes) {
    stalledAtBytes = sentBytes;
    await sleep(500);
  }
  server.server.release(server.disk);
  for (let at = 0; at < 60; at++) assertEquals((await client.receiveReply()).error, 0);
  await flood;
  // What it may have in flight, and what the system's buffers hold.
  assert(stalledAtBytes < 60 * mib, `${stalledAtBytes} bytes were taken`);
});

for (const [what, bytes] of [["garbage", "GET / HTTP/1.0\r\n\r\n"], ["clear-text options", ""]] as const) {
  tlsTest(`${what} instead of a ClientHello closes the connection, and others go on`, async (server) => {
    using other = await RawClient.attach(server.address, "disk");
    const conn = await server.upgraded();
    const list = join(option(NBD_OPT_LIST), option(NBD_OPT_LIST));
    await conn.write(bytes === "" ? list : new TextEncoder().encode(bytes));
    // An alert may come, but no answer.
    const answer = await restOf(conn);
    assertEquals(answer.includes(0x3e), false, "no reply magic is there");
    assertStringIncludes(await server.reason(), "its TLS handshake failed");
    await other.write(0, Uint8Array.of(1));
    await server.left(1);
  });
}

tlsTest("a client that vanishes anywhere in its TLS handshake leaves nothing behind", async (server) => {
  const hello = await clientHello(server);
  assert(hello.length > 100);
  for (let length = 0; length < hello.length; length += length < 16 ? 1 : 37) {
    const conn = await server.upgraded();
    await conn.write(hello.subarray(0, length));
    if (length % 2 === 1) await sleep(1);
    conn.close();
  }
  const whole = await server.upgraded();
  await whole.write(hello);
  await whole.read(new Uint8Array(1));
  whole.close();
  await server.left(0);
  using client = await server.secured();
  await client.go("disk");
});

tlsTest("a client that vanishes inside TLS without a word is gone, whatever it was doing", async (server) => {
  for (const command of [undefined, NBD_CMD_READ, NBD_CMD_WRITE]) {
    const client = await server.secured();
    await client.go("disk");
    if (command === NBD_CMD_READ) await client.sendCommand({ type: command, lengthBytes: 32 * mib });
    if (command === NBD_CMD_WRITE) {
      const header = { type: command, cookie: [0, 1], offset: [0, 0], length: 32 * mib } as const;
      await client.send(request(header), new Uint8Array(5 * mib));
    }
    client.close();
    await server.left(0);
  }
  assertEquals(server.server.listener.lentBytes, 0);
});

for (const version of ["-tls1_2", "-tls1_3"]) {
  tlsTest(
    `openssl s_client ${version} with a certificate of ours is let in`,
    async (server) => {
      const { out, err } = await sClient(server, version, ...identity(server.certificates.client));
      assertStringIncludes(out, "disk", err);
    },
    true,
  );

  tlsTest(
    `openssl s_client ${version} with a certificate of another authority is refused`,
    async (server) => {
      const { out } = await sClient(server, version, ...identity(server.certificates.foreign));
      assertEquals(out, "");
      assertStringIncludes(await server.reason(), "its certificate is not valid, or of another authority");
      await server.left(0);
    },
    true,
  );

  tlsTest(`openssl s_client ${version} without a certificate is refused`, async (server) => {
    const { out } = await sClient(server, version);
    assertEquals(out, "");
    assertStringIncludes(await server.reason(), "it showed no certificate");
    await server.left(0);
  }, true);

  tlsTest(`openssl s_client ${version} needs no certificate where none is asked for`, async (server) => {
    const { out, err } = await sClient(server, version);
    assertStringIncludes(out, "disk", err);
  });
}

tlsTest("TLS 1.1 is refused", async (server) => {
  const { out } = await sClient(server, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0");
  assertEquals(out, "");
  assertStringIncludes(await server.reason(), "its TLS handshake failed");
});

tlsTest("a socket that is closed while its TLS handshake ends says so once", async ({ certificates }) => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const [conn, client] = await Promise.all([
    listener.accept(),
    Deno.connect({ hostname: "127.0.0.1", port }),
  ]);
  listener.close();
  let reads = 0;
  // Closed with the last bytes of the handshake just read, and slow to close, as inherited sockets are.
  const stream: ByteStream = {
    read: async (buffer) => {
      const count = await conn.read(buffer);
      reads += 1;
      if (reads === 2) socket.close();
      return count;
    },
    write: (bytes) => conn.write(bytes),
    close: () => sleep(50).then(() => conn.close()),
  };
  const keys = readTlsKeys({ policy: "require", certificates: certificates.server });
  const clock = new DenoClock();
  const kernel = new Kernel({ clock });
  const told: SocketNotice[] = [];
  const socket = new ClientSocket(
    new SocketGroup(kernel),
    stream,
    { peer: "a client", identity: undefined },
    keys,
    () => {},
  );
  socket.open(kernel.spawn("owner", 8, () => ({ receive: (notice: SocketNotice) => told.push(notice) })));
  socket.startTls();
  const caCerts = [Deno.readTextFileSync(`${certificates.uncertified}/ca-cert.pem`)];
  using tls = await Deno.startTls(client, { hostname: "localhost", caCerts });
  await tls.handshake();
  await sleep(1500);
  assertEquals(told, [{ type: "closed" }]);
  clock.close();
});

/** The first bytes that a client says in TLS. */
async function clientHello(server: TlsServer): Promise<Uint8Array> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const [accepted, conn] = await Promise.all([
    listener.accept(),
    Deno.connect({ hostname: "127.0.0.1", port: (listener.addr as Deno.NetAddr).port }),
  ]);
  const authority = Deno.readTextFileSync(`${server.certificates.uncertified}/ca-cert.pem`);
  const tls = await Deno.startTls(conn, { hostname: "localhost", caCerts: [authority] });
  // It is never answered.
  const handshake = tls.handshake().catch(() => {});
  const buffer = new Uint8Array(4096);
  const count = await accepted.read(buffer);
  for (const end of [accepted, tls, listener]) end.close();
  await handshake;
  return buffer.subarray(0, count ?? 0);
}

/** Everything that the server says before it closes. */
async function restOf(conn: Deno.Conn): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  try {
    for (;;) {
      const buffer = new Uint8Array(4096);
      const count = await conn.read(buffer);
      if (count === null) break;
      parts.push(buffer.subarray(0, count));
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.ConnectionReset)) throw error;
  } finally {
    conn.close();
  }
  return join(...parts);
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}
