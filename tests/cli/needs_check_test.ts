/** `check --clear-needs-check`: clears the flag of a sound pool that no process has open, and of no other. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { assert } from "../../storage/base/assert.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { flagNeedsCheck, packSuperblock, unpackSuperblock } from "../../storage/format/superblock.ts";
import { PoolOnDisk } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";

const clear = ["check", "--clear-needs-check"];

/** The flags of the superblock; set to `flags` if they are given. */
function flagsOf(pool: PoolOnDisk, flags?: number): number {
  using file = Deno.openSync(pool.metadataPath, { read: true, write: true });
  const block = new Uint8Array(metadataBlockSizeBytes);
  file.readSync(block);
  const superblock = unpackSuperblock(block);
  assert(typeof superblock !== "string", "the superblock is sound");
  if (flags === undefined) return superblock.flags;
  file.seekSync(0, Deno.SeekMode.Start);
  file.writeSync(packSuperblock({ ...superblock, flags }));
  return flags;
}

/** A pool whose last commit failed, with one volume. */
async function makeFlagged(): Promise<PoolOnDisk> {
  const pool = await PoolOnDisk.make("--data-size", "16M", "--metadata-size", "2M");
  await pool.verb("create", "a", "16M");
  flagsOf(pool, flagNeedsCheck);
  return pool;
}

Deno.test({
  name: "a sound pool whose needs_check is cleared can be written again, and thin_check accepts it",
  ignore: !hasThinTools("0.9") || !hasThinTools("1.x"),
  fn: async () => {
    await using pool = await makeFlagged();
    assertStringIncludes((await pool.cli(["create", "b", "1M"])).stderr, "run `check --clear-needs-check`");
    assertEquals((await pool.cli(["check"])).status, 0);
    assertEquals(flagsOf(pool), flagNeedsCheck);
    const cleared = await pool.cli(clear);
    assertEquals(cleared.status, 0, cleared.stderr);
    assertStringIncludes(
      cleared.stdout + cleared.stderr,
      "needs_check was cleared: the pool can be written again.",
    );
    assertEquals(flagsOf(pool), 0);
    await pool.requireSound();
    await pool.verb("create", "b", "1M");
    const again = await pool.cli(clear);
    assertEquals(again.status, 0);
    assertStringIncludes(
      again.stdout + again.stderr,
      "needs_check is not set, so there was nothing to clear.",
    );
  },
});

Deno.test("a damaged pool keeps needs_check", async () => {
  await using pool = await makeFlagged();
  {
    // The root of the devices' details; whichever block it is, it does not survive this.
    using file = await Deno.open(pool.metadataPath, { write: true });
    await file.seek(metadataBlockSizeBytes, Deno.SeekMode.Start);
    await file.write(new Uint8Array(32 * metadataBlockSizeBytes));
  }
  const { status, stdout } = await pool.cli(clear);
  assertEquals(status, 1, stdout);
  assertEquals(flagsOf(pool), flagNeedsCheck);
});

Deno.test("needs_check stays if the catalogue is of other metadata", async () => {
  await using pool = await makeFlagged();
  // The second copy too, or it would be taken instead.
  const paths = ["catalog.json", "catalog.spare"].map((name) => `${pool.directory}/${name}`);
  const before = paths.map((path) => Deno.readTextFileSync(path));
  paths.forEach((path, at) => Deno.writeTextFileSync(path, before[at]!.replaceAll('"1"', '"7"')));
  const { status, stdout, stderr } = await pool.cli(clear);
  assertEquals(status, 1, stdout + stderr);
  assertEquals(flagsOf(pool), flagNeedsCheck);
  paths.forEach((path, at) => Deno.writeTextFileSync(path, before[at]!));
  assertEquals((await pool.cli(clear)).status, 0);
});

Deno.test("a pool that is served has nothing cleared", async () => {
  await using pool = await PoolOnDisk.make("--data-size", "16M", "--metadata-size", "2M");
  const server = await pool.serve();
  const { status, stderr } = await pool.cli(clear);
  assertEquals(status, 1);
  assertMatch(stderr, /^Cannot clear needs_check: a process has the pool open\. Stop it/);
  await server.stop();
});
