import { assertEquals, assertThrows } from "@std/assert";
import { UsageError } from "./errors.ts";
import { hasNumber, nameOfPattern, parseNamePattern } from "./name_pattern.ts";

Deno.test("a pattern fills in a number, with leading zeroes where it says so", () => {
  const names = ["vm-%d", "vm-%03d.x", "%09d", "one"].map((text) =>
    nameOfPattern(parseNamePattern(text), 42)
  );
  assertEquals(names, ["vm-42", "vm-042.x", "000000042", "one"]);
  assertEquals(nameOfPattern("v%02d", 1234), "v1234");
  assertEquals(["a%d", "a"].map(hasNumber), [true, false]);
});

for (
  const text of ["%d%d", "a%s", "a%3d", "a%00d", "a%", "a@%d", "-%d", "", "a b%d", `${"x".repeat(127)}%d`]
) {
  Deno.test(`"${text.slice(0, 10)}" is no pattern of names`, () => {
    assertThrows(() => parseNamePattern(text), UsageError);
  });
}
