/** `quota` and `reserve`: what a volume may map, and what is kept for it. In a pool in memory. */
import { assert, assertEquals } from "@std/assert";
import {
  makeTestingFiles,
  testingBlockSizeBytes as bs,
  type TestingFiles,
  TestingPool,
  type TestingVolume,
} from "../../tests/support/pool.ts";
import { Random } from "../../tests/support/world.ts";
import type { AdminResult, PoolStatus, VolumeListing } from "./admin_command.ts";

const noSpace = { kind: "queue", timeoutMs: 60_000 } as const;
const done: AdminResult = { kind: "done" };

function filled(blocks = 1): Uint8Array {
  return new Uint8Array(blocks * bs).fill(1);
}

function poolOf(dataBlocks: number, ...names: string[]): { pool: TestingPool; volumes: TestingVolume[] } {
  const pool = new TestingPool(makeTestingFiles(dataBlocks), { noSpace });
  for (const name of names) pool.admin({ verb: "create", name, sizeBytes: 1024 * bs });
  return { pool, volumes: names.map((name) => pool.attach(name)) };
}

function quota(pool: TestingPool, name: string, blocks: number | null): AdminResult {
  return pool.admin({ verb: "quota", name, quotaBytes: blocks === null ? null : blocks * bs });
}

function reserve(pool: TestingPool, name: string, blocks: number | null): AdminResult {
  return pool.admin({ verb: "reserve", name, reserveBytes: blocks === null ? null : blocks * bs });
}

function list(pool: TestingPool): readonly VolumeListing[] {
  const result = pool.admin({ verb: "list", exact: true });
  if (result.kind !== "volumes") throw new Error("list was refused");
  return result.volumes;
}

function listed(pool: TestingPool, name: string): VolumeListing {
  return list(pool).find((volume) => volume.name === name)!;
}

function statusOf(pool: TestingPool): PoolStatus {
  const result = pool.admin({ verb: "status" });
  if (result.kind !== "status") throw new Error("status was refused");
  return result.status;
}

function reasonOf(result: AdminResult): string {
  return result.kind === "refused" ? result.reason : result.kind;
}

Deno.test("a quota bounds the mapped blocks exactly, whatever is under way at once, and a trim gives room back", () => {
  const { pool, volumes: [v] } = poolOf(64, "v");
  assertEquals(quota(pool, "v", 5), done);
  const requests = Array.from({ length: 9 }, (_, at) => v!.submit("write", at * bs, bs, { data: filled() }));
  pool.drain();
  assertEquals(requests.filter(({ status }) => status === "ok").length, 5);
  assertEquals(requests.filter(({ status }) => status === "quotaExceeded").length, 4);
  const { mapped_bytes, quota_bytes } = listed(pool, "v");
  assertEquals([mapped_bytes, quota_bytes], [5 * bs, 5 * bs]);
  // In place, and a TRIM, which makes room for one.
  assertEquals(v!.write(0, filled()).status, "ok");
  v!.perform("discard", 0, bs);
  assertEquals([v!.write(20 * bs, filled()).status, v!.write(21 * bs, filled()).status], [
    "ok",
    "quotaExceeded",
  ]);
  assertEquals(quota(pool, "v", null), done);
  assertEquals(v!.write(21 * bs, filled()).status, "ok");
});

Deno.test("a write beyond the quota fails at once in a full pool too, where others wait", () => {
  const { pool, volumes: [v, other] } = poolOf(4, "v", "other");
  quota(pool, "v", 1);
  v!.write(0, filled());
  other!.write(0, filled(3));
  const waiting = other!.submit("write", 9 * bs, bs, { data: filled() });
  pool.drain();
  assertEquals([other!.isDone(waiting), v!.write(bs, filled()).status], [false, "quotaExceeded"]);
  assertEquals(statusOf(pool).parked, 1);
});

Deno.test("blocks of snapshots do not count for the quota, and breaking sharing needs none of it", () => {
  const { pool, volumes: [v] } = poolOf(64, "v");
  v!.write(0, filled(3));
  quota(pool, "v", 3);
  assertEquals(pool.admin({ verb: "snapshot", names: ["v@s"] }), done);
  assertEquals(v!.write(0, filled(3)).status, "ok");
  assertEquals(v!.write(5 * bs, filled()).status, "quotaExceeded");
});

Deno.test("zeroes that must be provisioned are refused as a whole where the quota does not allow all of them", () => {
  const { pool, volumes: [v] } = poolOf(64, "v");
  quota(pool, "v", 8);
  v!.write(0, filled(4));
  assertEquals(v!.perform("writeZeroes", 0, 9 * bs, { noHole: true }).status, "quotaExceeded");
  assertEquals(listed(pool, "v").mapped_bytes, 4 * bs);
  assertEquals(v!.perform("writeZeroes", 0, 8 * bs, { noHole: true }).status, "ok");
});

