/** Clients that break the rules of metadata contexts and extended headers. */
import { requestBytesMax } from "../../actors/limits.ts";
import { assert, assertEquals } from "@std/assert";
import {
  errorName,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_ERR_EXT_HEADER_REQD,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_TOO_BIG,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_META_CONTEXT,
  optionReplyName,
} from "../../actors/nbd/wire/constants.ts";
import { diskBytes, HostilePool, hostileTest, hugeBytes, pattern } from "./hostile_pool.ts";
import { metaContextRequest, RawClient } from "./raw_client.ts";
import { bytes, extendedRequest, join, request, string, u32, u64 } from "./wire_bytes.ts";

const allocation = "base:allocation";
const zeroes = (length: number) => new Uint8Array(length);
const maxU32 = 2 ** 32 - 1;

/** Options that select nothing, and how they are refused. */
const refused: readonly (readonly [what: string, data: Uint8Array, reply: number])[] = [
  ["nothing at all", zeroes(0), NBD_REP_ERR_INVALID],
  ["a name without a count", string("disk"), NBD_REP_ERR_INVALID],
  ["a count of 2^32 - 1 queries", join(string("disk"), u32(maxU32)), NBD_REP_ERR_INVALID],
  [
    "a count of 2^30 queries, 4 GiB of lengths",
    join(string("disk"), u32(2 ** 30), zeroes(64)),
    NBD_REP_ERR_INVALID,
  ],
  [
    "a query longer than the rest",
    join(string("disk"), u32(1), u32(16), bytes(allocation)),
    NBD_REP_ERR_INVALID,
  ],
  ["a query of 2^32 - 1 bytes", join(string("disk"), u32(1), u32(maxU32)), NBD_REP_ERR_INVALID],
  ["a query of 5000 bytes", metaContextRequest("disk", ["a".repeat(5000)]), NBD_REP_ERR_INVALID],
  ["a query with a NUL", metaContextRequest("disk", [`${allocation}\0`]), NBD_REP_ERR_INVALID],
  [
    "a query that is not UTF-8",
    join(string("disk"), u32(1), u32(2), Uint8Array.of(0xff, 0x3a)),
    NBD_REP_ERR_INVALID,
  ],
  ["4 bytes too many", join(metaContextRequest("disk", [allocation]), zeroes(4)), NBD_REP_ERR_INVALID],
  ["1 byte too many", join(metaContextRequest("disk", []), zeroes(1)), NBD_REP_ERR_INVALID],
  ["a name of 2^32 - 1 bytes", join(u32(maxU32), u32(0)), NBD_REP_ERR_INVALID],
  ["an export that is not there", metaContextRequest("nothing", [allocation]), NBD_REP_ERR_UNKNOWN],
  ["the empty name among several volumes", metaContextRequest("", [allocation]), NBD_REP_ERR_UNKNOWN],
  ["65 queries", metaContextRequest("disk", Array(65).fill(allocation)), NBD_REP_ERR_TOO_BIG],
  ["5000 queries", metaContextRequest("disk", Array(5000).fill(allocation)), NBD_REP_ERR_TOO_BIG],
  ["60,000 empty queries", metaContextRequest("disk", Array(60_000).fill("")), NBD_REP_ERR_TOO_BIG],
  ["1 MiB of queries", metaContextRequest("disk", Array(250).fill("b".repeat(4096))), NBD_REP_ERR_TOO_BIG],
];

Deno.test("a selection that fails is drained, and takes the one before with it", async (t) => {
  await using pool = await HostilePool.serve();
  for (const [what, data, reply] of refused) {
    await t.step(`SET_META_CONTEXT with ${what} is ${optionReplyName(reply)}`, async () => {
      using client = await selecting(pool, "disk");
      assertEquals(
        optionReplyName(await client.outcome(NBD_OPT_SET_META_CONTEXT, data)),
        optionReplyName(reply),
      );
      assertEquals(await client.outcome(NBD_OPT_LIST_META_CONTEXT, data), reply, "LIST_META_CONTEXT too");
      await client.go("disk");
      await requireNoStatus(client);
      await client.disconnect();
    });
  }
  await pool.requireUnharmed();
});

/** A client with structured replies that has selected the allocation of an export. */
async function selecting(pool: HostilePool, name: string): Promise<RawClient> {
  const client = await pool.greeted();
  await client.negotiateStructuredReplies();
  const replies = await client.negotiate(NBD_OPT_SET_META_CONTEXT, metaContextRequest(name, [allocation]));
  assertEquals(replies.map((each) => each.replyType), [NBD_REP_META_CONTEXT, NBD_REP_ACK]);
  return client;
}

