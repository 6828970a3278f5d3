/** Transmission with extended headers: requests of 32 bytes, lengths of 64 bits, and chunks for every reply. */
import { assertEquals } from "@std/assert";
import {
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_EPERM,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
} from "./wire/constants.ts";
import type { SimulatedClient } from "../../tests/nbd/simulated_client.ts";
import { testBlockBytes, TestServer, testSizeBytes } from "../../tests/nbd/simulated_server.ts";
import { extendedRequest, join, request, u32, u64 } from "../../tests/nbd/wire_bytes.ts";

const block = testBlockBytes;
const TiB = 2 ** 40;

function send(type: number, cookie: number, offsetBytes = 0, length = 0, flags = 0): Uint8Array {
  const offset: readonly [number, number] = [Math.floor(offsetBytes / 2 ** 32), offsetBytes % 2 ** 32];
  return extendedRequest({ type, flags, cookie: [7, cookie], offset, length });
}

function write(cookie: number, offsetBytes: number, payload: Uint8Array, flags = 0): Uint8Array {
  return join(
    send(NBD_CMD_WRITE, cookie, offsetBytes, payload.length, flags | NBD_CMD_FLAG_PAYLOAD_LEN),
    payload,
  );
}

function outcomesOf(client: SimulatedClient): [number, number | string, number][] {
  return client.takeReplies().map(({ cookie, type, error }) => [cookie, type, error]);
}

for (const pieceBytes of [1, 33, Infinity]) {
  Deno.test(`what was written with extended headers is read back, received in pieces of ${pieceBytes}`, () => {
    const client = new TestServer().attach({ extended: true, pieceBytes });
    const data = Uint8Array.from({ length: 1000 }, (_, i) => i * 7);
    client.say(write(1, block - 500, data), send(NBD_CMD_READ, 2, block - 500, 1000));
    const [written, readBack] = client.takeReplies();
    assertEquals([written?.type, written?.isLast, written?.payload.length], [NBD_REPLY_TYPE_NONE, true, 0]);
    assertEquals([readBack?.type, readBack?.isLast], [NBD_REPLY_TYPE_OFFSET_DATA, true]);
    assertEquals(readBack?.payload, join(u64(block - 500), data));
  });
}

Deno.test("no reply is a simple one, and each repeats cookie and offset", () => {
  const client = new TestServer().attach({ extended: true });
  client.say(
    send(NBD_CMD_FLUSH, 1, 512, 77),
    send(NBD_CMD_TRIM, 2, block, block, NBD_CMD_FLAG_FUA),
    extendedRequest({
      type: 99,
      cookie: [0xffff_ffff, 3],
      offset: [0xffff_ffff, 0xffff_fe00],
      length: [0xffff_ffff, 1],
    }),
  );
  const empty = "0000000000000000";
  const sent = client.take(client.unreadBytes).toHex();
  const refused = "6e8a278c00018001" + "ffffffff00000003" + "fffffffffffffe00" + "0000000000000015" +
    "00000016000f" +
    new TextEncoder().encode("unknown command").toHex();
  assertEquals(sent.length, 2 * (32 + 32 + 32 + 21));
  assertEquals(sent.includes("6e8a278c00010000" + "0000000700000001" + "0000000000000200" + empty), true);
  assertEquals(sent.includes("6e8a278c00010000" + "0000000700000002" + "0000000000010000" + empty), true);
  assertEquals(sent.includes(refused), true);
});

Deno.test("holes of a READ go as holes, and with DF as zeroes", () => {
  const client = new TestServer().attach({ extended: true });
  client.say(write(1, 0, Uint8Array.of(1)), send(NBD_CMD_READ, 2, 0, 2 * block));
  client.say(send(NBD_CMD_READ, 3, 0, 2 * block, NBD_CMD_FLAG_DF), send(NBD_CMD_READ, 4, 0, 0));
  const replies = client.takeReplies().slice(1);
  assertEquals(replies.map(({ cookie, type, isLast }) => [cookie, type, isLast]), [
    [2, NBD_REPLY_TYPE_OFFSET_DATA, false],
    [2, NBD_REPLY_TYPE_OFFSET_HOLE, true],
    [3, NBD_REPLY_TYPE_OFFSET_DATA, true],
    [4, NBD_REPLY_TYPE_NONE, true],
  ]);
  assertEquals(replies[1]?.payload, join(u64(block), u32(block)));
});

Deno.test("TRIM, WRITE_ZEROES and CACHE of a terabyte are one request each", () => {
  const server = new TestServer();
  const large = server.pool.add("large", 2 * TiB);
  const client = server.attach({ name: "large", extended: true });
  large.volume.holdRequests = true;
  client.say(
    send(NBD_CMD_TRIM, 1, 512, TiB),
    send(NBD_CMD_WRITE_ZEROES, 2, TiB, TiB),
    send(NBD_CMD_CACHE, 3, 0, 2 * TiB),
  );
  const seen = large.volume.waiting.map((
    { kind, offsetBytes, lengthBytes },
  ) => [kind, offsetBytes, lengthBytes]);
  assertEquals(seen, [["discard", 512, TiB], ["writeZeroes", TiB, TiB]]);
  assertEquals(outcomesOf(client), [[3, NBD_REPLY_TYPE_NONE, 0]]);
});

