/** libnbd's programs: nbdinfo, nbdsh, nbdcopy and nbdfuse. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { hasProgram, hasPythonNbd, requiredProgram } from "../support/programs.ts";
import { PoolOnDisk, runToEnd } from "../support/server.ts";
import { Daemon, fillFile, hasFuse, isThere, nbdsh, run, runForJson, runToFailure } from "./clients.ts";

const MiB = 1024 * 1024;

/** What nbdinfo says of a server. */
interface Exports {
  readonly protocol: string;
  readonly TLS: boolean;
  readonly structured: boolean;
  readonly exports: readonly Record<string, unknown>[];
}

Deno.test({
  name: "nbdinfo names every export and says of each what it can do",
  ignore: !hasProgram("nbdinfo"),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M", "--block-size=128K");
    await pool.verb("create", "disk0", "10000384");
    await pool.verb("snapshot", "disk0@monday");
    const server = await pool.serve();
    const list = await runForJson<Exports>("nbdinfo", ["--list", "--json", server.url("")]);
    assertEquals([list.protocol, list.TLS, list.structured], ["newstyle-fixed", false, true]);
    const can = {
      can_cache: true,
      can_df: true,
      can_fast_zero: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      is_rotational: false,
      block_size_minimum: 1,
      block_size_preferred: 131072,
      block_size_maximum: 33554432,
      "export-size": 10000384,
    };
    const [volume, snapshot] = list.exports;
    assertEquals(list.exports.length, 2);
    const named = { ...volume, ...can, "export-name": "disk0", is_read_only: false };
    assertEquals(volume, named);
    const frozen = { can_fast_zero: false, can_trim: false, can_zero: false };
    assertEquals(
      snapshot,
      { ...snapshot, ...can, ...frozen, "export-name": "disk0@monday", is_read_only: true },
    );
    assertEquals(await run("nbdinfo", ["--size", server.url("disk0@monday")]), "10000384\n");
    await run("nbdinfo", ["--is", "read-only", server.url("disk0@monday")]);
    await runToFailure("nbdinfo", ["--is", "read-only", server.url("disk0")]);
    assertMatch(await runToFailure("nbdinfo", [server.url("disk1")]), /disk1/);
    await server.stop();
  },
});

Deno.test({
  name: "nbdsh reads back what it wrote across blocks, zeroed and trimmed, and may not write a snapshot",
  ignore: !hasPythonNbd(),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M");
    await pool.verb("create", "disk0", "1M");
    const server = await pool.serve();
    const said = await nbdsh(server.url("disk0"), [
      "h.pwrite(b'x' * 200_000, 65_535, nbd.CMD_FLAG_FUA)",
      "h.zero(65_536, 131_071)",
      "h.trim(65_536, 196_608)",
      "h.flush()",
      "got = h.pread(300_000, 0)",
      "print([(i, got[i]) for i in range(1, 300_000) if got[i] != got[i - 1]])",
    ]);
    // Zeroes take [131071, 196607), the trim the whole block [196608, 262144).
    assertEquals(
      said,
      "[(65535, 120), (131071, 0), (196607, 120), (196608, 0), (262144, 120), (265535, 0)]",
    );
    await pool.verb("snapshot", "disk0@s");
    const refused = await nbdsh(server.url("disk0@s"), [
      "h.set_strict_mode(0)",
      "try:\n  h.pwrite(b'y', 0)\nexcept nbd.Error as error:\n  print(error.errno)",
    ]);
    assertEquals(refused, "EPERM");
    await server.stop();
  },
});

Deno.test({
  name: "nbdcopy copies from one volume to another on four connections each",
  ignore: !hasProgram("nbdcopy"),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=256M");
    const image = pool.path("image");
    await fillFile(image, { offset: 5 * MiB + 17, length: 20 * MiB }, 1);
    await Deno.truncate(image, 40 * MiB + 512);
    await pool.verb("create", "from", `${40 * MiB + 512}`);
    await pool.verb("create", "to", "64M");
    const server = await pool.serve();
    await run("nbdcopy", ["--flush", "--connections=4", "--threads=4", image, server.url("from")]);
    const copy = ["--flush", "--connections=4", "--threads=4", server.url("from"), server.url("to")];
    await run("nbdcopy", copy);
    await run("nbdcopy", [server.url("to"), pool.path("out")]);
    await Deno.truncate(image, 64 * MiB);
    await runToEnd("/usr/bin/cmp", [image, pool.path("out")]);
    // Each side of the copy kept four connections open at once.
    const log = server.stdout + server.stderr;
    assertEquals(mostAtOnce(log, "to"), 4, log);
    await server.stop();
  },
});

/** How many clients had a volume open at once, by the server's log. */
function mostAtOnce(log: string, volume: string): number {
  let [open, most] = [0, 0];
  for (const [, what] of log.matchAll(new RegExp(`(attached to|left) "${volume}"`, "g"))) {
    open += what === "left" ? -1 : 1;
    most = Math.max(most, open);
  }
  return most;
}

Deno.test({
  name:
    "through nbdfuse a volume is a file, in which a file system is made, checked and found in a snapshot again",
  ignore: !["nbdfuse", "mke2fs", "e2fsck"].every(hasProgram) || !hasFuse(),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=256M");
    await pool.verb("create", "disk0", "64M");
    const server = await pool.serve();
    const root = new URL("../..", import.meta.url).pathname;
    const disk = pool.path("disk");
    await Deno.writeFile(disk, new Uint8Array());
    {
      const isMounted = () => isThere(disk, 64 * MiB);
      await using _fuse = await Daemon.start("nbdfuse", [disk, server.url("disk0")], isMounted);
      await runToEnd(requiredProgram("mke2fs"), ["-q", "-F", "-t", "ext4", "-d", `${root}/storage`, disk]);
      await runToEnd("/usr/bin/sync", [disk]);
      await pool.verb("snapshot", "disk0@made");
      await runToEnd("/usr/bin/dd", [
        "if=/dev/zero",
        `of=${disk}`,
        "bs=1M",
        "count=64",
        "conv=notrunc,fsync",
      ]);
    }
    assert(!isThere(disk, 1), "it is unmounted when the program ends");
    const frozen = pool.path("frozen");
    await Deno.mkdir(frozen);
    const file = `${frozen}/made`;
    const isMounted = () => isThere(file, 64 * MiB);
    await using _fuse = await Daemon.start("nbdfuse", ["-r", file, server.url("disk0@made")], isMounted);
    await runToEnd(requiredProgram("e2fsck"), ["-fn", file]);
    const format = await Deno.readFile(`${root}/storage/FORMAT.md`);
    const dumped = await runToEnd(requiredProgram("debugfs"), ["-R", "cat /FORMAT.md", file]);
    assertEquals(dumped, new TextDecoder().decode(format));
  },
});
