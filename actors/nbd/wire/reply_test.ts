import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import {
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_OPT_GO,
  NBD_OPT_LIST,
  NBD_OPT_SET_META_CONTEXT,
  NBD_REP_ERR_UNKNOWN,
} from "./constants.ts";
import { OptionReplyWriter } from "./option_reply.ts";
import { OutputQueue } from "./output_queue.ts";
import { copied } from "./pieces.ts";
import { ReplyWriter } from "./reply.ts";
import { bytes, join } from "../../../tests/nbd/wire_bytes.ts";

const echo = {
  cookieHigh: 0xfedc_ba98,
  cookieLow: 0x7654_3210,
  offsetHigh: 0xffff_ffff,
  offsetLow: 0xffff_fe00,
};
const cookieHex = "fedcba9876543210";
/** Nobody's volume reaches there, and it comes back all the same. */
const offsetHex = "fffffffffffffe00";
const compactForm = { structured: false, extendedHeaders: false };
const structuredForm = { structured: true, extendedHeaders: false };
const extendedForm = { structured: true, extendedHeaders: true };

Deno.test("a simple reply has the specified bytes", () => {
  assertWire(simple((w) => w.success(echo)), `67446698 00000000 ${cookieHex}`);
  assertWire(simple((w) => w.failure(echo, NBD_ENOSPC, "full")), `67446698 0000001c ${cookieHex}`);
});

Deno.test("a simple READ reply is its header and the data", () => {
  assertWire(
    simple((w) => w.readData(echo, 4096, bytes("abc"))),
    `67446698 00000000 ${cookieHex} 616263`,
  );
  assertWire(
    simple((w) => w.readData(echo, 0, new Uint8Array(0))),
    `67446698 00000000 ${cookieHex}`,
  );
});

Deno.test("success of a command without data is a simple reply also with structured replies", () => {
  assertWire(structured((w) => w.success(echo)), `67446698 00000000 ${cookieHex}`);
});

Deno.test("a structured READ reply is one last data chunk with a 64-bit offset", () => {
  assertWire(
    structured((w) => w.readData(echo, 2 ** 53 - 512, bytes("abc"))),
    `668e33ef 0001 0001 ${cookieHex} 0000000b 001ffffffffffe00 616263`,
  );
});

Deno.test("a structured READ of nothing is one NONE chunk", () => {
  assertWire(
    structured((w) => w.readData(echo, 0, new Uint8Array(0))),
    `668e33ef 0001 0000 ${cookieHex} 00000000`,
  );
});

Deno.test("chunks of one READ carry data and holes, the last one marked", () => {
  assertWire(
    structured((w) => {
      w.dataChunk(echo, 0x1_0000_0000, bytes("a"), false);
      w.holeChunk(echo, 0x1_0000_0001, 0x1ff, true);
    }),
    `668e33ef 0000 0001 ${cookieHex} 00000009 0000000100000000 61 ` +
      `668e33ef 0001 0002 ${cookieHex} 0000000c 0000000100000001 000001ff`,
  );
});

Deno.test("a structured failure is one last error chunk with its text", () => {
  assertWire(
    structured((w) => w.failure(echo, NBD_EINVAL, "no")),
    `668e33ef 0001 8001 ${cookieHex} 00000008 00000016 0002 6e6f`,
  );
});

Deno.test("chunks without structured replies are a defect", () => {
  assertThrows(() => simple((w) => w.holeChunk(echo, 0, 1, true)));
});

Deno.test("with extended headers every reply is an extended chunk with the offset of its request", () => {
  const header = (flags: string, type: string) => `6e8a278c ${flags} ${type} ${cookieHex} ${offsetHex}`;
  assertWire(extended((w) => w.success(echo)), `${header("0001", "0000")} 0000000000000000`);
  assertWire(
    extended((w) => w.failure(echo, NBD_EINVAL, "no")),
    `${header("0001", "8001")} 0000000000000008 00000016 0002 6e6f`,
  );
  assertWire(
    extended((w) => w.readData(echo, 4096, bytes("abc"))),
    `${header("0001", "0001")} 000000000000000b 0000000000001000 616263`,
  );
  assertWire(
    extended((w) => w.readData(echo, 4096, new Uint8Array(0))),
    `${header("0001", "0000")} 0000000000000000`,
  );
  assertWire(
    extended((w) => w.holeChunk(echo, 0x1_0000_0001, 0x1ff, false)),
    `${header("0000", "0002")} 000000000000000c 0000000100000001 000001ff`,
  );
});

