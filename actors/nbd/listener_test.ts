import { assertEquals } from "@std/assert";
import { NBD_CMD_DISC, NBD_CMD_FLUSH, NBD_ENOSPC, NBD_OPT_LIST } from "./wire/constants.ts";
import { join, option, u32 } from "../../tests/nbd/wire_bytes.ts";
import {
  borrowedBytesMax,
  connectionBytesMax,
  connectionsMax,
  drainMs,
  handshakeExportMs,
  handshakeMs,
  handshakeSumMs,
  receiveBuffersMax,
  requestBytesMax,
  requestsPerConnectionMax,
  spareMs,
  waitingLoansBytesMax,
} from "../limits.ts";
import {
  command,
  cookiesOf,
  go,
  read,
  type SimulatedClient,
  write,
} from "../../tests/nbd/simulated_client.ts";
import { TestServer } from "../../tests/nbd/simulated_server.ts";

const KiB = 1024;

/** Reads until the server sends nothing more. */
function readAll(client: SimulatedClient): void {
  while (client.isSending) {
    client.takeSend();
    client.pump();
  }
}

Deno.test("a client has so many requests in flight and no more", () => {
  const server = new TestServer();
  const client = server.attach();
  server.disk.volume.holdRequests = true;
  const flushes = Array.from({ length: requestsPerConnectionMax + 5 }, (_, i) => command(NBD_CMD_FLUSH, i));
  client.say(...flushes);
  assertEquals(server.disk.volume.waiting.length, requestsPerConnectionMax);
  server.finishOne();
  assertEquals(server.disk.volume.waiting.length, requestsPerConnectionMax);
  server.finishAll();
  assertEquals(client.takeReplies().length, requestsPerConnectionMax + 5);
});

Deno.test("a client that does not read its replies is not read either", () => {
  const server = new TestServer();
  const client = server.attach({ pieceBytes: 4 * KiB });
  client.reads = false;
  client.say(...Array.from({ length: 10_000 }, (_, i) => read(i, 0, 4 * KiB)));
  assertEquals(server.disk.volume.kinds.length, requestsPerConnectionMax);
  assertEquals(client.unsentBytes >= 9_500 * 28, true);
  readAll(client);
  assertEquals(new Set(cookiesOf(client)).size, 10_000);
});

Deno.test("requests that are refused are bounded by what the client reads, too", () => {
  const server = new TestServer();
  const client = server.attach({ pieceBytes: 4 * KiB });
  client.reads = false;
  client.say(...Array.from({ length: 10_000 }, (_, i) => command(99, i)));
  assertEquals(client.unsentBytes >= 9_500 * 28, true);
  readAll(client);
  assertEquals(cookiesOf(client).length, 10_000);
});

Deno.test("a client that does not read stalls no other client", () => {
  const server = new TestServer();
  const stuck = server.attach();
  stuck.reads = false;
  for (let i = 0; i < 100; i++) stuck.say(read(i, 0, 32 * 1024 * KiB));
  const other = server.attach();
  other.say(read(1, 0, connectionBytesMax));
  assertEquals(cookiesOf(other), [1]);
});

Deno.test("payloads above a connection's own bytes are lent up to the bound, in turn, and come back", () => {
  const server = new TestServer();
  server.disk.volume.holdRequests = true;
  const served = borrowedBytesMax / requestBytesMax;
  const clients = Array.from({ length: served + 2 }, () => server.attach());
  for (const [i, client] of clients.entries()) client.say(read(i, i * 4096, requestBytesMax));
  const waiting = () => server.disk.volume.waiting.map(({ offsetBytes }) => offsetBytes / 4096);
  assertEquals(waiting(), [0, 1, 2, 3]);
  server.finishOne();
  assertEquals(waiting(), [1, 2, 3, 4]);
  server.finishAll();
  assertEquals(clients.map(cookiesOf), clients.map((_, i) => [i]));
  // All came back: as many are lent once more.
  for (const [i, client] of clients.entries()) client.say(read(i, i * 4096, requestBytesMax));
  assertEquals(waiting(), [0, 1, 2, 3]);
  server.finishAll();
});

Deno.test("memory that was lent is lent again, and is freed when nothing was borrowed for a while", () => {
  const server = new TestServer();
  const client = server.attach();
  const spare = () => (server.actor?.spareBytes ?? -1) / requestBytesMax;
  for (let i = 0; i < 3; i += 1) client.say(read(i, 0, requestBytesMax));
  assertEquals(spare(), 1);
  server.clock.pass(2 * spareMs);
  assertEquals(spare(), 0);
  client.say(write(4, 0, new Uint8Array(requestBytesMax)));
  assertEquals([spare(), cookiesOf(client).at(-1)], [1, 4]);
});

