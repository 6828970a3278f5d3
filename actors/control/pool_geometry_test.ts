/** A pool whose data and metadata become larger while it is used: the actors take a geometry after the first. */
import { assertEquals, assertThrows } from "@std/assert";
import { RandomPolicy } from "../../tests/support/world.ts";
import type { SchedulerPolicy } from "../kernel/ports.ts";
import { Recorder, startCollecting } from "../../tests/support/stand_ins.ts";
import type { AdminResult } from "./admin_command.ts";
import type { PoolNotice } from "./export_messages.ts";
import { Defect } from "../../storage/base/assert.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { readInto } from "../../storage/device/port.ts";
import { MemoryDevice } from "../../tests/support/memory_device.ts";
import {
  makeTestingFiles,
  testingBlockSizeBytes as bs,
  type TestingFiles,
  TestingPool,
  type TestingVolume,
} from "../../tests/support/pool.ts";

const oldBlocks = 8;
const newBlocks = 20;

/** The files of a pool of `oldBlocks` data blocks, on devices that have room for it to grow. */
function roomyFiles(): TestingFiles {
  const { metadata, journal } = makeTestingFiles(oldBlocks, 64);
  const image = new Uint8Array(256 * metadataBlockSizeBytes);
  readInto(metadata, image.subarray(0, metadata.sizeBytes), 0, () => {});
  return { data: new MemoryDevice(newBlocks * bs), metadata: new MemoryDevice(image), journal };
}

/** A pool with a volume larger than its data, of which every data block is used. */
function fullPool(policy?: SchedulerPolicy): { readonly pool: TestingPool; readonly volume: TestingVolume } {
  const pool = new TestingPool(roomyFiles(), policy === undefined ? {} : { policy });
  pool.admin({ verb: "create", name: "a", sizeBytes: 64 * bs });
  const volume = pool.attach("a");
  for (let block = 0; block < oldBlocks; block += 1) writeBlock(volume, block);
  return { pool, volume };
}

function writeBlock(volume: TestingVolume, block: number): string {
  return volume.write(block * bs, new Uint8Array(bs).fill(block + 1)).status;
}

/** The status of a read of a block, and whether it has the bytes that `writeBlock` wrote. */
function holds(volume: TestingVolume, block: number): boolean {
  return volume.read(block * bs, bs).every((byte) => byte === block + 1);
}

function totals(pool: TestingPool): number[] {
  const result = pool.admin({ verb: "status" });
  if (result.kind !== "status") throw new Error(`no status but ${result.kind}`);
  return [result.status.data_total_bytes / bs, result.status.metadata_total_bytes / metadataBlockSizeBytes];
}

/** The engine grows, and a client's flush makes that durable. */
function grow(pool: TestingPool, volume: TestingVolume): void {
  pool.engine.growth.growMetadata(256);
  pool.engine.growth.growData(newBlocks);
  assertEquals(volume.perform("flush", 0, 0).status, "ok");
}

Deno.test("a full pool whose data has grown durably takes writes again, and they lie beyond the old end", () => {
  const { pool, volume } = fullPool();
  assertEquals(writeBlock(volume, 8), "noDataSpace");
  grow(pool, volume);
  for (let block = oldBlocks; block < newBlocks; block += 1) assertEquals(writeBlock(volume, block), "ok");
  assertEquals(writeBlock(volume, newBlocks), "noDataSpace");
  for (let block = 0; block < newBlocks; block += 1) assertEquals(holds(volume, block), true);
  assertEquals(totals(pool), [newBlocks, 256]);
  assertEquals(pool.admin({ verb: "check" }), { kind: "checked", problems: [], notes: [], waiting: 0 });
});

Deno.test("no block of a growth is used before the growth is durable", () => {
  const { pool, volume } = fullPool();
  pool.engine.growth.growData(newBlocks);
  assertEquals(writeBlock(volume, 8), "noDataSpace");
  const { data } = pool.files;
  assertEquals((data as MemoryDevice).bytes.subarray(oldBlocks * bs).every((byte) => byte === 0), true);
  volume.perform("flush", 0, 0);
  assertEquals(writeBlock(volume, 8), "ok");
});

