import { assert, assertEquals } from "@std/assert";
import { leavesOf, makeImage, run, withBlock } from "../tests/support/metadata_image.ts";
import { checkImage } from "../tests/support/metadata_reader.ts";
import { findingsListedMax } from "./base/limits.ts";
import { bitmapEntries, setBitmapCount } from "./format/bitmap.ts";
import { nodeChild } from "./format/btree_node.ts";
import { viewOf } from "./format/fields.ts";
import { metadataIndexEntry } from "./format/metadata_index.ts";
import { type Superblock, superblockLocation, unpackSuperblock } from "./format/superblock.ts";
import { type MetadataBlock, metadataBlockSizeBytes } from "./base/ids.ts";

const base = leavesOf([...run(0, 100, 300, 1), ...run(400, 600, 300, 2)]);
const fork = base.map((leaf, index) => index === 1 ? run(leaf[0]![0], 5000, leaf.length, 3) : leaf);
const devices = [{ id: 1, leaves: base }, { id: 2, leaves: base }, { id: 7, leaves: fork }];
const description = { metadataBlocks: 64, dataBlocks: 20_000, devices };
const metadataEnd = 64;

function superblockOf(image: Uint8Array): Superblock {
  const superblock = unpackSuperblock(image.subarray(0, metadataBlockSizeBytes));
  if (typeof superblock === "string") throw new Error(superblock);
  return superblock;
}

function view(image: Uint8Array, block: MetadataBlock): DataView {
  return viewOf(image.subarray(block * metadataBlockSizeBytes, (block + 1) * metadataBlockSizeBytes));
}

function metadataBitmapOf(image: Uint8Array): MetadataBlock {
  return metadataIndexEntry(view(image, superblockOf(image).metadataSpaceMap.bitmapRoot), 0).bitmap;
}

Deno.test("check reports the totals of sound metadata", () => {
  const report = checkImage(makeImage(description));
  assertEquals(report.problems, []);
  assertEquals(report.notes, []);
  assertEquals(report.complete, true);
  assertEquals(report.transactionId, 0x1234_5678_9abc_def0n);
  assertEquals(report.devices.map(({ thinId, mappedBlocks }) => [thinId, mappedBlocks]), [
    [1, 600],
    [2, 600],
    [
      7,
      600,
    ],
  ]);
  assertEquals(report.dataTotalBlocks, 20_000);
  assertEquals(report.dataUsedBlocks, 600 + fork[1]!.length);
  assertEquals(report.metadataTotalBlocks, 64);
  assertEquals(report.heldSnapshot, undefined);
});

Deno.test("check reads a block that several parents share once", () => {
  const report = checkImage(makeImage(description));
  assertEquals(report.reads, report.metadataUsedBlocks);
});

Deno.test("check counts what a held metadata snapshot alone refers to", () => {
  const held = [...devices, { id: 8, leaves: leavesOf(run(0, 9000, 200)) }];
  const report = checkImage(makeImage({ ...description, held }));
  assertEquals(report.problems, []);
  assertEquals(report.dataUsedBlocks, 600 + fork[1]!.length + 200);
  assert(report.heldSnapshot !== undefined);
});

Deno.test("check compares the mapped blocks of a device that only a metadata snapshot holds", () => {
  const held = [{ id: 8, leaves: leavesOf(run(0, 9000, 200)), mappedBlocks: 199 }];
  const report = checkImage(makeImage({ ...description, held }));
  assertEquals(report.problems, [
    "Thin device 8 in the metadata snapshot has 200 mappings, but its details say 199.",
  ]);
});

Deno.test("check tells a leak from danger to data", () => {
  const image = makeImage(description);
  const leaked = withBlock(
    image,
    metadataBitmapOf(image),
    (_, bytes) => setBitmapCount(bytes, metadataEnd - 1, 1),
  );
  const report = checkImage(leaked);
  assertEquals(report.problems, [
    "Metadata block 63: 0 references were found, but the space map counts 1: leaked.",
  ]);
  assertEquals(report.onlyLeaks, true);

  const root = superblockOf(image).mappingRoot;
  const lost = withBlock(image, metadataBitmapOf(image), (_, bytes) => setBitmapCount(bytes, root, 0));
  assertEquals(checkImage(lost).onlyLeaks, false);
});

Deno.test("check names a block that cannot be read and the devices it damages, and looks for no leaks then", () => {
  const image = makeImage(description);
  const root = superblockOf(image).mappingRoot;
  const device = nodeChild(view(image, root), 0);
  const report = checkImage(image, new Set([device]));
  assertEquals(report.problems, [
    `Metadata block ${device} (the mapping tree of thin device 1) cannot be read.`,
    "Thin device 1 is damaged: of its 600 mappings 0 can be read.",
    "Thin device 2 is damaged: of its 600 mappings 0 can be read.",
  ]);
  assertEquals(report.complete, false);
});

Deno.test("check goes on when the metadata space map itself cannot be read", () => {
  const image = makeImage(description);
  const bitmap = metadataBitmapOf(image);
  const report = checkImage(image, new Set([bitmap]));
  assertEquals(report.problems, [`Metadata block ${bitmap} (metadata bitmap 0) cannot be read.`]);
  assertEquals(report.devices.length, 3);
});

Deno.test("check reports a superblock that cannot be read as the only problem", () => {
  const image = makeImage(description);
  assertEquals(checkImage(image, new Set([superblockLocation])).problems, [
    "The superblock (metadata block 0) is damaged: it cannot be read.",
  ]);
  assertEquals(checkImage(new Uint8Array(0)).problemCount, 1);
});

Deno.test("check notes wrong hints and accepts them", () => {
  const image = makeImage(description);
  const index = superblockOf(image).metadataSpaceMap.bitmapRoot;
  const free = withBlock(image, index, (node) => node.setUint32(24, 5, true));
  const report = checkImage(free);
  assertEquals(report.problems, []);
  assertEquals(report.notes.length, 1);
  assert(report.notes[0]!.startsWith("The index says that metadata bitmap 0 has 5 free entries"));
});

Deno.test("check joins neighbouring mismatches and bounds its list", () => {
  const image = makeImage(description);
  const end = metadataEnd - 1;
  const bitmap = metadataBitmapOf(image);
  const runLeaked = withBlock(image, bitmap, (_, bytes) => {
    for (let block = end - 9; block < end; block++) setBitmapCount(bytes, block, 1);
  });
  assertEquals(checkImage(runLeaked).problems, [
    `Metadata blocks ${end - 9} to ${end - 1}: 0 references were found, but the space map counts 1: leaked.`,
  ]);

  const scattered = makeImage({ ...description, metadataBlocks: 2000 });
  const manyLeaked = withBlock(scattered, metadataBitmapOf(scattered), (_, bytes) => {
    for (let block = 100; block < 2000; block += 2) setBitmapCount(bytes, block, 1);
  });
  const report = checkImage(manyLeaked);
  assertEquals(report.problemCount, 950);
  assertEquals(report.problems.length, findingsListedMax + 1);
  assertEquals(report.problems.at(-1), "And 850 more problems.");
});

Deno.test("check counts a data block that hundreds of leaves refer to", () => {
  const many = Array.from({ length: 300 }, (_, id) => ({ id, leaves: [run(0, 16_319, 2)] }));
  const image = makeImage({ metadataBlocks: 400, dataBlocks: bitmapEntries + 1, devices: many });
  const report = checkImage(image);
  assertEquals(report.problems, []);
  assertEquals(report.dataUsedBlocks, 2);
});