Deno.test("what reaches beyond the end or wraps 64 bits is refused", () => {
  const server = new TestServer();
  const client = server.attach({ extended: true });
  const beyond = [testSizeBytes, 2 ** 53 - 1].map((length) => send(NBD_CMD_TRIM, 1, 1, length));
  const wrapping = extendedRequest({
    type: NBD_CMD_WRITE_ZEROES,
    cookie: [7, 2],
    offset: [0xffff_ffff, 0xffff_fe00],
    length: [0, 1024],
  });
  const endless = extendedRequest({
    type: NBD_CMD_WRITE_ZEROES,
    flags: NBD_CMD_FLAG_NO_HOLE,
    cookie: [7, 3],
    length: [0xffff_ffff, 0xffff_ffff],
  });
  client.say(...beyond, wrapping, endless, send(NBD_CMD_READ, 4, 0, 2 ** 40));
  assertEquals(outcomesOf(client), [
    [1, NBD_REPLY_TYPE_ERROR, NBD_EINVAL],
    [1, NBD_REPLY_TYPE_ERROR, NBD_EINVAL],
    [2, NBD_REPLY_TYPE_ERROR, NBD_ENOSPC],
    [3, NBD_REPLY_TYPE_ERROR, NBD_ENOSPC],
    [4, NBD_REPLY_TYPE_ERROR, NBD_EINVAL],
  ]);
  assertEquals(server.disk.volume.kinds, []);
});

Deno.test("a payload where none belongs is read, then refused, and the stream stays in step", () => {
  for (const pieceBytes of [1, 33, Infinity]) {
    const server = new TestServer();
    const client = server.attach({ extended: true, pieceBytes });
    const payload = new Uint8Array(1000).fill(0x21);
    for (const type of [NBD_CMD_READ, NBD_CMD_FLUSH, NBD_CMD_TRIM, NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES, 99]) {
      const sent = join(send(type, 1, 0, payload.length, NBD_CMD_FLAG_PAYLOAD_LEN), payload);
      client.say(sent.subarray(0, 1000));
      assertEquals(client.unreadBytes, 0);
      client.say(sent.subarray(1000));
      assertEquals(outcomesOf(client), [[1, NBD_REPLY_TYPE_ERROR, NBD_EINVAL]]);
    }
    assertEquals(server.disk.volume.kinds, []);
  }
});

Deno.test("a WRITE without PAYLOAD_LEN, as qemu sends it, is one with it, and the stream stays in step", () => {
  const server = new TestServer();
  const client = server.attach({ extended: true });
  client.say(send(NBD_CMD_WRITE, 1, 0, 512), new Uint8Array(512).fill(7), send(NBD_CMD_READ, 2, 0, 512));
  assertEquals(outcomesOf(client).map(([cookie, , error]) => [cookie, error]), [[1, 0], [2, 0]]);
  assertEquals(server.disk.volume.kinds, ["write", "read"]);
});

Deno.test("a WRITE to a read-only export is refused when its payload has been read", () => {
  const server = new TestServer();
  server.pool.add("ro", testSizeBytes, { readOnly: true });
  const client = server.attach({ name: "ro", extended: true });
  client.say(write(1, 0, new Uint8Array(4096)), send(NBD_CMD_READ, 2, 0, 512));
  assertEquals(outcomesOf(client).map(([cookie, , error]) => [cookie, error]), [[1, NBD_EPERM], [2, 0]]);
});

Deno.test("a payload above 32 MiB and a compact request end the connection, after the replies that are owed", () => {
  const tooLong = send(NBD_CMD_WRITE, 2, 0, 2 ** 25 + 1, NBD_CMD_FLAG_PAYLOAD_LEN);
  const reasons = [tooLong, join(request({}), new Uint8Array(4))].map((sent) => {
    const server = new TestServer();
    const client = server.attach({ extended: true });
    client.say(send(NBD_CMD_READ, 1, 0, 512), sent);
    assertEquals(client.takeReplies().map(({ cookie }) => cookie), [1]);
    assertEquals(client.closed, true);
    return server.log[1];
  });
  assertEquals(reasons, [
    "closing the connection from a simulated client: a payload of more than 32 MiB",
    "closing the connection from a simulated client: a request with a wrong magic",
  ]);
});

Deno.test("DISC with extended headers is not answered", () => {
  const client = new TestServer().attach({ extended: true });
  client.say(send(NBD_CMD_DISC, 1));
  assertEquals([client.closed, client.unreadBytes], [true, 0]);
});
