import { assertEquals } from "@std/assert";
import {
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_GO,
  NBD_OPT_LIST,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
} from "./constants.ts";
import { HandshakeDecoder, type HandshakeEvent } from "./handshake_codec.ts";
import { bytes, join, option, optionHeader, split, u32 } from "../../../tests/nbd/wire_bytes.ts";

const noBytes = new Uint8Array(0);
const unknownOption = 0x7777;
const fixedNewstyle = u32(3);
const flagsEvent: HandshakeEvent = { kind: "clientFlags", fixedNewstyle: true, noZeroes: true };

Deno.test("client flags and options arrive in order when they come in one chunk", () => {
  const stream = join(fixedNewstyle, option(NBD_OPT_LIST), option(NBD_OPT_GO, bytes("hello")));
  assertEquals(decode([stream]), [
    flagsEvent,
    { kind: "option", option: NBD_OPT_LIST, lengthBytes: 0, data: noBytes },
    { kind: "option", option: NBD_OPT_GO, lengthBytes: 5, data: bytes("hello") },
  ]);
});

Deno.test("a handshake dribbled byte by byte gives the same events", () => {
  const stream = join(
    fixedNewstyle,
    option(unknownOption, new Uint8Array(100)),
    option(NBD_OPT_STRUCTURED_REPLY),
    option(NBD_OPT_SET_META_CONTEXT, bytes("a".repeat(5000))),
    option(NBD_OPT_GO, bytes("x")),
  );
  const dribbled = [...stream].map((byte) => Uint8Array.of(byte));
  assertEquals(decode(dribbled), decode([stream]));
});

Deno.test("a client of the first newstyle may send an export name", () => {
  assertEquals(decode([join(u32(0), option(NBD_OPT_EXPORT_NAME, bytes("disk")))]), [
    { kind: "clientFlags", fixedNewstyle: false, noZeroes: false },
    { kind: "option", option: NBD_OPT_EXPORT_NAME, lengthBytes: 4, data: bytes("disk") },
  ]);
});

Deno.test("a client of the first newstyle that sends anything else is cut off", () => {
  assertEquals(lastKind([join(u32(0), option(NBD_OPT_LIST))]), "violation");
});

Deno.test("client flags that were not offered are a violation", () => {
  assertEquals(lastKind([u32(0xff)]), "violation");
  assertEquals(lastKind([u32(0x8000_0003)]), "violation");
});

Deno.test("an option with a wrong magic is a violation, and stays one", () => {
  const decoder = new HandshakeDecoder();
  decoder.push(join(fixedNewstyle, u32(IHAVEOPT_HIGH), u32(IHAVEOPT_LOW + 1), u32(NBD_OPT_LIST), u32(0)));
  decoder.next();
  assertEquals(decoder.next()?.kind, "violation");
  assertEquals(decoder.next()?.kind, "violation");
});

for (const length of [0, 1, 100, 70_000, 1024 * 1024]) {
  Deno.test(`an unknown option of ${length} bytes is drained and the next one is in step`, () => {
    const stream = join(
      fixedNewstyle,
      option(unknownOption, new Uint8Array(length).fill(0x49)),
      option(NBD_OPT_ABORT),
    );
    assertEquals(decode(split(stream, 4096)), [
      flagsEvent,
      {
        kind: "option",
        option: unknownOption,
        lengthBytes: length,
        data: length === 0 ? noBytes : undefined,
      },
      { kind: "option", option: NBD_OPT_ABORT, lengthBytes: 0, data: noBytes },
    ]);
  });
}

Deno.test("an option that announces more than 1 MiB is a violation before any of its data", () => {
  for (const length of [1024 * 1024 + 1, 33 * 1024 * 1024 + 1, 0xffff_ffff]) {
    for (const number of [unknownOption, NBD_OPT_GO, NBD_OPT_LIST]) {
      assertEquals(lastKind([join(fixedNewstyle, optionHeader(number, length))]), "violation");
    }
  }
});

Deno.test("an export name of 4096 bytes is taken and one of 4097 is a violation", () => {
  const longest = option(NBD_OPT_EXPORT_NAME, new Uint8Array(4096).fill(0x61));
  assertEquals(lastKind([join(fixedNewstyle, longest)]), "option");
  assertEquals(lastKind([join(fixedNewstyle, optionHeader(NBD_OPT_EXPORT_NAME, 4097))]), "violation");
});

Deno.test("a GO too long to make sense is drained, not collected", () => {
  const stream = join(fixedNewstyle, option(NBD_OPT_GO, new Uint8Array(100_000)), option(NBD_OPT_LIST));
  assertEquals(decode(split(stream, 10_000)).slice(1), [
    { kind: "option", option: NBD_OPT_GO, lengthBytes: 100_000, data: undefined },
    { kind: "option", option: NBD_OPT_LIST, lengthBytes: 0, data: noBytes },
  ]);
});

Deno.test("bytes behind an option are surplus until the next event is asked for", () => {
  const decoder = new HandshakeDecoder();
  decoder.push(join(fixedNewstyle, option(NBD_OPT_STARTTLS), bytes("injected")));
  decoder.next();
  assertEquals(decoder.next()?.kind, "option");
  assertEquals(decoder.surplusBytes, 8);
  assertEquals(decoder.takeSurplus(), bytes("injected"));
  assertEquals(decoder.surplusBytes, 0);
});

Deno.test("no prefix of a handshake gives more than the events it holds", () => {
  const stream = join(fixedNewstyle, option(NBD_OPT_GO, bytes("name")), option(NBD_OPT_LIST));
  const wholeAt = [4, 4 + 20, 4 + 20 + 16];
  for (let end = 0; end <= stream.length; end++) {
    assertEquals(decode([stream.subarray(0, end)]).length, wholeAt.filter((at) => at <= end).length);
  }
});

function decode(chunks: Iterable<Uint8Array>): HandshakeEvent[] {
  const decoder = new HandshakeDecoder();
  const events: HandshakeEvent[] = [];
  for (const chunk of chunks) {
    decoder.push(chunk);
    for (let event = decoder.next(); event !== undefined; event = decoder.next()) {
      events.push(event);
      if (event.kind === "violation") return events;
    }
  }
  return events;
}

function lastKind(chunks: Iterable<Uint8Array>): string | undefined {
  return decode(chunks).at(-1)?.kind;
}
