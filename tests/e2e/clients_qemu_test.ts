/** qemu's programs, and others that stand between us and a client: qemu-io, qemu-storage-daemon, fio, nbdkit. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { hasProgram, requiredProgram } from "../support/programs.ts";
import { PoolOnDisk, runToEnd, type ServerProcess } from "../support/server.ts";
import { Daemon, fillFile, hasFuse, isThere, run, runForJson, runToFailure } from "./clients.ts";

const MiB = 1024 * 1024;

/** Runs lines of qemu-io on an export. A pattern that does not match makes it fail. */
function qemuIo(url: string, lines: readonly string[], options: readonly string[] = []): Promise<string> {
  return run("qemu-io", ["-f", "raw", ...options, ...lines.flatMap((line) => ["-c", line]), url]);
}

Deno.test({
  name: "qemu-io finds its patterns again after writes, zeroes and discards, several at once and flushed",
  ignore: !hasProgram("qemu-io"),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M");
    await pool.verb("create", "disk0", "32M");
    const server = await pool.serve();
    await qemuIo(server.url("disk0"), [
      "write -P 0xab 1M 3M",
      "write -z 1M 64k",
      "write -z -u 1088k 64k",
      "discard 2M 1M",
      "write -f -P 0x11 1000 777",
      ...[0, 1, 2, 3].map((at) => `aio_write -P ${16 + at} ${8192 + at * 48}k 48k`),
      "aio_flush",
      "flush",
    ], ["-t", "writeback"]);
    const patterns = [
      "read -P 0 1M 128k",
      "read -P 0xab 1152k 896k",
      "read -P 0 2M 1M",
      "read -P 0xab 3M 1M",
      "read -P 0x11 1000 777",
      ...[0, 1, 2, 3].map((at) => `read -P ${16 + at} ${8192 + at * 48}k 48k`),
    ];
    await qemuIo(server.url("disk0"), patterns);
    await pool.verb("snapshot", "disk0@s");
    await qemuIo(server.url("disk0"), ["write -P 0xcd 0 32M"]);
    await qemuIo(server.url("disk0@s"), patterns, ["-r"]);
    const refused = await runToFailure("qemu-io", ["-f", "raw", "-c", "write 0 4k", server.url("disk0@s")]);
    assertMatch(refused, /permission denied|read.?only/i);
    await server.stop();
  },
});

Deno.test({
  name: "where serve detects zeroes, those that qemu-io writes to an unmapped volume leave it unmapped",
  ignore: !hasProgram("qemu-io"),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=16M");
    const server = await pool.serve(["--create", "disk0=8M", "--detect-zeroes"]);
    // Not by WRITE_ZEROES: qemu-io sends the bytes.
    await qemuIo(server.url("disk0"), [
      "write -P 0 0 2M",
      "write -P 0 2500k 100k",
      "flush",
      "read -P 0 0 8M",
    ]);
    assertEquals((await pool.list()).map(({ name, mapped_bytes }) => [name, mapped_bytes]), [["disk0", 0]]);
  },
});

/** A volume of 32 MiB with an image in it, of which 4 MiB to 20 MiB are data. */
async function makeVolume(pool: PoolOnDisk, image: string): Promise<ServerProcess> {
  await fillFile(image, { offset: 4 * MiB, length: 16 * MiB }, 3);
  await Deno.truncate(image, 32 * MiB);
  await pool.verb("create", "disk0", "32M");
  const server = await pool.serve();
  await run("qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", image, server.url("disk0")]);
  return server;
}

const compare = (image: string, other: string) =>
  run("qemu-img", ["compare", "-f", "raw", "-F", "raw", image, other]);

/** qemu-storage-daemon with a volume as its node `volume`, exported as the arguments say. */
function storageDaemon(socket: string, args: readonly string[], isReady: () => boolean): Promise<Daemon> {
  const node =
    `driver=nbd,node-name=volume,discard=unmap,export=disk0,server.type=unix,server.path=${socket}`;
  return Daemon.start("qemu-storage-daemon", ["--blockdev", node, ...args], isReady);
}

Deno.test({
  name: "qemu-storage-daemon exports a volume again over NBD, and what is written there is in the volume",
  ignore: !["qemu-storage-daemon", "qemu-img", "qemu-io", "nbdcopy"].every(hasProgram),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M");
    const [image, socket] = [pool.path("image"), pool.path("again.sock")];
    const server = await makeVolume(pool, image);
    const exported = ["--nbd-server", `addr.type=unix,addr.path=${socket}`];
    exported.push("--export", "nbd,id=again,node-name=volume,name=again,writable=on");
    {
      await using _daemon = await storageDaemon(server.socket, exported, () => isThere(socket));
      const again = `nbd+unix:///again?socket=${socket}`;
      await compare(image, again);
      await qemuIo(again, ["write -P 0x5a 30M 64k", "discard 8M 1M", "flush"]);
    }
    await qemuIo(server.url("disk0"), ["read -P 0x5a 30M 64k", "read -P 0 8M 1M"]);
    await server.stop();
  },
});

