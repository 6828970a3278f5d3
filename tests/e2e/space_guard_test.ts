/** A server that warns of a pool that is nearly full, and has it grow by itself. */
import { assert, assertEquals } from "@std/assert";
import { NBD_CMD_TRIM, NBD_CMD_WRITE, NBD_ENOSPC } from "../../actors/nbd/wire/constants.ts";
import { openPool } from "../../mod.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { hasProgram, programPath } from "../support/programs.ts";
import { PoolOnDisk, runToEnd, type ServerProcess, soakTest } from "../support/server.ts";

const MiB = 1024 * 1024;

/** Waits for the condition, 10 s at most. */
async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (let tries = 0; !await condition(); tries += 1) {
    assert(tries < 200, `never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Random writes of whole blocks of the volume "disk", then all of it verified. Rejects if fio fails. */
function verifiedFio(server: ServerProcess, ...args: string[]): Promise<string> {
  return runToEnd(programPath("fio")!, [
    "--ioengine=nbd",
    `--uri=${server.url("disk")}`,
    "--name=fill",
    "--rw=randwrite",
    "--bs=64k",
    "--iodepth=32",
    "--verify=crc32c",
    "--do_verify=1",
    "--verify_fatal=1",
    "--verify_state_save=0",
    "--output-format=terse",
    ...args,
  ]);
}

Deno.test("serve --warn-at logs each crossing once, and again when a trim has made room; status says low", async () => {
  await using pool = await PoolOnDisk.make("--data-size=16M");
  const server = await pool.serve(["--create", "disk=64M", "--warn-at", "50,75"]);
  const linesOf = (begin: string) => server.stderr.split("\n").filter((line) => line.startsWith(begin));
  const client = await RawClient.attach({ path: server.socket }, "disk");
  await client.write(0, new Uint8Array(9 * MiB).fill(1));
  await until(() => linesOf("The pool's data is 50 % full").length === 1, "a line at 50 %");
  assertEquals((await pool.status()).data, "low");
  await client.write(9 * MiB, new Uint8Array(4 * MiB).fill(1));
  await until(() => linesOf("The pool's data is 75 % full").length === 1, "a line at 75 %");
  assertEquals((await client.perform({ type: NBD_CMD_TRIM, offsetBytes: 0, lengthBytes: 8 * MiB })).error, 0);
  await until(() => linesOf("The pool's data is below").length === 2, "a line for each percentage left");
  assertEquals((await pool.status()).data, "ok");
  assertEquals(linesOf("The pool's data is 50 % full").length, 1);
  await client.disconnect();
  await server.stop();
});

Deno.test({
  name: "serve --auto-grow has fio write four times what the pool could hold, and stops at its maximum",
  ignore: !hasProgram("fio"),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=16M");
    const server = await pool.serve(["--create", "disk=64M", "--auto-grow", "data:90%,8M,64M"]);
    await verifiedFio(server, "--size=64m");
    const status = await pool.status();
    assertEquals([status.data_total_bytes, status.data_used_bytes, status.mode], [
      64 * MiB,
      64 * MiB,
      "write",
    ]);
    assertEquals(server.stderr.split("\n").filter((line) => line.includes("has grown by itself")).length, 6);
    await until(
      () => server.stderr.includes("it has the 64 MiB that --auto-grow allows"),
      "a word about the maximum",
    );
    await server.stop();
    await pool.requireSound();
  },
});

Deno.test({
  name:
    "fio fills a volume to the last block of its quota, gets ENOSPC at once beyond it, and goes on when it is raised",
  ignore: !hasProgram("fio"),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=256M");
    const server = await pool.serve(["--create", "disk=256M"]);
    await pool.verb("quota", "disk", "32M");
    await verifiedFio(server, "--size=32m");
    const client = await RawClient.attach({ path: server.socket }, "disk");
    const block = { type: NBD_CMD_WRITE, offsetBytes: 32 * MiB, payload: new Uint8Array(65536).fill(1) };
    assertEquals((await client.perform(block)).error, NBD_ENOSPC);
    const [disk] = await pool.list();
    assertEquals([disk?.mapped_bytes, disk?.quota_bytes], [32 * MiB, 32 * MiB]);
    const status = await pool.status();
    assertEquals([status.parked, status.mode], [0, "write"]);
    await pool.verb("quota", "disk", "64M");
    assertEquals((await client.perform(block)).error, 0);
    await client.disconnect();
    await verifiedFio(server, "--size=64m");
    await server.stop();
    await pool.requireSound();
  },
});

soakTest({
  name:
    "fio waits for metadata that has no block left, goes on when it has grown, and finds all that it wrote",
  // It takes some 430 volumes to fill the metadata, each made by a command of its own.
  ignore: !hasProgram("fio"),
  // The pool is opened in this process too, and the C library stays open.
  sanitizeResources: false,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=256M", "--metadata-size=2M");
    const ballast = await openPool(pool.directory);
    await ballast.create("disk", 256 * MiB);
    let volumes = 0;
    for (let isFull = false; !isFull; volumes += 1) {
      await ballast.create(`b${volumes}`, MiB).catch(() => isFull = true);
    }
    await ballast.close();
    assert(volumes > 100, `${volumes} volumes filled the metadata`);
    const server = await pool.serve([]);
    const fio = verifiedFio(server, "--size=64m");
    await until(async () => (await pool.status()).parked > 0, "a write waits");
    const status = await pool.status();
    assertEquals([status.mode, status.metadata], ["out-of-metadata-space", "full"]);
    assertEquals(status.metadata_used_bytes, status.metadata_total_bytes);
    await pool.verb("grow", "--metadata", "+2M");
    await fio;
    assertEquals((await pool.status()).mode, "write");
    await server.stop();
    await pool.requireSound();
  },
});

Deno.test("a reserve keeps space for its volume while another one fills the pool", async () => {
  await using pool = await PoolOnDisk.make("--data-size=16M");
  const server = await pool.serve(["--create", "disk=64M", "--create", "other=64M"]);
  await pool.verb("reserve", "disk", "4M");
  const other = await RawClient.attach({ path: server.socket }, "other");
  await other.write(0, new Uint8Array(12 * MiB).fill(1));
  await other.sendCommand({
    type: NBD_CMD_WRITE,
    offsetBytes: 12 * MiB,
    payload: new Uint8Array(65536).fill(1),
  });
  await until(async () => (await pool.status()).parked === 1, "the other one waits");
  const disk = await RawClient.attach({ path: server.socket }, "disk");
  await disk.write(0, new Uint8Array(4 * MiB).fill(2));
  await disk.disconnect();
  assertEquals((await pool.status()).data_used_bytes, 16 * MiB);
  other.close();
  await server.stop();
  await pool.verb("check");
});
