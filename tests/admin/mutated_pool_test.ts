/** Metadata with right checksums and wrong fields: damage in one sentence, never a defect, a hang or a foreign byte. */
import { assertEquals, assertMatch } from "@std/assert";
import { assert as require, present } from "../../storage/base/assert.ts";
import { MemoryDevice } from "../support/memory_device.ts";
import { Anatomy } from "../compat/anatomy.ts";
import { MemoryJournal, testingBlockSizeBytes as bs, TestingPool } from "../support/pool.ts";
import { base } from "./mutated_image.ts";
import { runMutated } from "./mutated_pool.ts";

Deno.test("ninety mutations of metadata end in a sentence or in right bytes, never in a defect or a hang", () => {
  // The last has once found a defect: a block that counted 0 was given to a second mapping.
  const seeds = [...Array.from({ length: 90 }, (_, index) => index + 1), 263];
  const ends = { refused: 0, damaged: 0, used: 0 };
  for (const seed of seeds) ends[runMutated(seed).end] += 1;
  require(ends.refused >= 9 && ends.damaged >= 9 && ends.used >= 9, "all ends were met");
});

/** The base with a count of 0 for the data block that a vblock of a device maps, opened. */
function openWithFreeBlock(
  thin: number,
  vblock: number,
): { readonly pool: TestingPool; readonly dblock: number } {
  const { image, walked } = base();
  const dblock = present(walked.devices.get(thin)?.mappings.get(vblock), "it is mapped");
  const anatomy = new Anatomy(image.metadata);
  const metadata = anatomy.withCount(anatomy.dataBitmap(0), dblock, 0);
  const files = {
    data: new MemoryDevice(image.data.slice()),
    metadata: new MemoryDevice(metadata),
    journal: new MemoryJournal(image.journal),
  };
  return { pool: new TestingPool(files), dblock };
}

const cases:
  readonly (readonly [what: string, thin: number, vblock: number, name: string, written: number])[] = [
    ["the block of a shared leaf, by a write to it", 5, 200, "c", 200],
    ["the volume's own block, by a write to it", 2, 7, "b", 7],
  ];
for (const [what, thin, vblock, name, written] of cases) {
  Deno.test(`a mapped block that counts 0 is damage, met before anything is written: ${what}`, () => {
    const { pool } = openWithFreeBlock(thin, vblock);
    const volume = pool.attach(name);
    const { data } = pool.files;
    require(data instanceof MemoryDevice, "it is in memory");
    // What is in use is not written; a fresh block that got the bytes is free again.
    const used = 348 * bs;
    const before = data.bytes.slice(0, used);
    assertEquals(volume.write(written * bs, new Uint8Array(bs).fill(9)).status, "ioError");
    require(data.bytes.subarray(0, used).every((byte, at) => byte === before[at]), "nothing was written");
    requireDamageSaid(pool);
    assertEquals(pool.attach("a").read(250 * bs, 1), new Uint8Array([1]));
  });
}

function requireDamageSaid(pool: TestingPool): void {
  assertEquals(pool.logged.length, 1);
  assertMatch(
    pool.logged[0]!,
    /^The pool writes no more: metadata block \d+ is damaged: the reference count of data block \d+ is 0 though it is mapped\. /,
  );
}

// The free block is the one that the write gets; that something maps it is found when the leaf is copied.
Deno.test("a neighbour of a mapped block that counts 0 is written: damage in one sentence, and no defect", () => {
  const { pool } = openWithFreeBlock(5, 200);
  assertEquals(pool.attach("c").write(201 * bs, new Uint8Array(bs).fill(9)).status, "ioError");
  requireDamageSaid(pool);
});
