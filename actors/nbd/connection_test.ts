import { assertEquals } from "@std/assert";
import {
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_EIO,
  NBD_ENOSPC,
  NBD_ENOTSUP,
  NBD_EPERM,
  NBD_ESHUTDOWN,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
} from "./wire/constants.ts";
import { join, request, u32 } from "../../tests/nbd/wire_bytes.ts";
import type { BioStatus } from "../volume/bio.ts";
import { requestBytesMax, stalledSendMs } from "../limits.ts";
import { command, go, read, type SimulatedClient, write } from "../../tests/nbd/simulated_client.ts";
import { testBlockBytes, TestServer, testSizeBytes } from "../../tests/nbd/simulated_server.ts";

const block = testBlockBytes;

function pattern(lengthBytes: number, seed: number): Uint8Array {
  return Uint8Array.from({ length: lengthBytes }, (_, i) => (i * 7 + seed) & 0xff);
}

function errorsOf(client: SimulatedClient): [number, number][] {
  return client.takeReplies().map(({ cookie, error }) => [cookie, error]);
}

for (const pieceBytes of [1, 29, Infinity]) {
  Deno.test(`what was written is read back, received in pieces of ${pieceBytes}`, () => {
    const client = new TestServer().attach({ pieceBytes, structured: false });
    const data = pattern(1000, 1);
    client.say(write(1, block - 500, data), write(2, 5, data.subarray(3, 4)));
    client.say(read(3, block - 500, 1000), read(4, 4, 3));
    const replies = client.takeReplies(new Map([[3, 1000], [4, 3]]));
    assertEquals(replies.map(({ cookie, error }) => [cookie, error]), [[1, 0], [2, 0], [3, 0], [4, 0]]);
    assertEquals(replies[2]?.payload, data);
    assertEquals([...replies[3]?.payload ?? []], [0, data[3], 0]);
  });
}

Deno.test("a client that sends one request at a time is in step, also if a WRITE comes in pieces", () => {
  const client = new TestServer().attach({});
  const says = (...parts: Uint8Array[]) => {
    client.say(...parts);
    return client.isInStep;
  };
  const bytes = write(2, 0, pattern(1000, 1));
  assertEquals([says(read(1, 0, 10)), says(bytes.subarray(0, 28)), says(bytes.subarray(28))], [
    true,
    true,
    true,
  ]);
  assertEquals(says(read(3, 0, 10), read(4, 0, 10)), false);
  assertEquals([says(bytes.subarray(0, 28)), says(bytes.subarray(28))], [false, true]);
  // The rest of a large payload is better received when much of it has come.
  const large = write(5, 0, pattern(100_000, 1));
  assertEquals([says(large.subarray(0, 28)), says(large.subarray(28, 99_000))], [false, true]);
});

Deno.test("runs of holes are sent as holes and runs of data as data", () => {
  const client = new TestServer().attach();
  client.say(write(1, 2 * block, new Uint8Array(2 * block).fill(9)));
  client.takeReplies();
  client.say(read(2, 100, 6 * block));
  const chunks = client.takeReplies();
  assertEquals(chunks.map(({ type, isLast }) => [type, isLast]), [
    [NBD_REPLY_TYPE_OFFSET_HOLE, false],
    [NBD_REPLY_TYPE_OFFSET_DATA, false],
    [NBD_REPLY_TYPE_OFFSET_HOLE, true],
  ]);
  assertEquals(chunks[0]?.payload, join(u32(0), u32(100), u32(2 * block - 100)));
  assertEquals(chunks[1]?.payload, join(u32(0), u32(2 * block), new Uint8Array(2 * block).fill(9)));
  assertEquals(chunks[2]?.payload, join(u32(0), u32(4 * block), u32(2 * block + 100)));
});

