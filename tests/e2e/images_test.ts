/** Whole file system images of real files: copied in and out by stock tools, snapshotted, overwritten and cloned. */
import { assert, assertEquals } from "@std/assert";
import { hasProgram, programPath } from "../support/programs.ts";
import { PoolOnDisk, runToEnd, soak } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";

const ignore = !["mke2fs", "nbdcopy", "qemu-img"].every(hasProgram) || !hasThinTools("0.9") ||
  !hasThinTools("1.x");
const MiB = 1024 * 1024;
const imageBytes = (soak ? 1024 : 256) * MiB;
const blockBytes = 65536;

/** The first of these folders that is there, fills something, and fits into an image. */
async function realTree(candidates: readonly string[]): Promise<string> {
  for (const path of candidates) {
    const { stdout } = await new Deno.Command("du", { args: ["-sk", path], stderr: "null" }).output();
    const bytes = Number.parseInt(new TextDecoder().decode(stdout)) * 1024;
    if (bytes > MiB && bytes < imageBytes * 0.7) return path;
  }
  throw new Error(`None of ${candidates.join(", ")} is of use as the content of an image.`);
}

/**
 * An ext4 image of a real tree, sparse exactly where whole pool blocks are zero, and how many blocks are not: that many
 * a thin volume needs for it.
 */
async function makeImage(path: string, tree: string, ext4BlockBytes: number): Promise<number> {
  const dense = `${path}.dense`;
  const options = ["-q", "-t", "ext4", "-b", `${ext4BlockBytes}`, "-d", tree, dense, `${imageBytes / MiB}M`];
  await runToEnd(programPath("mke2fs")!, options);
  using from = await Deno.open(dense);
  using to = await Deno.open(path, { write: true, create: true });
  await to.truncate(imageBytes);
  const block = new Uint8Array(blockBytes);
  let used = 0;
  for (let at = 0; at < imageBytes; at += blockBytes) {
    for (let read = 0; read < blockBytes;) read += (await from.read(block.subarray(read)))!;
    if (block.every((byte) => byte === 0)) continue;
    used += 1;
    await to.seek(at, Deno.SeekMode.Start);
    for (let written = 0; written < blockBytes;) written += await to.write(block.subarray(written));
  }
  await Deno.remove(dense);
  return used;
}

const nbdcopy = (...args: string[]) => runToEnd(programPath("nbdcopy")!, ["--flush", ...args]);
const compareImages = (image: string, url: string) =>
  runToEnd(programPath("qemu-img")!, ["compare", "-f", "raw", "-F", "raw", image, url]);

Deno.test({
  name: "an ext4 image survives in a snapshot and its clone while another image is written over the volume",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=8G");
    const [first, second] = [pool.path("first.img"), pool.path("second.img")];
    const firstBlocks = await makeImage(
      first,
      await realTree(["/usr/share/doc", "/usr/share/perl", "."]),
      1024,
    );
    const secondBlocks = await makeImage(
      second,
      await realTree(["/usr/include", "/usr/lib/python3", "."]),
      4096,
    );
    const [firstBytes, secondBytes] = [firstBlocks * blockBytes, secondBlocks * blockBytes];
    await pool.verb("create", "disk0", `${imageBytes}`);
    await pool.verb("create", "disk1", `${imageBytes}`);
    const server = await pool.serve();

    await nbdcopy(first, server.url("disk0"));
    assertEquals(await pool.used(), firstBytes, "after nbdcopy");
    await compareImages(first, server.url("disk0"));
    await nbdcopy(server.url("disk0"), pool.path("out.img"));
    await runToEnd("cmp", [first, pool.path("out.img")]);

    const convert = ["convert", "-n", "-f", "raw", "-O", "raw", second, server.url("disk1")];
    await runToEnd(programPath("qemu-img")!, convert);
    assertEquals(await pool.used(), firstBytes + secondBytes, "after qemu-img convert");
    await compareImages(second, server.url("disk1"));
    await pool.verb("rm", "--wait", "disk1");

    await pool.verb("snapshot", "disk0@first");
    await pool.verb("clone", "disk0@first", "fork");
    assertEquals(await pool.used(), firstBytes, "after the snapshot and its clone");

    let overwriting = true;
    const overwritten = nbdcopy(second, server.url("disk0")).finally(() => overwriting = false);
    let reads = 0;
    for (; overwriting; reads += 1) {
      await nbdcopy(server.url("disk0@first"), pool.path("out.img"));
      await runToEnd("cmp", [first, pool.path("out.img")]);
    }
    await overwritten;
    assert(reads > 0, "the snapshot was read meanwhile");
    assertEquals(
      await pool.used(),
      firstBytes + secondBytes,
      "after another image was written over the volume",
    );
    await compareImages(second, server.url("disk0"));
    await compareImages(first, server.url("disk0@first"));
    await compareImages(first, server.url("fork"));

    await pool.verb("rm", "--wait", "disk0");
    assertEquals(await pool.used(), firstBytes, "after the origin is gone");
    await compareImages(first, server.url("disk0@first"));
    await pool.verb("rm", "--wait", "disk0@first");
    assertEquals(await pool.used(), firstBytes, "after the snapshot is gone");
    await compareImages(first, server.url("fork"));
    await server.stop();
    await pool.requireSound();

    await pool.verb("rm", "--wait", "fork");
    assertEquals(await pool.used(), 0, "after the clone is gone");
    await pool.requireSound();
  },
});