Deno.test("a client that leaves gives back what it was lent and loses its turn", () => {
  const server = new TestServer();
  server.disk.volume.holdRequests = true;
  const clients = Array.from({ length: 6 }, () => server.attach());
  for (const [i, client] of clients.entries()) client.say(read(i, i * 4096, requestBytesMax));
  clients[0]?.reset();
  clients[4]?.reset();
  assertEquals(server.disk.volume.waiting.length, 4);
  server.finishOne();
  assertEquals(server.disk.volume.waiting.map(({ offsetBytes }) => offsetBytes / 4096), [1, 2, 3, 5]);
  server.finishAll();
});

Deno.test("a small request waits for its own connection's bytes, not for what others were lent", () => {
  const server = new TestServer();
  server.disk.volume.holdRequests = true;
  const hogs = Array.from({ length: 5 }, () => server.attach());
  for (const hog of hogs) hog.say(read(0, 0, requestBytesMax));
  const client = server.attach();
  client.say(read(1, 4096, connectionBytesMax), read(2, 8192, 64 * KiB));
  const ours = () => server.disk.volume.waiting.filter(({ offsetBytes }) => offsetBytes > 0);
  assertEquals(ours().length, 1);
  const first = ours()[0]!;
  server.disk.volume.waiting.splice(server.disk.volume.waiting.indexOf(first), 1);
  server.disk.volume.waiting.unshift(first);
  server.finishOne();
  assertEquals(ours().map(({ lengthBytes }) => lengthBytes), [64 * KiB]);
  server.finishAll();
  assertEquals(cookiesOf(client), [1, 2]);
  // What was lent to it in the end and not needed came back.
  for (const hog of hogs) hog.say(read(0, 0, requestBytesMax));
  assertEquals(server.disk.volume.waiting.length, borrowedBytesMax / requestBytesMax);
  server.finishAll();
});

Deno.test("a WRITE larger than everything received at once arrives whole", () => {
  const server = new TestServer();
  const client = server.attach({ pieceBytes: 100_001 });
  const data = new Uint8Array(requestBytesMax);
  for (let i = 0; i < data.length; i += 997) data[i] = i & 0xff;
  client.say(write(1, 77, data), read(2, 77, requestBytesMax, 1 << 2));
  const replies = client.takeReplies();
  assertEquals(replies.map(({ cookie, error }) => [cookie, error]), [[1, 0], [2, 0]]);
  assertEquals(replies[1]?.payload.subarray(8), data);
});

Deno.test("payloads stay untouched while their requests last, wherever they were received", () => {
  const server = new TestServer();
  const client = server.attach();
  server.disk.volume.holdRequests = true;
  const count = 4 * receiveBuffersMax;
  for (let i = 0; i < count; i++) client.say(write(i, i * 8192, new Uint8Array(8192).fill(i + 1)));
  assertEquals(server.disk.volume.waiting.length, count);
  assertEquals(
    server.disk.volume.waiting.map(({ data }) => data[0]),
    Array.from({ length: count }, (_, i) => i + 1),
  );
  assertEquals(
    new Set(server.disk.volume.waiting.map(({ data }) => data.buffer)).size,
    count,
  );
  server.finishAll();
  assertEquals(cookiesOf(client).length, count);
});

Deno.test("a client that dribbles an option has no more time than others", () => {
  const server = new TestServer();
  const client = server.connect();
  const handshake = join(u32(3), option(99, new Uint8Array(4096)));
  for (let at = 0; at * 100 < handshakeMs; at++) {
    assertEquals(client.closed, false);
    client.say(handshake.subarray(at, at + 1));
    server.clock.pass(100);
  }
  assertEquals(client.closed, true);
});

Deno.test("a client that asks about one export after the other has time for each, and for all in all", () => {
  const server = new TestServer();
  const client = server.connect();
  client.say(u32(3), option(NBD_OPT_LIST));
  const sumMs = handshakeSumMs + handshakeExportMs;
  for (let at = 0; at < sumMs; at += handshakeMs / 2) {
    assertEquals(client.closed, false, `after ${at} ms`);
    client.say(option(NBD_OPT_LIST));
    server.clock.pass(Math.min(handshakeMs / 2, sumMs - at));
  }
  assertEquals(client.closed, true);
});

Deno.test("a client that was told of many exports has time to ask about each of them", () => {
  const server = new TestServer();
  for (let i = 0; i < 1000; i += 1) server.pool.add(`v${i}`, 1 << 20);
  const client = server.connect();
  client.say(u32(3), option(NBD_OPT_LIST));
  for (let i = 0; i < 1000; i += 1) {
    client.say(go(`v${i}x`));
    server.clock.pass(200);
  }
  client.say(go("disk"));
  server.clock.pass(handshakeMs);
  assertEquals(client.closed, false);
});