Deno.test("DF asks for one chunk of data, holes as zeroes", () => {
  const client = new TestServer().attach();
  client.say(write(1, 0, Uint8Array.of(1)), read(2, 0, 2 * block, NBD_CMD_FLAG_DF));
  const chunks = client.takeReplies().slice(1);
  assertEquals(chunks.map(({ type, isLast }) => [type, isLast]), [[NBD_REPLY_TYPE_OFFSET_DATA, true]]);
  assertEquals(chunks[0]?.payload.length, 8 + 2 * block);
});

Deno.test("a structured READ of nothing is one empty chunk", () => {
  const client = new TestServer().attach();
  client.say(read(1, 0, 0));
  assertEquals(client.takeReplies().map(({ type, isLast }) => [type, isLast]), [[NBD_REPLY_TYPE_NONE, true]]);
});

Deno.test("each command becomes its kind of request, with FUA where it means something", () => {
  const server = new TestServer();
  const client = server.attach();
  const fua = NBD_CMD_FLAG_FUA;
  client.say(
    read(1, 0, 512, fua),
    write(2, 0, new Uint8Array(512), fua),
    command(NBD_CMD_FLUSH, 3, 77, 77, fua),
    command(NBD_CMD_TRIM, 4, 0, 512, fua),
    command(NBD_CMD_WRITE_ZEROES, 5, 0, 512),
    command(NBD_CMD_CACHE, 6, 0, 512),
  );
  assertEquals(server.disk.volume.kinds, ["read", "write fua", "flush", "discard fua", "writeZeroes"]);
  assertEquals(errorsOf(client), [[6, 0], [1, 0], [2, 0], [3, 0], [4, 0], [5, 0]]);
});

Deno.test("replies of one drain go out with one send", () => {
  const client = new TestServer().attach();
  const before = client.sends.length;
  client.say(...Array.from({ length: 32 }, (_, i) => read(i, i * 4096, 4096)));
  assertEquals([client.sends.length - before, client.takeReplies().length], [1, 32]);
});

Deno.test("while a send is under way, replies gather for the next", () => {
  const client = new TestServer().attach();
  client.reads = false;
  const before = client.sends.length;
  for (let i = 0; i < 10; i++) client.say(read(i, 0, 512));
  assertEquals(client.sends.length - before, 1);
  client.takeSend();
  assertEquals([client.sends.length - before, client.takeReplies().length], [2, 10]);
});

Deno.test("a request that is refused leaves the stream in step", () => {
  const server = new TestServer();
  const client = server.attach({ pieceBytes: 1000 });
  client.say(
    write(1, testSizeBytes, pattern(5000, 0)),
    request({ type: 99, cookie: [7, 2] }),
    read(3, testSizeBytes - 1, 2),
    command(NBD_CMD_CACHE, 4, testSizeBytes, 1),
    read(5, 0, 512),
  );
  assertEquals(errorsOf(client), [[1, NBD_ENOSPC], [2, NBD_EINVAL], [3, NBD_EINVAL], [4, NBD_EINVAL], [
    5,
    0,
  ]]);
  assertEquals(server.disk.volume.kinds, ["read"]);
});

Deno.test("a refused WRITE is answered when its payload is there, not before", () => {
  const client = new TestServer().attach();
  const refused = write(1, testSizeBytes, pattern(5000, 0));
  client.say(refused.subarray(0, 3000));
  assertEquals(client.unreadBytes, 0);
  client.say(refused.subarray(3000));
  assertEquals(errorsOf(client), [[1, NBD_ENOSPC]]);
});

Deno.test("a read-only export refuses changes", () => {
  const server = new TestServer();
  server.pool.add("ro", testSizeBytes, { readOnly: true });
  const client = server.attach({ name: "ro" });
  client.say(write(1, 0, pattern(512, 0)), command(NBD_CMD_TRIM, 2, 0, 512), read(3, 0, 512));
  assertEquals(errorsOf(client), [[1, NBD_EPERM], [2, NBD_EPERM], [3, 0]]);
});

