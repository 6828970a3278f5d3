/** Writes that wait for space: what passes them, what ends them, and when they go on. */
import { assert, assertEquals } from "@std/assert";
import { MemoryDevice } from "../../tests/support/memory_device.ts";
import {
  makeTestingFiles,
  testingBlockSizeBytes as bs,
  TestingPool,
  type TestingVolume,
} from "../../tests/support/pool.ts";
import type { NoSpacePolicy } from "../pool/space_messages.ts";
import type { PoolStatus } from "../control/admin_command.ts";
import type { VolumeRequest } from "./bio.ts";

const queue: NoSpacePolicy = { kind: "queue", timeoutMs: 60_000 };

/** A pool of four data blocks, all of them written by the volume v. */
function fullPool(noSpace: NoSpacePolicy = queue): { pool: TestingPool; v: TestingVolume } {
  const pool = new TestingPool(makeTestingFiles(4), { noSpace });
  pool.admin({ verb: "create", name: "v", sizeBytes: 16 * bs });
  const v = pool.attach("v");
  for (let at = 0; at < 4; at += 1) assertEquals(v.write(at * bs, filled(1)).status, "ok");
  return { pool, v };
}

function filled(value: number, lengthBytes = bs): Uint8Array {
  return new Uint8Array(lengthBytes).fill(value);
}

/** Submits a write that finds no space. */
function park(v: TestingVolume, block: number, value: number, blocks = 1): VolumeRequest {
  const request = v.submit("write", block * bs, blocks * bs, { data: filled(value, blocks * bs) });
  v.pool.drain();
  assert(!v.isDone(request), `the write of block ${block} ended: ${request.status}`);
  return request;
}

function statusOf(pool: TestingPool): PoolStatus {
  const result = pool.admin({ verb: "status" });
  if (result.kind !== "status") throw new Error(`no status: ${result.kind}`);
  return result.status;
}

function pass(pool: TestingPool, ms: number): void {
  pool.clock.advance(ms);
  pool.drain();
}

Deno.test("a write without space waits, and all that needs none passes it", () => {
  const { pool, v } = fullPool();
  const parked = park(v, 5, 2);
  assertEquals(v.write(0, filled(3, 512)).status, "ok");
  assertEquals(v.read(bs, 512)[0], 1);
  assertEquals(v.perform("flush", 0, 0).status, "ok");
  assertEquals(pool.admin({ verb: "snapshot", names: ["v@s"] }), { kind: "done" });
  assertEquals(pool.admin({ verb: "rm", names: ["v@s"], force: false, dryRun: false }), { kind: "done" });
  assertEquals(pool.admin({ verb: "resize", name: "v", sizeBytes: 17 * bs, force: true }), { kind: "done" });
  const status = statusOf(pool);
  assertEquals([status.mode, status.data, status.metadata, status.parked], [
    "out-of-data-space",
    "full",
    "ok",
    1,
  ]);
  assert(!v.isDone(parked));
});

Deno.test("a write that waits goes on when something is trimmed, without a commit by hand or a second of time", () => {
  const { pool, v } = fullPool();
  const parked = park(v, 5, 2);
  assertEquals(v.perform("discard", 0, bs).status, "ok");
  assertEquals([v.isDone(parked), parked.status], [true, "ok"]);
  assertEquals(v.read(5 * bs, 8), filled(2, 8));
  const status = statusOf(pool);
  assertEquals([status.mode, status.parked, status.reason], ["write", 0, null]);
});

Deno.test("writes that wait are served in the order in which they came, each when there is a block for it", () => {
  const { v } = fullPool();
  const parked = [5, 6, 7].map((block) => park(v, block, block));
  for (let served = 1; served <= 3; served += 1) {
    v.perform("discard", (served - 1) * bs, bs);
    assertEquals(parked.map((request) => v.isDone(request)), [true, served > 1, served > 2]);
  }
});

Deno.test("a large write of which a part waits goes on as a whole when there is space for the rest", () => {
  const { v } = fullPool();
  v.perform("discard", 0, bs);
  v.perform("flush", 0, 0);
  const parked = park(v, 5, 2, 4);
  v.perform("discard", bs, bs);
  assert(!v.isDone(parked));
  v.perform("discard", 2 * bs, 2 * bs);
  assertEquals([v.isDone(parked), parked.status], [true, "ok"]);
  assertEquals(v.read(5 * bs, 4 * bs), filled(2, 4 * bs));
});

Deno.test("zeroes that must be provisioned wait outside of their client's queue", () => {
  const { v } = fullPool();
  const parked = v.submit("writeZeroes", 5 * bs, 2 * bs, { noHole: true });
  v.pool.drain();
  assert(!v.isDone(parked));
  assertEquals(v.read(0, 8), filled(1, 8));
  v.perform("discard", 0, 2 * bs);
  // No write has asked for a block, so nothing hurries the commit that gives these back.
  pass(v.pool, 1_000);
  assertEquals([v.isDone(parked), parked.status], [true, "ok"]);
});