Deno.test("a block status has 32-bit descriptors in a structured reply", () => {
  const descriptors = [{ lengthBytes: 65536, flags: 3 }, { lengthBytes: 0xffff_0000, flags: 0 }];
  assertWire(
    structured((w) => w.blockStatus(echo, 7, descriptors, true)),
    `668e33ef 0001 0005 ${cookieHex} 00000014 00000007 00010000 00000003 ffff0000 00000000`,
  );
});

Deno.test("a block status has a count and 64-bit descriptors in an extended reply", () => {
  const descriptors = [{ lengthBytes: 65536, flags: 3 }, { lengthBytes: 2 ** 40, flags: 0 }];
  assertWire(
    extended((w) => w.blockStatus(echo, 7, descriptors, false)),
    `6e8a278c 0000 0006 ${cookieHex} ${offsetHex} 0000000000000028 00000007 00000002 ` +
      "0000000000010000 0000000000000003 0000010000000000 0000000000000000",
  );
});

Deno.test("an extent that its descriptor cannot hold is a defect", () => {
  assertThrows(() => structured((w) => w.blockStatus(echo, 1, [{ lengthBytes: 2 ** 32, flags: 0 }], true)));
  for (const write of [structured, extended]) {
    assertThrows(() => write((w) => w.blockStatus(echo, 1, [{ lengthBytes: 0, flags: 0 }], true)));
    assertThrows(() => write((w) => w.blockStatus(echo, 1, [], true)));
  }
});

Deno.test("the opening has the specified bytes", () => {
  assertWire(options((w) => w.opening()), "4e42444d41474943 49484156454f5054 0003");
});

Deno.test("option replies have the specified bytes", () => {
  const magic = "0003e889045565a9";
  assertWire(options((w) => w.ack(NBD_OPT_GO)), `${magic} 00000007 00000001 00000000`);
  assertWire(
    options((w) => w.error(NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, "no")),
    `${magic} 00000007 80000006 00000002 6e6f`,
  );
  assertWire(
    options((w) => w.server(NBD_OPT_LIST, "ab", "cde")),
    `${magic} 00000003 00000002 00000009 00000002 6162 636465`,
  );
  assertWire(
    options((w) => w.infoExport(NBD_OPT_GO, 5 * 2 ** 32 + 1, 0xded)),
    `${magic} 00000007 00000003 0000000c 0000 0000000500000001 0ded`,
  );
  assertWire(
    options((w) => w.infoName(NBD_OPT_GO, "ab")),
    `${magic} 00000007 00000003 00000004 0001 6162`,
  );
  assertWire(
    options((w) => w.infoDescription(NBD_OPT_GO, "ab")),
    `${magic} 00000007 00000003 00000004 0002 6162`,
  );
  assertWire(
    options((w) => w.infoBlockSize(NBD_OPT_GO, { minimum: 1, preferred: 65536, maximum: 2 ** 25 })),
    `${magic} 00000007 00000003 0000000e 0003 00000001 00010000 02000000`,
  );
  assertWire(
    options((w) => w.metaContext(NBD_OPT_SET_META_CONTEXT, 7, "a:b")),
    `${magic} 0000000a 00000004 00000007 00000007 613a62`,
  );
});

Deno.test("an option error text is cut at 4096 bytes", () => {
  const queue = new OutputQueue();
  new OptionReplyWriter(queue).error(NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, "x".repeat(5000));
  assertEquals(queue.pendingBytes, 20 + 4096);
});

Deno.test("the EXPORT_NAME reply ends in 124 zero bytes unless the client waived them", () => {
  assertWire(options((w) => w.exportName(512, 0xd6d, true)), "0000000000000200 0d6d");
  assertWire(options((w) => w.exportName(512, 0xd6d, false)), "0000000000000200 0d6d " + "00".repeat(124));
});

