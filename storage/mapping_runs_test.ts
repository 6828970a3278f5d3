/** Runs of what is mapped and what differs, against a plain model, the real thin_delta, and counts of what is read. */
import { Random } from "../tests/support/world.ts";
import { createSnapshots, createThin } from "../tests/support/metadata_driver.ts";
import { assert, assertEquals } from "@std/assert";
import type { MetadataDriver } from "../tests/support/metadata_driver.ts";
import { makePool, one, two } from "../tests/support/small_pools.ts";
import { hasThinTools, runOnImage, type ThinToolsVersion } from "../tests/support/thin_tools.ts";
import { present } from "./base/assert.ts";
import { dblock, metadataBlockSizeBytes, type ThinId, thinId, vblock } from "./base/ids.ts";
import { type MarkedRun, MetadataFault, type ThinMetadata } from "./thin_metadata.ts";

type Mappings = Map<number, number>;
type Ask = (
  engine: ThinMetadata,
  begin: number,
  end: number,
  runsMax: number,
) => readonly MarkedRun[] | undefined;

function mappedOf(thin: ThinId): Ask {
  return (engine, begin, end, runsMax) =>
    engine.runs.mapped(thin, { begin: vblock(begin), end: vblock(end), runsMax });
}

function differingOf(thin: ThinId, other: ThinId): Ask {
  return (engine, begin, end, runsMax) =>
    engine.runs.differing(thin, other, { begin: vblock(begin), end: vblock(end), runsMax });
}

/** Asks turn by turn to the end of a range. Returns the marked parts, and checks what holds for every turn. */
function askAll(pool: MetadataDriver, ask: Ask, begin: number, end: number, runsMax: number): Found {
  const marked: [number, number][] = [];
  let turns = 0;
  let missesMax = 0;
  for (let at = begin; at < end; turns++) {
    const misses = pool.misses;
    const runs = present(pool.run((engine) => ask(engine, at, end, runsMax)), "the devices are there");
    missesMax = Math.max(missesMax, pool.misses - misses);
    assert(runs.length > 0 && runs.length <= runsMax);
    for (const [index, run] of runs.entries()) {
      assert(run.length > 0 && (index === 0 || runs[index - 1]!.isMarked !== run.isMarked));
      const last = marked.at(-1);
      if (run.isMarked && last?.[1] === at) last[1] += run.length;
      else if (run.isMarked) marked.push([at, at + run.length]);
      at += run.length;
    }
    assert(at <= end);
  }
  return { marked, turns, missesMax };
}

interface Found {
  readonly marked: readonly [number, number][];
  readonly turns: number;
  /** The most blocks that one turn missed. */
  readonly missesMax: number;
}

/** The vblocks of a range for which `isMarked`, as runs. */
function runsWhere(begin: number, end: number, isMarked: (block: number) => boolean): [number, number][] {
  const runs: [number, number][] = [];
  for (let at = begin; at < end; at++) {
    if (!isMarked(at)) continue;
    const last = runs.at(-1);
    if (last?.[1] === at) last[1]++;
    else runs.push([at, at + 1]);
  }
  return runs;
}

/** Devices that come from each other, written to at random, and what they should map. */
class Family {
  readonly pool: MetadataDriver;
  readonly devices = new Map<ThinId, Mappings>();
  readonly #random: Random;
  readonly #vblocks: number;
  #dblockLast = 0;
  #thinLast = 0;

  constructor(random: Random, vblocks: number, cacheBlocks: number) {
    this.pool = makePool(2048, 400_000, cacheBlocks);
    this.#random = random;
    this.#vblocks = vblocks;
    this.create();
  }

