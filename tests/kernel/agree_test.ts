/**
 * The kernel agrees: its thin-pool target, in a VM, reads in our pools what we read, and we go on with what it changed
 * or made.
 */
import { assertEquals } from "@std/assert";
import { PoolOnDisk, runToEnd } from "../support/server.ts";
import { restoreImage, runThinTool } from "../support/thin_tools.ts";
import {
  contentsHere,
  contentsInGuest,
  geometryArgs,
  hasGuestPool,
  volumeArgs,
  volumeNamed,
  withLibnbd,
} from "./guest_pool.ts";

const ignore = !hasGuestPool();
const kib = 1024;
const mib = 1024 * kib;

/** Shared blocks, overflowing counts, holes, a partial last block, a snapshot that outlived its volume. */
async function makeHistory(pool: PoolOnDisk): Promise<void> {
  const sizes = [`base=${4 * mib + 512}`, "other=3M", "gone=1M"];
  const server = await pool.serve(sizes.flatMap((volume) => ["--create", volume]));
  await withLibnbd(
    server,
    "base",
    "h.pwrite(os.urandom(1500000), 0)",
    "h.pwrite(os.urandom(300000), 2 * 2**20 + 777)",
    "h.pwrite(os.urandom(512), 4 * 2**20)",
  );
  await withLibnbd(server, "other", "h.pwrite(os.urandom(2**20), 2**19 + 1)");
  await withLibnbd(server, "gone", "h.pwrite(os.urandom(100000), 50000)");
  await pool.verb("snapshot", "base@one", "other@one", "gone@kept");
  await pool.verb("rm", "--wait", "gone");
  await withLibnbd(
    server,
    "base",
    "h.pwrite(os.urandom(200000), 100)",
    "h.trim(8 * 65536, 4 * 65536)",
    "h.zero(100000, 2 * 2**20 + 100000)",
  );
  for (const clone of ["fork", "second", "third", "fourth"]) await pool.verb("clone", "base@one", clone);
  await withLibnbd(server, "fork", "h.pwrite(os.urandom(70000), 3 * 2**20)", "h.trim(2**20, 0)");
  await pool.verb("snapshot", "base@two");
  await pool.verb("clone", "base@two", "doomed");
  await withLibnbd(server, "doomed", "h.pwrite(os.urandom(200000), 2**20)");
  await server.stop();
}

/** Everything that is served, read by a stock client. */
async function readAll(pool: PoolOnDisk) {
  const server = await pool.serve();
  const volumes = await pool.list();
  const contents = await contentsHere(server, volumes);
  await server.stop();
  return { volumes, contents };
}

Deno.test({
  name:
    "the kernel reads in our pool what we read, and we read what it wrote, snapshotted, discarded and deleted",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size", "64M", "--metadata-size", "4M");
    await makeHistory(pool);
    const { volumes, contents } = await readAll(pool);
    await pool.requireSound();

    const guest = await contentsInGuest({
      script: "agree.sh",
      metadataPath: pool.metadataPath,
      dataPath: pool.dataPath,
      args: [
        ...await geometryArgs(pool),
        volumeNamed(volumes, "base").thin_id,
        volumeNamed(volumes, "doomed").thin_id,
        ...volumeArgs(volumes),
      ],
    });
    assertEquals(guest("before"), contents);
    await pool.requireSound();

    const after = await readAll(pool);
    assertEquals(after.contents, guest("after"));
    // The kernel saw from our metadata what is shared: nothing changed but the volume that it wrote.
    const bystanders = volumes.filter(({ name }) => name !== "base" && name !== "doomed");
    for (const { name, thin_id } of bystanders) {
      assertEquals([name, after.contents.get(thin_id)], [name, contents.get(thin_id)]);
    }
    const names = ["base", ...bystanders.map(({ name }) => name), "thin-900", "thin-901"];
    assertEquals(after.volumes.map(({ name }) => name).toSorted(), names.toSorted());
    await pool.requireSound();
  },
});

Deno.test({
  name: "a pool that the kernel formatted and used is imported, read alike, and changed by us without harm",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.folder();
    const [blockSectors, dataBlocks] = [256, 512];
    await Deno.mkdir(pool.directory);
    await Deno.writeFile(pool.metadataPath, new Uint8Array(4 * mib));
    // The data device comes used, so that a block which nobody zeroed would show.
    await Deno.writeFile(pool.dataPath, new Uint8Array(64 * mib).fill(0xa5));
    const guest = await contentsInGuest({
      script: "make.sh",
      metadataPath: pool.metadataPath,
      dataPath: pool.dataPath,
      args: [blockSectors, dataBlocks],
    });
    await pool.verb("import", "--metadata", pool.metadataPath, "--data", pool.dataPath);

    const server = await pool.serve();
    const volumes = await pool.list();
    const made = guest("made");
    assertEquals(
      volumes.map((volume) => volume.name).toSorted(),
      [...made.keys()].map((id) => `thin-${id}`).toSorted(),
    );
    assertEquals(await contentsHere(server, volumes), made);

    await withLibnbd(
      server,
      "thin-16777215",
      "h.pwrite(b'ours', 2**20 + 100)",
      "assert h.pread(2**17, 2**20) == bytes(100) + b'ours' + bytes(2**17 - 104)",
    );
    await pool.verb("snapshot", "thin-1@kept");
    await withLibnbd(
      server,
      "thin-1",
      "h.pwrite(os.urandom(3000000), 1)",
      "h.trim(2**21, 2**20)",
      "h.flush()",
    );
    await pool.verb("rm", "--wait", "thin-0", "thin-12");
    const kept = volumeNamed(await pool.list(), "thin-1@kept");
    const untouched = [...volumes.filter(({ thin_id }) => [2, 10].includes(thin_id)), kept];
    assertEquals(
      [...(await contentsHere(server, untouched)).values()],
      [2, 10, 1].map((thin) => made.get(thin)),
    );
    await server.stop();
    await pool.requireSound();
  },
});

