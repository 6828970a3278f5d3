import { assertEquals } from "@std/assert";
import { ModeOfPool } from "./pool_mode.ts";

const damaged = { type: "metadataTrouble", what: "damaged", reason: "a block" } as const;
const failed = { type: "metadataTrouble", what: "commitFailed", reason: "a flush" } as const;

Deno.test("trouble gets worse only, and is told once for each step", () => {
  const mode = new ModeOfPool(false);
  assertEquals([mode.mode, mode.refusal()], ["write", undefined]);
  assertEquals(mode.meet(damaged) !== undefined, true);
  assertEquals([mode.mode, mode.meet(damaged)], ["read-only", undefined]);
  assertEquals(mode.meet(failed) !== undefined, true);
  assertEquals([mode.mode, mode.meet(damaged), mode.meet(failed)], ["fail", undefined, undefined]);
  assertEquals(mode.trouble, "a flush");
});

Deno.test("damage makes a pool without data space read-only, and space that comes then changes nothing", () => {
  const mode = new ModeOfPool(false);
  mode.meetSpace({ type: "spaceMode", mode: "out-of-data-space", reason: "no data block" });
  assertEquals([mode.mode, mode.reason, mode.takesChanges], ["out-of-data-space", "no data block", true]);
  assertEquals(mode.meet(damaged) !== undefined, true);
  mode.meetSpace({ type: "spaceMode", mode: "write", reason: null });
  assertEquals([mode.mode, mode.reason, mode.takesChanges], ["read-only", "a block", false]);
});

Deno.test("a pool that was opened to be read only tells of its first damage, and stays so", () => {
  const mode = new ModeOfPool(true);
  assertEquals([mode.mode, mode.trouble], ["read-only", null]);
  assertEquals(mode.meet(damaged) !== undefined, true);
  assertEquals([mode.mode, mode.trouble, mode.meet(damaged)], ["read-only", "a block", undefined]);
});
