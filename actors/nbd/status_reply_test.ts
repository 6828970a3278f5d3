/** Block status requests: what the volume is asked, and how its answer goes out. */
import { assertEquals } from "@std/assert";
import { thinId } from "../../storage/base/ids.ts";
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_TRIM,
  NBD_EINVAL,
  NBD_EIO,
  NBD_ESHUTDOWN,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
  NBD_REPLY_TYPE_ERROR,
} from "./wire/constants.ts";
import { command, read, type SimulatedClient, write } from "../../tests/nbd/simulated_client.ts";
import { testBlockBytes, TestServer, testSizeBytes } from "../../tests/nbd/simulated_server.ts";
import { extendedRequest, join, u32, u64 } from "../../tests/nbd/wire_bytes.ts";
import {
  borrowedBytesMax,
  connectionBytesMax,
  extentBytes,
  requestBytesMax,
  requestsPerConnectionMax,
  statusExtentsMax,
} from "../limits.ts";

const block = testBlockBytes;
const allocation = "base:allocation";
const monday = "qemu:dirty-bitmap:monday";

/** Block 2 is written, blocks 0 and 5 are dirty. */
function testServer(): TestServer {
  const server = new TestServer();
  server.disk.contexts.push({ name: monday, source: { kind: "dirty", thinId: thinId(7) } });
  server.disk.volume.dirty.add(0).add(5);
  const writer = server.attach();
  writer.say(write(1, 2 * block, new Uint8Array(block)));
  writer.reset();
  return server;
}

function status(cookie: number, offsetBytes: number, lengthBytes: number, flags = 0): Uint8Array {
  return command(NBD_CMD_BLOCK_STATUS, cookie, offsetBytes, lengthBytes, flags);
}

function extendedStatus(offsetBytes: number, lengthBytes: number, flags = 0): Uint8Array {
  const offset: readonly [number, number] = [Math.floor(offsetBytes / 2 ** 32), offsetBytes % 2 ** 32];
  return extendedRequest({ type: NBD_CMD_BLOCK_STATUS, flags, cookie: [7, 1], offset, length: lengthBytes });
}

/** A block status about some of the contexts. */
function filteredStatus(offsetBytes: number, lengthBytes: number, ...ids: number[]): Uint8Array {
  const payload = join(u64(lengthBytes), ...ids.map(u32));
  return join(extendedStatus(offsetBytes, payload.length, NBD_CMD_FLAG_PAYLOAD_LEN), payload);
}

/** Context id and descriptors of each chunk of a compact reply. */
function compactOf(client: SimulatedClient): number[][] {
  return client.takeReplies().map(({ type, payload }) => {
    assertEquals(type, NBD_REPLY_TYPE_BLOCK_STATUS);
    return wordsOf(payload);
  });
}

/** The same of an extended reply; all of its 64-bit numbers are below 2^32 here. */
function extendedOf(client: SimulatedClient): number[][] {
  return client.takeReplies().map(({ type, payload }) => {
    assertEquals(type, NBD_REPLY_TYPE_BLOCK_STATUS_EXT);
    const [id, count, ...rest] = wordsOf(payload);
    assertEquals(rest.length, 4 * count!);
    return [id!, ...rest.filter((_, i) => i % 2 === 1)];
  });
}

function wordsOf(payload: Uint8Array): number[] {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  return Array.from({ length: payload.length / 4 }, (_, i) => view.getUint32(4 * i));
}

Deno.test("a block status is one last chunk with runs of length and flags", () => {
  const client = testServer().attach({ contexts: [allocation] });
  client.say(status(1, block, 4 * block));
  const [reply, ...others] = client.takeReplies();
  assertEquals([reply?.type, reply?.isLast, others.length], [NBD_REPLY_TYPE_BLOCK_STATUS, true, 0]);
  assertEquals(reply?.payload, join(u32(1), u32(block), u32(3), u32(block), u32(0), u32(2 * block), u32(3)));
});

Deno.test("several contexts are one chunk each, the last one marked", () => {
  const client = testServer().attach({ contexts: [monday, allocation] });
  client.say(status(1, 0, 6 * block));
  const replies = client.takeReplies();
  assertEquals(replies.map(({ isLast }) => isLast), [false, true]);
  assertEquals(replies.map(({ payload }) => wordsOf(payload)), [
    [1, 2 * block, 3, block, 0, 3 * block, 3],
    [2, block, 1, 4 * block, 0, block, 1],
  ]);
});

