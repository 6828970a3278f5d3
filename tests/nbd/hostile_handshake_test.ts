/** Clients that break the rules before they are attached: the exact option replies, or the close. */
import { assert, assertEquals } from "@std/assert";
import {
  NBD_CMD_READ,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_EXPORT,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_PEEK_EXPORT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_TOO_BIG,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
  NBD_REP_INFO,
  NBD_REP_SERVER,
  optionName,
  optionReplyName,
} from "../../actors/nbd/wire/constants.ts";
import { diskBytes, HostilePool, hostileTest, pause } from "./hostile_pool.ts";
import { infoRequest, type RawClient } from "./raw_client.ts";
import { bytes, join, option, optionHeader, string, u16, u32 } from "./wire_bytes.ts";

const zeroes = (length: number) => new Uint8Array(length);
const MiB = 1024 * 1024;

/** What the client sends after its flags, the option and the last reply to it. */
type Refused = readonly [what: string, number: number, data: Uint8Array, reply: number];

const emoji = "\u{1f40d}".repeat(1024);
const named = (name: Uint8Array) => join(u32(name.length), name, u16(0));

const refused: readonly Refused[] = [
  // Numbers that nobody has given out.
  ["an unknown option without data", 99, zeroes(0), NBD_REP_ERR_UNSUP],
  ["an unknown option of 100 bytes", 99, zeroes(100), NBD_REP_ERR_UNSUP],
  ["an unknown option of 70,000 bytes", 99, zeroes(70_000), NBD_REP_ERR_UNSUP],
  ["an unknown option of 1 MiB", 99, zeroes(MiB), NBD_REP_ERR_UNSUP],
  ["option 0", 0, zeroes(3), NBD_REP_ERR_UNSUP],
  ["PEEK_EXPORT, which was withdrawn", NBD_OPT_PEEK_EXPORT, zeroes(0), NBD_REP_ERR_UNSUP],
  ["option 12", 12, zeroes(8), NBD_REP_ERR_UNSUP],
  ["option 15", 15, zeroes(0), NBD_REP_ERR_UNSUP],
  ["option 2^31", 2 ** 31, zeroes(1), NBD_REP_ERR_UNSUP],
  ["option 2^32 - 1", 2 ** 32 - 1, zeroes(1), NBD_REP_ERR_UNSUP],
  ["LIST with data", NBD_OPT_LIST, zeroes(4), NBD_REP_ERR_INVALID],
  ["LIST with 1 MiB of data", NBD_OPT_LIST, zeroes(MiB), NBD_REP_ERR_INVALID],
  ["STRUCTURED_REPLY with data", NBD_OPT_STRUCTURED_REPLY, zeroes(1), NBD_REP_ERR_INVALID],
  ["STARTTLS with data", NBD_OPT_STARTTLS, zeroes(517), NBD_REP_ERR_INVALID],
  ["EXTENDED_HEADERS with data", NBD_OPT_EXTENDED_HEADERS, zeroes(9), NBD_REP_ERR_INVALID],
  ["GO of nothing", NBD_OPT_GO, zeroes(0), NBD_REP_ERR_INVALID],
  ["GO of 3 bytes", NBD_OPT_GO, zeroes(3), NBD_REP_ERR_INVALID],
  ["GO of 5 bytes", NBD_OPT_GO, zeroes(5), NBD_REP_ERR_INVALID],
  ["INFO of 5 bytes", NBD_OPT_INFO, zeroes(5), NBD_REP_ERR_INVALID],
  // CVE-2022-26495 was the first of these.
  ["GO with a name of 2^32 - 1 bytes", NBD_OPT_GO, join(u32(2 ** 32 - 1), u16(0)), NBD_REP_ERR_INVALID],
  ["GO with a name of 2^31 bytes", NBD_OPT_GO, join(u32(2 ** 31), u16(0)), NBD_REP_ERR_INVALID],
  [
    "GO with a name that takes the place of the count",
    NBD_OPT_GO,
    join(u32(6), bytes("disk"), u16(0)),
    NBD_REP_ERR_INVALID,
  ],
  [
    "GO with a name one byte longer than the option",
    NBD_OPT_GO,
    join(u32(5), bytes("disk")),
    NBD_REP_ERR_INVALID,
  ],
  [
    "GO that counts 5 info types and has 1",
    NBD_OPT_GO,
    join(string("disk"), u16(5), u16(3)),
    NBD_REP_ERR_INVALID,
  ],
  [
    "GO that counts 65,535 info types and has none",
    NBD_OPT_GO,
    join(string("disk"), u16(0xffff)),
    NBD_REP_ERR_INVALID,
  ],
  ["GO with 4 bytes too many", NBD_OPT_GO, join(infoRequest("disk"), zeroes(4)), NBD_REP_ERR_INVALID],
  [
    "GO with half an info type too many",
    NBD_OPT_GO,
    join(infoRequest("disk", [3]), zeroes(1)),
    NBD_REP_ERR_INVALID,
  ],
  ["GO with a name of 4096 bytes", NBD_OPT_GO, infoRequest("a".repeat(4096)), NBD_REP_ERR_UNKNOWN],
  ["GO with 1024 snakes for a name", NBD_OPT_GO, infoRequest(emoji), NBD_REP_ERR_UNKNOWN],
  ["GO with a name of 4097 bytes", NBD_OPT_GO, infoRequest("a".repeat(4097)), NBD_REP_ERR_INVALID],
  ["GO with a name of 5000 bytes", NBD_OPT_GO, infoRequest("a".repeat(5000)), NBD_REP_ERR_INVALID],
  ["GO with a name of 70,000 bytes", NBD_OPT_GO, infoRequest("a".repeat(70_000)), NBD_REP_ERR_TOO_BIG],
  ["INFO with a name of 4097 bytes", NBD_OPT_INFO, infoRequest("a".repeat(4097)), NBD_REP_ERR_INVALID],
  ["GO with a NUL behind a good name", NBD_OPT_GO, infoRequest("disk\0"), NBD_REP_ERR_INVALID],
  ["GO with a name that is not UTF-8", NBD_OPT_GO, named(Uint8Array.of(0xff, 0xfe)), NBD_REP_ERR_INVALID],
  ["GO with an overlong slash", NBD_OPT_GO, named(Uint8Array.of(0xc0, 0xaf)), NBD_REP_ERR_INVALID],
  ["GO with half a surrogate pair", NBD_OPT_GO, named(Uint8Array.of(0xed, 0xa0, 0x80)), NBD_REP_ERR_INVALID],
  [
    "GO with a name cut in a character",
    NBD_OPT_GO,
    named(bytes(emoji).subarray(0, 4095)),
    NBD_REP_ERR_INVALID,
  ],
  ["GO to ../../etc/passwd", NBD_OPT_GO, infoRequest("../../etc/passwd"), NBD_REP_ERR_UNKNOWN],
  ["GO to a dot", NBD_OPT_GO, infoRequest("."), NBD_REP_ERR_UNKNOWN],
  ["GO to the pool's own data file", NBD_OPT_GO, infoRequest("data.img"), NBD_REP_ERR_UNKNOWN],
  ["GO to disk with a byte order mark", NBD_OPT_GO, infoRequest("\ufeffdisk"), NBD_REP_ERR_UNKNOWN],
  ["GO to __proto__", NBD_OPT_GO, infoRequest("__proto__"), NBD_REP_ERR_UNKNOWN],
  ["GO to a snapshot that is not there", NBD_OPT_GO, infoRequest("small@"), NBD_REP_ERR_UNKNOWN],
  ["GO to DISK", NBD_OPT_GO, infoRequest("DISK"), NBD_REP_ERR_UNKNOWN],
  // There are several volumes, so none is the default.
  ["GO to the empty name among several volumes", NBD_OPT_GO, infoRequest(""), NBD_REP_ERR_UNKNOWN],
  ["STARTTLS of a server without TLS", NBD_OPT_STARTTLS, zeroes(0), NBD_REP_ERR_POLICY],
];

