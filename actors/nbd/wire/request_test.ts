import { assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
} from "./constants.ts";
import { RequestDecoder } from "./request.ts";
import {
  bytes,
  cut,
  extendedRequest,
  join,
  randomNumbers,
  request,
  split,
} from "../../../tests/nbd/wire_bytes.ts";

const mebibyte = 1024 * 1024;
const compact = { extendedHeaders: false };
const extended = { extendedHeaders: true };

interface Seen {
  type: number;
  flags: number;
  cookie: [number, number];
  offsetBytes: number;
  lengthBytes: number;
  payload: Uint8Array | undefined;
}

Deno.test("the fields of a request are decoded from their places", () => {
  const [seen] = decode([request({
    type: NBD_CMD_READ,
    flags: 0x8005,
    cookie: [0xfedc_ba98, 0x7654_3210],
    offset: [0x1f_ffff, 0xffff_fe00],
    length: 0xffff_fe00,
  })]);
  assertEquals(seen, {
    type: NBD_CMD_READ,
    flags: 0x8005,
    cookie: [0xfedc_ba98, 0x7654_3210],
    offsetBytes: 2 ** 53 - 512,
    lengthBytes: 0xffff_fe00,
    payload: undefined,
  });
});

Deno.test("an offset of 2^53 or more becomes Infinity", () => {
  assertEquals(decode([request({ offset: [0x20_0000, 0] })])[0]?.offsetBytes, Infinity);
  assertEquals(decode([request({ offset: [0xffff_ffff, 0xffff_fe00] })])[0]?.offsetBytes, Infinity);
});

Deno.test("every request of one chunk is found, a payload as a view of the chunk", () => {
  const chunk = join(
    request({ cookie: [0, 1] }),
    request({ type: NBD_CMD_WRITE, cookie: [0, 2], length: 5 }),
    bytes("hello"),
    request({ type: NBD_CMD_TRIM, cookie: [0, 3], length: 7 }),
    request({ type: NBD_CMD_DISC }),
  );
  const decoder = new RequestDecoder();
  decoder.push(chunk);
  const cookies: number[] = [];
  for (let step = decoder.next(); step !== "needBytes"; step = decoder.next()) {
    if (step === "header") decoder.accept();
    else cookies.push(decoder.request.cookieLow);
    if (step === "request" && decoder.request.type === NBD_CMD_WRITE) {
      assertEquals(decoder.request.payload, bytes("hello"));
      assertStrictEquals(decoder.request.payload?.buffer, chunk.buffer);
    }
  }
  assertEquals(cookies, [1, 2, 3, 0]);
});

Deno.test("a chunk that begins inside its buffer is decoded from its own beginning", () => {
  const padded = join(new Uint8Array(13), request({ type: NBD_CMD_WRITE, length: 3 }), bytes("abc"));
  assertEquals(decode([padded.subarray(13)]), decode([padded.slice(13)]));
});

Deno.test("requests dribbled byte by byte are the same as in one chunk", () => {
  const stream = mixedStream();
  assertEquals(decode([...stream].map((byte) => Uint8Array.of(byte))), decode([stream]));
});

Deno.test("requests cut at random places are the same as in one chunk", () => {
  const stream = mixedStream();
  const whole = decode([stream]);
  const random = randomNumbers(42);
  for (let round = 0; round < 500; round++) assertEquals(decode(cut(stream, random)), whole);
});

Deno.test("a decoder stays in front of a request until it is accepted", () => {
  const decoder = new RequestDecoder();
  decoder.push(join(request({ type: NBD_CMD_WRITE, length: 3 }), bytes("abc"), request({})));
  assertEquals([decoder.next(), decoder.next(), decoder.next()], ["header", "header", "header"]);
  assertEquals(decoder.request.payload, undefined);
  decoder.accept();
  assertEquals([decoder.next(), decoder.next()], ["request", "header"]);
});

Deno.test("a payload that spans chunks is assembled in the given buffer", () => {
  const decoder = new RequestDecoder();
  const buffer = new Uint8Array(6);
  decoder.push(join(request({ type: NBD_CMD_WRITE, length: 6 }), bytes("ab")));
  assertEquals(decoder.next(), "header");
  assertEquals(decoder.payloadInChunk, false);
  decoder.accept(buffer);
  assertEquals(decoder.next(), "needBytes");
  decoder.push(bytes("cdef"));
  assertEquals(decoder.next(), "request");
  assertStrictEquals(decoder.request.payload, buffer);
  assertEquals(buffer, bytes("abcdef"));
});

