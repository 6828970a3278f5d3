import { assertEquals, assertThrows } from "@std/assert";
import { canBecome, dataBytesOf, geometryOf, metadataBytesOf } from "./geometry.ts";

const small = geometryOf({ blockSizeBytes: 65536, dataBlocks: 10, metadataBlocks: 100 });

Deno.test("data blocks are counted in the pool's block size, metadata blocks in 4096 bytes", () => {
  assertEquals(dataBytesOf(small), 655360);
  assertEquals(metadataBytesOf(small), 409600);
});

Deno.test("a pool may grow in both, and neither shrinks nor changes its block size", () => {
  const become = (sizes: Partial<Record<keyof typeof small, number>>) =>
    canBecome(small, geometryOf({ ...small, ...sizes }));
  assertEquals(become({}), true);
  assertEquals(become({ dataBlocks: 11 }), true);
  assertEquals(become({ metadataBlocks: 101 }), true);
  assertEquals(become({ dataBlocks: 9, metadataBlocks: 101 }), false);
  assertEquals(become({ dataBlocks: 11, metadataBlocks: 99 }), false);
  assertEquals(become({ blockSizeBytes: 131072 }), false);
});

Deno.test("sizes that are no numbers of blocks are refused", () => {
  for (
    const wrong of [{ dataBlocks: 1.5 }, { dataBlocks: -1 }, { metadataBlocks: 0 }, { blockSizeBytes: 100 }]
  ) {
    assertThrows(() => geometryOf({ ...small, ...wrong }));
  }
});