Deno.test("options that break a rule are refused in step, and haggling goes on", async (t) => {
  await using pool = await HostilePool.serve();
  for (const [what, number, data, reply] of refused) {
    await t.step(`${what} is refused with ${optionReplyName(reply)}`, async () => {
      using client = await pool.greeted();
      const replies = await client.negotiate(number, data);
      assertEquals(replies.map((each) => optionReplyName(each.replyType)), [optionReplyName(reply)]);
      assert(replies[0]!.data.length <= 4096, "an error text of more than 4096 bytes");
      await requireInStep(client);
    });
  }
  await pool.requireUnharmed();
});

/** The next option of this client is understood, and ABORT ends it. */
async function requireInStep(client: RawClient): Promise<void> {
  assertEquals(await finalReplies(client, NBD_OPT_INFO, infoRequest("disk")), [NBD_REP_INFO, NBD_REP_ACK]);
  assertEquals(await finalReplies(client, NBD_OPT_ABORT), [NBD_REP_ACK]);
  assert(await client.isClosedByServer());
}

async function finalReplies(client: RawClient, number: number, data?: Uint8Array): Promise<number[]> {
  return (await client.negotiate(number, data)).map((reply) => reply.replyType);
}

/** What the client sends, its flags included, whereupon it is closed without a byte but the opening. */
const closed: readonly (readonly [what: string, sent: Uint8Array])[] = [
  ["client flags 0xff", u32(0xff)],
  ["a client flag nobody has given out", u32(4)],
  ["the highest client flag", u32(2 ** 31 + 3)],
  ["LIST of a client without fixed newstyle", join(u32(0), option(NBD_OPT_LIST))],
  ["GO of a client without fixed newstyle", join(u32(2), option(NBD_OPT_GO, infoRequest("disk")))],
  ["a web browser", bytes("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")],
  ["a TLS ClientHello", Uint8Array.of(0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, ...new Array(64).fill(7))],
  ["an option with the last byte of its magic wrong", join(u32(3), bytes("IHAVEOPU"), u32(3), u32(0))],
  ["an option with the server's reply magic", join(u32(3), u32(0x3e889), u32(0x045565a9), u32(3), u32(0))],
  ["a request in place of an option", join(u32(3), u32(0x25609513), zeroes(24))],
  // Longer than is drained. Not a byte of it needs to come.
  ["an unknown option that announces 1 MiB and a byte", join(u32(3), optionHeader(99, MiB + 1))],
  ["an unknown option that announces 33 MiB", join(u32(3), optionHeader(99, 33 * MiB))],
  ["an unknown option that announces 4 GiB less a byte", join(u32(3), optionHeader(99, 2 ** 32 - 1))],
  ["a GO that announces 4 GiB less a byte", join(u32(3), optionHeader(NBD_OPT_GO, 2 ** 32 - 1))],
  ["a LIST that announces 2 GiB", join(u32(3), optionHeader(NBD_OPT_LIST, 2 ** 31))],
  // This option has no error reply.
  ["EXPORT_NAME of 4097 bytes", join(u32(3), option(NBD_OPT_EXPORT_NAME, zeroes(4097).fill(97)))],
  [
    "EXPORT_NAME that announces 4 GiB less a byte",
    join(u32(3), optionHeader(NBD_OPT_EXPORT_NAME, 2 ** 32 - 1)),
  ],
  [
    "EXPORT_NAME of 4096 bytes that nobody has",
    join(u32(3), option(NBD_OPT_EXPORT_NAME, bytes("b".repeat(4096)))),
  ],
  ["EXPORT_NAME of an unknown export", join(u32(3), option(NBD_OPT_EXPORT_NAME, bytes("nothing")))],
  ["EXPORT_NAME of the empty name among several volumes", join(u32(0), option(NBD_OPT_EXPORT_NAME))],
  ["EXPORT_NAME with a NUL", join(u32(3), option(NBD_OPT_EXPORT_NAME, bytes("disk\0")))],
  ["EXPORT_NAME that is not UTF-8", join(u32(3), option(NBD_OPT_EXPORT_NAME, Uint8Array.of(0xff)))],
];