Deno.test("a client that is attached may be silent for as long as it likes", () => {
  const server = new TestServer();
  const client = server.attach();
  server.clock.pass(30 * 24 * 3600 * 1000);
  client.say(read(1, 0, 512));
  assertEquals(cookiesOf(client), [1]);
});

Deno.test("a listener without clients stops at once and accepts no client", () => {
  const server = new TestServer();
  server.stop();
  assertEquals([server.stopped, server.acceptsStopped], [true, true]);
  assertEquals(server.connect().closed, true);
});

Deno.test("a stopping listener waits for what is in flight and closes idle clients", () => {
  const server = new TestServer();
  const [idle, busy, haggling] = [server.attach(), server.attach(), server.connect()];
  server.disk.volume.holdRequests = true;
  busy.say(read(1, 0, 512));
  server.stop();
  assertEquals([idle.closed, busy.closed, haggling.closed, server.stopped], [true, false, true, false]);
  server.finishAll();
  assertEquals([cookiesOf(busy), busy.closed, server.stopped], [[1], true, true]);
  server.clock.pass(drainMs);
  assertEquals(server.disk.clients.size, 0);
});

Deno.test("a stopping listener closes clients that do not finish in time", () => {
  const server = new TestServer();
  const stuck = server.attach();
  stuck.reads = false;
  stuck.say(read(1, 0, 512));
  server.stop();
  server.clock.pass(drainMs - 1);
  assertEquals([stuck.closed, server.stopped], [false, false]);
  server.clock.pass(1);
  assertEquals([stuck.closed, server.stopped, server.disk.clients.size], [true, true, 0]);
});

Deno.test("connections that left are gone from the kernel", () => {
  const server = new TestServer();
  for (let i = 0; i < 3 * connectionsMax; i++) {
    const client = i % 2 === 0 ? server.attach() : server.connect();
    if (i % 3 === 0) client.reset();
    else client.end();
    if (i % 2 === 1) server.connect().say(u32(3), go("disk"), command(NBD_CMD_DISC, 1));
  }
  const left = [...server.kernel.mailboxHighWater().keys()].filter((name) =>
    name.startsWith("nbd connection")
  );
  assertEquals([left, server.disk.clients.size], [[], 0]);
});

/** Has all writes that the disk holds wait for space. */
function parkAll(server: TestServer): void {
  const { volume } = server.disk;
  for (const request of [...volume.waiting]) if (request.kind === "write") volume.park(request);
  server.kernel.run();
  server.clock.runAllYields();
}

Deno.test("large writes of one client that wait for space leave room for those of others, and those beyond a bound fail", () => {
  const server = new TestServer();
  const { volume } = server.disk;
  volume.holdRequests = true;
  const data = new Uint8Array(requestBytesMax);
  const hogs = Array.from({ length: 4 }, () => server.attach());
  for (const hog of hogs) {
    hog.say(write(1, 0, data));
    parkAll(server);
  }
  const mayWait = waitingLoansBytesMax / requestBytesMax;
  assertEquals(volume.waiting.length, mayWait);
  assertEquals(hogs.map((hog) => hog.takeReplies().map(({ error }) => error)), [
    ...Array.from({ length: mayWait }, () => []),
    ...Array.from({ length: hogs.length - mayWait }, () => [NBD_ENOSPC]),
  ]);
  const other = server.attach();
  for (let round = 0; round < 2; round += 1) {
    other.say(write(round, 0, data));
    volume.finish(volume.waiting.pop()!);
    server.kernel.run();
    server.clock.runAllYields();
    assertEquals(other.takeReplies().map(({ error }) => error), [0]);
  }
  // What waited is served or dropped, and as much may wait again.
  hogs[0]!.reset();
  server.finishAll();
  hogs[1]!.takeReplies();
  for (const hog of hogs.slice(1, 1 + mayWait)) hog.say(write(2, 0, data));
  parkAll(server);
  assertEquals(volume.waiting.length, mayWait);
});

Deno.test("a write that found room for its payload only when it waited again gives back what it had paid with", () => {
  const server = new TestServer();
  const { volume } = server.disk;
  volume.holdRequests = true;
  const client = server.attach();
  const data = new Uint8Array(64 * KiB);
  for (let round = 0; round < 2; round += 1) {
    client.say(...Array.from({ length: 32 }, (_, at) => write(at, 0, data)));
    parkAll(server);
    // The first half has moved. It is served, and the other half waits again.
    assertEquals(volume.waiting.length, 32, `round ${round}`);
    for (let served = 0; served < 16; served += 1) server.finishOne();
    parkAll(server);
    // A read needs all that the writes had paid with.
    client.say(read(100, 0, connectionBytesMax));
    assertEquals(server.actor?.lentBytes, 0, `round ${round}`);
    assertEquals(volume.waiting.length, 17, `round ${round}`);
    server.finishAll();
    assertEquals(new Set(cookiesOf(client)).size, 33);
  }
});
