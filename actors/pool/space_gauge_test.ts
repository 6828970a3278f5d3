/** How full a pool is, as its log and `status` say it, in simulated time. */
import { assertEquals } from "@std/assert";
import { makeTestingFiles, testingBlockSizeBytes as bs, TestingPool } from "../../tests/support/pool.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import type { PoolStatus } from "../control/admin_command.ts";
import { spaceGaugeMs } from "../limits.ts";

const MiB = 1024 * 1024;
const guard = { warnAtPercents: [50, 90], autoGrow: [] };

function filled(): Uint8Array {
  return new Uint8Array(bs).fill(1);
}

function statusOf(pool: TestingPool): PoolStatus {
  const result = pool.admin({ verb: "status" });
  if (result.kind !== "status") throw new Error("status was refused");
  return result.status;
}

/** Lets a measure happen, and answers what was logged since the last time. */
function measured(pool: TestingPool): string[] {
  pool.clock.advance(spaceGaugeMs);
  pool.drain();
  return pool.logged.splice(0);
}

function poolOf(dataBlocks: number, metadataBlocks?: number) {
  const pool = new TestingPool(makeTestingFiles(dataBlocks, metadataBlocks), { guard });
  pool.admin({ verb: "create", name: "v", sizeBytes: 4096 * bs });
  return { pool, v: pool.attach("v") };
}

Deno.test("each crossing of a threshold by the data is one line, and it is left two points below", () => {
  const { pool, v } = poolOf(100);
  const write = (begin: number, end: number) => {
    for (let at = begin; at < end; at += 1) v.write(at * bs, filled());
  };
  write(0, 49);
  assertEquals(measured(pool), []);
  assertEquals(statusOf(pool).data, "ok");
  write(49, 50);
  assertEquals(measured(pool), [
    "The pool's data is 50 % full: 3.1 MiB of 6.3 MiB are used. Trim or remove something, or make the pool larger: `grow +SIZE`.",
  ]);
  assertEquals(measured(pool), []);
  assertEquals(statusOf(pool).data, "low");
  v.perform("discard", 0, bs);
  assertEquals([measured(pool), statusOf(pool).data], [[], "low"]);
  v.perform("discard", bs, bs);
  assertEquals(measured(pool), ["The pool's data is below 50 % again: 3 MiB of 6.3 MiB are used."]);
  assertEquals(statusOf(pool).data, "ok");
  write(0, 95);
  assertEquals(measured(pool).map((line) => line.slice(0, 28)), [
    "The pool's data is 50 % full",
    "The pool's data is 90 % full",
  ]);
});

Deno.test("metadata in which a change found no space is 100 % used, and warned of on the way", () => {
  const { pool } = poolOf(100, 64);
  const lines: string[] = [];
  let volumes = 0;
  while (pool.admin({ verb: "create", name: `d${volumes}`, sizeBytes: bs }).kind === "done") {
    volumes += 1;
    lines.push(...measured(pool));
  }
  const status = statusOf(pool);
  assertEquals([status.metadata, status.metadata_used_bytes, status.metadata_total_bytes], [
    "full",
    64 * metadataBlockSizeBytes,
    64 * metadataBlockSizeBytes,
  ]);
  lines.push(...measured(pool));
  const warnings = lines.filter((line) => line.startsWith("The pool's metadata is")).map((line) =>
    line.slice(0, 32)
  );
  assertEquals(warnings, ["The pool's metadata is 50 % full", "The pool's metadata is 90 % full"]);
});

Deno.test("the host's file system is warned of, and status says that it is low", () => {
  let freeBytes = 100 * MiB;
  const pool = new TestingPool(makeTestingFiles(), {
    guard,
    hostSpace: () => ({ freeBytes, totalBytes: 100 * MiB }),
  });
  assertEquals([measured(pool), statusOf(pool).host], [[], "ok"]);
  freeBytes = 9 * MiB;
  assertEquals(measured(pool), [
    "The host's file system under the data is 50 % full: 91 MiB of 100 MiB are used. Make room there: when it is full, writes that need space wait or fail.",
    "The host's file system under the data is 90 % full: 91 MiB of 100 MiB are used. Make room there: when it is full, writes that need space wait or fail.",
  ]);
  const status = statusOf(pool);
  assertEquals([status.host, status.host_free_bytes, status.data], ["low", 9 * MiB, "ok"]);
});

Deno.test("a pool that is not watched is measured when status asks, by the default thresholds", () => {
  const pool = new TestingPool(makeTestingFiles(10));
  pool.admin({ verb: "create", name: "v", sizeBytes: 4096 * bs });
  const v = pool.attach("v");
  for (let at = 0; at < 8; at += 1) v.write(at * bs, filled());
  assertEquals(measured(pool), []);
  assertEquals(statusOf(pool).data, "low");
});