Deno.test("the volume is asked about the sources of the contexts, in the order of their ids", () => {
  const server = testServer();
  const client = server.attach({ contexts: [monday, allocation] });
  client.say(status(1, 100, 1000));
  const [asked] = server.disk.volume.asked;
  assertEquals(asked?.sources, [{ kind: "allocation" }, { kind: "dirty", thinId: thinId(7) }]);
  assertEquals([asked?.offsetBytes, asked?.lengthBytes], [100, 1000]);
  assertEquals(asked?.extentsMax, statusExtentsMax / 2);
});

Deno.test("REQ_ONE asks for one extent of each context, FUA means nothing", () => {
  const client = testServer().attach({ contexts: [allocation, monday] });
  client.say(status(1, block, 4 * block, NBD_CMD_FLAG_REQ_ONE | NBD_CMD_FLAG_FUA));
  assertEquals(compactOf(client), [[1, block, 3], [2, 4 * block, 0]]);
});

Deno.test("bytes inside a block are told as they were asked for", () => {
  const client = testServer().attach({ contexts: [allocation] });
  client.say(status(1, 2 * block - 100, 200));
  assertEquals(compactOf(client), [[1, 100, 3, 100, 0]]);
});

for (const contexts of [[allocation], [allocation, monday]]) {
  Deno.test(`an answer has no more extents than allowed, in ${contexts.length} contexts`, () => {
    const server = testServer();
    for (let i = 1; i < 4000; i += 2) server.disk.volume.dirty.add(i);
    const client = server.attach({ contexts });
    const writes = Array.from({ length: 2000 }, (_, i) => write(i, 2 * i * block, Uint8Array.of(1)));
    client.say(...writes);
    client.takeReplies();
    client.say(status(1, 0, 4000 * block));
    const counts = compactOf(client).map((words) => (words.length - 1) / 2);
    assertEquals(counts, contexts.map(() => statusExtentsMax / contexts.length));
  });
}

Deno.test("a compact range near 4 GiB ends at a block, so that every length has 32 bits", () => {
  const server = new TestServer();
  server.pool.add("large", 2 ** 40);
  const client = server.attach({ name: "large", contexts: [allocation] });
  const lengths = [
    [0, 0xffff_ffff],
    [0, 2 ** 32 - block + 1],
    [0, 2 ** 32 - block],
    [512, 0xffff_fe00],
    [512, 0xffff_ffff],
  ].map(([offsetBytes, lengthBytes]) => {
    client.say(
      status(1, offsetBytes!, lengthBytes!),
      status(2, offsetBytes!, lengthBytes!, NBD_CMD_FLAG_REQ_ONE),
    );
    const [all, one] = compactOf(client);
    assertEquals(all, one);
    return all?.[1];
  });
  const whole = 2 ** 32 - block;
  assertEquals(lengths, [whole, whole, whole, 2 ** 32 - 512, 2 ** 32 - 512]);
});

Deno.test("an extended block status carries 64 bits and its request's offset", () => {
  const server = new TestServer();
  server.pool.add("large", 2 ** 40);
  const client = server.attach({ name: "large", contexts: [allocation], extended: true });
  client.say(extendedStatus(2 ** 33 + 512, 2 ** 39));
  assertEquals(
    client.take(client.unreadBytes).toHex(),
    "6e8a278c00010006" + "0000000700000001" + "0000000200000200" + "0000000000000018" +
      "00000001" + "00000001" + "0000008000000000" + "0000000000000003",
  );
});

Deno.test("a block status with a payload is about the contexts it names", () => {
  const client = testServer().attach({ contexts: [allocation, monday], extended: true });
  client.say(
    filteredStatus(0, 3 * block, 2),
    filteredStatus(0, 3 * block, 2, 1),
    filteredStatus(0, block, 1),
  );
  assertEquals(extendedOf(client), [
    [2, block, 1, 2 * block, 0],
    [2, block, 1, 2 * block, 0],
    [1, 2 * block, 3, block, 0],
    [1, block, 3],
  ]);
});

Deno.test("a block status with a wrong payload is refused when that is here, and the stream stays in step", () => {
  for (const pieceBytes of [1, 33, Infinity]) {
    const server = testServer();
    const client = server.attach({ contexts: [allocation, monday], extended: true, pieceBytes });
    const wrong = [
      filteredStatus(0, block),
      filteredStatus(0, block, 3),
      filteredStatus(0, block, 1, 1),
      filteredStatus(0, block, 1, 2, 2),
      filteredStatus(0, 0, 1),
      filteredStatus(testSizeBytes, 1, 1),
      join(extendedStatus(0, 100_000, NBD_CMD_FLAG_PAYLOAD_LEN), new Uint8Array(100_000)),
    ];
    for (const sent of wrong) {
      client.say(sent.subarray(0, sent.length - 1));
      assertEquals(client.unreadBytes, 0);
      client.say(sent.subarray(sent.length - 1));
      assertEquals(client.takeReplies().map(({ type, error }) => [type, error]), [[
        NBD_REPLY_TYPE_ERROR,
        NBD_EINVAL,
      ]]);
    }
    assertEquals(server.disk.volume.asked.length, 0);
    client.say(filteredStatus(0, block, 1));
    assertEquals(extendedOf(client), [[1, block, 3]]);
  }
});

