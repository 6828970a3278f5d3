/** What requests, commands and failures do to each other when they meet at the worst moment. */
import { assert, assertEquals } from "@std/assert";
import type { AdminCommand } from "../control/admin_command.ts";
import { defaultKnobs } from "../knobs.ts";
import { regionsPerVolumeMax } from "../limits.ts";
import { MemoryDevice } from "../../tests/support/memory_device.ts";
import { assert as require } from "../../storage/base/assert.ts";
import { settleCatalogue } from "../../storage/catalogue_open.ts";
import { readJournal } from "../../storage/catalogue_journal.ts";
import { nodeChild, nodeFindAtOrBelow } from "../../storage/format/btree_node.ts";
import { unpackSuperblock } from "../../storage/format/superblock.ts";
import {
  makeTestingFiles,
  MemoryJournal,
  testingBlockSizeBytes as bs,
  type TestingFiles,
  TestingPool,
} from "../../tests/support/pool.ts";
import { FailingDevice, SlowDevice } from "../../tests/support/devices.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { RandomPolicy } from "../../tests/support/world.ts";
import { usedBlocks } from "../../tests/support/pool_checks.ts";

function filled(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

function modeOf(pool: TestingPool): string {
  const result = pool.admin({ verb: "status" });
  return result.kind === "status" ? result.status.mode : result.kind;
}

Deno.test("a request that is under way when a commit fails is answered, whatever it waits for", () => {
  for (let seed = 0; seed < 60; seed += 1) {
    const files = makeTestingFiles(8);
    const metadata = new FailingDevice(files.metadata);
    const pool = new TestingPool({ ...files, metadata }, { policy: new RandomPolicy(seed) });
    pool.admin({ verb: "create", name: "a", sizeBytes: 64 * bs });
    const a = pool.attach("a");
    a.write(0, filled(8 * bs, 1));
    a.perform("flush", 0, 0);
    metadata.failsWrites = true;
    const requests = [a.submit("discard", 0, 2 * bs), a.submit("flush", 0, 0)];
    for (let block = 20; block < 26; block += 1) {
      requests.push(a.submit("write", block * bs, 10, { data: filled(10, 3) }));
    }
    requests.push(a.submit("discard", 3 * bs, 2 * bs));
    pool.drain();
    const open = requests.filter((request) => !a.isDone(request));
    assertEquals(open.length, 0, `seed ${seed}: ${pool.kernel.tasksInFlight().join("; ")}`);
  }
});

Deno.test("damage met just before a commit begins stops the writes and not the reads", () => {
  for (let seed = 0; seed < 30; seed += 1) {
    const files = makeTestingFiles();
    const before = new TestingPool(files);
    for (const name of ["a", "b"]) {
      before.admin({ verb: "create", name, sizeBytes: 64 * bs });
      const volume = before.attach(name);
      volume.write(0, filled(bs, 1));
      volume.perform("flush", 0, 0);
    }
    const metadata = new FailingDevice(files.metadata);
    const pool = new TestingPool({ ...files, metadata }, { policy: new RandomPolicy(seed) });
    const [a, b] = [pool.attach("a"), pool.attach("b")];
    a.read(0, 10);
    metadata.failsReads = true;
    a.submit("write", 20 * bs, 10, { data: filled(10, 3) });
    const damaged = b.submit("read", 0, 10);
    const flush = a.submit("flush", 0, 0);
    pool.drain();
    assertEquals([a.isDone(flush), damaged.status], [true, "ioError"]);
    assertEquals(modeOf(pool), "read-only", `seed ${seed}`);
    assertEquals(a.read(0, 10), filled(10, 1));
  }
});

Deno.test("a write is not refused for want of space that becomes free while it looks for some", () => {
  for (let seed = 0; seed < 200; seed += 1) {
    const pool = new TestingPool(makeTestingFiles(8), { policy: new RandomPolicy(seed) });
    pool.admin({ verb: "create", name: "a", sizeBytes: 64 * bs });
    const a = pool.attach("a");
    a.write(0, filled(8 * bs, 1));
    a.perform("discard", (seed % 8) * bs, bs);
    a.submit("flush", 0, 0);
    const write = a.submit("write", 30 * bs, 10, { data: filled(10, 3) });
    pool.drain();
    assertEquals(write.status, "ok", `seed ${seed}`);
  }
});

/** Lets a command begin, submits a request of 4000 blocks into its midst, and lets both end. */
function resizeUnderRequest(command: AdminCommand) {
  const pool = new TestingPool(makeTestingFiles(5000));
  pool.admin({ verb: "create", name: "a", sizeBytes: 10 * bs });
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  pool.admin({ verb: "resize", name: "a", sizeBytes: 4000 * bs, force: true });
  const a = pool.attach("a");
  pool.kernel.start("test", pool.pool.admin(command));
  pool.kernel.run();
  const request = a.submit("writeZeroes", 0, 4000 * bs, { noHole: true });
  pool.files.journal.pending.shift()!();
  pool.drain();
  return { pool, a, request };
}

Deno.test("a request that was accepted before its volume shrank maps nothing beyond the new end", () => {
  const { pool, a, request } = resizeUnderRequest({
    verb: "resize",
    name: "a",
    sizeBytes: 10 * bs,
    force: true,
  });
  assert(a.isDone(request));
  assertEquals(request.status, "outOfRange");
  assert(usedBlocks(pool) <= 10);
});

Deno.test("a request that was accepted before a rollback maps nothing beyond the end of the snapshot", () => {
  const { pool, a, request } = resizeUnderRequest({ verb: "rollback", snapshot: "a@s", force: true });
  assert(a.isDone(request));
  assertEquals(request.status, "outOfRange");
  // It may have mapped blocks before: they are those of what the rollback replaced.
  pool.admin({ verb: "rm", names: ["a@before-rollback-1"], dryRun: false, force: false });
  assert(usedBlocks(pool) <= 10);
});

/** Lock regions of the volume `a` that there are. */
function regionsOf(pool: TestingPool): number {
  return [...pool.kernel.mailboxHighWater().keys()].filter((name) => name.startsWith("region a ")).length;
}

Deno.test("a discard of petabytes takes few lock regions, before and after the volume is resized", () => {
  const files = makeTestingFiles();
  const data = new SlowDevice(files.data);
  const pool = new TestingPool({ ...files, data });
  pool.admin({ verb: "create", name: "a", sizeBytes: 2 ** 40 });
  const a = pool.attach("a");
  a.write(0, filled(bs, 1));
  for (const sizeBytes of [2 ** 52, 2 ** 36, 2 ** 53 - 512]) {
    const resized = pool.admin({ verb: "resize", name: "a", sizeBytes, force: true });
    assertEquals(resized, { kind: "done" });
    for (const at of [0, sizeBytes / 2, sizeBytes - 4096]) {
      a.write(at - at % 4096, filled(4096, 1));
    }
    data.slows = "read";
    a.submit("read", 0, 10);
    pool.drain();
    const discard = a.submit("discard", 0, sizeBytes);
    pool.drain();
    assert(!a.isDone(discard), "it waits for the reader of the first block");
    assert(regionsOf(pool) <= 64, `${regionsOf(pool)} regions`);
    data.slows = undefined;
    data.finish();
    pool.drain();
    assertEquals([discard.status, usedBlocks(pool)], ["ok", 0]);
  }
});

Deno.test("a volume that is never idle keeps few lock regions, however far apart its requests lie", () => {
  const files = makeTestingFiles();
  const data = new SlowDevice(files.data);
  const pool = new TestingPool({ ...files, data });
  pool.admin({ verb: "create", name: "a", sizeBytes: 2 ** 52 });
  const a = pool.attach("a");
  a.write(0, filled(bs, 1));
  data.slows = "read";
  const slow = a.submit("read", 0, 10);
  for (let region = 1; region < regionsPerVolumeMax; region += 1) {
    a.read(region * (2 ** 52 / regionsPerVolumeMax), 10);
  }
  assert(!a.isDone(slow));
  assert(regionsOf(pool) <= defaultKnobs.idleRegionsMax + 1, `${regionsOf(pool)} regions`);
  data.finish();
  pool.drain();
  assertEquals(slow.data, filled(10, 1));
});

/** The files with the volume marked as one whose removal a crash interrupted, and its mappings damaged. */
function withDamagedRemoval(files: TestingFiles, name: string): TestingFiles {
  const { metadata } = files;
  require(metadata instanceof MemoryDevice, "it is in memory");
  const superblock = unpackSuperblock(metadata.bytes.slice(0, metadataBlockSizeBytes));
  require(typeof superblock !== "string", "the pool is sound");
  const { catalogue } = settleCatalogue(readJournal(files.journal.text), superblock.transactionId);
  const content = JSON.parse(catalogue.snapshotLine());
  const record = content.volumes.find((volume: { name: string }) => volume.name === name);
  record.deleting = true;
  const top = new DataView(metadata.bytes.buffer, superblock.mappingRoot * metadataBlockSizeBytes);
  const root = nodeChild(top, nodeFindAtOrBelow(top, record.thin_id));
  metadata.bytes[root * metadataBlockSizeBytes + 100]! ^= 1;
  return { ...files, journal: new MemoryJournal(`${JSON.stringify(content)}\n`) };
}

Deno.test("a removal that cannot be finished does not keep the rest of the pool from being served", () => {
  const files = makeTestingFiles();
  const before = new TestingPool(files);
  for (const name of ["a", "b"]) {
    before.admin({ verb: "create", name, sizeBytes: 8 * bs });
    const volume = before.attach(name);
    volume.write(0, filled(bs, 7));
    volume.perform("flush", 0, 0);
  }
  const pool = new TestingPool(withDamagedRemoval(files, "b"), { newUid: () => "later" });
  assertEquals(pool.attach("a").read(0, 10), filled(10, 7));
  assertEquals(modeOf(pool), "read-only");
  assert(pool.logged.some((sentence) => sentence.includes("not all space came back")));
});
