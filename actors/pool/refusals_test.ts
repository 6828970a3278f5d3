/** What is refused for a while is said when it begins and when it is over, and a bad block of the disk costs one write. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { refusalQuietMs, retiredBlocksMax, retiredBlocksSaidMax } from "../limits.ts";
import type { IoDone, IoResult } from "../../storage/device/port.ts";
import { FailingDevice } from "../../tests/support/devices.ts";
import {
  makeTestingFiles,
  testingBlockSizeBytes as bs,
  type TestingFiles,
  TestingPool,
} from "../../tests/support/pool.ts";

const done = { kind: "done" };
const block = (value: number) => new Uint8Array(bs).fill(value);

/** A device on which some blocks cannot be written, or are not there for want of space on the host. */
class BadBlocks extends FailingDevice {
  readonly bad = new Set<number>();
  isHostFull = false;

  override write(buffer: Uint8Array, offsetBytes: number, done: IoDone): IoResult | "pending" {
    if (this.isHostFull) return { kind: "noSpace" };
    if (this.bad.has(Math.floor(offsetBytes / bs))) return { kind: "ioError", reason: "a bad block" };
    return super.write(buffer, offsetBytes, done);
  }
}

/** A pool with the volume "v", and its data device. */
function makePool(dataBlocks = 64, metadataBlocks?: number): { pool: TestingPool; device: BadBlocks } {
  const files = makeTestingFiles(dataBlocks, metadataBlocks);
  const device = new BadBlocks(files.data);
  const pool = new TestingPool({ ...files, data: device } satisfies TestingFiles, {
    hostSpace: () => ({ freeBytes: device.isHostFull ? 0 : bs, totalBytes: 8 * bs }),
  });
  assertEquals(pool.admin({ verb: "create", name: "v", sizeBytes: 4096 * bs }), done);
  return { pool, device };
}

/** Until a refusal that is served again is over. */
function quiet(pool: TestingPool): void {
  for (let times = 0; times < 2; times += 1) {
    pool.clock.advance(refusalQuietMs);
    pool.drain();
  }
}

Deno.test("a full pool is said once, and once that it is no longer full", () => {
  const { pool } = makePool(8);
  const v = pool.attach("v");
  for (let at = 0; at < 8; at += 1) assertEquals(v.write(at * bs, block(1)).status, "ok");
  for (let at = 8; at < 12; at += 1) assertEquals(v.write(at * bs, block(1)).status, "noDataSpace");
  quiet(pool);
  assertEquals(pool.logged, [
    "The pool is full (mode out-of-data-space): writes that need space fail, until something is trimmed or removed, or the pool grows.",
  ]);
  assertEquals(v.perform("discard", 0, 4 * bs).status, "ok");
  assertEquals(v.write(8 * bs, block(1)).status, "ok");
  assertEquals(pool.logged.length, 1, "it was said before it was sure");
  quiet(pool);
  assertEquals(pool.logged.slice(1), ["The pool is no longer full: writes that need space succeed."]);
});

Deno.test("a pool that is full and not full by turns does not fill the log", () => {
  const { pool } = makePool(8);
  const v = pool.attach("v");
  for (let at = 0; at < 8; at += 1) v.write(at * bs, block(1));
  for (let times = 0; times < 200; times += 1) {
    assertEquals(v.write(9 * bs, block(1)).status, "noDataSpace");
    v.perform("discard", 0, bs);
    assertEquals(v.write(0, block(1)).status, "ok");
    pool.clock.advance(100);
    pool.drain();
  }
  assertEquals(pool.logged.length, 1);
});

Deno.test("full metadata is said once, and once that it is no longer full", () => {
  const { pool } = makePool(40_000, 64);
  const v = pool.attach("v");
  const made: string[] = [];
  let taken = 0;
  const snapshot = () => {
    const name = `v@${taken += 1}`;
    const isDone = pool.admin({ verb: "snapshot", names: [name] }).kind === "done";
    if (isDone) made.push(name);
    return isDone;
  };
  for (let at = 0; at < 4096; at += 97) v.write(at * bs, block(1));
  for (let refused = 0; refused < 3;) {
    refused = snapshot() ? 0 : refused + 1;
    v.write(((97 * taken) % 4096) * bs, block(2));
  }
  assertEquals(pool.logged.length, 1);
  assertMatch(
    pool.logged[0]!,
    /^The metadata is full \(mode out-of-metadata-space\): new volumes and snapshots may be refused, /,
  );
  assertEquals(pool.admin({ verb: "rm", names: made, force: false, dryRun: false }), done);
  assert(snapshot());
  quiet(pool);
  assertEquals(pool.logged.slice(1), [
    "The metadata is no longer full: writes, new volumes and snapshots succeed.",
  ]);
});

