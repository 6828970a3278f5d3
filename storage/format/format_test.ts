import { assertEquals } from "@std/assert";
import { dblock, metadataBlock, metadataBlockSizeBytes } from "../base/ids.ts";
import { bitmapCount, bitmapNextFree, bitmapNextUsed, bitmapUsed, setBitmapCount } from "./bitmap.ts";
import { blockTimeDblock, blockTimeTime, packBlockTime } from "./block_time.ts";
import { type BlockKind, sealBlock, verifyBlock } from "./block_header.ts";
import {
  initNode,
  nodeCapacity,
  nodeChild,
  nodeFindAtOrBelow,
  nodeKey,
  nodeValueOffset,
  setNodeChild,
  setNodeEntries,
  setNodeKey,
  verifyNode,
} from "./btree_node.ts";
import { crc32c } from "./crc32c.ts";
import { deviceDetailsSizeBytes, packDeviceDetails, unpackDeviceDetails } from "./device_details.ts";
import { readU32, readU64, viewOf, writeU64 } from "./fields.ts";
import { indexEntrySizeBytes, packIndexEntry, unpackIndexEntry } from "./index_entry.ts";
import { metadataIndexEntry, packMetadataIndexEntry } from "./metadata_index.ts";
import { packSuperblock, type Superblock, unpackSuperblock } from "./superblock.ts";

/** A golden vector: what thin_restore 0.9 writes for two small devices. */
const goldenSuperblock: Superblock = {
  flags: 0,
  uuid: new TextEncoder().encode("0123456789abcdef"),
  version: 2,
  time: 3,
  transactionId: 7n,
  heldRoot: metadataBlock(0),
  dataSpaceMap: {
    blocks: 20_000,
    allocated: 3,
    bitmapRoot: metadataBlock(4),
    overflowRoot: metadataBlock(5),
  },
  metadataSpaceMap: {
    blocks: 512,
    allocated: 13,
    bitmapRoot: metadataBlock(1),
    overflowRoot: metadataBlock(2),
  },
  mappingRoot: metadataBlock(7),
  detailsRoot: metadataBlock(6),
  dataBlockSizeSectors: 128,
  metadataBlocksAtFormat: 512,
  compatFlags: 0,
  compatRoFlags: 0,
  incompatFlags: 0,
};

function emptyBlock(): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(metadataBlockSizeBytes);
  return { bytes, view: viewOf(bytes) };
}

function sealedChecksum(bytes: Uint8Array, kind: BlockKind, block: number): number {
  sealBlock(bytes, kind, metadataBlock(block));
  assertEquals(verifyBlock(bytes, kind, metadataBlock(block)), undefined);
  return readU32(viewOf(bytes), 0);
}

Deno.test("crc32c is un-inverted and agrees with the published values", () => {
  assertEquals(crc32c(new TextEncoder().encode("123456789")), 0x1cf9_6d7c);
  assertEquals(crc32c(new Uint8Array(4092)), 0x58cd_a791);
});

Deno.test("the superblock packs to the golden checksum and unpacks to the same record", () => {
  const bytes = packSuperblock(goldenSuperblock);
  assertEquals(readU32(viewOf(bytes), 0), 0x4481_9183);
  assertEquals(unpackSuperblock(bytes), goldenSuperblock);
});

Deno.test("packing over a previous superblock keeps the bytes that belong to no field", () => {
  const previous = packSuperblock(goldenSuperblock);
  previous[4000] = 7;
  assertEquals(packSuperblock(goldenSuperblock, previous.slice())[4000], 7);
});

Deno.test("a superblock with a flipped bit, elsewhere or without magic is refused with its reason", () => {
  const flipped = packSuperblock(goldenSuperblock);
  flipped[100]! ^= 1;
  assertEquals(unpackSuperblock(flipped), "its checksum is not that of a superblock");
  const copy = packSuperblock(goldenSuperblock, undefined, metadataBlock(9));
  assertEquals(unpackSuperblock(copy), "it says it is block 9");
  const strange = packSuperblock(goldenSuperblock);
  strange[32] = 0;
  sealBlock(strange, "superblock", metadataBlock(0));
  assertEquals(unpackSuperblock(strange), "its magic number is not that of dm-thin");
});