async function requireNoStatus(client: RawClient): Promise<void> {
  const reply = await client.perform({ type: NBD_CMD_BLOCK_STATUS, lengthBytes: 4096 });
  assertEquals(errorName(reply.error), errorName(NBD_EINVAL));
  assertEquals((await client.read(0, 512)).length, 512);
}

hostileTest("SET_META_CONTEXT before structured replies is invalid", async (pool) => {
  using client = await pool.greeted();
  const outcome = () => client.outcome(NBD_OPT_SET_META_CONTEXT, metaContextRequest("disk", [allocation]));
  assertEquals(await outcome(), NBD_REP_ERR_INVALID);
  await client.negotiateStructuredReplies();
  await client.go("disk");
  await requireNoStatus(client);
  await client.disconnect();
});

hostileTest("64 times the same query select one context", async (pool) => {
  using client = await pool.greeted();
  await client.negotiateStructuredReplies();
  const queries = Array<string>(64).fill(allocation);
  const replies = await client.negotiate(NBD_OPT_SET_META_CONTEXT, metaContextRequest("disk", queries));
  assertEquals(replies.map((reply) => reply.replyType), [NBD_REP_META_CONTEXT, NBD_REP_ACK]);
  await client.go("disk");
  assertEquals((await client.perform({ type: NBD_CMD_BLOCK_STATUS, lengthBytes: 1 })).chunks.length, 1);
  await client.disconnect();
});

hostileTest("a selection for one export is none for another", async (pool) => {
  using client = await selecting(pool, "small");
  await client.go("disk");
  await requireNoStatus(client);
  await client.disconnect();
});

/** Lengths and flags of a block status chunk. */
function extentsOf(payload: Uint8Array): (readonly [number, number])[] {
  const view = new DataView(payload.buffer, payload.byteOffset);
  const count = (payload.length - 4) / 8;
  return Array.from({ length: count }, (_, i) => [view.getUint32(4 + 8 * i), view.getUint32(8 + 8 * i)]);
}

hostileTest(
  "BLOCK_STATUS of 4 GiB less a byte is one hole of at most 32 bits, wherever it begins",
  async (pool) => {
    using client = await selecting(pool, "huge");
    await client.go("huge");
    for (const offsetBytes of [0, 1, 65535, 2 ** 32 - 1, 2 ** 39 + 7]) {
      const reply = await client.perform({ type: NBD_CMD_BLOCK_STATUS, offsetBytes, lengthBytes: maxU32 });
      assertEquals([reply.error, reply.chunks.length], [0, 1]);
      const extents = extentsOf(reply.chunks[0]!.payload);
      assert(extents.length >= 1 && extents.every(([length, flags]) => length > 0 && flags === 3));
      assert(extents.slice(0, -1).reduce((sum, [length]) => sum + length, 0) < maxU32, "an extent too many");
    }
    const past = { offsetBytes: hugeBytes - 1, lengthBytes: 2 };
    assertEquals((await client.perform({ type: NBD_CMD_BLOCK_STATUS, ...past })).error, NBD_EINVAL);
    await client.disconnect();
  },
);

hostileTest(
  "BLOCK_STATUS of a checkered volume alternates, and REQ_ONE is one extent inside",
  async (pool) => {
    using client = await selecting(pool, "disk");
    await client.go("disk");
    for (let block = 0; block < 40; block += 2) await client.write(block * 65536 + 100, bytes("x"));
    const range = { offsetBytes: 1, lengthBytes: 40 * 65536 - 1 };
    const reply = await client.perform({ type: NBD_CMD_BLOCK_STATUS, ...range });
    const extents = extentsOf(reply.chunks[0]!.payload);
    assertEquals(extents.slice(0, 3), [[65535, 0], [65536, 3], [65536, 0]]);
    assertEquals(extents.length, 40);
    const one = await client.perform({
      type: NBD_CMD_BLOCK_STATUS,
      flags: NBD_CMD_FLAG_REQ_ONE,
      offsetBytes: 70_000,
      lengthBytes: 100,
    });
    assertEquals(extentsOf(one.chunks[0]!.payload), [[100, 3]]);
    await client.disconnect();
  },
);