const outcomes: [BioStatus, number, number][] = [
  ["noDataSpace", NBD_CMD_WRITE, NBD_ENOSPC],
  ["noMetadataSpace", NBD_CMD_TRIM, NBD_ENOSPC],
  ["ioError", NBD_CMD_READ, NBD_EIO],
  ["notSupported", NBD_CMD_WRITE_ZEROES, NBD_ENOTSUP],
  ["outOfRange", NBD_CMD_READ, NBD_EINVAL],
  ["outOfRange", NBD_CMD_TRIM, NBD_EINVAL],
  ["outOfRange", NBD_CMD_WRITE, NBD_ENOSPC],
  ["outOfRange", NBD_CMD_WRITE_ZEROES, NBD_ENOSPC],
  ["readOnly", NBD_CMD_WRITE, NBD_EPERM],
  ["poolFailed", NBD_CMD_FLUSH, NBD_EIO],
];
for (const [status, type, error] of outcomes) {
  for (const structured of [true, false]) {
    Deno.test(`${status} of command ${type} is error ${error}, structured replies ${structured}`, () => {
      const server = new TestServer();
      server.disk.volume.status = status;
      const client = server.attach({ structured });
      const flags = type === NBD_CMD_WRITE_ZEROES ? NBD_CMD_FLAG_FAST_ZERO : 0;
      client.say(
        type === NBD_CMD_WRITE ? write(1, 0, pattern(512, 0)) : command(type, 1, 0, 512, flags),
        command(NBD_CMD_CACHE, 2),
      );
      const replies = client.takeReplies();
      const failed = replies.find(({ cookie }) => cookie === 1);
      assertEquals([failed?.type, failed?.error], [structured ? NBD_REPLY_TYPE_ERROR : "simple", error]);
      assertEquals(replies.length, 2);
    });
  }
}

Deno.test("DISC is not answered; what is in flight is, and then the connection ends", () => {
  const server = new TestServer();
  const client = server.attach();
  server.disk.volume.holdRequests = true;
  client.say(read(1, 0, 512), write(2, 0, pattern(512, 0)));
  client.say(request({ type: NBD_CMD_DISC, cookie: [1, 1], offset: [1, 1], length: 5 }), read(3, 0, 512));
  assertEquals([client.closed, client.unreadBytes, server.disk.clients.size], [false, 0, 1]);
  server.finishAll();
  assertEquals(errorsOf(client), [[1, 0], [2, 0]]);
  assertEquals([client.closed, server.disk.clients.size], [true, 0]);
});

Deno.test("after a half-close what is in flight is answered, then the connection ends", () => {
  const server = new TestServer();
  const client = server.attach();
  server.disk.volume.holdRequests = true;
  client.say(read(1, 0, 512));
  client.end();
  assertEquals(client.closed, false);
  server.finishAll();
  assertEquals(errorsOf(client), [[1, 0]]);
  assertEquals([client.closed, server.disk.clients.size], [true, 0]);
});

Deno.test("a half-finished request of a client that leaves is never submitted", () => {
  const server = new TestServer();
  const client = server.attach();
  client.say(write(1, 0, pattern(4096, 0)).subarray(0, 2000));
  client.end();
  assertEquals([client.closed, server.disk.volume.kinds, server.disk.clients.size], [true, [], 0]);
});

Deno.test("a wrong magic ends the connection, after the replies that are owed", () => {
  const server = new TestServer();
  const client = server.attach();
  client.say(read(1, 0, 512), u32(0xdeadbeef), new Uint8Array(24), read(2, 0, 512));
  assertEquals(errorsOf(client), [[1, 0]]);
  assertEquals(client.closed, true);
  assertEquals(
    server.log[1],
    "closing the connection from a simulated client: a request with a wrong magic",
  );
});

Deno.test("a client that vanishes is detached when the volume has nothing of it any more", () => {
  const server = new TestServer();
  const client = server.attach();
  server.disk.volume.holdRequests = true;
  client.say(read(1, 0, 512), write(2, 0, pattern(512, 0)));
  client.reset();
  assertEquals(server.disk.clients.size, 1);
  server.finishAll();
  assertEquals(server.disk.clients.size, 0);
  assertEquals(server.log, [
    'a simulated client attached to "disk"',
    "lost a simulated client: connection reset",
    'a simulated client left "disk"',
  ]);
});

