import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UsageError } from "./errors.ts";
import { parseName, parseSnapshotName, parseVolumeName } from "./names.ts";

Deno.test("a volume and a snapshot name come apart at the @", () => {
  assertEquals(parseName("disk0"), { name: "disk0", volume: "disk0" });
  assertEquals(parseName("a.b_c-D@007"), { name: "a.b_c-D@007", volume: "a.b_c-D", snapshot: "007" });
});

Deno.test("each part may have 127 bytes", () => {
  const long = "x".repeat(127);
  assertEquals(parseName(`${long}@${long}`).volume, long);
});

for (
  const [name, reason] of [
    ["", "empty"],
    ["@", "one side"],
    ["a@", "one side"],
    ["@a", "one side"],
    ["a@b@c", `more than one "@"`],
    ["-a", `may not start with "-"`],
    ["a@-b", `may not start with "-"`],
    ["a b", "only letters"],
    ["a/b", "only letters"],
    ["a\n", "only letters"],
    ["é", "only letters"],
    ["x".repeat(128), "more than 127"],
    [`a@${"x".repeat(128)}`, "more than 127"],
  ] as const
) {
  Deno.test(`${JSON.stringify(name.slice(0, 10))} is refused: ${reason}`, () => {
    const error = assertThrows(() => parseName(name), UsageError);
    assertStringIncludes(error.message, reason);
    assertEquals(error.exitStatus, 2);
  });
}

Deno.test("a snapshot where a volume is needed is refused, and the other way round", () => {
  assertStringIncludes(assertThrows(() => parseVolumeName("a@b"), UsageError).message, `Leave out "@b"`);
  assertStringIncludes(assertThrows(() => parseSnapshotName("a"), UsageError).message, "a@SNAPSHOT");
  assertEquals(parseVolumeName("a"), "a");
  assertEquals(parseSnapshotName("a@b"), { name: "a@b", volume: "a", snapshot: "b" });
});