Deno.test("the metadata index packs to the golden checksum", () => {
  const { bytes, view } = emptyBlock();
  const entry = { bitmap: metadataBlock(3), free: 499, noneFreeBefore: 13 };
  packMetadataIndexEntry(view, 0, entry);
  assertEquals(sealedChecksum(bytes, "metadataIndex", 1), 0x8980_abec);
  assertEquals(metadataIndexEntry(view, 0), entry);
});

Deno.test("a metadata bitmap packs to the golden bytes and checksum", () => {
  const { bytes } = emptyBlock();
  for (let block = 0; block <= 12; block++) if (block !== 8) setBitmapCount(bytes, block, 1);
  assertEquals(bytes.subarray(16, 20), Uint8Array.of(0xaa, 0xaa, 0xa8, 0x02));
  assertEquals(sealedChecksum(bytes, "bitmap", 3), 0x5fdf_50e9);
});

Deno.test("a data bitmap packs to the golden bytes and checksum", () => {
  const { bytes } = emptyBlock();
  setBitmapCount(bytes, 10, 2);
  setBitmapCount(bytes, 11, 2);
  setBitmapCount(bytes, 100, 1);
  assertEquals([bytes[18], bytes[16 + 25]], [0x50, 0x02]);
  assertEquals(sealedChecksum(bytes, "bitmap", 9), 0xb0c3_03ff);
});

Deno.test("bitmap fields are bit-swapped, and counts survive being changed", () => {
  const { bytes } = emptyBlock();
  [1, 2, 2, 2, 0, 3, 3, 3].forEach((count, index) => setBitmapCount(bytes, index, count));
  assertEquals(bytes.subarray(16, 18), Uint8Array.of(0x56, 0xfc));
  setBitmapCount(bytes, 5, 1);
  setBitmapCount(bytes, 5, 0);
  assertEquals([0, 1, 2, 3, 4, 5, 6, 7].map((index) => bitmapCount(bytes, index)), [1, 2, 2, 2, 0, 0, 3, 3]);
});

Deno.test("a bitmap is searched and counted up to its last entry, whole bytes or not", () => {
  const { bytes } = emptyBlock();
  for (let index = 0; index < 10; index++) setBitmapCount(bytes, index, 1 + index % 3);
  assertEquals(bitmapNextFree(bytes, 1, 100), 10);
  assertEquals(bitmapNextFree(bytes, 0, 10), 10);
  assertEquals(bitmapNextUsed(bytes, 10, 16_320), 16_320);
  setBitmapCount(bytes, 16_319, 3);
  assertEquals(bitmapNextUsed(bytes, 10, 16_320), 16_319);
  assertEquals([bitmapUsed(bytes, 10), bitmapUsed(bytes, 7), bitmapUsed(bytes, 16_320)], [10, 7, 11]);
});

Deno.test("the data index leaf packs to the golden checksum", () => {
  const { bytes, view } = emptyBlock();
  initNode(view, true, indexEntrySizeBytes);
  setNodeEntries(view, 2);
  const entries = [
    { bitmap: metadataBlock(9), free: 16_317, noneFreeBefore: 0 },
    { bitmap: metadataBlock(10), free: 3680, noneFreeBefore: 0 },
  ];
  entries.forEach((entry, index) => {
    setNodeKey(view, index, index);
    packIndexEntry(view, nodeValueOffset(view, index), entry);
  });
  assertEquals(nodeValueOffset(view, 0), 1376);
  assertEquals(sealedChecksum(bytes, "btreeNode", 4), 0xbce8_6cae);
  assertEquals(unpackIndexEntry(view, 1376 + 16), entries[1]);
});

Deno.test("the details leaf packs to the golden checksum", () => {
  const { bytes, view } = emptyBlock();
  initNode(view, true, deviceDetailsSizeBytes);
  setNodeEntries(view, 2);
  const records = [
    { mappedBlocks: 3, transactionId: 2n, creationTime: 0, snapshottedTime: 2 },
    { mappedBlocks: 2, transactionId: 3n, creationTime: 2, snapshottedTime: 2 },
  ];
  records.forEach((record, index) => {
    setNodeKey(view, index, index + 1);
    packDeviceDetails(view, nodeValueOffset(view, index), record);
  });
  assertEquals(nodeValueOffset(view, 0), 1040);
  assertEquals(sealedChecksum(bytes, "btreeNode", 6), 0xd171_48ac);
  assertEquals(unpackDeviceDetails(view, 1040), records[0]);
});