  create(): void {
    const thin = thinId(++this.#thinLast);
    this.pool.run((engine) => createThin(engine, thin));
    this.devices.set(thin, new Map());
  }

  any(): ThinId {
    return [...this.devices.keys()][this.#random.below(this.devices.size)]!;
  }

  step(): void {
    const random = this.#random;
    const dice = random.below(100);
    if (dice < 3 && this.devices.size < 6) this.create();
    else if (dice < 12 && this.devices.size < 6) this.#snapshot();
    else if (dice < 15 && this.devices.size > 2) this.#delete();
    else if (dice < 55) this.#write(1 + random.below(random.chance(0.2) ? 1500 : 10));
    else if (dice < 75) this.#discard();
    else if (dice < 85) this.pool.commit();
    else if (dice < 90) {
      this.pool.commit();
      this.pool.reopen();
    }
  }

  #snapshot(): void {
    const origin = this.any();
    const thin = thinId(++this.#thinLast);
    this.pool.run((engine) => createSnapshots(engine, [{ thin, origin }], { tick: true }));
    this.devices.set(thin, new Map(this.devices.get(origin)));
  }

  #delete(): void {
    const thin = this.any();
    while (!this.pool.run((engine) => engine.deleteThin(thin, 8))) continue;
    this.devices.delete(thin);
  }

  #write(blocks: number): void {
    const thin = this.any();
    const begin = this.#random.below(this.#vblocks);
    const stride = this.#random.chance(0.5) ? 1 : 1 + this.#random.below(20);
    for (let index = 0; index < blocks; index++) {
      const at = (begin + index * stride) % this.#vblocks;
      const fresh = dblock(this.#dblockLast++);
      this.pool.run((engine) => engine.insert(thin, vblock(at), fresh));
      this.devices.get(thin)!.set(at, fresh);
    }
  }

  #discard(): void {
    const thin = this.any();
    const begin = this.#random.below(this.#vblocks);
    const end = Math.min(this.#vblocks, begin + 1 + this.#random.below(this.#random.chance(0.1) ? 3000 : 30));
    for (let at = begin; at < end;) {
      at = this.pool.run((engine) => engine.removeRange(thin, vblock(at), vblock(end)).next);
    }
    for (let at = begin; at < end; at++) this.devices.get(thin)!.delete(at);
  }

  /** Compares a range of two devices with the model. */
  compare(): void {
    const random = this.#random;
    const [thin, other] = [this.any(), this.any()];
    const [mapped, otherMapped] = [this.devices.get(thin)!, this.devices.get(other)!];
    const begin = random.below(this.#vblocks);
    const end = begin + 1 + random.below(this.#vblocks + 100 - begin);
    const runsMax = 1 + random.below(random.chance(0.5) ? 4 : 2000);
    assertEquals(
      askAll(this.pool, mappedOf(thin), begin, end, runsMax).marked,
      runsWhere(begin, end, (at) => mapped.has(at)),
    );
    assertEquals(
      askAll(this.pool, differingOf(thin, other), begin, end, runsMax).marked,
      runsWhere(begin, end, (at) => mapped.get(at) !== otherMapped.get(at)),
    );
  }
}

for (const [vblocks, cacheBlocks] of [[300, 1000], [6000, 1000], [60_000, 40]] as const) {
  Deno.test(`devices are told apart as a model does, ${vblocks} blocks each, ${cacheBlocks} in memory`, () => {
    for (let seed = 1; seed <= 4; seed++) {
      const family = new Family(new Random(seed), vblocks, cacheBlocks);
      for (let step = 0; step < 250; step++) {
        family.step();
        if (step % 3 === 0) family.compare();
      }
    }
  });
}

for (const version of ["0.9", "1.x"] satisfies ThinToolsVersion[]) {
  Deno.test({
    name: `thin_delta ${version} finds the same differences`,
    ignore: !hasThinTools(version),
    fn: async () => {
      let compared = 0;
      for (let seed = 11; seed <= 13; seed++) {
        const family = new Family(new Random(seed), 3000, 1000);
        for (let step = 0; step < 120; step++) family.step();
        family.pool.commit();
        const thins = [...family.devices.keys()];
        for (const thin of thins) {
          for (const other of thins) {
            if (thin >= other) continue;
            const found = askAll(family.pool, differingOf(thin, other), 0, 5000, 100).marked;
            assertEquals(found, await thinDelta(family.pool.image, thin, other, version));
            if (found.length > 0) compared++;
          }
        }
      }
      assert(compared > 5, "some of them differ");
    },
  });
}

/** What the real tool says differs, in order and merged. */
async function thinDelta(
  image: Uint8Array,
  thin: ThinId,
  other: ThinId,
  version: ThinToolsVersion,
): Promise<[number, number][]> {
  const args = ["--thin1", `${thin}`, "--thin2", `${other}`];
  const result = await runOnImage("thin_delta", version, image, args);
  assertEquals(result.status, 0, result.stderr);
  const runs: [number, number][] = [];
  for (
    const [, begin, length] of result.stdout.matchAll(
      /<(?:different|left_only|right_only) begin="(\d+)".* length="(\d+)"/g,
    )
  ) {
    const last = runs.at(-1);
    if (last?.[1] === Number(begin)) last[1] += Number(length);
    else runs.push([Number(begin), Number(begin) + Number(length)]);
  }
  return runs;
}

/**
 * Device 1 with `count` mappings at every `stride`th block, device 2 a snapshot of it; committed, nothing in memory.
 */
function makeSnapshotted(count: number, stride: number): MetadataDriver {
  const pool = makePool(4096, 2 * count + 80_000, 5000);
  pool.run((engine) => createThin(engine, one));
  for (let at = 0; at < count; at++) {
    pool.run((engine) => engine.insert(one, vblock(at * stride), dblock(at)));
  }
  pool.run((engine) => createSnapshots(engine, [{ thin: two, origin: one }], { tick: true }));
  pool.commit();
  pool.reopen();
  pool.misses = 0;
  return pool;
}

Deno.test("a snapshot that nothing was written to since is compared without reading a node", () => {
  const pool = makeSnapshotted(100_000, 1);
  const { marked, turns } = askAll(pool, differingOf(one, two), 0, 2 ** 40, 1);
  assertEquals([marked, turns, pool.misses], [[], 1, 0]);
});

Deno.test("what a few changes left shared is passed over without being read", () => {
  const count = 300_000;
  const pool = makeSnapshotted(count, 1);
  const changed = [0, 77_777, 77_778, 150_000, 299_999];
  for (const [index, at] of changed.entries()) {
    pool.run((engine) => engine.insert(one, vblock(at), dblock(count + index)));
  }
  pool.commit();
  pool.reopen();
  pool.misses = 0;
  const { marked, turns } = askAll(pool, differingOf(one, two), 0, 2 ** 40, 1000);
  assertEquals(marked, runsWhere(0, count, (at) => changed.includes(at)));
  // Of more than 1200: the leaves of four places, the nodes above them, and those on which heights are measured.
  assert(pool.misses <= 30, `${pool.misses} blocks were read`);
  assert(turns <= 3, `${turns} turns`);
});

Deno.test("trees of different heights still share what they share", () => {
  const [count, grown] = [7000, 80_000];
  const pool = makeSnapshotted(count, 1);
  for (let at = count; at < grown; at++) {
    pool.run((engine) => engine.insert(one, vblock(at), dblock(at)));
  }
  pool.commit();
  pool.reopen();
  pool.misses = 0;
  assertEquals(askAll(pool, differingOf(one, two), 0, 6000, 10).marked, []);
  assert(pool.misses <= 6, `${pool.misses} blocks were read`);
  assertEquals(askAll(pool, differingOf(two, one), 0, 2 ** 30, 10).marked, [[count, grown]]);
});

Deno.test("a shared leaf hides nothing of the leaf that was behind it on one side only", () => {
  const pool = makeSnapshotted(1000, 1);
  // Leaves filled in ascending order are full: 252 entries. The second goes whole, and the first reaches on to the
  // third.
  const [begin, end] = [252, 504];
  for (let at = begin; at < end;) {
    at = pool.run((engine) => engine.removeRange(one, vblock(at), vblock(end)).next);
  }
  assertEquals(askAll(pool, differingOf(one, two), 0, 2000, 10).marked, [[begin, end]]);
  assertEquals(askAll(pool, differingOf(two, one), 0, 2000, 10).marked, [[begin, end]]);
});

Deno.test("100,000 mappings with a hole after each are told in bounded turns", () => {
  const count = 100_000;
  const pool = makeSnapshotted(count, 2);
  const expected = runsWhere(0, 2 * count, (at) => at % 2 === 0);
  const mapped = askAll(pool, mappedOf(one), 0, 2 * count, 1024);
  assertEquals(mapped.marked, expected);
  assert(mapped.turns >= 2 * count / 1024, "a turn finds no more than it should");
  const whole = makeSnapshotted(count, 1);
  const found = askAll(whole, mappedOf(one), 0, 2 ** 24, 1024);
  assertEquals(found.marked, [[0, count]]);
  assert(found.missesMax <= 40, `a turn missed ${found.missesMax} blocks`);
  assert(found.turns >= whole.misses / 40 && found.turns <= whole.misses / 16, `${found.turns} turns`);
});

Deno.test("a device that is being deleted is not told from another any more", () => {
  const pool = makeSnapshotted(30_000, 1);
  for (let at = 0; at < 30_000; at += 100) {
    pool.run((engine) => engine.insert(one, vblock(at), dblock(30_000 + at / 100)));
  }
  assertEquals(pool.run((engine) => engine.runs.mapped(two, range)), [{ length: 4000, isMarked: true }]);
  assertEquals(pool.run((engine) => engine.deleteThin(two, 16)), false);
  for (const thin of [two, thinId(3)]) {
    assertEquals(pool.run((engine) => engine.runs.mapped(thin, range)), undefined);
    assertEquals(pool.run((engine) => engine.runs.differing(one, thin, range)), undefined);
    assertEquals(pool.run((engine) => engine.runs.differing(thin, one, range)), undefined);
  }
});

const range = { begin: vblock(0), end: vblock(4000), runsMax: 10 };

Deno.test("damage in one of the trees is a fault or not met, and never a wrong answer", () => {
  const pool = makeSnapshotted(1000, 1);
  pool.run((engine) => engine.insert(one, vblock(500), dblock(1000)));
  pool.commit();
  let faults = 0;
  for (let block = 1; block < 40; block++) {
    const at = block * metadataBlockSizeBytes + 100;
    pool.image[at]! ^= 1;
    try {
      pool.reopen();
      assertEquals(askAll(pool, differingOf(one, two), 0, 40_000, 10).marked, [[500, 501]]);
    } catch (error) {
      if (!(error instanceof MetadataFault)) throw error;
      assertEquals(error.fault.kind, "damaged");
      faults++;
    }
    pool.image[at]! ^= 1;
  }
  assert(faults > 4 && faults < 39, `${faults} faults`);
});
