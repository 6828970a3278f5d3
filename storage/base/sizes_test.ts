import { assertEquals, assertThrows } from "@std/assert";
import { UsageError } from "./errors.ts";
import {
  defaultMetadataBytes,
  formatExactSize,
  formatSize,
  metadataBytesMax,
  parseSize,
  roundDown,
  roundUp,
} from "./sizes.ts";

for (
  const [text, bytes] of [
    ["512", 512],
    ["512B", 512],
    ["1K", 1024],
    ["10G", 10 * 2 ** 30],
    ["10GiB", 10 * 2 ** 30],
    ["10gib", 10 * 2 ** 30],
    ["10GB", 10_000_000_000],
    ["1.5G", 1.5 * 2 ** 30],
    ["0.1K", 103],
    ["0.001GB", 1_000_000],
    ["2.50kB", 2500],
    ["1.5", 2],
    ["7P", 7 * 2 ** 50],
    ["9007199254740991", Number.MAX_SAFE_INTEGER],
  ] as const
) {
  Deno.test(`${text} is ${bytes} bytes`, () => assertEquals(parseSize(text), bytes));
}

for (
  const text of [
    "",
    "G",
    "-1",
    "+1",
    "1e3",
    "0x10",
    "10 G",
    " 10",
    "10GiBs",
    "10iB",
    ".5G",
    "5.G",
    "1,5G",
    "1_0",
  ]
) {
  Deno.test(`${JSON.stringify(text)} is not a size`, () => {
    assertEquals(assertThrows(() => parseSize(text), UsageError).exitStatus, 2);
  });
}

for (const text of ["0", "0G", "0.0", "8P", "9007199254740992", "99999999999999999999E"]) {
  Deno.test(`${text} is out of range`, () => {
    assertThrows(() => parseSize(text), UsageError);
  });
}

for (
  const [bytes, text] of [
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1 KiB"],
    [1536, "1.5 KiB"],
    [10 * 2 ** 30, "10 GiB"],
    [2 ** 30 - 1, "1.0 GiB"],
    [2 ** 53 - 1, "8.0 PiB"],
  ] as const
) {
  Deno.test(`${bytes} bytes print as ${text}`, () => assertEquals(formatSize(bytes), text));
}

Deno.test("rounding keeps whole multiples", () => {
  assertEquals([roundUp(1, 512), roundUp(512, 512), roundDown(1023, 512)], [512, 512, 512]);
});

Deno.test("metadata has twice 48 bytes a block, within the limits of the format", () => {
  assertEquals(defaultMetadataBytes(1), 16 * 2 ** 20);
  assertEquals(defaultMetadataBytes(2 ** 24), 96 * 2 ** 24);
  assertEquals(defaultMetadataBytes(2 ** 40), metadataBytesMax);
  assertEquals(metadataBytesMax, 17_045_913_600);
});

Deno.test("an exact size hides nothing", () => {
  const sizes = [0, 1, 1024, 3 * 2 ** 30, 2 * 2 ** 30 + 50 * 2 ** 20, 2 ** 31 + 1];
  const texts = ["0 B", "1 B", "1 KiB", "3 GiB", "2098 MiB", "2147483649 B"];
  assertEquals(sizes.map(formatExactSize), texts);
});