Deno.test("the mapping leaves pack to the golden checksums", () => {
  const top = emptyBlock();
  initNode(top.view, true, 8);
  setNodeEntries(top.view, 2);
  [11, 12].forEach((root, index) => {
    setNodeKey(top.view, index, index + 1);
    setNodeChild(top.view, index, metadataBlock(root));
  });
  assertEquals(sealedChecksum(top.bytes, "btreeNode", 7), 0x4d5c_fd25);
  assertEquals(nodeChild(top.view, 1), 12);

  const leaf = emptyBlock();
  initNode(leaf.view, true, 8);
  setNodeEntries(leaf.view, 3);
  [[0, 10, 1], [1, 11, 1], [5, 100, 3]].forEach(([key, block, time], index) => {
    setNodeKey(leaf.view, index, key!);
    packBlockTime(leaf.view, nodeValueOffset(leaf.view, index), dblock(block!), time!);
  });
  assertEquals(sealedChecksum(leaf.bytes, "btreeNode", 11), 0xf122_1a7c);
});

Deno.test("block_time keeps 40 bits of block and 24 of time apart", () => {
  const { bytes, view } = emptyBlock();
  packBlockTime(view, 0, dblock(10), 1);
  assertEquals(bytes.subarray(0, 8), Uint8Array.of(1, 0, 0, 0x0a, 0, 0, 0, 0));
  for (const block of [0, 255, 256, 2 ** 32 + 17, 2 ** 40 - 1]) {
    for (const time of [0, 1, 0xff_ffff]) {
      packBlockTime(view, 8, dblock(block), time);
      assertEquals([blockTimeDblock(view, 8), blockTimeTime(view, 8)], [dblock(block), time]);
    }
  }
});

Deno.test("node capacities are the kernel's", () => {
  assertEquals([4, 8, 16, 24].map(nodeCapacity), [336, 252, 168, 126]);
});

Deno.test("the key at or below is found at both ends and between", () => {
  const { view } = emptyBlock();
  initNode(view, true, 8);
  setNodeEntries(view, 3);
  [10, 20, 2 ** 40].forEach((key, index) => setNodeKey(view, index, key));
  assertEquals(
    [0, 10, 15, 20, 2 ** 40 - 1, 2 ** 40, 2 ** 52].map((key) => nodeFindAtOrBelow(view, key)),
    [-1, 0, 0, 1, 1, 2, 2],
  );
  assertEquals(nodeKey(view, 2), 2 ** 40);
});

Deno.test("a node with wrong flags, sizes, count or key order is refused with its reason", () => {
  const broken = (change: (view: DataView) => void): string | undefined => {
    const { view } = emptyBlock();
    initNode(view, true, 8);
    setNodeEntries(view, 2);
    setNodeKey(view, 1, 1);
    change(view);
    return verifyNode(view, 8);
  };
  assertEquals(broken(() => {}), undefined);
  assertEquals(broken((view) => view.setUint32(4, 3, true)), "its node flags are 3");
  assertEquals(broken((view) => view.setUint32(24, 16, true)), "its values have 16 bytes instead of 8");
  assertEquals(
    broken((view) => view.setUint32(20, 249, true)),
    "its capacity is 249 entries instead of 252",
  );
  assertEquals(broken((view) => setNodeEntries(view, 253)), "it claims 253 entries of at most 252");
  assertEquals(broken((view) => setNodeKey(view, 1, 0)), "its keys are not in ascending order");
  assertEquals(broken((view) => view.setUint32(44, 0x20_0000, true)), "a key is beyond 2^53");
});

Deno.test("a u64 below 2^53 is exact, and one above stays beyond every bound", () => {
  const { view } = emptyBlock();
  writeU64(view, 0, 2 ** 53 - 1);
  assertEquals(readU64(view, 0), 2 ** 53 - 1);
  view.setBigUint64(0, 0xffff_ffff_ffff_ffffn, true);
  assertEquals(readU64(view, 0) > 2 ** 53, true);
});
