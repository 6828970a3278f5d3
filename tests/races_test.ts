/** What requests, commands and failures do to each other when they meet at the worst moment. */
import { assert, assertEquals } from "@std/assert";
import type { AdminCommand } from "../actors/admin_command.ts";
import { idleRegionsMax, regionBlocks } from "../actors/limits.ts";
import type { DevicePort, IoDone, IoResult } from "../storage/device/port.ts";
import { makeTestingFiles, testingBlockSizeBytes as bs, TestingPool } from "./testing_pool.ts";
import { RandomPolicy } from "./testing_world.ts";

function filled(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

/** A device that fails its reads or writes from when it is told to. */
class FailingDevice implements DevicePort {
  failsReads = false;
  failsWrites = false;
  constructor(readonly device: DevicePort) {}

  get sizeBytes(): number {
    return this.device.sizeBytes;
  }
  get canDiscard(): boolean {
    return this.device.canDiscard;
  }
  read(buffer: Uint8Array, offsetBytes: number, done: IoDone): IoResult | "pending" {
    return this.failsReads ? failed : this.device.read(buffer, offsetBytes, done);
  }
  write(buffer: Uint8Array, offsetBytes: number, done: IoDone): IoResult | "pending" {
    return this.failsWrites ? failed : this.device.write(buffer, offsetBytes, done);
  }
  zero(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    return this.device.zero(offsetBytes, lengthBytes, done);
  }
  copy(fromBytes: number, toBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    return this.device.copy(fromBytes, toBytes, lengthBytes, done);
  }
  discard(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    return this.device.discard(offsetBytes, lengthBytes, done);
  }
  isHole(offsetBytes: number, lengthBytes: number): boolean {
    return this.device.isHole(offsetBytes, lengthBytes);
  }
  flush(done: IoDone): IoResult | "pending" {
    return this.device.flush(done);
  }
}

/** A device whose reads end when they are told to. */
class SlowDevice extends FailingDevice {
  isSlow = false;
  readonly #pending: (() => void)[] = [];

  override read(buffer: Uint8Array, offsetBytes: number, done: IoDone): IoResult | "pending" {
    const result = super.read(buffer, offsetBytes, done);
    if (!this.isSlow || result === "pending") return result;
    this.#pending.push(() => done(result));
    return "pending";
  }
  finish(): void {
    for (const end of this.#pending.splice(0)) end();
  }
}

const failed: IoResult = { kind: "ioError", reason: "a fault of the test" };

function modeOf(pool: TestingPool): string {
  const result = pool.admin({ verb: "status" });
  return result.kind === "status" ? result.status.mode : result.kind;
}

function usedBlocks(pool: TestingPool): number {
  const result = pool.admin({ verb: "status" });
  return result.kind === "status" ? result.status.data_used_bytes / bs : -1;
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
  pool.admin({ verb: "resize", name: "a", sizeBytes: 4000 * bs });
  const a = pool.attach("a");
  pool.kernel.start("test", pool.pool.admin(command));
  pool.kernel.run();
  const request = a.submit("writeZeroes", 0, 4000 * bs, { noHole: true });
  pool.files.journal.pending.shift()!();
  pool.drain();
  return { pool, a, request };
}

Deno.test("a request that was accepted before its volume shrank maps nothing beyond the new end", () => {
  const { pool, a, request } = resizeUnderRequest({ verb: "resize", name: "a", sizeBytes: 10 * bs });
  assert(a.isDone(request));
  assertEquals(request.status, "outOfRange");
  assert(usedBlocks(pool) <= 10);
});

Deno.test("a request that was accepted before a rollback maps nothing beyond the end of the snapshot", () => {
  const { pool, a, request } = resizeUnderRequest({ verb: "rollback", snapshot: "a@s" });
  assert(a.isDone(request));
  assertEquals(request.status, "outOfRange");
  assert(usedBlocks(pool) <= 10);
});

Deno.test("a volume that is never idle keeps few lock regions, however far apart its requests lie", () => {
  const files = makeTestingFiles();
  const data = new SlowDevice(files.data);
  const pool = new TestingPool({ ...files, data });
  pool.admin({ verb: "create", name: "a", sizeBytes: 2 ** 52 });
  const a = pool.attach("a");
  a.write(0, filled(bs, 1));
  data.isSlow = true;
  const slow = a.submit("read", 0, 10);
  for (let region = 1; region < 500; region += 1) a.read(region * regionBlocks * bs, 10);
  assert(!a.isDone(slow));
  const regions = [...pool.kernel.mailboxHighWater().keys()].filter((name) => name.startsWith("region a "));
  assert(regions.length <= idleRegionsMax + 1, `${regions.length} regions`);
  data.finish();
  pool.drain();
  assertEquals(slow.data, filled(10, 1));
});