hostileTest("two contexts are answered with a chunk each, and the last is marked", async (pool) => {
  using client = await pool.greeted();
  await client.negotiateStructuredReplies();
  const wanted = metaContextRequest("small", ["qemu:dirty-bitmap:monday", allocation, "base:nothing", "x"]);
  const replies = await client.negotiate(NBD_OPT_SET_META_CONTEXT, wanted);
  assertEquals(replies.length, 3);
  await client.go("small");
  await client.write(65536, bytes("dirty"));
  const { chunks } = await client.perform({ type: NBD_CMD_BLOCK_STATUS, lengthBytes: 3 * 65536 });
  const extents = chunks.map(({ isLast, payload }) => [payload[3], isLast, extentsOf(payload)]);
  const dirty = [[65536, 0], [65536, 1], [65536, 0]];
  assertEquals(extents.map(([, isLast]) => isLast), [false, true]);
  assert(
    extents.some(([, , found]) => JSON.stringify(found) === JSON.stringify(dirty)),
    JSON.stringify(extents),
  );
  await client.disconnect();
});

// Extended headers.

/** A client with extended headers, in transmission. */
async function extended(pool: HostilePool, name: string, ...queries: string[]): Promise<RawClient> {
  const client = await pool.greeted();
  assertEquals(await client.outcome(NBD_OPT_EXTENDED_HEADERS), NBD_REP_ACK);
  if (queries.length > 0) {
    await client.outcome(NBD_OPT_SET_META_CONTEXT, metaContextRequest(name, queries));
  }
  await client.go(name);
  return client;
}

type ExtendedFields = NonNullable<Parameters<typeof extendedRequest>[0]>;

/** The error of one request, or 0. Its reply is one extended chunk, the last. */
async function errorOf(
  client: RawClient,
  fields: ExtendedFields,
  payload: Uint8Array = zeroes(0),
): Promise<number> {
  const cookie = [0x01020304, 0xfffefdfc] as const;
  await client.send(extendedRequest({ ...fields, cookie }), payload);
  const view = viewOf(await client.receive(32));
  const [high, low] = fields.offset ?? [0, 0];
  const header = [0, 8, 12, 16, 20, 24].map((at) => view.getUint32(at));
  assertEquals(header, [0x6e8a278c, ...cookie, high, low, 0]);
  assertEquals(view.getUint16(4), 1, "the last chunk");
  const body = await client.receive(view.getUint32(28));
  return view.getUint16(6) >= 0x8000 ? viewOf(body).getUint32(0) : 0;
}

function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

const withPayload = NBD_CMD_FLAG_PAYLOAD_LEN;
const status = { type: NBD_CMD_BLOCK_STATUS, flags: withPayload };
const scope = (lengthBytes: number, ...ids: number[]) => join(u64(lengthBytes), ...ids.map(u32));
const tooFar = [maxU32, maxU32] as const;

const extendedCases:
  readonly (readonly [what: string, ExtendedFields, payload: Uint8Array, error: number])[] = [
    ["WRITE with its payload", { type: NBD_CMD_WRITE, flags: withPayload, length: 5 }, bytes("write"), 0],
    // qemu sends it so.
    ["WRITE with its payload and without PAYLOAD_LEN", { type: NBD_CMD_WRITE, length: 5 }, bytes("write"), 0],
    ["WRITE of nothing with PAYLOAD_LEN", { type: NBD_CMD_WRITE, flags: withPayload }, zeroes(0), 0],
    ["WRITE at 2^64 - 1", { type: 1, flags: withPayload, offset: tooFar, length: 1 }, zeroes(1), NBD_ENOSPC],
    ["READ with a payload", { type: NBD_CMD_READ, flags: withPayload, length: 99 }, zeroes(99), NBD_EINVAL],
    ["FLUSH with a payload", { type: NBD_CMD_FLUSH, flags: withPayload, length: 7 }, zeroes(7), NBD_EINVAL],
    [
      "TRIM with 1 MiB of payload",
      { type: NBD_CMD_TRIM, flags: withPayload, length: 2 ** 20 },
      zeroes(2 ** 20),
      NBD_EINVAL,
    ],
    ["an unknown command with a payload", { type: 77, flags: withPayload, length: 3 }, zeroes(3), NBD_EINVAL],
    ["READ of 2^64 - 1 bytes", { type: NBD_CMD_READ, length: tooFar }, zeroes(0), NBD_EINVAL],
    ["READ of 2^32 and 512 bytes", { type: NBD_CMD_READ, length: [1, 512] }, zeroes(0), NBD_EINVAL],
    ["TRIM of 2^64 - 1 bytes", { type: NBD_CMD_TRIM, length: tooFar }, zeroes(0), NBD_EINVAL],
    [
      "TRIM whose end wraps to 512",
      { type: 4, offset: [maxU32, maxU32 - 511], length: 1024 },
      zeroes(0),
      NBD_EINVAL,
    ],
    [
      "WRITE_ZEROES of 2^63 bytes",
      { type: NBD_CMD_WRITE_ZEROES, length: [2 ** 31, 0] },
      zeroes(0),
      NBD_ENOSPC,
    ],
    ["CACHE of 2^53 bytes", { type: NBD_CMD_CACHE, length: [2 ** 21, 0] }, zeroes(0), NBD_EINVAL],
    ["BLOCK_STATUS of 2^64 - 1 bytes", { type: 7, length: tooFar }, zeroes(0), NBD_EINVAL],
    ["BLOCK_STATUS of one context", { ...status, length: 12 }, scope(512, 1), 0],
    ["BLOCK_STATUS of an unknown context", { ...status, length: 12 }, scope(512, 9), NBD_EINVAL],
    ["BLOCK_STATUS of context 0", { ...status, length: 12 }, scope(512, 0), NBD_EINVAL],
    ["BLOCK_STATUS of one context twice", { ...status, length: 16 }, scope(512, 1, 1), NBD_EINVAL],
    [
      "BLOCK_STATUS of a known and an unknown one",
      { ...status, length: 16 },
      scope(512, 1, 2 ** 31),
      NBD_EINVAL,
    ],
    ["BLOCK_STATUS of no context", { ...status, length: 8 }, scope(512), NBD_EINVAL],
    ["BLOCK_STATUS with half an id", { ...status, length: 14 }, zeroes(14), NBD_EINVAL],
    [
      "BLOCK_STATUS with 32 MiB of ids",
      { ...status, length: requestBytesMax },
      zeroes(requestBytesMax),
      NBD_EINVAL,
    ],
    ["BLOCK_STATUS of a context and nothing", { ...status, length: 12 }, scope(0, 1), NBD_EINVAL],
    ["BLOCK_STATUS beyond the end", { ...status, length: 12 }, scope(diskBytes + 1, 1), NBD_EINVAL],
  ];

