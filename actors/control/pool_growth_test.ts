/** `grow` and `rescan` inside: what waits goes on, what is refused changes nothing, and devices grow before the superblock. */
import { assertEquals } from "@std/assert";
import { assert } from "../../storage/base/assert.ts";
import { DiscardingDevice, MemoryDevice } from "../../tests/support/memory_device.ts";
import {
  makeTestingFiles,
  testingBlockSizeBytes as bs,
  type TestingFiles,
  TestingPool,
  type TestingVolume,
} from "../../tests/support/pool.ts";
import { ScriptedPeers } from "../../tests/support/scripted_peers.ts";
import { geometryOf } from "../../storage/base/geometry.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { ioOk, type IoResult } from "../../storage/device/port.ts";
import type { AdminResult } from "./admin_command.ts";
import { growPool } from "./pool_growth.ts";

const noSpace = { kind: "queue", timeoutMs: 60_000 } as const;

/** The files of a pool of four data blocks and 64 metadata blocks, on devices of so many. */
function filesOn(dataBlocks: number, metadataBlocks: number): TestingFiles {
  const files = makeTestingFiles(4, 64);
  const metadata = new MemoryDevice(metadataBlocks * metadataBlockSizeBytes);
  metadata.bytes.set((files.metadata as MemoryDevice).bytes);
  return { ...files, data: new DiscardingDevice(dataBlocks * bs), metadata };
}

function filled(value: number): Uint8Array {
  return new Uint8Array(bs).fill(value);
}

function fullPool(files: TestingFiles): { pool: TestingPool; v: TestingVolume } {
  const pool = new TestingPool(files, { noSpace });
  pool.admin({ verb: "create", name: "v", sizeBytes: 4096 * bs });
  const v = pool.attach("v");
  for (let at = 0; at < 4; at += 1) assertEquals(v.write(at * bs, filled(1)).status, "ok");
  return { pool, v };
}

function grow(pool: TestingPool, dataBlocks: number, metadataBlocks: number): AdminResult {
  const added = (bytes: number) => bytes === 0 ? null : { bytes, added: true };
  const metadata = added(metadataBlocks * metadataBlockSizeBytes);
  return pool.admin({ verb: "grow", data: added(dataBlocks * bs), metadata });
}

function assertGrew(result: AdminResult, dataBlocks: number, metadataBlocks: number): void {
  assert(result.kind === "grown", JSON.stringify(result));
  assertEquals(result.sizes, {
    data_total_bytes: dataBlocks * bs,
    metadata_total_bytes: metadataBlocks * metadataBlockSizeBytes,
  });
}

Deno.test("writes that wait for data blocks go on after a growth, in the order in which they came", () => {
  const { pool, v } = fullPool(filesOn(8, 64));
  const parked = [5, 6, 7].map((block) => v.submit("write", block * bs, bs, { data: filled(block) }));
  pool.drain();
  assertEquals(parked.map((request) => v.isDone(request)), [false, false, false]);
  assertGrew(grow(pool, 1, 0), 5, 64);
  assertEquals(parked.map((request) => v.isDone(request)), [true, false, false]);
  assertGrew(grow(pool, 2, 0), 7, 64);
  assertEquals(parked.map((request) => request.status), ["ok", "ok", "ok"]);
  for (const block of [5, 6, 7]) assertEquals(v.read(block * bs, bs), filled(block));
});

Deno.test("what full metadata refused is possible after it has grown", () => {
  const { pool, v } = fullPool(filesOn(4, 128));
  let devices = 0;
  while (pool.admin({ verb: "create", name: `d${devices}`, sizeBytes: bs }).kind === "done") devices += 1;
  assert(devices > 10, "only a few volumes were made");
  assertEquals(pool.admin({ verb: "status" }).kind, "status");
  assertGrew(grow(pool, 0, 64), 4, 128);
  assertEquals(pool.admin({ verb: "create", name: "more", sizeBytes: bs }).kind, "done");
  v.perform("discard", 0, bs);
  assertEquals(v.write(9 * bs, filled(1)).status, "ok");
});

Deno.test("a device that is not so large refuses the growth, and the pool is as it was", () => {
  const { pool, v } = fullPool(filesOn(6, 64));
  const parked = v.submit("write", 5 * bs, bs, { data: filled(5) });
  for (const [data, metadata] of [[4, 0], [0, 1], [1, 1]] as const) {
    const result = grow(pool, data, metadata);
    assert(result.kind === "refused" && result.reason.startsWith("The pool was not grown: the "), "refused");
  }
  assert(!v.isDone(parked), "it still waits");
  assertGrew(pool.admin({ verb: "rescan" }), 6, 64);
  assertEquals([v.isDone(parked), parked.status], [true, "ok"]);
});

Deno.test("a pool that has grown is as large after it is opened again", () => {
  const files = filesOn(8, 128);
  const { pool } = fullPool(files);
  assertGrew(grow(pool, 4, 64), 8, 128);
  pool.kernel.stop();
  const again = new TestingPool(files, { newUid: () => "other" });
  const status = again.admin({ verb: "status" });
  assert(status.kind === "status", "status answers with a status");
  const { data_total_bytes, metadata_total_bytes } = status.status;
  assertEquals([data_total_bytes, metadata_total_bytes], [8 * bs, 128 * metadataBlockSizeBytes]);
});

