/** Debian 13's clients, which ask for extended headers first: lengths of 64 bits, in one request. */
import { assertEquals } from "@std/assert";
import { fillFile, hasNewClients, nbdsh, run, runForJson } from "./clients.ts";
import { PoolOnDisk, runToEnd, type ServerProcess } from "../support/server.ts";

const ignore = !hasNewClients();
const MiB = 1024 * 1024;
const TiB = MiB * MiB;
/** A pool block. */
const B = 65536;

/** A volume of 5 TiB with a few written blocks. */
async function serveHuge(pool: PoolOnDisk): Promise<ServerProcess> {
  await pool.verb("create", "disk0", "5T");
  const server = await pool.serve();
  await nbdsh(server.url("disk0"), [
    "for at in (0, 1 << 32, (1 << 42) - (1 << 16), (5 << 40) - (1 << 16)): h.pwrite(b'x' * (1 << 16), at)",
    "h.flush()",
  ], 13);
  return server;
}

/** Python that counts the requests of a line: `sent` before and after. */
const counted = (
  line: string,
) => ["sent = h.stats_chunks_sent()", line, "sent = h.stats_chunks_sent() - sent"];

Deno.test({
  name: "nbdinfo 1.22 finds extended headers, and the same exports with the same contexts as without",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M");
    const server = await serveHuge(pool);
    await pool.verb("snapshot", "disk0@s");
    interface Answer {
      readonly extended?: boolean;
      readonly exports: readonly Record<string, unknown>[];
    }
    const [older, newer] = [
      await runForJson<Answer>("nbdinfo", ["--list", "--json", server.url("")]),
      await runForJson<Answer>("nbdinfo", ["--list", "--json", server.url("")], 13),
    ];
    assertEquals([older.extended, newer.extended], [undefined, true]);
    const known = newer.exports.map(({ can_block_status_payload, ...rest }) => {
      assertEquals(can_block_status_payload, false, "no context is selected to choose from");
      return rest;
    });
    assertEquals(known, older.exports);
    await server.stop();
  },
});

Deno.test({
  name: "one request maps a volume of 5 TiB, and one each of zeroes and trim gives all its space back",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M");
    const server = await serveHuge(pool);
    const expected = [
      [B, 0],
      [2 ** 32 - B, 3],
      [B, 0],
      [4 * TiB - 2 ** 32 - 2 * B, 3],
      [B, 0],
      [TiB - B, 3],
      [B, 0],
    ];
    const map = (await runForJson<{ length: number; type: number }[]>("nbdinfo", [
      "--json",
      "--map",
      server.url("disk0"),
    ], 13)).map(({ length, type }) => [length, type]);
    assertEquals(map, expected);
    // nbdsh connects before its lines run: contexts have to be asked for on a connection of its own.
    const connect = [
      "h = nbd.NBD()",
      "h.add_meta_context('base:allocation')",
      `h.connect_uri(${JSON.stringify(server.url("disk0"))})`,
      "size = h.get_size()",
      "extents = []",
    ];
    const say = "print(sent, extents)";
    const mapped = await nbdsh(server.url("disk0"), [
      ...connect,
      ...counted("h.block_status_64(size, 0, lambda name, at, entries, error: extents.extend(entries))"),
      say,
    ], 13);
    assertEquals(mapped, `1 [${expected.map(([length, flags]) => `(${length}, ${flags})`).join(", ")}]`);
    assertEquals(await pool.used(), 4 * B);
    const zeroed = await nbdsh(server.url("disk0"), [...counted("h.zero(3 << 40, 0)"), "print(sent)"], 13);
    assertEquals([zeroed, await pool.used()], ["1", 2 * B]);
    const trimmed = await nbdsh(server.url("disk0"), [
      ...counted("h.trim(h.get_size(), 0, nbd.CMD_FLAG_FUA)"),
      "print(sent)",
    ], 13);
    assertEquals([trimmed, await pool.used()], ["1", 0]);
    assertEquals((await mapOf(server)).length, 1);
    await server.stop();
  },
});

async function mapOf(server: ServerProcess): Promise<unknown[]> {
  return await runForJson<unknown[]>("nbdinfo", ["--json", "--map", server.url("disk0")], 13);
}

Deno.test({
  name: "libnbd 1.22 asks for one of two contexts by a payload, and gets that one alone",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M");
    const server = await serveHuge(pool);
    await pool.verb("snapshot", "disk0@s");
    const said = await nbdsh(server.url("disk0"), [
      "h = nbd.NBD()",
      "for context in ('base:allocation', 'qemu:dirty-bitmap:s'): h.add_meta_context(context)",
      `h.connect_uri(${JSON.stringify(server.url("disk0"))})`,
      "got = []",
      "see = lambda name, at, entries, error: got.append((name, entries))",
      "h.block_status_filter(1 << 20, 0, ['qemu:dirty-bitmap:s'], see)",
      "h.block_status_64(1 << 16, 0, see)",
      "print(sorted(got))",
    ], 13);
    assertEquals(
      said,
      "[('base:allocation', [(65536, 0)]), ('qemu:dirty-bitmap:s', [(65536, 0)]), ('qemu:dirty-bitmap:s', [(1048576, 0)])]",
    );
    await server.stop();
  },
});

Deno.test({
  name: "nbdcopy 1.22 and qemu-img 10 copy in and out over extended headers",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=128M");
    await pool.verb("create", "disk0", "10G");
    await pool.verb("create", "disk1", "10G");
    const server = await pool.serve();
    const [image, copy] = [pool.path("image"), pool.path("copy")];
    await fillFile(image, { offset: 5000 * MiB + 4096, length: 9 * MiB }, 5);
    await Deno.truncate(image, 10 * 1024 * MiB);
    await run("nbdcopy", ["--flush", image, server.url("disk0")], 13);
    await run("nbdcopy", ["--flush", server.url("disk0"), copy], 13);
    await run("qemu-img", ["compare", "-f", "raw", "-F", "raw", image, copy], 13);
    await run("qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", copy, server.url("disk1")], 13);
    await run("qemu-img", ["compare", "-f", "raw", "-F", "raw", server.url("disk1"), image], 13);
    await runToEnd("/usr/bin/cmp", ["--ignore-initial=5242880000", "--bytes=10485760", image, copy]);
    await server.stop();
  },
});

Deno.test({
  name: "nbdinfo 1.22 and qemu-img 10 see in a volume of 5 TiB what differs from a snapshot",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M");
    const server = await serveHuge(pool);
    await pool.verb("snapshot", "disk0@s");
    await nbdsh(server.url("disk0"), ["h.trim(3 << 40, 0)", "h.pwrite(b'y', 4 << 40)"], 13);
    const context = "qemu:dirty-bitmap:s";
    const map = await runForJson<{ offset: number; length: number; type: number }[]>("nbdinfo", [
      "--json",
      `--map=${context}`,
      server.url("disk0"),
    ], 13);
    const dirty = map.filter(({ type }) => type === 1).map(({ offset, length }) => [offset, length]);
    const bitmap =
      `driver=nbd,export=disk0,server.type=unix,server.path=${server.socket},x-dirty-bitmap=${context}`;
    const theirs = await runForJson<{ start: number; length: number; data: boolean }[]>("qemu-img", [
      "map",
      "--output=json",
      "--image-opts",
      bitmap,
    ], 13);
    const noData = theirs.filter(({ data }) => !data).map(({ start, length }) => [start, length]);
    const wanted = [[0, B], [2 ** 32, B], [4 * TiB, B]];
    assertEquals([dirty, noData], [wanted, wanted]);
    await server.stop();
  },
});