Deno.test("after the timeout all writes that wait fail, to the second, and others at once until there is space", () => {
  const { pool, v } = fullPool();
  const first = park(v, 5, 2);
  pass(pool, 30_000);
  const second = park(v, 6, 2);
  pass(pool, 29_999);
  assert(!v.isDone(first) && !v.isDone(second));
  pass(pool, 1);
  assertEquals([first.status, second.status], ["noDataSpace", "noDataSpace"]);
  assertEquals(v.write(7 * bs, filled(2)).status, "noDataSpace");
  assertEquals([statusOf(pool).mode, statusOf(pool).parked], ["out-of-data-space", 0]);
  v.perform("discard", 0, bs);
  assertEquals(statusOf(pool).mode, "write");
  assertEquals(v.write(5 * bs, filled(2)).status, "ok");
  park(v, 6, 2);
});

Deno.test("the timeout begins anew when a write that waited was served", () => {
  const { pool, v } = fullPool();
  const [first, second] = [park(v, 5, 2), park(v, 6, 2)];
  pass(pool, 40_000);
  v.perform("discard", 0, bs);
  assert(v.isDone(first));
  pass(pool, 59_999);
  assert(!v.isDone(second));
  pass(pool, 1);
  assertEquals(second.status, "noDataSpace");
});

Deno.test("with a timeout of 0 writes wait for ever", () => {
  const { pool, v } = fullPool({ kind: "queue", timeoutMs: 0 });
  const parked = park(v, 5, 2);
  pass(pool, 24 * 3_600_000);
  assert(!v.isDone(parked));
});

Deno.test("with the policy to fail, a write without space fails at once, and the mode is told", () => {
  const { pool, v } = fullPool({ kind: "error" });
  assertEquals(v.write(5 * bs, filled(2)).status, "noDataSpace");
  assertEquals(statusOf(pool).mode, "out-of-data-space");
  v.perform("discard", 0, bs);
  v.perform("flush", 0, 0);
  assertEquals(statusOf(pool).mode, "write");
});

Deno.test("a write to a shared block that waits goes on in place when the block is its volume's own", () => {
  const { pool, v } = fullPool();
  pool.admin({ verb: "snapshot", names: ["v@s"] });
  const first = park(v, 5, 2);
  const shared = park(v, 0, 3);
  pool.admin({ verb: "rm", names: ["v@s"], force: false, dryRun: false });
  assertEquals([v.isDone(first), v.isDone(shared), shared.status], [false, true, "ok"]);
});

Deno.test("a write to a block that a clone shared waits until the clone has let go of it", () => {
  const { pool, v } = fullPool();
  pool.admin({ verb: "clone", source: "v", name: "w" });
  const w = pool.attach("w");
  park(v, 5, 2);
  const shared = park(v, 0, 3);
  assertEquals(w.perform("discard", 0, bs).status, "ok");
  pass(pool, 1_000);
  pass(pool, 1_000);
  assertEquals([v.isDone(shared), shared.status], [true, "ok"]);
});

Deno.test("writes of a client that is gone are dropped and never done", () => {
  const { v } = fullPool();
  const parked = park(v, 5, 2);
  v.pool.kernel.tell(v.address, { type: "dropParked", client: v.client });
  v.pool.drain();
  assertEquals([v.isDone(parked), parked.status], [true, "dropped"]);
  v.perform("discard", 0, bs);
  assertEquals(v.read(5 * bs, 8), filled(0, 8));
});

Deno.test("a volume whose writes waited closes when its client is gone, and opens again", () => {
  const { pool, v } = fullPool();
  park(v, 5, 2);
  v.pool.kernel.tell(v.address, { type: "dropParked", client: v.client });
  pool.drain();
  v.detach();
  assertEquals(pool.admin({ verb: "rm", names: ["v"], force: false, dryRun: false }), { kind: "done" });
  pool.admin({ verb: "create", name: "v", sizeBytes: bs });
  assertEquals(pool.attach("v").write(0, filled(9)).status, "ok");
});

Deno.test("a volume that became smaller answers the writes that wait beyond its end", () => {
  const { pool, v } = fullPool();
  const [inside, outside] = [park(v, 5, 2), park(v, 9, 2)];
  assertEquals(pool.admin({ verb: "resize", name: "v", sizeBytes: 8 * bs, force: true }), { kind: "done" });
  assertEquals([v.isDone(inside), outside.status], [false, "outOfRange"]);
});