Deno.test("a quota and a reserve hold after a restart and after a rollback, and are gone with their volume", () => {
  const files: TestingFiles = makeTestingFiles(32);
  const open = () =>
    new TestingPool(files, { noSpace, newUid: () => `u${Math.random().toString(36).slice(2)}` });
  let pool = open();
  pool.admin({ verb: "create", name: "v", sizeBytes: 1024 * bs });
  pool.admin({ verb: "create", name: "other", sizeBytes: 1024 * bs });
  let v = pool.attach("v");
  v.write(0, filled(2));
  pool.admin({ verb: "snapshot", names: ["v@s"] });
  v.write(2 * bs, filled(2));
  assertEquals([quota(pool, "v", 4), reserve(pool, "v", 10)], [done, done]);
  assertEquals(statusOf(pool).data_reserved_bytes, 8 * bs);
  assertEquals(pool.ask(pool.pool.stop()), done);
  pool = open();
  v = pool.attach("v");
  assertEquals([listed(pool, "v").quota_bytes, listed(pool, "v").reserve_bytes], [4 * bs, 10 * bs]);
  assertEquals(statusOf(pool).data_reserved_bytes, 8 * bs, "what it maps alone is counted anew");
  assertEquals(v.write(9 * bs, filled()).status, "quotaExceeded");
  assertEquals(pool.admin({ verb: "rollback", snapshot: "v@s", force: true }).kind, "rolledBack");
  assertEquals(v.write(8 * bs, filled(3)).status, "quotaExceeded");
  assertEquals(v.write(8 * bs, filled(2)).status, "ok");
  assertEquals(statusOf(pool).data_reserved_bytes, 8 * bs);
  v.detach();
  assertEquals(pool.admin({ verb: "rm", names: ["v"], dryRun: false, force: false }), done);
  assertEquals(statusOf(pool).data_reserved_bytes, 0);
});

Deno.test("a pool that is opened read-only shows what is kept for its volumes", () => {
  const files = makeTestingFiles(32);
  const pool = new TestingPool(files, { noSpace });
  pool.admin({ verb: "create", name: "v", sizeBytes: 1024 * bs });
  pool.attach("v").write(0, filled(3));
  assertEquals([reserve(pool, "v", 10), pool.ask(pool.pool.stop())], [done, done]);
  assertEquals(statusOf(new TestingPool(files, { noSpace, readOnly: true })).data_reserved_bytes, 7 * bs);
});

Deno.test("a pool that is opened without a walk counts what volumes without relatives own, and nothing of others", () => {
  const files = makeTestingFiles(64);
  const pool = new TestingPool(files, { noSpace });
  for (const name of ["alone", "origin"]) {
    pool.admin({ verb: "create", name, sizeBytes: 1024 * bs });
    pool.attach(name).write(0, filled(3));
  }
  pool.admin({ verb: "snapshot", names: ["origin@s"] });
  pool.attach("origin").write(0, filled(2));
  assertEquals([reserve(pool, "alone", 10), reserve(pool, "origin", 20)], [done, done]);
  assertEquals(statusOf(pool).data_reserved_bytes, (7 + 18) * bs);
  assertEquals(pool.ask(pool.pool.stop()), done);
  for (const readOnly of [true, false]) {
    const opened = new TestingPool(files, { noSpace, readOnly, countsByWalk: false });
    assertEquals(statusOf(opened).data_reserved_bytes, (7 + 20) * bs);
    assertEquals(opened.ask(opened.pool.stop()), done);
  }
  assertEquals(statusOf(new TestingPool(files, { noSpace })).data_reserved_bytes, (7 + 18) * bs);
});

Deno.test("where only reserved blocks are left other volumes wait, and the volume goes on to the last of its blocks", () => {
  const { pool, volumes: [v, other] } = poolOf(10, "v", "other");
  v!.write(0, filled(2));
  assertEquals(reserve(pool, "v", 6), done);
  assertEquals(statusOf(pool).data_reserved_bytes, 4 * bs);
  const writes = Array.from(
    { length: 6 },
    (_, at) => other!.submit("write", at * bs, bs, { data: filled() }),
  );
  pool.drain();
  assertEquals(writes.filter((write) => other!.isDone(write)).length, 4);
  assertEquals([statusOf(pool).parked, statusOf(pool).data], [2, "full"]);
  assertEquals(v!.write(2 * bs, filled(4)).status, "ok");
  assertEquals(statusOf(pool).data_reserved_bytes, 0);
  // Beyond its reserve it is like any other.
  const beyond = v!.submit("write", 9 * bs, bs, { data: filled() });
  pool.drain();
  assertEquals(v!.isDone(beyond), false);
  // What it gives back is owed to it again.
  v!.perform("discard", 0, bs);
  pool.drain();
  assertEquals(writes.filter((write) => other!.isDone(write)).length, 4);
});

