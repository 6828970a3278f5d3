/** Block status as stock clients ask for it: nbdinfo --map, nbdcopy, qemu-img map, and what qemu calls a dirty bitmap. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { hasProgram, hasPythonNbd } from "../support/programs.ts";
import { PoolOnDisk, type ServerProcess } from "../support/server.ts";
import { allottedBytes, Daemon, isThere, nbdsh, type Release, run, runForJson } from "./clients.ts";

const ignore = !["nbdinfo", "nbdcopy", "nbdkit", "qemu-img"].every(hasProgram) || !hasPythonNbd();
const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;
const block = 64 * KiB;

/** One line of nbdinfo --map. */
interface Extent {
  readonly offset: number;
  readonly length: number;
  readonly type: number;
  readonly description: string;
}

/** Where an export has data, by nbdinfo: pairs of offset and length, in bytes. */
async function mapOf(url: string, context = "", release: Release = 12): Promise<readonly Extent[]> {
  const map = context === "" ? "--map" : `--map=${context}`;
  return await runForJson<Extent[]>("nbdinfo", ["--json", map, url], release);
}

const data = (offset: number, length: number): Extent => ({ offset, length, type: 0, description: "data" });
const hole = (offset: number, length: number): Extent => ({
  offset,
  length,
  type: 3,
  description: "hole,zero",
});
const clean = (offset: number, length: number): Extent => ({ offset, length, type: 0, description: "clean" });
const dirty = (offset: number, length: number): Extent => ({ offset, length, type: 1, description: "dirty" });

/** A volume of 100 GiB with data at 1 MiB, across 50 GiB, and in its last byte, and a snapshot of that. */
async function serveSparse(pool: PoolOnDisk): Promise<ServerProcess> {
  await pool.verb("create", "disk0", "100G");
  const server = await pool.serve();
  await nbdsh(server.url("disk0"), [
    "h.pwrite(b'a' * (2 << 20), 1 << 20)",
    "h.pwrite(b'b' * 2, (50 << 30) - 1)",
    "h.pwrite(b'c', (100 << 30) - 1)",
  ]);
  await pool.verb("snapshot", "disk0@s");
  return server;
}

/** What {@linkcode serveSparse} wrote. */
const sparse = [
  hole(0, MiB),
  data(MiB, 2 * MiB),
  hole(3 * MiB, 50 * GiB - block - 3 * MiB),
  data(50 * GiB - block, 2 * block),
  hole(50 * GiB + block, 50 * GiB - 2 * block),
  data(100 * GiB - block, block),
];

Deno.test({
  name: "nbdinfo --map and qemu-img map show the blocks that are mapped, of a volume and of its snapshot",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M");
    const server = await serveSparse(pool);
    assertEquals(await mapOf(server.url("disk0")), sparse);
    await nbdsh(server.url("disk0"), [
      "h.trim(2 << 20, 1 << 20)",
      "h.pwrite(b'd', 0)",
      "h.zero(10, 50 << 30)",
    ]);
    assertEquals(await mapOf(server.url("disk0@s")), sparse);
    // The zeroes cover a part of a block, which stays.
    assertEquals(await mapOf(server.url("disk0")), [
      data(0, block),
      hole(block, 50 * GiB - 2 * block),
      ...sparse.slice(3),
    ]);
    const totals = await run("nbdinfo", ["--map", "--totals", server.url("disk0@s")]);
    assertMatch(totals, /^ *2293760 +0\.0% +0 data\n *107371888640 +100\.0% +3 hole,zero\n$/);
    const map = await runForJson<QemuExtent[]>("qemu-img", [
      "map",
      "--output=json",
      "-f",
      "raw",
      server.url("disk0@s"),
    ]);
    assertEquals(
      map.map(({ start, length, data, zero }) => ({ start, length, data, zero })),
      sparse.map(({ offset, length, type }) => ({
        start: offset,
        length,
        data: type === 0,
        zero: type === 3,
      })),
    );
    await server.stop();
  },
});

/** One element of what qemu-img map prints. */
interface QemuExtent {
  readonly start: number;
  readonly length: number;
  readonly data: boolean;
  readonly zero: boolean;
}

Deno.test({
  name: "nbdinfo --map and qemu-img with x-dirty-bitmap show where a volume and its snapshots differ",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M");
    const server = await serveSparse(pool);
    const url = server.url("disk0");
    const context = "qemu:dirty-bitmap:s";
    assertEquals(await mapOf(url, context), [clean(0, 100 * GiB)]);
    await nbdsh(url, ["h.pwrite(b'x', 3 << 20)", "h.trim(1 << 20, 1 << 20)", "h.trim(1 << 30, 60 << 30)"]);
    const expected = [
      clean(0, MiB),
      dirty(MiB, MiB),
      clean(2 * MiB, MiB),
      dirty(3 * MiB, block),
      clean(3 * MiB + block, 100 * GiB - 3 * MiB - block),
    ];
    assertEquals(await mapOf(url, context), expected);
    await pool.verb("snapshot", "disk0@t");
    await nbdsh(url, ["h.pwrite(b'y', 70 << 30)"]);
    assertEquals(await mapOf(server.url("disk0@t"), context), expected);
    assertEquals(await mapOf(server.url("disk0@s"), "qemu:dirty-bitmap:t"), expected);
    const totals = await run("nbdinfo", [`--map=${context}`, "--totals", server.url("disk0@t")]);
    assertMatch(totals, /^ *\d+ +100\.0% +0 clean\n *1114112 +0\.0% +1 dirty\n$/);
    const bitmap =
      `driver=nbd,export=disk0@t,server.type=unix,server.path=${server.socket},x-dirty-bitmap=${context}`;
    const map = await runForJson<QemuExtent[]>("qemu-img", ["map", "--output=json", "--image-opts", bitmap]);
    assertEquals(
      map.map(({ start, length, data }) => ({ start, length, data })),
      expected.map(({ offset, length, type }) => ({ start: offset, length, data: type === 0 })),
      "qemu calls what is dirty no data",
    );
    await server.stop();
  },
});