Deno.test("clients that cannot be followed are closed without another byte", async (t) => {
  await using pool = await HostilePool.serve();
  for (const [what, sent] of closed) {
    await t.step(`${what} closes the connection`, async () => {
      using client = await pool.connect();
      await client.receiveOpening();
      const words = pool.log.length;
      await client.send(sent);
      assert(await client.isClosedByServer());
      await pool.everybodyLeft();
      assertEquals(pool.log.length - words, 1, "the log says it once");
      assert(!/[^ -~]/.test(pool.log.at(-1)!), "the log holds what a terminal may not");
    });
  }
  await pool.requireUnharmed();
});

hostileTest("a client without fixed newstyle is attached by EXPORT_NAME, with 124 zeroes", async (pool) => {
  using client = await pool.greeted(0);
  await client.sendOption(NBD_OPT_EXPORT_NAME, bytes("disk"));
  const reply = await client.receive(134);
  assertEquals(reply.subarray(0, 8), join(u32(0), u32(diskBytes)));
  assertEquals(reply.subarray(10), zeroes(124));
  assertEquals((await client.read(0, 512)).length, 512);
  await client.disconnect();
});

hostileTest("ABORT with data is acknowledged, then the connection ends", async (pool) => {
  using client = await pool.greeted();
  assertEquals(await client.outcome(NBD_OPT_ABORT, zeroes(1000)), NBD_REP_ACK);
  assert(await client.isClosedByServer());
});

