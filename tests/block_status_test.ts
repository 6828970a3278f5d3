/** Block status of volumes in a pool in memory: what is provisioned, and what differs from a snapshot. */
import { assertEquals } from "@std/assert";
import type { StatusSource } from "../actors/block_status.ts";
import {
  makeTestingFiles,
  testingBlockSizeBytes as bs,
  TestingPool,
  type TestingVolume,
} from "./testing_pool.ts";

const allocation: StatusSource = { kind: "allocation" };

function makeVolume(pool: TestingPool, sizeBytes = 16 * bs): TestingVolume {
  pool.admin({ verb: "create", name: "a", sizeBytes });
  return pool.attach("a");
}

/** The source of the context of that name. */
function sourceOf(pool: TestingPool, volume: string, context: string): StatusSource {
  const found = pool.contexts(volume).find(({ name }) => name === context);
  if (found === undefined) throw new Error(`no context ${context}`);
  return found.source;
}

Deno.test("a terabyte that nobody wrote to is one hole", () => {
  const volume = makeVolume(new TestingPool(makeTestingFiles()), 2 ** 40);
  const { status, extents } = volume.status(allocation, 0, 2 ** 40);
  assertEquals([status, extents], ["ok", [[{ lengthBytes: 2 ** 40, flags: 3 }]]]);
});

Deno.test("what was written is allocated, and extents are cut to the range that was asked", () => {
  const volume = makeVolume(new TestingPool(makeTestingFiles()));
  volume.write(2 * bs, new Uint8Array(10));
  volume.write(3 * bs, new Uint8Array(10));
  const { extents } = volume.status(allocation, bs + 512, 3 * bs);
  assertEquals(extents, [[
    { lengthBytes: bs - 512, flags: 3 },
    { lengthBytes: 2 * bs, flags: 0 },
    { lengthBytes: 512, flags: 3 },
  ]]);
  assertEquals(volume.status(allocation, bs, 15 * bs, 1).extents, [[{ lengthBytes: bs, flags: 3 }]]);
});

Deno.test("what was written since a snapshot is dirty", () => {
  const pool = new TestingPool(makeTestingFiles());
  const volume = makeVolume(pool);
  volume.write(0, new Uint8Array(4 * bs));
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  volume.write(bs, new Uint8Array(10));
  const dirty = sourceOf(pool, "a", "qemu:dirty-bitmap:s");
  const { extents } = volume.status([dirty, allocation], 0, 16 * bs);
  assertEquals(extents, [
    [{ lengthBytes: bs, flags: 0 }, { lengthBytes: bs, flags: 1 }, { lengthBytes: 14 * bs, flags: 0 }],
    [{ lengthBytes: 4 * bs, flags: 0 }, { lengthBytes: 12 * bs, flags: 3 }],
  ]);
});