Deno.test("ending a reserve lets the writes go on that waited for its blocks", () => {
  const { pool, volumes: [_v, other] } = poolOf(8, "v", "other");
  reserve(pool, "v", 8);
  const write = other!.submit("write", 0, 3 * bs, { data: filled(3) });
  pool.drain();
  assertEquals(other!.isDone(write), false);
  assertEquals(reserve(pool, "v", 6), done);
  assertEquals(other!.isDone(write), false);
  assertEquals(reserve(pool, "v", null), done);
  assertEquals(write.status, "ok");
  assert(other!.isDone(write));
});

Deno.test("a reserve of more than is free, and a snapshot that breaks one, are refused and change nothing", () => {
  const { pool, volumes: [v] } = poolOf(16, "v", "other");
  v!.write(0, filled(6));
  assertEquals(
    reasonOf(reserve(pool, "v", 17)),
    "The pool was not changed: what is free would not suffice for what is reserved for volumes; remove something, " +
      "make the pool larger, or reserve less.",
  );
  assertEquals(reserve(pool, "v", 12), done);
  assertEquals(
    reasonOf(reserve(pool, "other", 5)).slice(0, 50),
    "The pool was not changed: what is free would not s",
  );
  assertEquals(reserve(pool, "other", 4), done);
  // The snapshot would share the six blocks, and their copies would need six more than the four that are left.
  const snapshot = { verb: "snapshot", names: ["other@s", "v@s"] } as const;
  assertEquals(
    reasonOf(pool.admin(snapshot)).slice(0, 50),
    "The pool was not changed: what is free would not s",
  );
  assertEquals(list(pool).map(({ name }) => name), ["other", "v"]);
  assertEquals(reserve(pool, "v", 6), done);
  assertEquals(pool.admin(snapshot), done);
  assertEquals(statusOf(pool).data_reserved_bytes, 10 * bs);
  // When the snapshot is gone, its blocks are the volume's own again.
  assertEquals(pool.admin({ verb: "rm", names: ["v@s"], dryRun: false, force: false }), done);
  assertEquals(statusOf(pool).data_reserved_bytes, 4 * bs);
});

for (const seed of [1, 2, 3, 4]) {
  Deno.test(`what is free is never less than what is owed, by a count of everything: seed ${seed}`, () => {
    const random = new Random(seed);
    const { pool, volumes } = poolOf(40, "a", "b", "c");
    const names = ["a", "b", "c"];
    let snapshots = 0;
    for (let step = 0; step < 120; step += 1) {
      const at = random.below(3);
      const [name, volume] = [names[at]!, volumes[at]!];
      switch (random.below(8)) {
        case 0:
          reserve(pool, name, random.below(4) === 0 ? null : 1 + random.below(20));
          break;
        case 1:
          quota(pool, name, random.below(4) === 0 ? null : 1 + random.below(20));
          break;
        case 2:
          pool.admin({ verb: "snapshot", names: [`${name}@s${snapshots++}`] });
          break;
        case 3: {
          const all = list(pool).filter((one) => one.name.includes("@"));
          const some = all[random.below(Math.max(1, all.length))];
          if (some !== undefined) {
            pool.admin({ verb: "rm", names: [some.name], dryRun: false, force: false });
          }
          break;
        }
        case 4:
          volume.submit("discard", random.below(30) * bs, (1 + random.below(4)) * bs);
          break;
        default:
          volume.submit("write", random.below(30) * bs, bs, { data: filled() });
      }
      pool.drain();
      const status = statusOf(pool);
      const freeBytes = status.data_total_bytes - status.data_used_bytes;
      let owedBytes = 0;
      for (const { reserve_bytes, exclusive_bytes } of list(pool)) {
        owedBytes += Math.max(0, (reserve_bytes ?? 0) - (exclusive_bytes ?? 0));
      }
      assert(freeBytes >= owedBytes, `step ${step}: ${freeBytes} are free, ${owedBytes} are owed`);
      assert(status.data_reserved_bytes >= owedBytes, `step ${step}: less is kept than owed`);
      assert(status.data_reserved_bytes <= freeBytes, `step ${step}: more is kept than free`);
    }
  });
}
