import { assertEquals } from "@std/assert";
import { naturalKey } from "./natural_order.ts";

const inOrder = [
  "007",
  "a",
  "a@s2",
  "a@s10",
  "a-b",
  "a01",
  "a1",
  "a1@s",
  "a2",
  "a10",
  "a10@s",
  "a100000000000000000000000000000000000000001",
  "a100000000000000000000000000000000000000002",
  "ab",
  "vm-2",
  "vm-10",
  "vm-10.5",
  "vm-x",
];

Deno.test("names are in natural order: numbers by value, a volume's snapshots behind it", () => {
  const sorted = inOrder.toReversed().sort((a, b) => naturalKey(a) < naturalKey(b) ? -1 : 1);
  assertEquals(sorted, inOrder);
});