Deno.test("the zero bytes of an EXPORT_NAME reply are zero in a block used before", () => {
  const queue = new OutputQueue();
  queue.append(new Uint8Array(1000).fill(0xff));
  copied(queue.take(), 0);
  queue.recycle();
  new OptionReplyWriter(queue).exportName(0, 0, false);
  assertEquals(join(...copied(queue.take(), 0)), new Uint8Array(134));
});

Deno.test("small replies of one drain leave as one segment", () => {
  const queue = new OutputQueue();
  const writer = new ReplyWriter(queue, compactForm);
  for (let i = 0; i < 32; i++) writer.readData(echo, 0, new Uint8Array(4096));
  assertEquals(queue.pendingBytes, 32 * (16 + 4096));
  assertEquals(copied(queue.take(), 0).map((segment) => segment.length), [32 * (16 + 4096)]);
  assertEquals(queue.pendingBytes, 0);
});

Deno.test("a large payload is queued as it is, between its neighbours", () => {
  const queue = new OutputQueue();
  const writer = new ReplyWriter(queue, structuredForm);
  const payload = new Uint8Array(2 ** 20);
  writer.success(echo);
  writer.readData(echo, 0, payload);
  writer.success(echo);
  const batch = copied(queue.take(), 0);
  assertEquals(batch.map((segment) => segment.length), [16 + 28, 2 ** 20, 16]);
  assertStrictEquals(batch[1], payload);
});

Deno.test("many blocks of output keep their order over many batches", () => {
  const queue = new OutputQueue();
  let next = 0;
  for (let batch = 0; batch < 5; batch++) {
    const expected: Uint8Array[] = [];
    for (let i = 0; i < 30; i++) {
      const payload = new Uint8Array(1000 * i * (batch + 1)).fill(++next);
      expected.push(payload);
      queue.append(payload);
    }
    assertEquals(queue.pendingBytes, join(...expected).length);
    assert(equal(join(...copied(queue.take(), 0)), join(...expected)));
    queue.recycle();
  }
});

Deno.test("what is queued while a batch is under way does not touch its bytes", () => {
  const queue = new OutputQueue();
  queue.append(bytes("first"));
  const batch = copied(queue.take(), 0);
  for (let i = 0; i < 20; i++) queue.append(new Uint8Array(60_000).fill(0x2a));
  assertEquals(join(...batch), bytes("first"));
  queue.recycle();
  assertEquals(join(...copied(queue.take(), 0)).length, 20 * 60_000);
});

Deno.test("a block is filled again once its batch was written", () => {
  const queue = new OutputQueue();
  queue.append(bytes("a"));
  const [first] = copied(queue.take(), 0);
  queue.recycle();
  queue.append(bytes("b"));
  assertStrictEquals(copied(queue.take(), 0)[0]?.buffer, first?.buffer);
});

Deno.test("a second batch before the first was written is a defect", () => {
  const queue = new OutputQueue();
  assertEquals(copied(queue.take(), 0), []);
  queue.append(bytes("a"));
  copied(queue.take(), 0);
  queue.append(bytes("b"));
  assertThrows(() => copied(queue.take(), 0));
});

/** `hex` may have spaces between fields. */
function assertWire(actual: string, hex: string): void {
  assertEquals(actual, hex.replaceAll(" ", ""));
}

function simple(write: (writer: ReplyWriter) => void): string {
  return written((queue) => write(new ReplyWriter(queue, compactForm)));
}

function structured(write: (writer: ReplyWriter) => void): string {
  return written((queue) => write(new ReplyWriter(queue, structuredForm)));
}

function extended(write: (writer: ReplyWriter) => void): string {
  return written((queue) => write(new ReplyWriter(queue, extendedForm)));
}

function options(write: (writer: OptionReplyWriter) => void): string {
  return written((queue) => write(new OptionReplyWriter(queue)));
}

/** What was queued, in hex. */
function written(write: (queue: OutputQueue) => void): string {
  const queue = new OutputQueue();
  write(queue);
  return join(...copied(queue.take(), 0)).toHex();
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
