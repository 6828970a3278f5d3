import { assertEquals } from "@std/assert";
import { heldSegmentsMax } from "../limits.ts";
import { type HeldRange, HeldSegments } from "./held_segments.ts";

/** A held range that notes when it was copied. */
function hold(held: HeldSegments, offsetBytes: number, lengthBytes: number, copied: number[]): HeldRange {
  const range: HeldRange = {
    offsetBytes,
    lengthBytes,
    copyNow: () => {
      copied.push(offsetBytes);
      held.remove(range);
    },
  };
  held.add(range);
  return range;
}

Deno.test("before bytes change, the segments that show them are copied, and no others", () => {
  const held = new HeldSegments();
  const copied: number[] = [];
  for (const offsetBytes of [0, 4096, 8192]) hold(held, offsetBytes, 4096, copied);
  held.beforeChange(8191, 1);
  assertEquals(copied, [4096]);
  held.beforeChange(4096, 4096);
  assertEquals(copied, [4096]);
  held.beforeUnmapping();
  assertEquals(copied, [4096, 0, 8192]);
});

Deno.test("a segment that was given up is not copied", () => {
  const held = new HeldSegments();
  const copied: number[] = [];
  held.remove(hold(held, 0, 512, copied));
  held.beforeChange(0, 512);
  assertEquals(copied, []);
});

Deno.test("no more segments are held than each change may look at", () => {
  const held = new HeldSegments();
  const range = () => ({ offsetBytes: 0, lengthBytes: 1, copyNow: () => {} });
  for (let count = 0; count < heldSegmentsMax; count += 1) assertEquals(held.add(range()), true);
  assertEquals(held.add(range()), false);
});