Deno.test("what the volume cannot tell is an error, and the next is answered", () => {
  for (const extended of [false, true]) {
    const server = testServer();
    const client = server.attach({ contexts: [allocation], extended });
    const ask = extended ? extendedStatus(0, block) : status(1, 0, block);
    for (const [outcome, error] of [["ioError", NBD_EIO], ["outOfRange", NBD_EINVAL]] as const) {
      server.disk.volume.status = outcome;
      client.say(ask);
      assertEquals(client.takeReplies().map((reply) => reply.error), [error]);
    }
    server.disk.volume.status = "ok";
    client.say(ask);
    assertEquals(client.takeReplies().map((reply) => reply.error), [0]);
  }
});

Deno.test("block status requests pay for their extents until those have been sent", () => {
  const server = testServer();
  server.disk.volume.holdRequests = true;
  // Nothing is left to borrow.
  for (let i = 0; i < borrowedBytesMax / requestBytesMax; i++) {
    server.attach().say(read(1, 0, requestBytesMax));
  }
  const client = server.attach({ contexts: [allocation] });
  client.reads = false;
  const { waitingStatus } = server.disk.volume;
  const affordable = Math.floor(connectionBytesMax / (statusExtentsMax * extentBytes));
  client.say(...Array.from({ length: affordable + 1 }, (_, i) => status(i, 0, block)));
  assertEquals(waitingStatus.length, affordable);
  server.disk.volume.finishStatus(waitingStatus.shift()!);
  server.kernel.run();
  assertEquals([client.isSending, waitingStatus.length], [true, affordable - 1]);
  client.takeSend();
  assertEquals(waitingStatus.length, affordable);
});

Deno.test("REQ_ONE pays little, and as many may be in flight as of any request", () => {
  const server = testServer();
  const client = server.attach({ contexts: [allocation, monday] });
  server.disk.volume.holdRequests = true;
  const sent = Array.from({ length: 200 }, (_, i) => status(i, 0, block, NBD_CMD_FLAG_REQ_ONE));
  client.say(...sent);
  assertEquals(server.disk.volume.waitingStatus.length, requestsPerConnectionMax);
  server.finishAll();
  assertEquals(client.takeReplies().length, 2 * 200);
});

Deno.test("a client that vanishes is detached when its block status has come back", () => {
  const server = testServer();
  const client = server.attach({ contexts: [allocation] });
  server.disk.volume.holdRequests = true;
  client.say(status(1, 0, block));
  client.reset();
  assertEquals(server.disk.clients.size, 1);
  server.finishAll();
  assertEquals(server.disk.clients.size, 0);
});

Deno.test("a block status of an export that is going is refused, one in flight is answered", () => {
  const server = testServer();
  const client = server.attach({ contexts: [allocation], extended: true });
  server.disk.volume.holdRequests = true;
  const late = filteredStatus(0, block, 1);
  client.say(extendedStatus(0, block), late.subarray(0, 40));
  server.pool.tellClients(server.disk, { type: "exportGone", uid: server.disk.info.uid });
  client.say(late.subarray(40));
  assertEquals(client.takeReplies().map(({ error }) => error), [NBD_ESHUTDOWN]);
  server.finishAll();
  assertEquals(client.takeReplies().map(({ error }) => error), [0]);
  assertEquals([client.closed, server.disk.clients.size], [true, 0]);
});

Deno.test("a block status is checked against the size of the moment", () => {
  const server = testServer();
  const client = server.attach({ contexts: [allocation] });
  const { uid } = server.disk.info;
  server.pool.tellClients(server.disk, { type: "exportResized", uid, sizeBytes: block });
  client.say(
    status(1, 0, block + 1),
    status(2, 0, block),
    read(3, 0, 512),
    command(NBD_CMD_TRIM, 4, 0, block),
  );
  assertEquals(client.takeReplies().map(({ cookie, error }) => [cookie, error]), [[1, NBD_EINVAL], [2, 0], [
    3,
    0,
  ], [
    4,
    0,
  ]]);
});