hostileTest("nobody minds a client that sends ABORT and does not wait for the answer", async (pool) => {
  for (let i = 0; i < 100; i++) {
    using client = await pool.connect();
    await client.send(u32(3), option(NBD_OPT_ABORT));
  }
});

hostileTest("what follows ABORT is not looked at", async (pool) => {
  using client = await pool.greeted();
  await client.send(option(NBD_OPT_ABORT), option(NBD_OPT_LIST));
  assertEquals((await client.receiveOptionReply()).replyType, NBD_REP_ACK);
  assert(await client.isClosedByServer());
});

hostileTest(
  "INFO of one export, twice, and a GO that fails leave GO to another as it would be alone",
  async (pool) => {
    using client = await pool.greeted();
    const info = async (name: string) => (await client.negotiate(NBD_OPT_INFO, infoRequest(name)))[0]!.data;
    assertEquals(await info("small"), await info("small"));
    assertEquals(await client.outcome(NBD_OPT_GO, infoRequest("nothing")), NBD_REP_ERR_UNKNOWN);
    const status = await pool.process.command({ verb: "status" });
    assert(status.kind === "status" && status.status.attached === 0, "INFO or a failed GO attached somebody");
    assertEquals((await client.go("disk")).sizeBytes, diskBytes);
    await client.disconnect();
  },
);

hostileTest("STRUCTURED_REPLY twice is acknowledged twice, and holds", async (pool) => {
  using client = await pool.greeted();
  await client.negotiateStructuredReplies();
  await client.negotiateStructuredReplies();
  await client.go("disk");
  const reply = await client.perform({ type: NBD_CMD_READ, lengthBytes: 512 });
  assertEquals(reply.chunks.length, 1);
  await client.disconnect();
});