Deno.test("a full host is said once, and once that it has space again", () => {
  const { pool, device } = makePool();
  const v = pool.attach("v");
  device.isHostFull = true;
  for (let at = 0; at < 5; at += 1) assertEquals(v.write(at * bs, block(1)).status, "noHostSpace");
  quiet(pool);
  assertEquals(pool.logged, [
    "The host has no space for the data device (mode out-of-data-space): writes that need some fail, until there is room on the host.",
  ]);
  device.isHostFull = false;
  assertEquals(v.write(0, block(1)).status, "ok");
  quiet(pool);
  assertEquals(pool.logged.length, 2);
  assertEquals(pool.logged[1], "The host has space for the data device again: writes succeed.");
});

Deno.test("why reads of the data device fail is said once with where, and once that they succeed again", () => {
  const { pool, device } = makePool();
  const v = pool.attach("v");
  v.write(0, block(1));
  device.failsReads = true;
  for (let times = 0; times < 1000; times += 1) assertEquals(v.perform("read", 512, 4).status, "ioError");
  assertEquals(pool.logged, [
    "The data device fails, reading at byte 512: a fault of the test. " +
    "Clients get an I/O error for what lies there. Check the disk and the host's log.",
  ]);
  device.failsReads = false;
  assertEquals(v.read(0, 1), new Uint8Array([1]));
  quiet(pool);
  assertEquals(pool.logged.slice(1), [
    `Reads of the data device succeed again: none has failed for ${refusalQuietMs / 1000} s. ` +
    "It failed 1000 times, the last time reading at byte 512: a fault of the test.",
  ]);
});

Deno.test("a bad block fails one provisioning write, is named, and is neither leased again nor counted as free", () => {
  const { pool, device } = makePool(8);
  device.bad.add(0);
  const v = pool.attach("v");
  assertEquals(v.write(0, block(1)).status, "ioError");
  for (let at = 0; at < 7; at += 1) assertEquals(v.write(at * bs, block(1)).status, "ok", `block ${at}`);
  assertEquals(v.write(7 * bs, block(1)).status, "noDataSpace");
  assertEquals(pool.logged.slice(0, 2), [
    "The data device fails, writing at byte 0: a bad block. " +
    "Clients get an I/O error for such writes. Check the disk and the host's log.",
    "The free data block at byte 0 of the data device cannot be written: it is not used until the pool is opened again. " +
    "Check the disk.",
  ]);
  const status = pool.admin({ verb: "status" });
  if (status.kind !== "status") throw new Error("no status");
  assertEquals(status.status.data_total_bytes - status.status.data_used_bytes, 0);
});

Deno.test("what cannot be read to be copied is not blamed on the block that it is copied to", () => {
  const { pool, device } = makePool(8);
  const v = pool.attach("v");
  v.write(0, block(1));
  assertEquals(pool.admin({ verb: "snapshot", names: ["v@s"] }), done);
  device.copy = () => ({ kind: "ioError", reason: "a bad source", isOfSource: true });
  for (let times = 0; times < 20; times += 1) assertEquals(v.write(1, new Uint8Array(1)).status, "ioError");
  assertEquals(pool.logged.length, 1);
  assertMatch(pool.logged[0]!, /^The data device fails, reading at byte 0: a bad source\./);
});

Deno.test("a disk that takes no writes at all does not use up the free blocks, nor the log", () => {
  const { pool, device } = makePool(1024);
  device.failsWrites = true;
  const v = pool.attach("v");
  for (let at = 0; at < 2 * retiredBlocksMax; at += 1) {
    assertEquals(v.write(at * bs, block(1)).status, "ioError");
  }
  assertEquals(pool.logged.length, 1 + retiredBlocksSaidMax + 2);
  device.failsWrites = false;
  for (let at = 0; at < 1024 - retiredBlocksMax; at += 1) {
    assertEquals(v.write(at * bs, block(1)).status, "ok");
  }
});

Deno.test("a catalogue that cannot be written is said once, and once that it can", () => {
  const { pool } = makePool();
  const { journal } = pool.files;
  const { append } = journal;
  journal.append = (_line, _room, done) => {
    journal.pending.push(() => done({ kind: "ioError", reason: "a fault of the test" }));
  };
  for (let times = 0; times < 3; times += 1) {
    assertEquals(pool.admin({ verb: "create", name: "w", sizeBytes: bs }).kind, "refused");
  }
  journal.append = append;
  assertEquals(pool.admin({ verb: "create", name: "w", sizeBytes: bs }), done);
  quiet(pool);
  assertEquals(pool.logged, [
    "The catalogue cannot be written: a fault of the test. Changes of volumes are refused until it can.",
    "The catalogue can be written again.",
  ]);
});

Deno.test("a catalogue that has room for removing alone says that this is kept", () => {
  const { pool } = makePool();
  const { journal } = pool.files;
  journal.append = (_line, _room, done) => {
    journal.pending.push(() => done({ kind: "noSpace" }));
  };
  assertEquals(pool.admin({ verb: "create", name: "w", sizeBytes: bs }).kind, "refused");
  assertEquals(pool.logged, [
    "The catalogue cannot be written: the host has no space but what is kept for removing. Changes of volumes are refused until it can.",
  ]);
});