/** A device that can grow up to what it is made with. It notes when it grows, and when its first block is written. */
class GrowingDevice extends MemoryDevice {
  isFull = false;
  #sizeBytes: number;

  constructor(bytes: Uint8Array, sizeBytes: number, readonly name: string, readonly noted: string[]) {
    super(bytes);
    this.#sizeBytes = sizeBytes;
  }

  override get sizeBytes(): number {
    return this.#sizeBytes;
  }

  grow(sizeBytes: number, isStored: boolean): IoResult {
    this.noted.push(`${this.name} grows${isStored ? ", stored" : ""}`);
    if (this.isFull) return { kind: "noSpace" };
    this.#sizeBytes = sizeBytes;
    return ioOk;
  }

  override write(buffer: Uint8Array, offsetBytes: number): IoResult {
    if (offsetBytes === 0) this.noted.push(`${this.name} has a new first block`);
    return super.write(buffer, offsetBytes);
  }
}

Deno.test("both devices grow before the superblock, and a host without space for the metadata changes nothing", () => {
  const noted: string[] = [];
  const files = filesOn(8, 128);
  const bytesOf = (device: unknown) => (device as MemoryDevice).bytes;
  const data = new GrowingDevice(bytesOf(files.data), 4 * bs, "data", noted);
  const metadata = new GrowingDevice(bytesOf(files.metadata), 64 * metadataBlockSizeBytes, "metadata", noted);
  const { pool, v } = fullPool({ ...files, data, metadata });
  v.perform("flush", 0, 0);
  noted.length = 0;
  metadata.isFull = true;
  const refused = grow(pool, 4, 64);
  assertEquals(refused, {
    kind: "refused",
    reason:
      "The pool was not grown: the host has not so much space for the metadata. Make room there, or give a " +
      "smaller size.",
  });
  assertEquals(noted, ["metadata grows, stored"]);
  metadata.isFull = false;
  assertGrew(pool.admin({ verb: "rescan" }), 4, 64);
  noted.length = 0;
  assertGrew(grow(pool, 4, 64), 8, 128);
  assertEquals(noted, ["metadata grows, stored", "data grows", "metadata has a new first block"]);
});

Deno.test("where the data cannot grow after the metadata has, the refusal says what the metadata keeps", () => {
  const files = filesOn(8, 128);
  const bytesOf = (device: unknown) => (device as MemoryDevice).bytes;
  const data = new GrowingDevice(bytesOf(files.data), 4 * bs, "data", []);
  const metadata = new GrowingDevice(bytesOf(files.metadata), 64 * metadataBlockSizeBytes, "metadata", []);
  const { pool } = fullPool({ ...files, data, metadata });
  data.isFull = true;
  const refused = grow(pool, 4, 64);
  assertEquals(refused, {
    kind: "refused",
    reason:
      "The pool was not grown: the host has not so much space for the data. Make room there, or give a smaller size. " +
      "The metadata keeps its new size of 512 KiB, which `rescan` puts to use.",
  });
});

/** What a growth to 8 data blocks answers that finds no metadata in its midst. */
function brokenOff(commit: unknown): string {
  const geometry = geometryOf({ dataBlocks: 6, metadataBlocks: 128, blockSizeBytes: bs });
  const grew = { result: ioOk, sizeBytes: 0 };
  const peers = new ScriptedPeers()
    .answer("facts", { geometry }, { geometry })
    .answer("askGrowth", { kind: "possible" })
    .answer("grow", grew, grew, { kind: "noMetadataSpace" })
    .answer("commit", { kind: "done" }, commit);
  const data = { bytes: 8 * bs, added: false };
  const result = peers.run(growPool(peers.peers, { verb: "grow", data, metadata: null }));
  return result.kind === "refused" ? result.reason : result.kind;
}

Deno.test("a growth that breaks off says how large data and metadata are, or that they are not durable", () => {
  const full = "the metadata is full; remove volumes or snapshots, or make it larger with `grow --metadata`";
  assertEquals(
    brokenOff({ kind: "done" }),
    `The growth broke off with 384 KiB of data and 512 KiB of metadata: ${full}. Try again.`,
  );
  assertEquals(
    brokenOff({ kind: "poolFailed" }),
    `The growth broke off: ${full}. What had grown by then is not durable: the pool has failed; restart it.`,
  );
});

Deno.test("sizes that are no whole positive numbers are refused, and the pool goes on", () => {
  const pool = new TestingPool(filesOn(8, 64));
  for (const bytes of [NaN, Infinity, 0, -bs, 0.5]) {
    for (const added of [false, true]) {
      const size = { bytes, added };
      const reason =
        `The pool was not grown: a size of ${bytes} bytes is no whole positive number. Give one that is.`;
      assertEquals(pool.admin({ verb: "grow", data: size, metadata: null }), { kind: "refused", reason });
      assertEquals(pool.admin({ verb: "grow", data: null, metadata: size }), { kind: "refused", reason });
    }
  }
  assertGrew(grow(pool, 1, 0), 5, 64);
});