Deno.test({
  name:
    "qemu-storage-daemon exports a volume as a file over FUSE, and what is written there is in the volume",
  ignore: !["qemu-storage-daemon", "qemu-img", "qemu-io"].every(hasProgram) || !hasFuse(),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M");
    const [image, file] = [pool.path("image"), pool.path("disk")];
    const server = await makeVolume(pool, image);
    await Deno.writeFile(file, new Uint8Array());
    const exported = [
      "--export",
      `fuse,id=file,node-name=volume,mountpoint=${file},writable=on,allow-other=off`,
    ];
    {
      await using _daemon = await storageDaemon(server.socket, exported, () => isThere(file, 32 * MiB));
      await runToEnd("/usr/bin/cmp", [image, file]);
      const zeroes = ["if=/dev/zero", `of=${file}`, "bs=1M", "seek=8", "count=1", "conv=notrunc,fsync"];
      await runToEnd("/usr/bin/dd", zeroes);
    }
    await qemuIo(server.url("disk0"), ["read -P 0 8M 1M"]);
    await runToEnd("/usr/bin/cmp", ["--bytes", `${8 * MiB}`, image, await copyOut(server, pool)]);
    await server.stop();
  },
});

async function copyOut(server: ServerProcess, pool: PoolOnDisk): Promise<string> {
  await run("nbdcopy", [server.url("disk0"), pool.path("out")]);
  return pool.path("out");
}

for (const connections of [1, 2]) {
  Deno.test({
    name: `fio verifies what it wrote on ${connections} connection${
      connections > 1 ? "s" : ""
    }, also after a restart`,
    ignore: !hasProgram("fio"),
    fn: async () => {
      await using pool = await PoolOnDisk.make("--data-size=128M");
      await pool.verb("create", "disk0", "64M");
      const fio = (server: ServerProcess, ...options: string[]) =>
        runToEnd(requiredProgram("fio"), [
          "--name=clients",
          "--ioengine=nbd",
          `--uri=${server.url("disk0")}`,
          `--numjobs=${connections}`,
          "--group_reporting",
          // Connections share pool blocks: their ranges meet in the middle of one.
          "--size=12345344",
          "--offset_increment=12345344",
          "--rw=randwrite",
          "--bsrange=512-64k",
          "--blockalign=512",
          "--iodepth=32",
          "--randseed=7",
          "--end_fsync=1",
          "--verify=crc32c",
          "--verify_interval=512",
          "--verify_fatal=1",
          "--verify_state_save=0",
          "--output-format=terse",
          ...options,
        ]);
      const first = await pool.serve();
      await fio(first, "--do_verify=1");
      await first.kill();
      const second = await pool.serve();
      await fio(second, "--verify_only=1");
      await second.stop();
    },
  });
}

Deno.test({
  name: "nbdkit's nbd plugin in front of a volume passes on what it can do, its bytes and its space",
  ignore: !["nbdkit", "nbdinfo", "nbdcopy", "qemu-img", "qemu-io"].every(hasProgram),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M");
    const [image, socket] = [pool.path("image"), pool.path("nbdkit.sock")];
    const server = await makeVolume(pool, image);
    assertEquals(await pool.used(), 16 * MiB);
    const args = ["-f", "-U", socket, "nbd", `uri=${server.url("disk0")}`];
    await using _nbdkit = await Daemon.start("nbdkit", args, () => isThere(socket));
    const front = `nbd+unix:///?socket=${socket}`;
    const { exports: [passed] } = await runForJson<{ exports: Record<string, unknown>[] }>("nbdinfo", [
      "--json",
      front,
    ]);
    const can = { can_flush: true, can_fua: true, can_trim: true, can_zero: true, can_fast_zero: true };
    const same = {
      can_multi_conn: true,
      is_read_only: false,
      block_size_preferred: 65536,
      "export-size": 32 * MiB,
    };
    assertEquals(passed, { ...passed, ...can, ...same });
    await compare(image, front);
    await qemuIo(front, ["discard 4M 8M", "write -P 0x77 20M 1M", "flush"]);
    assertEquals(await pool.used(), 9 * MiB);
    await run("nbdcopy", ["--flush", image, front]);
    await compare(image, server.url("disk0"));
    assert((await pool.used()) <= 17 * MiB);
  },
});
