import { assertEquals } from "@std/assert";
import { matchesPattern } from "./names.ts";

const names = ["a", "ab", "abc", "a@s", "ab@s1", "ab@s2", "vm-1", "vm-10", "vm-1@t"];

const cases: readonly (readonly [pattern: string, matches: string])[] = [
  ["a", "a"],
  ["*", "a ab abc vm-1 vm-10"],
  ["a*", "a ab abc"],
  ["*b*", "ab abc"],
  ["*c", "abc"],
  ["a?", "ab"],
  ["?", "a"],
  ["vm-?", "vm-1"],
  ["*@*", "a@s ab@s1 ab@s2 vm-1@t"],
  ["*@s?", "ab@s1 ab@s2"],
  ["a*@s*", "a@s ab@s1 ab@s2"],
  ["a?s", ""],
  ["**-**0", "vm-10"],
];

for (const [pattern, matches] of cases) {
  Deno.test(`the pattern ${pattern} matches ${matches === "" ? "nothing" : matches}`, () => {
    assertEquals(names.filter((name) => matchesPattern(name, pattern)).join(" "), matches);
  });
}

Deno.test("a pattern of many stars takes no longer than its length times the name's", () => {
  const began = performance.now();
  assertEquals(matchesPattern("a".repeat(127), `${"*a".repeat(60)}*b`), false);
  assertEquals(performance.now() - began < 1000, true);
});
