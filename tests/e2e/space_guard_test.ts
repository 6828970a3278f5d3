/** A server that warns of a pool that is nearly full, and has it grow by itself. */
import { assert, assertEquals } from "@std/assert";
import { NBD_CMD_TRIM } from "../../actors/nbd/wire/constants.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { hasProgram, programPath } from "../support/programs.ts";
import { PoolOnDisk, runToEnd } from "../support/server.ts";

const MiB = 1024 * 1024;

/** Waits for the condition, 10 s at most. */
async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (let tries = 0; !await condition(); tries += 1) {
    assert(tries < 200, `never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
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
    await runToEnd(programPath("fio")!, [
      "--ioengine=nbd",
      `--uri=${server.url("disk")}`,
      "--name=fill",
      "--rw=randwrite",
      "--bs=64k",
      "--size=64m",
      "--iodepth=32",
      "--verify=crc32c",
      "--do_verify=1",
      "--verify_fatal=1",
      "--verify_state_save=0",
      "--output-format=terse",
    ]);
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
