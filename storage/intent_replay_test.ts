import { assertEquals } from "@std/assert";
import { createSnapshots, MetadataDriver } from "../tests/support/metadata_driver.ts";
import { committed, makeMapped, one, two } from "../tests/support/small_pools.ts";
import { dblock, vblock } from "./base/ids.ts";
import type { Intent } from "./intent_record.ts";
import { replayIntent } from "./intent_replay.ts";

function insertOf(at: number, mapped: number, replaced: number | undefined): Intent {
  return {
    kind: "insert",
    thin: one,
    vblock: vblock(at),
    dblock: dblock(mapped),
    replaced: replaced === undefined ? undefined : dblock(replaced),
  };
}

function mappingOf(pool: MetadataDriver, at: number): number | undefined {
  const found = pool.run((engine) => engine.lookup(one, vblock(at)));
  return found.kind === "provisioned" ? found.dblock : undefined;
}

Deno.test("inserts and removals are done again in their order, over many leaves", () => {
  const pool = makeMapped(2000);
  pool.reopen();
  const intents: Intent[] = [
    insertOf(5000, 30_000, undefined),
    insertOf(3, 30_001, 3),
    { kind: "remove", thin: one, begin: vblock(100), end: vblock(1900) },
    insertOf(150, 30_002, undefined),
    insertOf(3, 30_003, 30_001),
  ];
  for (const intent of intents) assertEquals(pool.run((engine) => replayIntent(engine, intent)), undefined);
  committed(pool);
  pool.reopen();
  assertEquals([5000, 3, 99, 100, 150, 1899, 1900].map((at) => mappingOf(pool, at)), [
    30_000,
    30_003,
    99,
    undefined,
    30_002,
    undefined,
    1900,
  ]);
});

Deno.test("a block that a snapshot shares is replaced, and the snapshot keeps its own", () => {
  const pool = makeMapped(10);
  pool.run((engine) => createSnapshots(engine, [{ thin: two, origin: one }], { tick: true }));
  pool.commit();
  pool.reopen();
  assertEquals(pool.run((engine) => replayIntent(engine, insertOf(3, 30_000, 3))), undefined);
  committed(pool);
  const kept = pool.run((engine) => engine.lookup(two, vblock(3)));
  assertEquals(kept.kind === "provisioned" && kept.dblock, 3);
  assertEquals(mappingOf(pool, 3), 30_000);
});

for (
  const [name, intent] of [
    ["another mapping than the one that it replaced", insertOf(3, 30_000, 4)],
    ["a mapping where there was none", insertOf(3, 30_000, undefined)],
    ["no mapping where there was one", insertOf(30, 30_000, 4)],
    ["a data block that is in use", insertOf(30, 7, undefined)],
    ["a data block behind the end", insertOf(30, 40_000, undefined)],
    ["no thin device", { ...insertOf(30, 30_000, undefined), thin: two }],
  ] as const
) {
  Deno.test(`a record does not fit, and changes nothing, if it finds ${name}`, () => {
    const pool = makeMapped(10);
    pool.reopen();
    assertEquals(typeof pool.run((engine) => replayIntent(engine, intent)), "string");
    assertEquals(pool.engine.isDirty, false);
  });
}

Deno.test("replay may use the reserve of metadata blocks", () => {
  const pool = makeMapped(10, 30);
  const refused = (): boolean => {
    for (let at = 100; at < 5000; at += 1) {
      try {
        pool.run((engine) => engine.insert(one, vblock(at * 200), dblock(at)));
      } catch {
        // What is refused is what this is about.
        return true;
      }
    }
    return false;
  };
  assertEquals(refused(), true);
  const next = insertOf(9_999_999, 39_000, undefined);
  assertEquals(pool.run((engine) => replayIntent(engine, next)), undefined);
  committed(pool);
});
