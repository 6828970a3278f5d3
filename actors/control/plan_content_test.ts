import { assert, assertEquals } from "@std/assert";
import { makeTestingFiles, testingBlockSizeBytes as bs, TestingPool } from "../../tests/support/pool.ts";
import { assertSound, namesIn, reasonOf } from "../../tests/support/pool_checks.ts";

const filled = (blocks: number, value: number) => new Uint8Array(blocks * bs).fill(value);
const done = { kind: "done" };

/** A pool with the volume `a` of four blocks: one block of 1 in its snapshot `a@s`, two of 2 in it. */
function makePool(): TestingPool {
  const pool = new TestingPool(makeTestingFiles(64, 256));
  pool.admin({ verb: "create", name: "a", sizeBytes: 4 * bs });
  const a = pool.attach("a");
  a.write(0, filled(1, 1));
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  a.write(0, filled(2, 2));
  a.detach();
  return pool;
}

Deno.test("a rollback keeps what the volume had as a snapshot, each time under a new name", () => {
  const pool = makePool();
  const kept = { kind: "rolledBack", kept: "a@before-rollback-1", exclusiveBytes: 2 * bs };
  assertEquals(pool.admin({ verb: "rollback", snapshot: "a@s" }), kept);
  assertEquals(pool.attach("a").read(0, 2 * bs), new Uint8Array([...filled(1, 1), ...filled(1, 0)]));
  assertEquals(pool.attach("a@before-rollback-1").read(0, 2 * bs), filled(2, 2));
  const again = pool.admin({ verb: "rollback", snapshot: "a@before-rollback-1", force: true });
  assertEquals(again, { kind: "rolledBack", kept: "a@before-rollback-2", exclusiveBytes: 0 });
  assertEquals(pool.attach("a").read(0, 2 * bs), filled(2, 2));
  pool.admin({ verb: "rename", from: "a", to: "b" });
  assertEquals(namesIn(pool), ["b", "b@before-rollback-1", "b@before-rollback-2", "b@s"]);
  assertSound(pool);
});

Deno.test("a clone of what a rollback kept shares its blocks, and a write to it changes no other", () => {
  const pool = makePool();
  pool.admin({ verb: "rollback", snapshot: "a@s" });
  const kept = "a@before-rollback-1";
  assertEquals(pool.admin({ verb: "clone", source: kept, name: "c" }), done);
  assertEquals(pool.admin({ verb: "clone", source: kept, name: "d" }), done);
  pool.attach("c").write(0, filled(2, 9));
  assertEquals(pool.attach(kept).read(0, 2 * bs), filled(2, 2));
  assertEquals(pool.attach("d").read(0, 2 * bs), filled(2, 2));
  assertSound(pool);
});

Deno.test("a rollback ticks the clock, so that Linux too counts the blocks of what it kept as shared", () => {
  const pool = makePool();
  const before = pool.engine.time;
  pool.admin({ verb: "rollback", snapshot: "a@s" });
  assertEquals(pool.engine.time, before + 1);
});

Deno.test("with clients attached, a rollback and a smaller size need force, and the refusal names them", () => {
  const pool = makePool();
  const a = pool.attach("a");
  for (
    const [command, what] of [
      [{ verb: "rollback", snapshot: "a@s" }, 'roll back to "a@s"'],
      [{ verb: "resize", name: "a", sizeBytes: bs }, 'make "a" smaller'],
      [{ verb: "resize", name: "a", sizeBytes: bs, shrink: true }, 'make "a" smaller'],
    ] as const
  ) {
    const reason = `Cannot ${what}: a client is attached. Detach first, or use --force.`;
    assertEquals(reasonOf(pool.admin(command)), reason);
    assertEquals(a.read(0, 2 * bs), filled(2, 2));
  }
  assertEquals(pool.admin({ verb: "resize", name: "a", sizeBytes: 8 * bs }), done);
  assertEquals(pool.admin({ verb: "rename", from: "a", to: "b" }), done);
  assertEquals(pool.admin({ verb: "resize", name: "b", sizeBytes: bs, force: true }), done);
  assertEquals(pool.admin({ verb: "rollback", snapshot: "b@s", force: true }).kind, "rolledBack");
  assertEquals(a.read(0, bs), filled(1, 1));
});

Deno.test("without clients a volume is made smaller as ever, and --shrink makes none larger", () => {
  const pool = makePool();
  assertEquals(pool.admin({ verb: "resize", name: "a", sizeBytes: 2 * bs }), done);
  assertEquals(pool.admin({ verb: "resize", name: "a", sizeBytes: bs, shrink: true }), done);
  const larger = reasonOf(pool.admin({ verb: "resize", name: "a", sizeBytes: 8 * bs, shrink: true }));
  assert(larger.startsWith(`Cannot resize "a": ${8 * bs} bytes are more than it has, ${bs}.`), larger);
});
