import { assertEquals } from "@std/assert";
import {
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_NAME,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_PEEK_EXPORT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_TOO_BIG,
  NBD_REP_ERR_UNSUP,
} from "./constants.ts";
import { decodeOption, type Option, quoted } from "./option.ts";
import { bytes, join, string, u16, u32 } from "../../../tests/nbd/wire_bytes.ts";

Deno.test("GO gives the name and the info types asked for", () => {
  const data = join(string("disk0"), u16(2), u16(NBD_INFO_BLOCK_SIZE), u16(NBD_INFO_NAME));
  assertEquals(decode(NBD_OPT_GO, data), {
    type: "go",
    name: "disk0",
    infoTypes: [NBD_INFO_BLOCK_SIZE, NBD_INFO_NAME],
  });
});

Deno.test("INFO of the empty name without info types is understood", () => {
  assertEquals(decode(NBD_OPT_INFO, join(string(""), u16(0))), { type: "info", name: "", infoTypes: [] });
});

Deno.test("GO shorter than its fields is invalid", () => {
  const whole = join(string("ab"), u16(1), u16(3));
  for (let length = 0; length < whole.length; length++) {
    assertEquals(reply(NBD_OPT_GO, whole.subarray(0, length)), NBD_REP_ERR_INVALID, `length ${length}`);
  }
});

Deno.test("GO with a name longer than the option is invalid", () => {
  assertEquals(reply(NBD_OPT_GO, join(u32(0xffff_ffff), bytes("ab"), u16(0))), NBD_REP_ERR_INVALID);
  assertEquals(reply(NBD_OPT_GO, join(u32(3), bytes("ab"), u16(0))), NBD_REP_ERR_INVALID);
});

Deno.test("GO with fewer info types than it counts is invalid", () => {
  assertEquals(reply(NBD_OPT_GO, join(string("a"), u16(5), u16(0))), NBD_REP_ERR_INVALID);
});

Deno.test("GO with bytes behind its last field is invalid", () => {
  assertEquals(reply(NBD_OPT_GO, join(string("a"), u16(0), u32(0))), NBD_REP_ERR_INVALID);
});

Deno.test("a name of 4096 bytes is legal and one of 4097 is not", () => {
  assertEquals(decode(NBD_OPT_GO, join(string("x".repeat(4096)), u16(0))).type, "go");
  assertEquals(reply(NBD_OPT_GO, join(string("x".repeat(4097)), u16(0))), NBD_REP_ERR_INVALID);
});

Deno.test("a name with a NUL, or that is not UTF-8, is invalid", () => {
  const bad = [
    bytes("a\0b"),
    Uint8Array.of(0xff),
    Uint8Array.of(0xc0, 0x80),
    Uint8Array.of(0xf0, 0x9f, 0x92),
    Uint8Array.of(0xed, 0xa0, 0x80),
  ];
  for (const name of bad) {
    assertEquals(reply(NBD_OPT_GO, join(u32(name.length), name, u16(0))), NBD_REP_ERR_INVALID);
    assertEquals(decode(NBD_OPT_EXPORT_NAME, name).type, "close");
  }
});

Deno.test("odd but legal names come through unchanged", () => {
  for (const name of ["../../etc/passwd", ".", "😀".repeat(1024), "\ufeffbom", "\ufffd", "a\nb"]) {
    assertEquals(decode(NBD_OPT_EXPORT_NAME, bytes(name)), { type: "exportName", name });
  }
});

Deno.test("a GO that was too long to collect is too big", () => {
  assertEquals(decodeOption({ kind: "option", option: NBD_OPT_GO, lengthBytes: 100_000, data: undefined }), {
    type: "refuse",
    reply: NBD_REP_ERR_TOO_BIG,
    message: "option data too long",
  });
});

Deno.test("options without data refuse data, ABORT ignores it", () => {
  for (const option of [NBD_OPT_LIST, NBD_OPT_STARTTLS, NBD_OPT_STRUCTURED_REPLY, NBD_OPT_EXTENDED_HEADERS]) {
    assertEquals(
      decodeOption({ kind: "option", option, lengthBytes: 4, data: undefined }).type,
      "refuse",
    );
    assertEquals(reply(option, bytes("data")), NBD_REP_ERR_INVALID);
    assertEquals(reply(option, bytes("")), undefined);
  }
  assertEquals(decode(NBD_OPT_ABORT, bytes("data")), { type: "abort" });
});

Deno.test("unknown and withdrawn options are unsupported", () => {
  for (const option of [0, NBD_OPT_PEEK_EXPORT, 12, 0xffff_ffff]) {
    assertEquals(reply(option, bytes("")), NBD_REP_ERR_UNSUP);
  }
});

Deno.test("meta context queries come in order and once each", () => {
  const data = join(
    string("disk0"),
    u32(3),
    string("qemu:dirty-bitmap:a"),
    string("base:allocation"),
    string("qemu:dirty-bitmap:a"),
  );
  assertEquals(decode(NBD_OPT_SET_META_CONTEXT, data), {
    type: "setMetaContext",
    name: "disk0",
    queries: ["qemu:dirty-bitmap:a", "base:allocation"],
  });
});

Deno.test("a meta context option that does not hold what it counts is invalid", () => {
  const broken = [
    join(string("a"), u32(0xffff_ffff)),
    join(string("a"), u32(0x4000_0001), string("base:")),
    join(string("a"), u32(1), u32(100), bytes("base:")),
    join(string("a"), u32(2), string("base:")),
    join(string("a"), u32(1), string("base:"), u32(0)),
    join(string("a"), u32(1), string("x".repeat(5000))),
    join(string("a")),
    join(u32(2)),
  ];
  for (const data of broken) {
    assertEquals(reply(NBD_OPT_SET_META_CONTEXT, data), NBD_REP_ERR_INVALID);
    assertEquals(reply(NBD_OPT_LIST_META_CONTEXT, data), NBD_REP_ERR_INVALID);
  }
});

Deno.test("more than 64 queries are too big", () => {
  const queries = Array.from({ length: 65 }, () => string("base:"));
  assertEquals(
    reply(NBD_OPT_SET_META_CONTEXT, join(string("a"), u32(65), ...queries)),
    NBD_REP_ERR_TOO_BIG,
  );
  const fewer = join(string("a"), u32(64), ...queries.slice(1));
  assertEquals(decode(NBD_OPT_SET_META_CONTEXT, fewer), {
    type: "setMetaContext",
    name: "a",
    queries: ["base:"],
  });
});

Deno.test("random option data is refused or understood, never thrown at", () => {
  let state = 1;
  for (let round = 0; round < 20_000; round++) {
    const data = new Uint8Array(round % 40).map(() => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state >>> 30 === 0 ? state >>> 16 : 0;
    });
    for (const option of [NBD_OPT_GO, NBD_OPT_SET_META_CONTEXT, NBD_OPT_EXPORT_NAME]) decode(option, data);
  }
});

Deno.test("a quoted name is short and cannot break a line", () => {
  assertEquals(quoted("disk0"), '"disk0"');
  assertEquals(quoted('a\n"\u001b[31m\u009b\u202e'), '"a\\n\\"\\u001b[31m\\u009b\\u202e"');
  assertEquals(quoted("x".repeat(4096)), `"${"x".repeat(77)}..."`);
});

function decode(option: number, data: Uint8Array): Option {
  return decodeOption({ kind: "option", option, lengthBytes: data.length, data });
}

/** The error an option is refused with, or undefined if it is understood. */
function reply(option: number, data: Uint8Array): number | undefined {
  const decoded = decode(option, data);
  return decoded.type === "refuse" ? decoded.reply : undefined;
}
