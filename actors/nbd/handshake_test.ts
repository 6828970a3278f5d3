import { assertEquals } from "@std/assert";
import {
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_EXPORT,
  NBD_INFO_NAME,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_ERR_EXT_HEADER_REQD,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
  NBD_REP_INFO,
  NBD_REP_SERVER,
} from "./wire/constants.ts";
import { bytes, join, option, string, u16, u32 } from "../../tests/nbd/wire_bytes.ts";
import { handshakeMs, handshakeOptionsMax, optionReplyBytesMax, optionsPerExport } from "../limits.ts";
import { blockSizesOf } from "./handshake.ts";
import { go, read, type SimulatedClient } from "../../tests/nbd/simulated_client.ts";
import { TestServer, testSizeBytes } from "../../tests/nbd/simulated_server.ts";

const size64 = join(u32(0), u32(testSizeBytes));
/** What a writable export promises, without and with structured replies. */
const flags = u16(0xd6d);
const structuredFlags = u16(0xded);

function greet(server: TestServer, pieceBytes = Infinity): SimulatedClient {
  const client = server.connect({ pieceBytes });
  client.takeOpening();
  client.say(u32(3));
  return client;
}

function repliesTo(client: SimulatedClient, ...options: Uint8Array[]): [number, number][] {
  client.say(...options);
  return client.takeOptionReplies().map((reply) => [reply.option, reply.type]);
}

Deno.test("the server greets first", () => {
  const client = new TestServer().connect();
  assertEquals(client.takeOpening(), join(bytes("NBDMAGICIHAVEOPT"), u16(3)));
});

Deno.test("GO tells the export always, and what was asked for once", () => {
  const client = greet(new TestServer());
  client.say(go("disk", NBD_INFO_BLOCK_SIZE, NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_NAME, 77));
  const replies = client.takeOptionReplies();
  assertEquals(replies.map((reply) => reply.type), [...Array(4).fill(NBD_REP_INFO), NBD_REP_ACK]);
  assertEquals(replies.map((reply) => reply.data), [
    join(u16(NBD_INFO_EXPORT), size64, flags),
    join(u16(NBD_INFO_NAME), bytes("disk")),
    join(u16(NBD_INFO_DESCRIPTION), bytes("about disk")),
    join(u16(NBD_INFO_BLOCK_SIZE), u32(1), u32(65536), u32(2 ** 25)),
    new Uint8Array(0),
  ]);
});

Deno.test("GO without info requests tells the export only", () => {
  const client = greet(new TestServer());
  assertEquals(repliesTo(client, go("disk")), [[NBD_OPT_GO, NBD_REP_INFO], [NBD_OPT_GO, NBD_REP_ACK]]);
});

Deno.test("the preferred block size is the largest power of two in the pool's, at most 32 MiB", () => {
  const preferred = [65536, 192 * 1024, 2 ** 20, 2 ** 25, 2 ** 30, 3 * 2 ** 25].map((size) =>
    blockSizesOf(size).preferred
  );
  assertEquals(preferred, [65536, 65536, 2 ** 20, 2 ** 25, 2 ** 25, 2 ** 25]);
});

Deno.test("a handshake that arrives byte by byte goes as any other", () => {
  const client = greet(new TestServer(), 1);
  client.say(option(NBD_OPT_STRUCTURED_REPLY), go("disk"), read(1, 0, 512));
  const replies = client.takeOptionReplies().slice(0, 3);
  assertEquals(replies.map((reply) => reply.type), [NBD_REP_ACK, NBD_REP_INFO, NBD_REP_ACK]);
  assertEquals(replies[1]?.data, join(u16(NBD_INFO_EXPORT), size64, structuredFlags));
});

Deno.test("a READ that comes with GO in one packet is answered", () => {
  const server = new TestServer();
  const client = server.connect();
  client.say(u32(3), go("disk"), read(1, 0, 512));
  assertEquals(client.unreadBytes, 18 + (20 + 12) + 20 + 16 + 512);
});

Deno.test("INFO attaches nobody and GO afterwards is as if it were the first", () => {
  const server = new TestServer();
  const client = greet(server);
  const info = option(NBD_OPT_INFO, join(string("disk"), u16(0)));
  assertEquals(repliesTo(client, info), [[NBD_OPT_INFO, NBD_REP_INFO], [NBD_OPT_INFO, NBD_REP_ACK]]);
  assertEquals(server.disk.clients.size, 0);
  assertEquals(repliesTo(client, go("disk")).length, 2);
  assertEquals(server.disk.clients.size, 1);
});

