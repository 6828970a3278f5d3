/** Writes of zeroes where they are to be detected: what is mapped then, and what reads show. */
import { assertEquals } from "@std/assert";
import { assert as require } from "../../storage/base/assert.ts";
import { makeTestingFiles, testingBlockSizeBytes as bs, TestingPool } from "../../tests/support/pool.ts";
import { CounterSums } from "../counters.ts";

function makePool(detectsZeroes = true, dataBlocks = 64) {
  const counters = new CounterSums();
  const pool = new TestingPool(makeTestingFiles(dataBlocks), { counters, detectsZeroes });
  pool.admin({ verb: "create", name: "a", sizeBytes: 16 * bs });
  return { pool, counters, volume: pool.attach("a") };
}

function mappedBlocks(pool: TestingPool, name: string): number {
  const result = pool.admin({ verb: "list", names: [name] });
  require(result.kind === "volumes", "list answers with volumes");
  return result.volumes[0]!.mapped_bytes / bs;
}

const zeroes = (length: number) => new Uint8Array(length);
const ones = (length: number) => new Uint8Array(length).fill(1);

Deno.test("zeroes written to unmapped blocks, whole or in part, map nothing, and are counted", () => {
  const { pool, counters, volume } = makePool();
  assertEquals(volume.write(512, zeroes(3 * bs)).status, "ok");
  assertEquals([mappedBlocks(pool, "a"), counters.of("zeroesDetected"), counters.of("provisions")], [
    0,
    4,
    0,
  ]);
  assertEquals(volume.read(0, 4 * bs).every((byte) => byte === 0), true);
});

Deno.test("a part with one byte that is not zero maps its block, and the other blocks of the request stay unmapped", () => {
  const { pool, volume } = makePool();
  const data = zeroes(3 * bs);
  data[2 * bs - 1] = 1;
  volume.write(0, data);
  assertEquals(mappedBlocks(pool, "a"), 1);
  assertEquals(volume.read(0, 3 * bs), data);
});

Deno.test("zeroes over data are written, to a block of its own and to one that a snapshot shares", () => {
  const { pool, volume } = makePool();
  volume.write(0, ones(2 * bs));
  volume.write(512, zeroes(512));
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  volume.write(bs, zeroes(bs));
  assertEquals(mappedBlocks(pool, "a"), 2);
  assertEquals(volume.read(512, 512), zeroes(512));
  assertEquals(volume.read(bs, bs), zeroes(bs));
  assertEquals(pool.attach("a@s").read(bs, bs), ones(bs));
});

Deno.test("zeroes that are detected need no space, and write-zeroes that must allocate still does", () => {
  const { pool, volume } = makePool(true, 2);
  volume.write(0, ones(2 * bs));
  assertEquals(volume.write(4 * bs, zeroes(bs)).status, "ok");
  assertEquals(volume.perform("writeZeroes", 4 * bs, bs, { noHole: true }).status, "noDataSpace");
  assertEquals(mappedBlocks(pool, "a"), 2);
});

Deno.test("without the option zeroes are data", () => {
  const { pool, counters, volume } = makePool(false);
  volume.write(0, zeroes(2 * bs));
  assertEquals([mappedBlocks(pool, "a"), counters.of("zeroesDetected")], [2, 0]);
});