hostileTest("STRUCTURED_REPLY with data negotiates nothing", async (pool) => {
  using client = await pool.greeted();
  assertEquals(await client.outcome(NBD_OPT_STRUCTURED_REPLY, zeroes(8)), NBD_REP_ERR_INVALID);
  await client.go("disk");
  // The client is strict: it takes no chunk for an answer.
  assertEquals((await client.perform({ type: NBD_CMD_READ, lengthBytes: 512 })).chunks.length, 0);
  await client.disconnect();
});

hostileTest("30,000 info types of a GO are answered once each, those that are known", async (pool) => {
  using client = await pool.greeted();
  const wanted = Array.from({ length: 30_000 }, (_, i) => i % 7 === 0 ? NBD_INFO_BLOCK_SIZE : i % 5000);
  const replies = await client.negotiate(NBD_OPT_GO, infoRequest("disk", wanted));
  const types = replies.slice(0, -1).map((reply) => reply.data[1]!);
  assertEquals([types[0], types.toSorted()], [NBD_INFO_EXPORT, [0, 1, 2, 3]]);
  await client.send(zeroes(1));
});

hostileTest("a thousand options in one packet are each answered, in order", async (pool) => {
  using client = await pool.greeted();
  const order = Array.from({ length: 1000 }, (_, i) => [99, NBD_OPT_LIST, NBD_OPT_INFO, 2 ** 31][i % 4]!);
  await client.send(
    ...order.map((number) => option(number, number === NBD_OPT_INFO ? infoRequest("disk") : undefined)),
  );
  for (const number of order) {
    const types: number[] = [];
    do {
      const reply = await client.receiveOptionReply();
      assertEquals(reply.option, number, `a reply to ${optionName(reply.option)}`);
      types.push(reply.replyType);
    } while (types.at(-1) === NBD_REP_SERVER || types.at(-1) === NBD_REP_INFO);
    const success = number === NBD_OPT_LIST ? [2, 2, 2, 2, 2, 1] : [NBD_REP_INFO, NBD_REP_ACK];
    assertEquals(types, number === NBD_OPT_LIST || number === NBD_OPT_INFO ? success : [NBD_REP_ERR_UNSUP]);
  }
  await requireInStep(client);
});

hostileTest("a READ that comes in one packet with its GO is answered behind it", async (pool) => {
  using client = await pool.connect();
  await client.receiveOpening();
  const read = join(u32(0x25609513), u16(0), u16(0), u32(1), u32(2), u32(0), u32(0), u32(512));
  await client.send(u32(3), option(NBD_OPT_GO, infoRequest("disk")), read);
  assertEquals((await client.receiveOptionReply()).replyType, NBD_REP_INFO);
  assertEquals((await client.receiveOptionReply()).replyType, NBD_REP_ACK);
  assertEquals(await client.receive(16), join(u32(0x67446698), u32(0), u32(1), u32(2)));
  assertEquals(await client.receive(512), zeroes(512));
  await client.disconnect();
});

hostileTest("a handshake and a WRITE dribbled byte by byte go as any other", async (pool) => {
  using client = await pool.connect();
  await client.receiveOpening();
  const write = join(
    u32(0x25609513),
    u16(1),
    u16(1),
    u32(1),
    u32(2),
    u32(0),
    u32(65530),
    u32(12),
    bytes("byte by byte"),
  );
  const stream = join(u32(3), option(99, zeroes(10)), option(NBD_OPT_GO, infoRequest("disk")), write);
  for (const byte of stream) {
    await client.send(Uint8Array.of(byte));
    await pause(0);
  }
  const types = [];
  for (let i = 0; i < 3; i++) types.push((await client.receiveOptionReply()).replyType);
  assertEquals(types, [NBD_REP_ERR_UNSUP, NBD_REP_INFO, NBD_REP_ACK]);
  assertEquals(await client.receive(16), join(u32(0x67446698), u32(0), u32(1), u32(2)));
  assertEquals(await client.read(65530, 12), bytes("byte by byte"));
  await client.disconnect();
});