Deno.test("the empty name is the only volume", () => {
  const client = greet(new TestServer());
  client.say(go("", NBD_INFO_NAME));
  assertEquals(client.takeOptionReplies()[1]?.data, join(u16(NBD_INFO_NAME), bytes("disk")));
});

Deno.test("GO to an unknown export fails and haggling goes on", () => {
  const client = greet(new TestServer());
  assertEquals(repliesTo(client, go("nothing")), [[NBD_OPT_GO, NBD_REP_ERR_UNKNOWN]]);
  assertEquals(repliesTo(client, go("disk")).at(-1), [NBD_OPT_GO, NBD_REP_ACK]);
});

Deno.test("LIST names and describes every export", () => {
  const server = new TestServer();
  server.pool.add("disk@monday", 4096, { readOnly: true });
  const client = greet(server);
  client.say(option(NBD_OPT_LIST));
  const replies = client.takeOptionReplies();
  assertEquals(replies.map((reply) => reply.type), [NBD_REP_SERVER, NBD_REP_SERVER, NBD_REP_ACK]);
  assertEquals(replies.slice(0, 2).map((reply) => reply.data), [
    join(string("disk"), bytes("about disk")),
    join(string("disk@monday"), bytes("about disk@monday")),
  ]);
});

Deno.test("options that are not supported, not allowed or malformed are refused and haggling goes on", () => {
  const client = greet(new TestServer());
  const cases: [Uint8Array, number, number][] = [
    [option(99, new Uint8Array(70_000)), 99, NBD_REP_ERR_UNSUP],
    [option(NBD_OPT_STARTTLS), NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY],
    [option(NBD_OPT_EXTENDED_HEADERS, u32(0)), NBD_OPT_EXTENDED_HEADERS, NBD_REP_ERR_INVALID],
    [option(NBD_OPT_LIST, u32(0)), NBD_OPT_LIST, NBD_REP_ERR_INVALID],
    [option(NBD_OPT_GO, u16(0)), NBD_OPT_GO, NBD_REP_ERR_INVALID],
  ];
  for (const [sent, number, type] of cases) assertEquals(repliesTo(client, sent), [[number, type]]);
  assertEquals(repliesTo(client, go("disk")).at(-1), [NBD_OPT_GO, NBD_REP_ACK]);
});

Deno.test("two options in one packet are both answered", () => {
  const client = greet(new TestServer());
  assertEquals(repliesTo(client, option(NBD_OPT_STRUCTURED_REPLY), option(NBD_OPT_LIST)), [
    [NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK],
    [NBD_OPT_LIST, NBD_REP_SERVER],
    [NBD_OPT_LIST, NBD_REP_ACK],
  ]);
});

Deno.test("a client that does not read its answers gets no further with its options", () => {
  const server = new TestServer();
  const client = server.connect();
  client.takeOpening();
  client.reads = false;
  client.say(u32(3), ...Array<Uint8Array>(1000).fill(option(NBD_OPT_LIST)));
  assertEquals(client.takeOptionReplies().length, 2);
  client.takeSend();
  assertEquals(client.takeOptionReplies().length, 2);
});

Deno.test("extended headers may be agreed on first, twice, or after structured replies", () => {
  const client = greet(new TestServer());
  const twice = repliesTo(client, option(NBD_OPT_EXTENDED_HEADERS), option(NBD_OPT_EXTENDED_HEADERS));
  assertEquals(twice.map(([, type]) => type), [NBD_REP_ACK, NBD_REP_ACK]);
  const after = greet(new TestServer());
  const both = repliesTo(after, option(NBD_OPT_STRUCTURED_REPLY), option(NBD_OPT_EXTENDED_HEADERS));
  assertEquals(both.map(([, type]) => type), [NBD_REP_ACK, NBD_REP_ACK]);
});

Deno.test("structured replies after extended headers are refused, and the export offers DF all the same", () => {
  const client = greet(new TestServer());
  repliesTo(client, option(NBD_OPT_EXTENDED_HEADERS));
  const refused = repliesTo(client, option(NBD_OPT_STRUCTURED_REPLY));
  assertEquals(refused, [[NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_EXT_HEADER_REQD]]);
  client.say(go("disk"));
  assertEquals(client.takeOptionReplies()[0]?.data, join(u16(NBD_INFO_EXPORT), size64, structuredFlags));
});

Deno.test("EXPORT_NAME after extended headers ends the connection with a word in the log", () => {
  const server = new TestServer();
  const client = greet(server);
  repliesTo(client, option(NBD_OPT_EXTENDED_HEADERS));
  client.say(option(NBD_OPT_EXPORT_NAME, bytes("disk")));
  assertEquals([client.closed, client.unreadBytes], [true, 0]);
  assertEquals(server.log, [
    "closing the connection from a simulated client: " +
    "it sent NBD_OPT_EXPORT_NAME after extended headers were agreed on",
  ]);
});