Deno.test("a write into a snapshot's volume that waits goes on in the volume as it is after a rollback", () => {
  const pool = new TestingPool(makeTestingFiles(3), { noSpace: queue });
  pool.admin({ verb: "create", name: "v", sizeBytes: 16 * bs });
  const v = pool.attach("v");
  v.write(0, filled(1));
  pool.admin({ verb: "snapshot", names: ["v@s"] });
  v.write(bs, filled(2));
  v.write(2 * bs, filled(2));
  const parked = park(v, 3, 3);
  const kept = "v@before-rollback-1";
  const held = { kind: "rolledBack", kept, exclusiveBytes: 2 * bs } as const;
  assertEquals(pool.admin({ verb: "rollback", snapshot: "v@s", force: true }), held);
  assertEquals(v.isDone(parked), false);
  pool.admin({ verb: "rm", names: [kept], dryRun: false, force: false });
  assertEquals([v.isDone(parked), parked.status], [true, "ok"]);
  assertEquals([v.read(0, 1)[0], v.read(bs, 1)[0], v.read(3 * bs, 1)[0]], [1, 0, 3]);
});

/** A data device on a host that may be full. */
class HostDevice extends MemoryDevice {
  isFull = false;

  override write(buffer: Uint8Array, offsetBytes: number) {
    return this.isFull ? { kind: "noSpace" } as const : super.write(buffer, offsetBytes);
  }
}

Deno.test("a write in place for which the host has no room waits, and the host is asked each second", () => {
  const device = new HostDevice(8 * bs);
  let freeBytes = 0;
  const pool = new TestingPool({ ...makeTestingFiles(8), data: device }, {
    noSpace: queue,
    hostSpace: () => ({ freeBytes, totalBytes: 8 * bs }),
  });
  pool.admin({ verb: "create", name: "v", sizeBytes: 8 * bs });
  const v = pool.attach("v");
  v.write(0, filled(1));
  device.isFull = true;
  const parked = park(v, 0, 2);
  const status = statusOf(pool);
  assertEquals([status.mode, status.data, status.host_free_bytes], ["out-of-data-space", "host-full", 0]);
  device.isFull = false;
  pass(pool, 3_000);
  assert(!v.isDone(parked));
  freeBytes = bs;
  pass(pool, 1_000);
  assertEquals([v.isDone(parked), parked.status], [true, "ok"]);
  assertEquals(statusOf(pool).mode, "write");
});

Deno.test("writes for which metadata has no block wait until something is removed", () => {
  const pool = new TestingPool(makeTestingFiles(40_000, 64), { noSpace: queue });
  pool.admin({ verb: "create", name: "v", sizeBytes: 2 ** 14 * bs });
  const v = pool.attach("v");
  const names: string[] = [];
  let parked: VolumeRequest | undefined;
  for (let round = 0; parked === undefined; round += 1) {
    if (pool.admin({ verb: "snapshot", names: [`v@${round}`] }).kind === "done") names.push(`v@${round}`);
    for (let at = 0; at < 4096 && parked === undefined; at += 97) {
      const request = v.submit("write", at * bs, 512, { data: filled(round + 1, 512) });
      pool.drain();
      if (!v.isDone(request)) parked = request;
    }
  }
  const status = statusOf(pool);
  assertEquals([status.mode, status.metadata], ["out-of-metadata-space", "full"]);
  pool.admin({ verb: "rm", names, force: false, dryRun: false });
  assertEquals([v.isDone(parked), parked.status], [true, "ok"]);
  assertEquals(statusOf(pool).mode, "write");
});

for (const noSpace of [queue, { kind: "error" } as const]) {
  Deno.test(`writes that together change more metadata blocks than are free go on by commits, with the policy "${noSpace.kind}"`, () => {
    const pool = new TestingPool(makeTestingFiles(1000, 128), { noSpace });
    const names: string[] = [];
    const create = () => pool.admin({ verb: "create", name: `v${names.length}`, sizeBytes: bs }).kind;
    while (create() === "done") names.push(`v${names.length}`);
    pool.admin({ verb: "rm", names: names.splice(-3), force: false, dryRun: false, wait: true });
    // The first write of each volume changes the root of its tree, which stays one block.
    const volumes = names.slice(0, 20).map((name) => pool.attach(name));
    const writes = volumes.map((v) => v.submit("write", 0, bs, { data: filled(1) }));
    pool.drain();
    assertEquals(
      writes.map((write, at) => [volumes[at]!.isDone(write), write.status]),
      writes.map(() => [true, "ok"]),
    );
    assertEquals(statusOf(pool).mode, "write");
  });
}

Deno.test("a mode is logged when it is entered, and when it is left", () => {
  const { pool, v } = fullPool();
  park(v, 5, 2);
  assertEquals(pool.logged, [
    "The pool is full (mode out-of-data-space): writes that need space wait, and fail after 60 s, until something is trimmed or removed, or the pool grows.",
  ]);
  v.perform("discard", 0, bs);
  pass(pool, 10_000);
  pass(pool, 10_000);
  assertEquals(pool.logged.slice(1), ["The pool is no longer full: writes that need space succeed."]);
});