Deno.test({
  name:
    "nbdcopy and qemu-img convert read of a volume of 100 GiB only what is mapped, and leave holes in the copy",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M");
    const server = await serveSparse(pool);
    const mappedBytes = 2 * MiB + 3 * block;
    const [socket, stats] = [pool.path("stats.sock"), pool.path("stats")];
    {
      const options = ["--filter=stats", "nbd", `uri=${server.url("disk0@s")}`, `statsfile=${stats}`];
      await using _nbdkit = await Daemon.start(
        "nbdkit",
        ["-f", "-U", socket, ...options],
        () => isThere(socket),
      );
      await run("nbdcopy", ["--flush", `nbd+unix:///?socket=${socket}`, pool.path("copied")]);
    }
    const read = /^read: .* ([\d.]+) ([KMGT]iB),/m.exec(await Deno.readTextFile(stats));
    // nbdcopy reads by 256 KiB: 2 MiB, one on each side of 50 GiB, and the last.
    assertEquals(read?.slice(1), ["2.75", "MiB"], "what nbdkit passed on of nbdcopy's reading");
    const raw = ["convert", "-f", "raw", "-O", "raw", server.url("disk0@s"), pool.path("converted")];
    await run("qemu-img", raw);
    for (const copy of ["copied", "converted"].map((name) => pool.path(name))) {
      assertEquals((await Deno.stat(copy)).size, 100 * GiB);
      assert(allottedBytes(copy) <= mappedBytes + MiB, `${copy} takes ${allottedBytes(copy)} bytes`);
    }
    await run("qemu-img", ["compare", "-f", "raw", "-F", "raw", pool.path("copied"), pool.path("converted")]);
    await run("qemu-img", ["compare", "-f", "raw", "-F", "raw", pool.path("copied"), server.url("disk0@s")]);
    await server.stop();
  },
});

/** What two servers say of the same content, where they differ: key, ours, theirs. */
function differences(
  ours: Readonly<Record<string, unknown>>,
  theirs: Readonly<Record<string, unknown>>,
): Record<string, readonly [unknown, unknown]> {
  const keys = [...new Set([...Object.keys(ours), ...Object.keys(theirs)])].sort();
  const isSame = (key: string) => JSON.stringify(ours[key]) === JSON.stringify(theirs[key]);
  return Object.fromEntries(keys.filter((key) => !isSame(key)).map((key) => [key, [ours[key], theirs[key]]]));
}

const isInside = (inner: Extent, outer: Extent) =>
  inner.offset >= outer.offset && inner.offset + inner.length <= outer.offset + outer.length;

type Answer = Readonly<Record<string, unknown>> & {
  readonly exports: readonly Readonly<Record<string, unknown>>[];
};

Deno.test({
  name:
    "nbdinfo tells of a volume and of nbdkit's file plugin with the same content what docs/lab-diary.md says",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M");
    const server = await serveSparse(pool);
    const [socket, file] = [pool.path("nbdkit.sock"), pool.path("file")];
    await run("nbdcopy", [server.url("disk0"), file]);
    await using _nbdkit = await Daemon.start(
      "nbdkit",
      ["-f", "-U", socket, "file", file],
      () => isThere(socket),
    );
    const theirUrl = `nbd+unix:///?socket=${socket}`;
    const common = {
      can_fast_zero: [true, false],
      block_size_minimum: [1, undefined],
      block_size_preferred: [65536, undefined],
      block_size_maximum: [33554432, undefined],
      "export-name": ["disk0", ""],
      description: ["thin volume", undefined],
      contexts: [["base:allocation", "qemu:dirty-bitmap:s"], ["base:allocation"]],
    };
    for (const list of [false, true]) {
      const options = list ? ["--list", "--json"] : ["--json"];
      const ours = await runForJson<Answer>("nbdinfo", [...options, server.url(list ? "" : "disk0")]);
      const theirs = await runForJson<Answer>("nbdinfo", [...options, theirUrl]);
      assertEquals(
        differences({ ...ours, exports: ours.exports.length }, { ...theirs, exports: theirs.exports.length }),
        list ? { exports: [2, 1] } : {},
      );
      const { uri: _uri, ...rest } = differences(ours.exports[0]!, theirs.exports[0]!);
      assertEquals(rest, common);
    }
    assertEquals(await mapOf(server.url("disk0")), sparse);
    // The file has holes by the host's blocks, which are smaller, so each of its extents of data is inside one of ours.
    const theirMap = await mapOf(theirUrl);
    const [ourData, theirData] = [sparse, theirMap].map((map) => map.filter(({ type }) => type === 0));
    assertEquals(ourData!.map((extent) => theirData!.filter((inner) => isInside(inner, extent)).length), [
      1,
      1,
      1,
    ]);
    assertEquals([theirData!.length, theirMap.map(({ type }) => type)], [3, [3, 0, 3, 0, 3, 0]]);
  },
});
