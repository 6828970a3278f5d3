import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { makeTestingFiles, testingBlockSizeBytes as bs, TestingPool } from "../../tests/support/pool.ts";
import { assertSound, begin, namesIn, reasonOf } from "../../tests/support/pool_checks.ts";
import { assert as require } from "../../storage/base/assert.ts";
import type { AdminResult, ForkCommand, ForkListing } from "./admin_command.ts";

const forkOf = (source: string, more: Partial<ForkCommand> = {}): ForkCommand => {
  return {
    verb: "fork",
    source,
    count: 1,
    name: null,
    ephemeral: false,
    lingerMs: null,
    ttlMs: null,
    ...more,
  };
};

/** A pool with the volume `a` of four blocks, of which the first two are written. */
function makePool(options: ConstructorParameters<typeof TestingPool>[1] = {}): TestingPool {
  const pool = new TestingPool(makeTestingFiles(64, 256), options);
  pool.admin({ verb: "create", name: "a", sizeBytes: 4 * bs });
  pool.attach("a").write(0, new Uint8Array(2 * bs).fill(1));
  return pool;
}

function forksIn(result: AdminResult): readonly ForkListing[] {
  require(result.kind === "forked", `not forked but ${JSON.stringify(result)}`);
  return result.volumes;
}

Deno.test("a fork makes as many clones as it says, with the names of its pattern", () => {
  const pool = makePool();
  const forks = forksIn(pool.admin(forkOf("a", { count: 12, name: "vm-%03d" })));
  const names = Array.from({ length: 12 }, (_, at) => `vm-${String(at + 1).padStart(3, "0")}`);
  assertEquals(forks, names.map((name) => ({ name, uris: [] })));
  assertEquals(namesIn(pool), ["a", ...names]);
  for (const name of [names[0]!, names[11]!]) {
    const fork = pool.attach(name);
    assertEquals(fork.read(0, 4 * bs), pool.attach("a").read(0, 4 * bs));
    fork.write(bs, new Uint8Array(bs).fill(9));
  }
  assertEquals(pool.attach(names[1]!).read(bs, bs), new Uint8Array(bs).fill(1));
  assertEquals(pool.attach("a").read(bs, bs), new Uint8Array(bs).fill(1));
  assertSound(pool);
});

Deno.test("without a pattern the forks are numbered, and numbers that are taken are left out", () => {
  const pool = makePool();
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  pool.admin({ verb: "create", name: "a-fork-2", sizeBytes: bs });
  const forks = forksIn(pool.admin(forkOf("a@s", { count: 2 })));
  assertEquals(forks.map(({ name }) => name), ["a-fork-1", "a-fork-3"]);
});

for (
  const [what, command, problem] of [
    ["an unknown source", forkOf("b"), `there is no "b"`],
    ["a name that is taken", forkOf("a", { count: 9, name: "x%d" }), `"x7" exists already`],
    ["one name for several", forkOf("a", { count: 2, name: "y" }), "cannot all have the name"],
    ["too long a name", forkOf("a", { count: 10, name: `${"z".repeat(126)}%d` }), "128 bytes, more than 127"],
    ["more than a pool holds", forkOf("a", { count: 1e6, name: "z%d" }), "at most"],
    ["no number of forks", forkOf("a", { count: 0 }), "Give 1 or more"],
    ["lingering without being ephemeral", forkOf("a", { lingerMs: 1 }), "only ephemeral"],
  ] as const
) {
  Deno.test(`a fork of or with ${what} is refused, and none is made`, () => {
    const pool = makePool();
    pool.admin({ verb: "create", name: "x7", sizeBytes: bs });
    assertStringIncludes(reasonOf(pool.admin(command)), problem);
    assertEquals(namesIn(pool), ["a", "x7"]);
  });
}

Deno.test("the source goes on after the first slice, and no fork shows what it writes then", () => {
  const pool = makePool({ knobs: { sliceDevices: 2, sliceDevicesMax: 2, changeMsMax: 1e9 } });
  const a = pool.attach("a");
  let slices = 0;
  let written: ReturnType<typeof a.submit> | undefined;
  let wasDoneBetween = false;
  pool.kernel.trace = {
    record: ({ kind, text }) => {
      if (kind !== "ask" || !text.startsWith("change ")) return;
      slices += 1;
      if (slices === 2) written = a.submit("write", 0, bs, { data: new Uint8Array(bs).fill(7) });
      if (slices === 20) wasDoneBetween = written !== undefined && a.isDone(written);
    },
  };
  const result = pool.admin(forkOf("a", { count: 40, name: "f%02d" }));
  assertEquals([result.kind, slices, written?.status], ["forked", 20, "ok"]);
  assert(wasDoneBetween, "the source waited for all slices");
  assertEquals(a.read(0, bs), new Uint8Array(bs).fill(7));
  for (const name of ["f01", "f02", "f03", "f39", "f40"]) {
    assertEquals(pool.attach(name).read(0, bs), new Uint8Array(bs).fill(1));
  }
  assertSound(pool);
});

Deno.test("a fork for which the metadata has no room is taken back, slice by slice", () => {
  const pool = new TestingPool(makeTestingFiles(64, 64), {
    knobs: { sliceDevices: 16, sliceDevicesMax: 16 },
  });
  pool.admin({ verb: "create", name: "a", sizeBytes: 4 * bs });
  pool.attach("a").write(0, new Uint8Array(2 * bs).fill(1));
  assertStringIncludes(
    reasonOf(pool.admin(forkOf("a", { count: 8000, name: "f%d" }))),
    "the metadata is full",
  );
  assertEquals(namesIn(pool), ["a"]);
  assertSound(pool);
});

Deno.test("a fork keeps what it was given in the catalogue", () => {
  const pool = makePool();
  begin(pool, forkOf("a", { name: "e", ephemeral: true, lingerMs: 5000, ttlMs: 60_000 }));
  pool.drain();
  const line = JSON.parse(pool.files.journal.text.trimEnd().split("\n").at(-1)!);
  const { ephemeral, linger_ms, expires, created } = line.changes[0].put;
  assertEquals([ephemeral, linger_ms, Date.parse(expires) - Date.parse(created)], [true, 5000, 60_000]);
});