Deno.test("extended requests that break a rule get their error, and the stream stays in step", async (t) => {
  await using pool = await HostilePool.serve();
  for (const [what, fields, payload, error] of extendedCases) {
    await t.step(`${what} is ${error === 0 ? "done" : errorName(error)}`, async () => {
      using client = await extended(pool, "disk", allocation);
      assertEquals(errorName(await errorOf(client, fields, payload)), errorName(error));
      assertEquals(await errorOf(client, { type: NBD_CMD_FLUSH }), 0);
      await client.send(extendedRequest({ type: NBD_CMD_DISC }));
      assert(await client.isClosedByServer());
    });
  }
  await pool.requireUnharmed();
});

hostileTest(
  "a payload of more than 32 MiB, and a compact request, end an extended connection",
  async (pool) => {
    const sent = [
      extendedRequest({ type: NBD_CMD_WRITE, flags: withPayload, length: requestBytesMax + 1 }),
      extendedRequest({ type: NBD_CMD_WRITE, length: [2 ** 31, 0] }),
      extendedRequest({ type: NBD_CMD_READ, flags: withPayload, length: tooFar }),
      request({ type: NBD_CMD_FLUSH, length: 0 }),
    ];
    for (const bad of sent) {
      using client = await extended(pool, "disk");
      await client.send(bad, zeroes(64));
      assert(await client.isClosedByServer());
    }
  },
);

hostileTest("after EXTENDED_HEADERS, STRUCTURED_REPLY is refused and EXPORT_NAME ends it", async (pool) => {
  using client = await pool.greeted();
  assertEquals(await client.outcome(NBD_OPT_EXTENDED_HEADERS), NBD_REP_ACK);
  assertEquals(await client.outcome(NBD_OPT_STRUCTURED_REPLY), NBD_REP_ERR_EXT_HEADER_REQD);
  await client.sendOption(NBD_OPT_EXPORT_NAME, bytes("disk"));
  assert(await client.isClosedByServer());
});

hostileTest("one request trims a volume of 1 TiB while another client is served", async (pool) => {
  using client = await extended(pool, "huge");
  using other = await pool.attach("small");
  const content = pattern(4096, 3);
  const begunMs = performance.now();
  const trimming = errorOf(client, {
    type: NBD_CMD_TRIM,
    offset: [0, 1],
    length: [2 ** 8 - 1, maxU32 - 512],
  });
  await other.write(8192, content);
  assertEquals(await other.read(8192, 4096), content);
  assertEquals(await trimming, 0);
  assert(performance.now() - begunMs < 5000, "it took more than 5 s");
  await other.disconnect();
});