Deno.test("the rest of a large payload is taken where it was received, in pieces", () => {
  const decoder = new RequestDecoder();
  const buffer = new Uint8Array(100_000);
  decoder.push(join(request({ type: NBD_CMD_WRITE, length: buffer.length }), bytes("ab")));
  assertEquals(decoder.payloadRest, undefined);
  decoder.next();
  decoder.accept(buffer.subarray());
  assertEquals(decoder.next(), "needBytes");
  for (const [begin, pieceBytes, value] of [[2, 50_000, 1], [50_002, 49_990, 2]] as const) {
    const rest = decoder.payloadRest;
    assertEquals(rest?.byteOffset, begin);
    decoder.push(rest!.subarray(0, pieceBytes).fill(value));
    assertEquals(decoder.next(), "needBytes");
  }
  assertEquals(decoder.payloadRest, undefined);
  decoder.push(join(bytes("12345678"), request({})));
  assertEquals([decoder.next(), decoder.next()], ["request", "header"]);
  assertEquals([buffer[0], buffer[2], buffer[50_001], buffer[50_002], buffer[99_991]], [97, 1, 1, 2, 2]);
  assertEquals(buffer.subarray(-8), bytes("12345678"));
});

Deno.test("a payload in the chunk is copied if a buffer is given", () => {
  const decoder = new RequestDecoder();
  const buffer = new Uint8Array(3);
  decoder.push(join(request({ type: NBD_CMD_WRITE, length: 3 }), bytes("abc")));
  decoder.next();
  decoder.accept(buffer);
  assertEquals(decoder.next(), "request");
  assertEquals(buffer, bytes("abc"));
});

Deno.test("a payload that ends with the chunk is in the chunk", () => {
  const decoder = new RequestDecoder();
  decoder.push(join(request({ type: NBD_CMD_WRITE, length: 3 }), bytes("abc")));
  decoder.next();
  assertEquals(decoder.payloadInChunk, true);
});

Deno.test("a request without a payload does not keep that of the one before", () => {
  const stream = join(request({ type: NBD_CMD_WRITE, length: 1 }), bytes("a"), request({ length: 1 }));
  assertEquals(decode([stream]).map((r) => r.payload), [bytes("a"), undefined]);
});

Deno.test("a payload that has not arrived cannot be accepted as a view", () => {
  const decoder = new RequestDecoder();
  decoder.push(join(request({ type: NBD_CMD_WRITE, length: 3 }), bytes("ab")));
  decoder.next();
  assertThrows(() => decoder.accept());
});

Deno.test("a discarded payload is dropped and the next request is in step", () => {
  const stream = join(
    request({ type: NBD_CMD_WRITE, length: 1000 }),
    new Uint8Array(1000).fill(0x25),
    request({ cookie: [0, 9] }),
  );
  for (const pieceBytes of [1, 7, 28, 400, 5000]) {
    const seen = decode(split(stream, pieceBytes), { writes: "discard" });
    assertEquals(seen.map((r) => r.cookie[1]), [0, 9]);
    assertEquals(seen[0]?.payload, undefined);
  }
});

Deno.test("a WRITE of length 0 has an empty payload", () => {
  assertEquals(decode([request({ type: NBD_CMD_WRITE })])[0]?.payload, new Uint8Array(0));
});

Deno.test("an unknown command is taken to have no payload", () => {
  const seen = decode([join(request({ type: 99, length: 4096 }), request({ cookie: [0, 2] }))]);
  assertEquals(seen.map((r) => r.cookie[1]), [0, 2]);
});

Deno.test("a WRITE of 64 MiB is offered and a longer one is a violation", () => {
  const decoder = new RequestDecoder();
  decoder.push(request({ type: NBD_CMD_WRITE, length: 64 * mebibyte }));
  assertEquals(decoder.next(), "header");
  for (const length of [64 * mebibyte + 1, 0xffff_ffff]) {
    const strict = new RequestDecoder();
    strict.push(request({ type: NBD_CMD_WRITE, length }));
    assertEquals([strict.next(), strict.next()], ["violation", "violation"]);
    assertEquals(strict.violation, "a WRITE of more than 64 MiB");
  }
});

Deno.test("a READ of any length is no matter for the decoder", () => {
  assertEquals(decode([request({ length: 0xffff_ffff })])[0]?.lengthBytes, 0xffff_ffff);
});

Deno.test("a wrong magic is a violation", () => {
  const decoder = new RequestDecoder();
  const wrong = request({});
  wrong[3] = 0x14;
  decoder.push(wrong);
  assertEquals(decoder.next(), "violation");
});

Deno.test("no prefix of a request gives a step", () => {
  for (const [whole, form] of [[request({}), compact], [extendedRequest({}), extended]] as const) {
    for (let end = 0; end < whole.length; end++) {
      const decoder = new RequestDecoder(form);
      decoder.push(whole.subarray(0, end));
      assertEquals(decoder.next(), "needBytes");
    }
  }
});

Deno.test("the fields of an extended request are decoded from their places", () => {
  const [seen] = decode([extendedRequest({
    type: NBD_CMD_TRIM,
    flags: 0x8005,
    cookie: [0xfedc_ba98, 0x7654_3210],
    offset: [0x1f_ffff, 0xffff_fe00],
    length: 2 ** 53 - 1,
  })], { form: extended });
  assertEquals(seen, {
    type: NBD_CMD_TRIM,
    flags: 0x8005,
    cookie: [0xfedc_ba98, 0x7654_3210],
    offsetBytes: 2 ** 53 - 512,
    lengthBytes: 2 ** 53 - 1,
    payload: undefined,
  });
});