Deno.test("a pool that stops before its growth is durable opens with its old size", () => {
  const { pool } = fullPool();
  pool.engine.growth.growData(newBlocks);
  pool.kernel.stop();
  const reopened = new TestingPool(pool.files);
  assertEquals(totals(reopened), [oldBlocks, 64]);
});

Deno.test("a pool that has grown opens with its new size, and has what was written beyond the old end", () => {
  const { pool, volume } = fullPool();
  grow(pool, volume);
  writeBlock(volume, 15);
  volume.perform("flush", 0, 0);
  pool.kernel.stop();
  const reopened = new TestingPool(pool.files);
  assertEquals(totals(reopened), [newBlocks, 256]);
  assertEquals(holds(reopened.attach("a"), 15), true);
});

Deno.test("sharing is broken, and blocks are discarded and used again, on both sides of the old end", () => {
  const { pool, volume } = fullPool();
  grow(pool, volume);
  for (let block = oldBlocks; block < 12; block += 1) writeBlock(volume, block);
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  // One block below the old end and one beyond it are copied to blocks beyond it.
  for (const block of [3, 10]) {
    assertEquals(volume.write(block * bs, new Uint8Array(512).fill(0xff)).status, "ok");
  }
  const snapshot = pool.attach("a@s");
  for (const block of [3, 10]) assertEquals(holds(snapshot, block), true);
  volume.perform("discard", 0, 16 * bs);
  volume.perform("flush", 0, 0);
  // 12 blocks are the snapshot's, so 8 are left.
  const written = Array.from({ length: 9 }, (_, at) => writeBlock(volume, 32 + at));
  assertEquals(written, [...new Array(8).fill("ok"), "noDataSpace"]);
  for (let block = 0; block < 12; block += 1) assertEquals(holds(snapshot, block), true);
  assertEquals(pool.admin({ verb: "check" }), { kind: "checked", problems: [], notes: [], waiting: 0 });
});

Deno.test("bios in flight when the pool grows end as if it had not, in any order of the messages", () => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const { pool, volume } = fullPool(new RandomPolicy(seed));
    pool.admin({ verb: "snapshot", names: ["a@s"] });
    pool.engine.growth.growData(newBlocks);
    const flush = volume.submit("flush", 0, 0);
    const reads = [0, 1].map((block) => volume.submit("read", block * bs, bs));
    const discard = volume.submit("discard", 5 * bs, 2 * bs);
    const breaks = [2, 3].map((block) =>
      volume.submit("write", block * bs, 512, { data: new Uint8Array(512).fill(0xff) })
    );
    pool.drain();
    assertEquals([flush, ...reads, discard, ...breaks].every((request) => volume.isDone(request)), true);
    assertEquals([flush, ...reads, discard].map(({ status }) => status), ["ok", "ok", "ok", "ok"]);
    // They found a block or no space, as the growth came before them or after.
    assertEquals(breaks.every(({ status }) => status === "ok" || status === "noDataSpace"), true);
    assertEquals(writeBlock(volume, 30), "ok");
    const snapshot = pool.attach("a@s");
    for (let block = 0; block < oldBlocks; block += 1) assertEquals(holds(snapshot, block), true);
    assertEquals(pool.admin({ verb: "check" }), { kind: "checked", problems: [], notes: [], waiting: 0 });
  }
});

Deno.test("clients and commands that come before the sizes are known wait for them", () => {
  const { pool } = fullPool();
  pool.kernel.stop();
  const results: AdminResult[] = [];
  const notices: PoolNotice[] = [];
  new TestingPool(pool.files, {
    beforeStart: ({ kernel, pool }) => {
      const client = new Recorder<PoolNotice>(kernel, "early client");
      client.received = notices;
      kernel.tell(pool.address, { type: "attach", name: "a", client: client.address });
      startCollecting(kernel, pool.admin({ verb: "status" }), results);
      kernel.run();
      assertEquals([notices.length, results.length], [0, 0]);
    },
  });
  assertEquals(notices.map((notice) => "blockSizeBytes" in notice && notice.blockSizeBytes), [bs]);
  assertEquals(results.map(({ kind }) => kind), ["status"]);
});

Deno.test("a growth that the data device does not have is a defect", () => {
  const { pool, volume } = fullPool();
  pool.engine.growth.growData(newBlocks + 1);
  assertThrows(() => volume.perform("flush", 0, 0), Defect, "more than its device has");
});
