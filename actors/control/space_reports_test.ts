/** `tree` and `df` of a pool in memory. */
import { assertEquals } from "@std/assert";
import { assert as require } from "../../storage/base/assert.ts";
import { makeTestingFiles, testingBlockSizeBytes as bs, TestingPool } from "../../tests/support/pool.ts";
import type { TreeListing } from "./admin_command.ts";
import { spaceText, treeText } from "./space_text.ts";

function makePool(): TestingPool {
  const pool = new TestingPool(makeTestingFiles(64, 512));
  for (const name of ["a", "x"]) pool.admin({ verb: "create", name, sizeBytes: 16 * bs });
  const a = pool.attach("a");
  a.write(0, new Uint8Array(4 * bs).fill(1));
  a.detach();
  pool.admin({ verb: "snapshot", names: ["a@s2", "a@s10"] });
  pool.admin({ verb: "clone", source: "a@s2", name: "c" });
  pool.attach("c").write(0, new Uint8Array(3 * bs).fill(2));
  pool.admin({ verb: "clone", source: "c", name: "d" });
  pool.attach("x").write(0, new Uint8Array(2 * bs).fill(3));
  return pool;
}

function tree(pool: TestingPool): readonly TreeListing[] {
  const result = pool.admin({ verb: "tree" });
  require(result.kind === "tree", "tree answers with volumes");
  return result.volumes;
}

Deno.test("the tree draws each volume below what it was made from, in natural order", () => {
  const pool = makePool();
  assertEquals(treeText(tree(pool)).split("\n"), [
    "NAME         SIZE   MAPPED  EXCLUSIVE   SHARED",
    "a           1 MiB  256 KiB        0 B  256 KiB",
    "├─ a@s2     1 MiB  256 KiB        0 B  256 KiB",
    "│  └─ c     1 MiB  256 KiB        0 B  256 KiB",
    "│     └─ d  1 MiB  256 KiB        0 B  256 KiB",
    "└─ a@s10    1 MiB  256 KiB        0 B  256 KiB",
    "x           1 MiB  128 KiB    128 KiB      0 B",
  ]);
});

Deno.test("what was made from a removed volume is at the top of the tree", () => {
  const pool = makePool();
  pool.admin({ verb: "rm", names: ["a@s2", "a"], dryRun: false, force: false });
  assertEquals(tree(pool).map(({ name, depth }) => `${name} ${depth}`), ["a@s10 0", "c 0", "d 1", "x 0"]);
});

Deno.test("a chain of many clones is a tree, however deep", () => {
  const pool = new TestingPool(makeTestingFiles(16, 512));
  pool.admin({ verb: "create", name: "v0", sizeBytes: bs });
  for (let at = 0; at < 100; at += 1) pool.admin({ verb: "clone", source: `v${at}`, name: `v${at + 1}` });
  const found = tree(pool);
  assertEquals(found.map(({ depth }) => depth), Array.from({ length: 101 }, (_, at) => at));
  assertEquals(treeText(found).split("\n").length, 102);
});

Deno.test("df tells what removing each would free, the largest first, and how much only several together hold", () => {
  const pool = makePool();
  pool.admin({ verb: "rm", names: ["d"], dryRun: false, force: false });
  const result = pool.admin({ verb: "df" });
  require(result.kind === "df", "df answers with the space");
  const { data, shared_bytes, host, volumes } = result.space;
  assertEquals(data, { total_bytes: 64 * bs, used_bytes: 9 * bs, free_bytes: 55 * bs });
  assertEquals([shared_bytes, host], [4 * bs, null]);
  assertEquals(volumes.map(({ name, exclusive_bytes: own }) => `${name} ${(own ?? 0) / bs}`), [
    "c 3",
    "x 2",
    "a 0",
    "a@s2 0",
    "a@s10 0",
  ]);
  const text = spaceText(result.space);
  assertEquals(text.split("\n")[1], "data      4 MiB  576 KiB  3.4 MiB  15%");
  assertEquals(
    text.split("\n").at(-1),
    "256 KiB are shared: `rm -n NAME...` tells what removing several together would free.",
  );
});