Deno.test("a list of 10,000 exports goes out in parts, each when the one before has been read", () => {
  const server = new TestServer();
  for (let i = 0; i < 9999; i++) server.pool.add(`disk-${i}`, 4096);
  const client = greet(server);
  client.reads = false;
  const before = client.sends.length;
  client.say(option(NBD_OPT_LIST));
  assertEquals(client.sends.length - before, 1);
  while (client.isSending) client.takeSend();
  const replies = client.takeOptionReplies();
  assertEquals(replies.map(({ type }) => type), [...Array(10_000).fill(NBD_REP_SERVER), NBD_REP_ACK]);
  assertEquals(replies[9999]?.data, join(string("disk-9998"), bytes("about disk-9998")));
  const longest = Math.max(...client.sends.map((sent) => sent.length));
  assertEquals(longest < optionReplyBytesMax + 300, true, `${longest} bytes at once`);
});

Deno.test("a client that haggles without end is closed with a word in the log", () => {
  const server = new TestServer();
  const client = greet(server);
  for (let i = 0; i < handshakeOptionsMax; i++) client.say(option(99));
  assertEquals([client.closed, client.takeOptionReplies().length], [false, handshakeOptionsMax]);
  client.say(option(99));
  assertEquals(client.closed, true);
  assertEquals(server.log, [
    "closing the connection from a simulated client: it sent more than 1000 options and attached to no export",
  ]);
});

Deno.test("a client that was told of many exports may ask about each of them", () => {
  const server = new TestServer();
  for (let i = 1; i < 1000; i++) server.pool.add(`disk-${i}`, 4096);
  const client = greet(server);
  client.say(option(NBD_OPT_LIST));
  const info = option(NBD_OPT_INFO, join(string("disk-7"), u16(0)));
  for (let i = 1; i < handshakeOptionsMax + optionsPerExport * 1000; i++) client.say(info);
  assertEquals(client.closed, false);
  client.say(info);
  assertEquals(client.closed, true);
});

Deno.test("EXPORT_NAME is answered with size, flags and zeroes", () => {
  const client = new TestServer().connect();
  client.takeOpening();
  client.say(u32(0), option(NBD_OPT_EXPORT_NAME, bytes("disk")));
  assertEquals(client.take(client.unreadBytes), join(size64, flags, new Uint8Array(124)));
  client.say(read(1, 0, 512));
  assertEquals(client.unreadBytes, 16 + 512);
});

Deno.test("EXPORT_NAME goes without the zeroes if the client wants that", () => {
  const client = greet(new TestServer());
  client.say(option(NBD_OPT_EXPORT_NAME, bytes("disk")));
  assertEquals(client.take(client.unreadBytes), join(size64, flags));
});

Deno.test("EXPORT_NAME of an unknown export ends the connection with a word in the log", () => {
  const server = new TestServer();
  const client = greet(server);
  client.say(option(NBD_OPT_EXPORT_NAME, bytes("no\nthing")));
  assertEquals([client.closed, client.unreadBytes], [true, 0]);
  assertEquals(server.log, [
    'closing the connection from a simulated client: it asked for the export "no\\nthing", which does not exist',
  ]);
});

Deno.test("ABORT is acknowledged, then the connection ends", () => {
  const client = greet(new TestServer());
  assertEquals(repliesTo(client, option(NBD_OPT_ABORT, u32(1))), [[NBD_OPT_ABORT, NBD_REP_ACK]]);
  assertEquals(client.closed, true);
});

Deno.test("ABORT is acknowledged before the close, however slowly the client reads", () => {
  const client = greet(new TestServer());
  client.reads = false;
  client.say(option(NBD_OPT_ABORT));
  assertEquals(client.closed, false);
  client.takeSend();
  assertEquals(client.closed, true);
});

Deno.test("what is no handshake ends the connection", () => {
  for (const bad of [u32(0xff), join(u32(3), bytes("GET / HTTP/1.1\r\n"))]) {
    const server = new TestServer();
    const client = server.connect();
    client.say(bad);
    assertEquals([client.closed, server.log.length], [true, 1]);
  }
});

Deno.test("a client that attaches to nothing is closed at the deadline", () => {
  const server = new TestServer();
  const client = greet(server);
  server.clock.pass(handshakeMs - 1);
  assertEquals(client.closed, false);
  server.clock.pass(1);
  assertEquals(client.closed, true);
});

Deno.test("an attached client may stay silent for days", () => {
  const server = new TestServer();
  const client = server.attach();
  server.clock.pass(7 * 24 * 3600 * 1000);
  assertEquals(client.closed, false);
});
