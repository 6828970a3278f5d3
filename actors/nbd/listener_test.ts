import { assertEquals } from "@std/assert";
import { NBD_CMD_DISC, NBD_CMD_FLUSH, NBD_OPT_LIST, NBD_OPT_STARTTLS } from "./wire/constants.ts";
import { seededRandom } from "../../tests/engine/seeded_random.ts";
import { join, option, u32 } from "../../tests/nbd/wire_bytes.ts";
import {
  borrowedBytesMax,
  connectionBytesMax,
  connectionsMax,
  crowdedHandshakeMs,
  drainMs,
  handshakeExportMs,
  handshakeMs,
  handshakeSumMs,
  linkCheckMs,
  receiveBuffersMax,
  requestBytesMax,
  requestsPerConnectionMax,
  silentPeerMs,
  spareMs,
} from "../limits.ts";
import { Places } from "./places.ts";
import {
  command,
  go,
  read,
  type SimulatedClient,
  TestServer,
  write,
} from "../../tests/nbd/simulated_client.ts";

const KiB = 1024;

/** Reads until the server sends nothing more. */
function readAll(client: SimulatedClient): void {
  while (client.isSending) {
    client.takeSend();
    client.pump();
  }
}

function cookiesOf(client: SimulatedClient): number[] {
  return client.takeReplies().filter(({ isLast }) => isLast).map(({ cookie }) => cookie);
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

Deno.test("a client that does not read stalls nobody else", () => {
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

Deno.test("memory that was lent is lent again, and goes when nobody has borrowed for a while", () => {
  const server = new TestServer();
  const client = server.attach();
  const spare = () => (server.actor?.spareBytes ?? -1) / requestBytesMax;
  for (let i = 0; i < 3; i += 1) client.say(read(i, 0, requestBytesMax));
  assertEquals(spare(), 1);
  server.clock.advance(2 * spareMs);
  assertEquals(spare(), 0);
  client.say(write(4, 0, new Uint8Array(requestBytesMax)));
  assertEquals([spare(), cookiesOf(client).at(-1)], [1, 4]);
});

Deno.test("who leaves gives back what it was lent and loses its turn", () => {
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

Deno.test("clients above the cap are closed, and served again when there is room", () => {
  const server = new TestServer();
  const clients = Array.from({ length: connectionsMax }, () => server.attach());
  const refused = [server.connect(), server.connect()];
  assertEquals(refused.map(({ closed }) => closed), [true, true]);
  assertEquals(server.log.filter((line) => line.startsWith("refused")).length, 1);
  clients[7]?.say(command(NBD_CMD_DISC, 0));
  assertEquals(server.attach().closed, false);
});

Deno.test("clients that do not attach make room when their time is up, and take nothing from who is attached", () => {
  const server = new TestServer();
  const attached = server.attach();
  const silent = Array.from({ length: connectionsMax - 1 }, () => server.connect());
  assertEquals(server.connect().closed, true);
  assertEquals(
    server.log.at(-1),
    "refused a simulated client: 64 clients are connected, and no more are served at once",
  );
  attached.say(read(1, 0, 512));
  assertEquals(cookiesOf(attached), [1]);
  server.clock.advance(handshakeMs - 1);
  assertEquals(silent.filter(({ closed }) => closed).length, 0);
  server.clock.advance(1);
  assertEquals(silent.filter(({ closed }) => closed).length, connectionsMax - 1);
  assertEquals([attached.closed, server.attach().closed], [false, false]);
});

Deno.test("at the cap whoever has not attached for longest makes room after a second, logged once, and who is attached never does", () => {
  const server = new TestServer();
  const [first, ...attached] = Array.from({ length: 3 }, () => server.attach());
  const silent = Array.from({ length: connectionsMax - 3 }, () => server.connect());
  server.clock.advance(crowdedHandshakeMs - 1);
  assertEquals([server.connect().closed, silent.some(({ closed }) => closed)], [true, false]);
  server.clock.advance(1);
  const late = [server.attach(), server.attach()];
  assertEquals(silent.map(({ closed }) => closed).indexOf(false), late.length);
  assertEquals(server.log.filter((line) => /in favour of/.test(line)), [
    "closing the connection from a simulated client, which has attached to no export, in favour of a simulated client: " +
    "64 clients are connected, and no more are served at once",
  ]);
  // With everybody attached, nobody makes room.
  while (silent.some(({ closed }) => !closed)) late.push(server.attach());
  server.clock.advance(handshakeMs);
  assertEquals(server.connect().closed, true);
  assertEquals([...attached, ...late].some(({ closed }) => closed), false);
  first?.say(command(NBD_CMD_DISC, 0));
  assertEquals(server.attach().closed, false);
});

Deno.test("who comes while another one makes room waits until its socket is closed, or its place is another's", () => {
  const server = new TestServer();
  const attached = server.attach();
  const silent = Array.from({ length: connectionsMax - 1 }, () => server.connect({ lingers: true }));
  server.clock.advance(crowdedHandshakeMs);
  const late = [server.connect(), server.connect()];
  assertEquals(late.map(({ closed, unreadBytes }) => [closed, unreadBytes]), [[false, 0], [false, 0]]);
  silent[0]?.pump();
  assertEquals(late.map(({ unreadBytes }) => unreadBytes), [18, 0]);
  attached.say(command(NBD_CMD_DISC, 0));
  assertEquals(late.map(({ unreadBytes }) => unreadBytes), [18, 18]);
  // The place of the second one that made room is for whoever comes next.
  const next = server.connect();
  assertEquals([next.closed, silent[2]?.closed], [false, false]);
  silent[1]?.pump();
  assertEquals(next.unreadBytes, 18);
});

Deno.test("who attaches just when it is to make room stays if it was faster, and then another one goes, or nobody", () => {
  const outcomes = new Set<string>();
  for (let seed = 0; seed < 100; seed++) {
    const random = seededRandom(seed);
    const choose = (readyCount: number) => random.below(readyCount);
    const server = new TestServer({ messagesPerTurnMax: 1, choose });
    const quick = server.connect();
    quick.say(u32(3));
    const isCrowded = seed % 2 === 0;
    const others = Array.from(
      { length: connectionsMax - 1 },
      () => isCrowded ? server.attach() : server.connect(),
    );
    server.clock.advance(crowdedHandshakeMs);
    quick.sayUnheard(go("disk"));
    const late = server.connect();
    const closed = others.filter((client) => client.closed).length;
    outcomes.add(`${isCrowded} ${quick.closed} ${closed} ${late.closed}`);
    quick.say(read(1, 0, 512));
    assertEquals([quick, ...others, late].filter((client) => !client.closed).length, connectionsMax);
  }
  assertEquals([...outcomes].sort(), [
    "false false 1 false",
    "false true 0 false",
    "true false 0 true",
    "true true 0 false",
  ]);
});

Deno.test("a listener that stops closes who waits for a place", () => {
  const server = new TestServer();
  const silent = Array.from({ length: connectionsMax }, () => server.connect({ lingers: true }));
  server.clock.advance(crowdedHandshakeMs);
  const late = server.connect();
  server.stop();
  assertEquals([late.closed, server.stopped], [true, false]);
  for (const client of silent) client.pump();
  assertEquals([late.unreadBytes, server.stopped], [0, true]);
});

Deno.test("a client that dribbles an option has no more time than others", () => {
  const server = new TestServer();
  const client = server.connect();
  const handshake = join(u32(3), option(99, new Uint8Array(4096)));
  for (let at = 0; at * 100 < handshakeMs; at++) {
    assertEquals(client.closed, false);
    client.say(handshake.subarray(at, at + 1));
    server.clock.advance(100);
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
    server.clock.advance(Math.min(handshakeMs / 2, sumMs - at));
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
    server.clock.advance(200);
  }
  client.say(go("disk"));
  server.clock.advance(handshakeMs);
  assertEquals(client.closed, false);
});

Deno.test("a client that is attached may be silent for as long as it likes", () => {
  const server = new TestServer();
  const client = server.attach();
  server.clock.advance(30 * 24 * 3600 * 1000);
  client.say(read(1, 0, 512));
  assertEquals(cookiesOf(client), [1]);
});

Deno.test("a listener without clients stops at once and accepts nobody", () => {
  const server = new TestServer();
  server.stop();
  assertEquals([server.stopped, server.acceptsStopped], [true, true]);
  assertEquals(server.connect().closed, true);
});

Deno.test("a stopping listener waits for what is in flight and closes who is idle", () => {
  const server = new TestServer();
  const [idle, busy, haggling] = [server.attach(), server.attach(), server.connect()];
  server.disk.volume.holdRequests = true;
  busy.say(read(1, 0, 512));
  server.stop();
  assertEquals([idle.closed, busy.closed, haggling.closed, server.stopped], [true, false, true, false]);
  server.finishAll();
  assertEquals([cookiesOf(busy), busy.closed, server.stopped], [[1], true, true]);
  server.clock.advance(drainMs);
  assertEquals(server.disk.clients.size, 0);
});

Deno.test("a stopping listener closes who does not finish in time", () => {
  const server = new TestServer();
  const stuck = server.attach();
  stuck.reads = false;
  stuck.say(read(1, 0, 512));
  server.stop();
  server.clock.advance(drainMs - 1);
  assertEquals([stuck.closed, server.stopped], [false, false]);
  server.clock.advance(1);
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

Deno.test("clients of one host, and those of all hosts, leave places to others", () => {
  const server = new TestServer();
  const places = new Places(connectionsMax);
  const near = Array.from({ length: places.ofOneOrigin }, () => server.attach({ origin: "10.0.0.1" }));
  assertEquals(server.connect({ origin: "10.0.0.1" }).closed, true);
  const far = Array.from(
    { length: places.remote - near.length },
    () => server.attach({ origin: "10.0.0.2" }),
  );
  assertEquals(server.connect({ origin: "10.0.0.3" }).closed, true);
  const local = Array.from({ length: connectionsMax - places.remote }, () => server.attach());
  assertEquals(server.connect().closed, true);
  assertEquals([...near, ...far, ...local].some(({ closed }) => closed), false);
  assertEquals(server.log.filter((line) => line.startsWith("refused")), [
    "refused a simulated client: 42 clients of 10.0.0.1 are connected, and no more of one origin are served at once",
    "refused a simulated client: 56 clients are connected over TCP, and the other 8 places are for Unix sockets",
    "refused a simulated client: 64 clients are connected, and no more are served at once",
  ]);
  near[0]?.say(command(NBD_CMD_DISC, 0));
  assertEquals(server.attach({ origin: "10.0.0.3" }).closed, false);
});

Deno.test("a local client has a place however few there are, unless there is only one", () => {
  assertEquals([1, 2, 3, 7, 8, 16].map((clients) => new Places(clients).remote), [1, 1, 2, 6, 7, 14]);
});

Deno.test("room is made by a client whose place helps: of the same host, or local, or any", () => {
  const server = new TestServer();
  const places = new Places(connectionsMax);
  const eldest = server.connect({ origin: "10.0.0.2" });
  const near = Array.from({ length: places.ofOneOrigin }, () => server.connect({ origin: "10.0.0.1" }));
  server.clock.advance(crowdedHandshakeMs);
  const late = server.connect({ origin: "10.0.0.1" });
  assertEquals([late.closed, near[0]?.closed, near[1]?.closed, eldest.closed], [false, true, false, false]);
});

Deno.test("clients that show one certificate have the places of one origin together, wherever they come from", () => {
  const server = new TestServer();
  const places = new Places(connectionsMax);
  const show = (origin: string) => {
    const client = server.connect({ tls: "require", origin });
    client.say(u32(3), option(NBD_OPT_STARTTLS));
    client.secure("the certificate of a");
    return client;
  };
  const clients = Array.from({ length: places.ofOneOrigin + 1 }, (_, i) => show(`10.0.0.${i}`));
  assertEquals(clients.map(({ closed }) => closed).indexOf(true), places.ofOneOrigin);
  assertEquals(server.log, [
    "refused a simulated client: 42 clients of the certificate of a are connected, and no more of one origin are served at once",
  ]);
  // Their hosts have all of their own places.
  const others = Array.from(
    { length: places.remote - places.ofOneOrigin },
    () => server.connect({ origin: "10.0.0.1" }),
  );
  assertEquals(others.some(({ closed }) => closed), false);
});

Deno.test("a server has as many places as it was told", () => {
  const server = new TestServer(undefined, 3);
  const clients = Array.from({ length: 3 }, () => server.attach());
  assertEquals([server.connect().closed, clients.some(({ closed }) => closed)], [true, false]);
});

Deno.test("a client whose host does not answer gives its place and its volume free, and a local one is not asked", () => {
  const server = new TestServer();
  const dead = server.attach({ origin: "10.0.0.1" });
  const paused = server.attach({ origin: "10.0.0.2" });
  dead.silentMs = silentPeerMs - 1;
  paused.reads = false;
  paused.say(read(1, 0, 512));
  server.clock.advance(linkCheckMs);
  assertEquals(dead.closed, false);
  dead.silentMs = silentPeerMs;
  server.clock.advance(linkCheckMs);
  assertEquals([dead.closed, paused.closed, server.disk.clients.size], [true, false, 1]);
  assertEquals(server.log.at(-2), "closing the connection from a simulated client: its host does not answer");
});
