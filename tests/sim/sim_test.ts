/** The fixed set of the simulator, and what the simulator itself must be able to do. */
import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import type { ThinId } from "../../storage/base/ids.ts";
import type { PoolParts } from "./life_world.ts";
import { fixedSeeds, seedsThatFound } from "./seeds.ts";
import { World } from "./world.ts";

const seedsPerTest = 100;

for (const { seed, what } of seedsThatFound) {
  Deno.test(`simulated run ${seed} holds, which once found: ${what}`, () => {
    assertEquals(new World(seed, { isPlain: true }).run().violation, undefined);
  });
}

const kept = new Set(seedsThatFound.map(({ seed }) => seed));
const seeds = fixedSeeds().filter((seed) => !kept.has(seed)).slice(0, 3 * seedsPerTest);
for (let at = 0; at < seeds.length; at += seedsPerTest) {
  const some = seeds.slice(at, at + seedsPerTest);
  Deno.test(`whole servers under crashes keep every promise (${some.length} runs from seed ${some[0]})`, () => {
    const counts = new Map<string, number>();
    let [crashes, replays, replaysCut, foreign] = [0, 0, 0, 0];
    for (const seed of some) {
      const result = new World(seed).run();
      assertEquals(result.violation, undefined, `deno task sim --seed ${seed}`);
      crashes += result.crashes;
      replays += result.replays;
      replaysCut += result.replaysCut;
      for (const count of result.foreign.values()) foreign += count;
      for (const [what, count] of result.counts) counts.set(what, (counts.get(what) ?? 0) + count);
    }
    assert(crashes > 2 * some.length, "the runs crash");
    assert(replays > 10, `intent journals were replayed ${replays} times only`);
    assert(replaysCut > 4, `a crash ended ${replaysCut} replays only`);
    assert(foreign > 10, `another program came ${foreign} times only`);
    for (
      const what of [
        "write 0",
        "read 0",
        "flush 0",
        "discard 0",
        "writeZeroes 0",
        "snapshot done",
        "rm done",
        "clone done",
        "grow grown",
        "rescan grown",
        "the host has room again",
        "a command is refused by a full host",
      ]
    ) {
      assert((counts.get(what) ?? 0) > 10, `"${what}" has hardly happened`);
    }
  });
}

Deno.test("the same seed gives the same run, message by message", () => {
  for (const seed of [3, 11, 20]) {
    const [first, second] = [new World(seed).run(), new World(seed).run()];
    assertEquals([first.hash, first.answers, first.actions], [second.hash, second.answers, second.actions]);
  }
});

Deno.test("different seeds give different runs", () => {
  const hashes = new Set<number>();
  for (let seed = 1; seed <= 30; seed += 1) hashes.add(new World(seed).run().hash);
  assertEquals(hashes.size, 30);
});

/** The first violation from this seed on: where the simulator draws in another way, a later seed has it. */
function firstViolation(from: number, options: ConstructorParameters<typeof World>[1]): string {
  for (let seed = from; seed < from + 300; seed += 1) {
    const { violation } = new World(seed, options).run();
    if (violation !== undefined) return violation;
  }
  return "nothing";
}

Deno.test("a server that answers before the intent journal has the records is found", () => {
  assertMatch(firstViolation(2, { forgetsIntents: true }), /^after the kill: "/);
});

Deno.test("a server that overlooks what another program did to the metadata is found", () => {
  assertMatch(firstViolation(18, { overlooksForeign: true }), /another program/);
});

Deno.test("a pool that refuses a block which the quota allows is found", () => {
  const { violation } = new World(16, {
    breaks: ({ engine: { allowances } }) => {
      const refusalOf = allowances.refusalOf.bind(allowances);
      allowances.refusalOf = (thin, mappedBlocks, isNew) => refusalOf(thin, mappedBlocks + 1, isNew);
    },
  }).run();
  assertMatch(violation ?? "", /was refused for want of space, and nothing was full/);
});

/** Metadata that refuses what a commit would give it blocks for. */
function waitsForNoCommit({ engine }: PoolParts): void {
  Object.defineProperty(engine, "metadataReleasable", { value: 0 });
}

Deno.test("a write that is refused for metadata blocks which a commit gives back is found", () => {
  assertMatch(firstViolation(214, { breaks: waitsForNoCommit }), /for want of space, and nothing was full/);
});

Deno.test("a command that is refused for metadata blocks which a commit gives back is found", () => {
  assertMatch(firstViolation(71, { breaks: waitsForNoCommit }), /create was refused for full metadata/);
});

/** Drops a setting of a volume whose device another replaces, and leaves it in the catalogue. */
function dropsAtRollback(setting: "quotaBytes" | "reserveBytes"): (parts: PoolParts) => void {
  return ({ engine }) => {
    const change = engine.change.bind(engine);
    engine.change = (wanted) => {
      const made = new Set(wanted.snapshots.map(({ thin }) => thin));
      const { allowances = [] } = wanted;
      const dropped = ({ thin }: { readonly thin: ThinId }) => made.has(thin) ? { [setting]: undefined } : {};
      change({ ...wanted, allowances: allowances.map((each) => ({ ...each, ...dropped(each) })) });
    };
  };
}

Deno.test("a rollback that drops the quota of its volume is found", () => {
  const { violation } = new World(39, { breaks: dropsAtRollback("quotaBytes") }).run();
  assertMatch(violation ?? "", /may map Infinity blocks more, and its quota leaves/);
});

Deno.test("a rollback that drops the reserve of its volume is found", () => {
  const { violation } = new World(125, { breaks: dropsAtRollback("reserveBytes") }).run();
  assertMatch(violation ?? "", /the pool counts \d+ blocks as owed, and \d+ are/);
});

Deno.test("leaving out actions gives another run, and the same one each time", () => {
  const whole = new World(11).run();
  const dropped = new Set(whole.actions.filter((_, at) => at % 2 === 0).map((action) => action.ordinal));
  const shorter = new World(11, { dropped }).run();
  assert(shorter.actions.length > 0 && !shorter.actions.some((action) => dropped.has(action.ordinal)));
  assertEquals(new World(11, { dropped }).run().hash, shorter.hash);
  assertNotEquals(whole.hash, shorter.hash);
});
