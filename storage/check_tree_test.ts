import { assert, assertEquals } from "@std/assert";
import { Anatomy } from "../tests/compat/anatomy.ts";
import { leavesOf, makeImage, run } from "../tests/support/metadata_image.ts";
import { checkImage, dumpImage } from "../tests/support/metadata_reader.ts";
import { nodeValueOffset } from "./format/btree_node.ts";
import { superblockLocation } from "./format/superblock.ts";

const nodeKeysOffset = 32;
const root = [run(0, 100, 100), run(200, 300, 100)];
const sharedRoot = [1, 2, 3].map((id) => ({ id, leaves: root }));
const description = { metadataBlocks: 64, dataBlocks: 20_000, devices: sharedRoot };

/** Fails unless a problem contains `words`; other problems may follow from the damage. */
function assertProblem(image: Uint8Array, words: string): void {
  const { problems } = checkImage(image);
  assert(problems.some((problem) => problem.includes(words)), `${words}\n  not in\n${problems.join("\n")}`);
}

Deno.test("a leaf below a root is a third full or damaged", () => {
  const devices = [{ id: 1, leaves: [run(0, 100, 84), run(200, 300, 100)] }];
  assertEquals(checkImage(makeImage({ ...description, devices })).problems, []);
  const underfull = [{ id: 1, leaves: [run(0, 100, 83), run(200, 300, 100)] }];
  const { problems } = checkImage(makeImage({ ...description, devices: underfull }));
  assertEquals(problems.length, 1);
  assert(
    problems[0]!.endsWith("(the mapping tree of thin device 1) has too few entries for a node below a root."),
  );
});

Deno.test("a block that is part of two trees is damage", () => {
  const anatomy = new Anatomy(makeImage(description));
  const image = anatomy.with64(superblockLocation, 64 + 24, anatomy.superblock.metadataSpaceMap.overflowRoot);
  assertProblem(
    image,
    "is part of the data space map's overflow tree, but it is part of the metadata space map's overflow tree too",
  );
});

Deno.test("leaves of unequal depth are damage to check and to dump", () => {
  const devices = [{ id: 4, leaves: leavesOf(run(0, 0, 260 * 126)) }];
  const anatomy = new Anatomy(makeImage({ metadataBlocks: 400, dataBlocks: 40_000, devices }));
  const top = anatomy.deviceRoot;
  const grandchild = anatomy.child(anatomy.child(top, 1), 0);
  const image = anatomy.with64(top, nodeValueOffset(anatomy.view(top), 1), grandchild);
  assertProblem(
    image,
    `The leaves below metadata block ${top} (the mapping tree of thin device 4) are not equally`,
  );
  assertEquals(dumpImage(image).end, {
    kind: "damaged",
    sentence: `Metadata block ${grandchild} (the mapping tree of thin device 4) is damaged: ` +
      "it is not as deep as its siblings.",
  });
});

Deno.test("two index entries for one bitmap are damage", () => {
  const anatomy = new Anatomy(makeImage(description));
  const index = anatomy.superblock.dataSpaceMap.bitmapRoot;
  const image = anatomy.with64(index, nodeValueOffset(anatomy.view(index), 1), anatomy.dataBitmap(0));
  assertProblem(
    image,
    `Metadata block ${anatomy.dataBitmap(0)} is data bitmap 1, but another bitmap lies there too`,
  );
});

Deno.test("a gap in the data space map's index is damage", () => {
  const anatomy = new Anatomy(makeImage(description));
  const index = anatomy.superblock.dataSpaceMap.bitmapRoot;
  assertProblem(anatomy.with64(index, nodeKeysOffset + 8, 2), "not in unbroken order");
});

Deno.test("a device with details and no mapping tree is named", () => {
  const anatomy = new Anatomy(makeImage(description));
  const image = anatomy.with32(anatomy.superblock.mappingRoot, 16, 2);
  assertProblem(image, "Thin device 3 has details, but no mapping tree.");
});

Deno.test("an overflow entry for a metadata block with a small count is damage", () => {
  const anatomy = new Anatomy(makeImage(description));
  const overflow = anatomy.superblock.metadataSpaceMap.overflowRoot;
  const image = anatomy.with64(overflow, nodeKeysOffset, anatomy.superblock.detailsRoot);
  assertProblem(image, `Metadata block ${anatomy.superblock.detailsRoot} has an overflow entry with count 3`);
  assertProblem(image, `Metadata block ${anatomy.deviceRoot} has a count of 3 or more, but no entry`);
});