Deno.test("a length of 2^53 or more becomes Infinity", () => {
  for (const length of [[0x20_0000, 0], [0xffff_ffff, 0xffff_ffff]] as const) {
    assertEquals(decode([extendedRequest({ length })], { form: extended })[0]?.lengthBytes, Infinity);
  }
});

Deno.test("the halves of an offset are kept as they came", () => {
  const decoder = new RequestDecoder(extended);
  decoder.push(extendedRequest({ offset: [0xffff_ffff, 0xffff_fe00] }));
  decoder.next();
  assertEquals([decoder.request.offsetHigh, decoder.request.offsetLow], [0xffff_ffff, 0xffff_fe00]);
});

Deno.test("with extended headers a payload follows a WRITE, which qemu does not flag, and whatever has PAYLOAD_LEN", () => {
  const flags = NBD_CMD_FLAG_PAYLOAD_LEN;
  const stream = join(
    extendedRequest({ type: NBD_CMD_WRITE, flags, cookie: [0, 1], length: 5 }),
    bytes("hello"),
    extendedRequest({ type: NBD_CMD_WRITE, cookie: [0, 2], length: 5 }),
    bytes("qemu!"),
    extendedRequest({ type: NBD_CMD_BLOCK_STATUS, flags, cookie: [0, 3], length: 12 }),
    bytes("twelve bytes"),
    extendedRequest({ type: 99, flags, cookie: [0, 4], length: 3 }),
    bytes("abc"),
    extendedRequest({ type: NBD_CMD_READ, cookie: [0, 5], length: 4096 }),
  );
  for (const pieceBytes of [1, 7, 31, 1000]) {
    const seen = decode(split(stream, pieceBytes), { form: extended });
    assertEquals(seen.map((r) => r.cookie[1]), [1, 2, 3, 4, 5]);
    assertEquals(seen.map((r) => r.payload && new TextDecoder().decode(r.payload)), [
      "hello",
      "qemu!",
      "twelve bytes",
      "abc",
      undefined,
    ]);
  }
});

Deno.test("an extended payload of 32 MiB is offered and a longer one is a violation", () => {
  const flags = NBD_CMD_FLAG_PAYLOAD_LEN;
  const decoder = new RequestDecoder(extended);
  decoder.push(extendedRequest({ type: NBD_CMD_WRITE, flags, length: 32 * mebibyte }));
  assertEquals(decoder.next(), "header");
  for (const length of [32 * mebibyte + 1, [0xffff_ffff, 0xffff_ffff]] as const) {
    for (const type of [NBD_CMD_WRITE, NBD_CMD_READ, 99]) {
      const strict = new RequestDecoder(extended);
      strict.push(extendedRequest({ type, flags, length }));
      assertEquals(strict.next(), "violation");
      assertEquals(strict.violation, "a payload of more than 32 MiB");
    }
  }
});

Deno.test("each form of request is a violation where the other was agreed on", () => {
  const wrong = [[compact, extendedRequest({})], [extended, join(request({}), new Uint8Array(4))]] as const;
  for (const [form, sent] of wrong) {
    const decoder = new RequestDecoder(form);
    decoder.push(sent);
    assertEquals(decoder.next(), "violation");
  }
});

/** Runs the decoder over the chunks and copies what it finds; buffers are given only where they are needed. */
function decode(
  chunks: Iterable<Uint8Array>,
  { writes = "accept", form = compact }: { writes?: "accept" | "discard"; form?: typeof compact } = {},
): Seen[] {
  const decoder = new RequestDecoder(form);
  const seen: Seen[] = [];
  for (const chunk of chunks) {
    decoder.push(chunk);
    for (let step = decoder.next(); step !== "needBytes"; step = decoder.next()) {
      const current = decoder.request;
      if (step === "violation") throw new Error(decoder.violation);
      if (step === "header") {
        if (writes === "discard") decoder.discard();
        else if (decoder.payloadInChunk) decoder.accept();
        else decoder.accept(new Uint8Array(current.payloadBytes));
        continue;
      }
      seen.push({
        type: current.type,
        flags: current.flags,
        cookie: [current.cookieHigh, current.cookieLow],
        offsetBytes: current.offsetBytes,
        lengthBytes: current.lengthBytes,
        payload: current.payload?.slice(),
      });
    }
  }
  return seen;
}

function mixedStream(): Uint8Array {
  const random = randomNumbers(7);
  const parts: Uint8Array[] = [];
  for (let i = 0; i < 40; i++) {
    const isWrite = random() < 0.5;
    const length = Math.floor(random() * 300);
    parts.push(request({ type: isWrite ? NBD_CMD_WRITE : NBD_CMD_READ, cookie: [i, ~i >>> 0], length }));
    if (isWrite) parts.push(new Uint8Array(length).map(() => Math.floor(random() * 256)));
  }
  return join(...parts);
}
