import { assertEquals } from "@std/assert";
import { leavesOf, makeImage, run } from "../tests/support/metadata_image.ts";
import { thinId } from "./base/ids.ts";
import { usageLines, usageOfImage } from "../tests/support/metadata_reader.ts";

const description = { metadataBlocks: 64, dataBlocks: 20_000 };
const base = leavesOf(run(0, 100, 600, 1));
const fork = base.map((leaf, index) => index === 1 ? run(leaf[0]![0], 5000, leaf.length, 3) : leaf);
const own = fork[1]!.length;

Deno.test("a block is exclusive when one leaf entry holds it and one path leads there", () => {
  const devices = [{ id: 1, leaves: base }, { id: 2, leaves: fork }, {
    id: 3,
    leaves: leavesOf(run(0, 9000, 50)),
  }];
  // Device 1 keeps the blocks that the fork moved away from: its own leaf is the only one that still holds them.
  const expected = [`1 600 ${own}`, `2 600 ${own}`, "3 50 50"];
  assertEquals(usageLines(usageOfImage(makeImage({ ...description, devices }))), expected);
});

Deno.test("nothing is exclusive to devices that share a root", () => {
  const devices = [{ id: 1, leaves: base }, { id: 2, leaves: base }];
  assertEquals(usageLines(usageOfImage(makeImage({ ...description, devices }))), ["1 600 0", "2 600 0"]);
});

Deno.test("a block that one device maps twice is not exclusive", () => {
  const devices = [{ id: 1, leaves: [[...run(0, 50, 100), ...run(200, 50, 90)]] }];
  assertEquals(usageLines(usageOfImage(makeImage({ ...description, devices }))), ["1 190 10"]);
});

Deno.test("a held metadata snapshot takes nothing from what is exclusive", () => {
  const devices = [{ id: 1, leaves: base }, { id: 2, leaves: fork }];
  const image = makeImage({
    ...description,
    devices,
    held: [{ id: 1, leaves: base }, { id: 4, leaves: fork }],
  });
  assertEquals(usageLines(usageOfImage(image)), [`1 600 ${own}`, `2 600 ${own}`]);
});

Deno.test("a device that is being deleted counts as gone, and other families are not read", () => {
  const devices = [{ id: 1, leaves: base }, { id: 2, leaves: fork }, {
    id: 3,
    leaves: leavesOf(run(0, 9000, 50)),
  }];
  const image = makeImage({ ...description, devices });
  const only = new Set([thinId(2)]);
  assertEquals(usageLines(usageOfImage(image, { only, recount: true })), ["2 600 600"]);
  assertEquals(usageLines(usageOfImage(image, { only })), [`2 600 ${own}`]);
});

Deno.test("subtrees that a count shows to be shared are not read", () => {
  const devices = [{ id: 1, leaves: base }, { id: 2, leaves: base }];
  const image = makeImage({ ...description, devices });
  const leafBlocks = new Set([1, 2, 3, 4]);
  assertEquals(usageLines(usageOfImage(image, {}, leafBlocks)), ["1 600 0", "2 600 0"]);
  assertEquals(usageOfImage(image, { recount: true }, leafBlocks).kind, "damaged");
});