Deno.test({
  name: "what kill -9 left of a pool under load is read alike by the kernel and by us",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size", "64M", "--metadata-size", "4M");
    const server = await pool.serve(["--create", "base=4M", "--create", "other=4M"]);
    const load = `
while True:
  h.pwrite(os.urandom(random.randrange(1, 100000)), random.randrange(4000000))
  if random.randrange(5) == 0: h.trim(random.randrange(1, 500000), random.randrange(3500000))
  if random.randrange(5) == 0: h.flush()`;
    const clients = ["base", "other"].map((name) => withLibnbd(server, name, "import random", load));
    const loadsEnded = Promise.allSettled(clients);
    for (const snapshot of ["one", "two", "three"]) {
      await pool.verb("snapshot", `base@${snapshot}`, `other@${snapshot}`);
    }
    await server.kill();
    assertEquals((await loadsEnded).map(({ status }) => status), ["rejected", "rejected"]);

    // The guest gets copies of the files as they were left, before we settle anything in ours.
    const [metadataPath, dataPath] = [pool.path("metadata-left.img"), pool.path("data-left.img")];
    await runToEnd("cp", ["--sparse=always", pool.metadataPath, metadataPath]);
    await runToEnd("cp", ["--sparse=always", pool.dataPath, dataPath]);
    // The kernel reads the last commit. Our next open would replay what was acknowledged after it.
    await Deno.remove(`${pool.directory}/intent.journal`);
    const { volumes, contents } = await readAll(pool);
    assertEquals(volumes.length, 8);
    const args = [...await geometryArgs(pool), ...volumeArgs(volumes)];
    const guest = await contentsInGuest({ script: "read.sh", metadataPath, dataPath, args });
    assertEquals(guest("read"), contents);
    await pool.requireSound();
  },
});

/** A device 2 that has only every third of its blocks. */
function scatteredXml(mappings: number, dataBlocks: number): string {
  const lines = Array.from(
    { length: mappings },
    (_, index) => `<single_mapping origin_block="${3 * index}" data_block="${1000 + index}" time="0"/>`,
  );
  return `<superblock uuid="" time="0" transaction="0" version="2" data_block_size="128" nr_data_blocks="${dataBlocks}">
<device dev_id="2" mapped_blocks="${mappings}" transaction="0" creation_time="0" snap_time="0">
${lines.join("\n")}
</device>
</superblock>`;
}

Deno.test({
  name:
    "a pool over which the kernel lost power amid a discard has what was synced, and check says of it what thin_check 1.x says",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.folder();
    const [dataBlocks, mappings] = [4096, 1800];
    await Deno.mkdir(pool.directory);
    await Deno.writeFile(pool.metadataPath, restoreImage(scatteredXml(mappings, dataBlocks), "1.x", 1024));
    await Deno.writeFile(pool.dataPath, new Uint8Array(0));
    await Deno.truncate(pool.dataPath, dataBlocks * 64 * kib);
    const guest = await contentsInGuest({
      script: "cut.sh",
      metadataPath: pool.metadataPath,
      dataPath: pool.dataPath,
      args: [128, dataBlocks, 3 * mappings],
    });
    await pool.verb("import", "--metadata", pool.metadataPath, "--data", pool.dataPath);
    await requireSameVerdict(pool);

    const server = await pool.serve();
    const synced = (await pool.list()).filter(({ name }) => name !== "thin-2");
    assertEquals(await contentsHere(server, synced), guest("synced"));
    await pool.verb("clone", "thin-1", "fork");
    await withLibnbd(server, "fork", "h.pwrite(os.urandom(1000000), 12345)");
    await pool.verb("rm", "--wait", "thin-2");
    assertEquals(await contentsHere(server, synced), guest("synced"));
    await server.stop();
    await requireSameVerdict(pool);
  },
});

/** Blocks that leaked are for thin_check 1.x alone to judge; 0.9 does not look at them. */
async function requireSameVerdict(pool: PoolOnDisk): Promise<void> {
  assertEquals(runThinTool("thin_check", "0.9", ["-q", pool.metadataPath]).status, 0);
  const theirs = runThinTool("thin_check", "1.x", [pool.metadataPath]);
  const ours = await pool.cli(["check"]);
  assertEquals(
    ours.status === 0,
    theirs.status === 0,
    `${ours.stdout}${ours.stderr}${theirs.stdout}${theirs.stderr}`,
  );
}