Deno.test("a client that vanishes while the pool attaches it is detached again", () => {
  const server = new TestServer();
  const client = server.connect();
  client.say(u32(3));
  const [owner] = server.disk.clients;
  assertEquals(owner, undefined);
  client.sayAndVanish(go("disk"));
  assertEquals(server.disk.clients.size, 0);
  assertEquals(server.pool.attachesEver, 1);
});

Deno.test("a client of an export that goes gets its replies and ESHUTDOWN for the rest", () => {
  const server = new TestServer();
  const client = server.attach();
  server.disk.volume.holdRequests = true;
  client.say(read(1, 0, 512));
  server.pool.tellClients(server.disk, { type: "exportGone", uid: server.disk.info.uid });
  client.say(write(2, 0, pattern(512, 0)));
  assertEquals(errorsOf(client), [[2, NBD_ESHUTDOWN]]);
  server.finishAll();
  assertEquals(errorsOf(client), [[1, 0]]);
  assertEquals([client.closed, server.disk.clients.size, server.disk.volume.kinds], [true, 0, ["read"]]);
});

Deno.test("a WRITE that is half here when its export goes is refused", () => {
  const server = new TestServer();
  const client = server.attach();
  server.disk.volume.holdRequests = true;
  const late = write(2, 0, pattern(4096, 0));
  client.say(read(1, 0, 512), late.subarray(0, 1000));
  server.pool.tellClients(server.disk, { type: "exportGone", uid: server.disk.info.uid });
  client.say(late.subarray(1000));
  assertEquals(errorsOf(client), [[2, NBD_ESHUTDOWN]]);
  assertEquals(server.disk.volume.kinds, ["read"]);
});

Deno.test("a client that does not read does not keep a volume from going", () => {
  const server = new TestServer();
  const client = server.attach();
  client.reads = false;
  client.say(read(1, 0, 512));
  server.pool.tellClients(server.disk, { type: "exportGone", uid: server.disk.info.uid });
  assertEquals([client.closed, server.disk.clients.size], [false, 0]);
  client.takeSend();
  assertEquals(client.closed, true);
});

Deno.test("requests are checked against the size of the moment", () => {
  const server = new TestServer();
  const client = server.attach();
  const { uid } = server.disk.info;
  server.pool.tellClients(server.disk, { type: "exportResized", uid, sizeBytes: 4096 });
  client.say(read(1, 4096, 1), read(2, 4095, 1));
  server.pool.tellClients(server.disk, { type: "exportResized", uid, sizeBytes: 8192 });
  client.say(read(3, 8191, 1));
  client.say(read(4, 8191, 2));
  assertEquals(errorsOf(client), [[1, NBD_EINVAL], [2, 0], [3, 0], [4, NBD_EINVAL]]);
});

Deno.test("a paused client takes no byte of its replies for days and is not closed, until its export goes", () => {
  const server = new TestServer();
  const client = server.attach();
  client.reads = false;
  client.say(read(1, 0, requestBytesMax));
  server.clock.pass(7 * 24 * 3600 * 1000);
  assertEquals(client.closed, false);
  server.pool.tellClients(server.disk, { type: "exportGone", uid: server.disk.info.uid });
  assertEquals([client.closed, server.disk.clients.size], [false, 0]);
  server.clock.pass(2 * stalledSendMs);
  assertEquals(client.closed, true);
});

Deno.test("a client that reads slowly is not closed when its export goes", () => {
  const server = new TestServer();
  const client = server.attach();
  client.reads = false;
  client.say(read(1, 0, 512));
  server.pool.tellClients(server.disk, { type: "exportGone", uid: server.disk.info.uid });
  for (let i = 0; i < 5; i++) {
    server.clock.pass(stalledSendMs - 1);
    client.sentBytes += 1;
  }
  assertEquals(client.closed, false);
});
