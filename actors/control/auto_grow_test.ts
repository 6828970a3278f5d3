/** Growth that nothing asked for: when it comes, and what keeps it from coming. In simulated time. */
import { assert, assertEquals } from "@std/assert";
import { DiscardingDevice, MemoryDevice } from "../../tests/support/memory_device.ts";
import {
  makeTestingFiles,
  testingBlockSizeBytes as bs,
  TestingPool,
  type TestingVolume,
} from "../../tests/support/pool.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { spaceGaugeMs } from "../limits.ts";
import type { AutoGrowRule } from "./auto_grow.ts";
import type { PoolStatus } from "./admin_command.ts";

const MiB = 1024 * 1024;
const data: AutoGrowRule = { device: "data", atPercent: 75, stepBytes: 4 * bs, maxBytes: 14 * bs };

interface Host {
  freeBytes: number;
}

/** A pool of eight data blocks on a device of `deviceBlocks`, with the volume "v". */
function poolOf(
  rules: readonly AutoGrowRule[],
  { host, deviceBlocks = 64, timeoutMs = 60_000 }: {
    host?: Host;
    deviceBlocks?: number;
    timeoutMs?: number;
  } = {},
): { pool: TestingPool; v: TestingVolume } {
  const files = makeTestingFiles(8, 64);
  const metadata = new MemoryDevice(128 * metadataBlockSizeBytes);
  metadata.bytes.set((files.metadata as MemoryDevice).bytes);
  const device = new DiscardingDevice(deviceBlocks * bs);
  const pool = new TestingPool({ ...files, data: device, metadata }, {
    noSpace: { kind: "queue", timeoutMs },
    guard: { warnAtPercents: [], autoGrow: rules },
    hostSpace: () => host === undefined ? undefined : { freeBytes: host.freeBytes, totalBytes: 1024 * MiB },
  });
  pool.admin({ verb: "create", name: "v", sizeBytes: 4096 * bs });
  return { pool, v: pool.attach("v") };
}

function fill(v: TestingVolume, begin: number, end: number): void {
  for (let at = begin; at < end; at += 1) {
    assertEquals(v.write(at * bs, new Uint8Array(bs).fill(1)).status, "ok");
  }
}

function measured(pool: TestingPool): string[] {
  pool.clock.advance(spaceGaugeMs);
  pool.drain();
  return pool.logged.splice(0);
}

function statusOf(pool: TestingPool): PoolStatus {
  const result = pool.admin({ verb: "status" });
  if (result.kind !== "status") throw new Error("status was refused");
  return result.status;
}

function dataBlocks(pool: TestingPool): number {
  return statusOf(pool).data_total_bytes / bs;
}

Deno.test("data grows by the step from the percentage on, and never beyond the maximum", () => {
  const { pool, v } = poolOf([data]);
  fill(v, 0, 5);
  assertEquals([measured(pool), dataBlocks(pool)], [[], 8]);
  fill(v, 5, 6);
  assertEquals(measured(pool), ["The pool's data has grown by itself: 512 KiB -> 768 KiB."]);
  fill(v, 6, 9);
  assertEquals(measured(pool), [
    "The pool's data has grown by itself: 768 KiB -> 896 KiB.",
  ]);
  fill(v, 9, 12);
  assertEquals(measured(pool), [
    "The pool's data is nearly full and does not grow by itself: it has the 896 KiB that --auto-grow allows.",
  ]);
  assertEquals([measured(pool), dataBlocks(pool)], [[], 14]);
});

Deno.test("a write that finds no space has the data grow at once, and is served", () => {
  const { pool, v } = poolOf([{ ...data, atPercent: 100 }]);
  const write = v.submit("write", 0, 11 * bs, { data: new Uint8Array(11 * bs).fill(2) });
  pool.drain();
  assertEquals([write.status, dataBlocks(pool)], ["ok", 12]);
});

Deno.test("a write that needs several steps gets them without a second between", () => {
  const { pool, v } = poolOf([{ ...data, atPercent: 100, stepBytes: bs }]);
  const write = v.submit("write", 0, 12 * bs, { data: new Uint8Array(12 * bs).fill(2) });
  pool.drain();
  assertEquals([write.status, pool.clock.nowMs], ["ok", 0]);
});

Deno.test("nothing grows while the host has not the step free, which is said once", () => {
  const host = { freeBytes: 4 * bs - 1 };
  const { pool, v } = poolOf([data], { host });
  fill(v, 0, 7);
  assertEquals(measured(pool), [
    "The pool's data is nearly full and does not grow by itself: it would grow by 256 KiB, which the host does not have free. Make room there.",
  ]);
  assertEquals([measured(pool), dataBlocks(pool)], [[], 8]);
  host.freeBytes = 4 * bs;
  measured(pool);
  assertEquals(dataBlocks(pool), 12);
});

Deno.test("a growth that fails is said once, and tried again when the host has more room", () => {
  const host = { freeBytes: 64 * MiB };
  const { pool, v } = poolOf([data], { host, deviceBlocks: 8 });
  fill(v, 0, 7);
  const [line, ...others] = measured(pool);
  assert(
    line?.startsWith("The pool's data is nearly full and does not grow by itself: The pool was not grown: "),
    line,
  );
  assertEquals(others, []);
  const turns = () => pool.kernel.deliveries;
  assertEquals(measured(pool), []);
  const before = turns();
  measured(pool);
  const idle = turns() - before;
  host.freeBytes += MiB;
  const again = turns();
  assertEquals(measured(pool), []);
  assert(turns() - again > idle + 3, "it was not tried again");
});

Deno.test("metadata grows by its own rule", () => {
  const rule: AutoGrowRule = {
    device: "metadata",
    atPercent: 60,
    stepBytes: 16 * metadataBlockSizeBytes,
    maxBytes: 96 * metadataBlockSizeBytes,
  };
  const { pool } = poolOf([rule]);
  let volumes = 0;
  const logged: string[] = [];
  for (; volumes < 200; volumes += 1) {
    if (pool.admin({ verb: "create", name: `d${volumes}`, sizeBytes: bs }).kind !== "done") break;
    logged.push(...measured(pool));
  }
  assertEquals(logged.filter((line) => line.includes("has grown")), [
    "The pool's metadata has grown by itself: 256 KiB -> 320 KiB.",
    "The pool's metadata has grown by itself: 320 KiB -> 384 KiB.",
  ]);
  assertEquals(statusOf(pool).metadata_total_bytes, 96 * metadataBlockSizeBytes);
});
