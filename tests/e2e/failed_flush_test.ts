/** A flush fails, the host takes its memory for written, and a process that was told nothing opens the pool. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { requireOk } from "../../actors/edge/file_errors.ts";
import { openLibc } from "../../actors/edge/libc.ts";
import { FileDevice } from "../../actors/edge/file_device.ts";
import { PoolProcess } from "../../actors/edge/pool_process.ts";
import { unpackSuperblock } from "../../storage/format/superblock.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { FaultyDisk, hasFaultyDisk } from "../support/faulty_disk.ts";
import { PoolOnDisk } from "../support/server.ts";

// Once for the process, and never closed.
openLibc();

async function transactionOnDisk(disk: FaultyDisk): Promise<bigint> {
  const bytes = Uint8Array.fromHex(await disk.tell(`peek metadata.img 0 ${metadataBlockSizeBytes}`));
  const superblock = unpackSuperblock(bytes);
  if (typeof superblock === "string") throw new Error(`the superblock on the disk: ${superblock}`);
  return superblock.transactionId;
}

/** Opens the pool in this process, has the flush of a superblock fail and the mark for it too, and ends without a word. */
async function failSuperblock(pool: PoolOnDisk, disk: FaultyDisk): Promise<void> {
  const process = await PoolProcess.open(pool.directory);
  const { metadata } = process.files;
  const write = metadata.write.bind(metadata);
  let hasFailed = false;
  const flush = metadata.flush.bind(metadata);
  metadata.flush = (done, isAlone) =>
    flush((result) => {
      hasFailed ||= result.kind !== "ok";
      done(result);
    }, isAlone);
  // The host may refuse a write too; were it taken, the memory would show needs_check.
  metadata.write = (buffer, at, done) =>
    hasFailed ? { kind: "ioError", reason: "refused" } : write(buffer, at, done);
  await disk.tell(`fail write metadata.img 0 ${metadataBlockSizeBytes}`);
  const made = await process.command({ verb: "create", name: "lost", sizeBytes: 1 << 20 });
  assertEquals(made.kind, "refused");
  assert(hasFailed);
  process.kernel.stop();
  await process.close();
  await disk.tell("heal");
}

Deno.test({
  name:
    "a pool goes on from the superblock that its disk has, not from one that only the host's memory shows",
  ignore: !hasFaultyDisk(),
  fn: async () => {
    await using disk = await FaultyDisk.mount("metadata.img=0");
    await using pool = await PoolOnDisk.make(
      "--data-size=64M",
      "--metadata-size=4M",
      `--metadata=${disk.folder}/metadata.img`,
    );
    await pool.verb("create", "kept", "1M");
    const durable = await transactionOnDisk(disk);
    await failSuperblock(pool, disk);
    assertEquals(await transactionOnDisk(disk), durable);
    const said: string[] = [];
    const process = await PoolProcess.open(pool.directory, { log: (sentence) => void said.push(sentence) });
    const listed = await process.command({ verb: "list" });
    await process.close();
    if (listed.kind !== "volumes") throw new Error(`list answered ${listed.kind}`);
    assertEquals(listed.volumes.map(({ name }) => name), ["kept"]);
    assertMatch(
      said[0] ?? "",
      /showed another superblock .*a flush had failed\. The pool goes on from what the disk has/,
    );
    // What is built on it is on the disk: nothing hangs in the air.
    await pool.verb("create", "after", "1M");
    assertEquals((await pool.list()).map(({ name }) => name), ["after", "kept"]);
    assert(await transactionOnDisk(disk) > durable);
    assertMatch(await pool.verb("check"), /sound/);
  },
});

Deno.test("data is noted as flushed where a pool is closed well, and only there", async () => {
  await using pool = await PoolOnDisk.make("--data-size=64M", "--metadata-size=4M");
  const isNoted = () => {
    const data = FileDevice.open(pool.dataPath, { readOnly: true });
    const { isNotedFlushed } = data;
    data.close();
    return isNotedFlushed;
  };
  assert(!isNoted());
  await pool.verb("create", "a", "1M");
  // Where the file system takes no attributes, nothing is ever noted.
  if (!isNoted()) return;
  const process = await PoolProcess.open(pool.directory);
  const { data } = process.files;
  await requireOk("writing", (done) => data.write(new Uint8Array(512), 0, done));
  process.kernel.stop();
  await process.close();
  assert(!isNoted());
});
