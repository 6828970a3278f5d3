/** fio fills a pool of 256 MiB to its last block, once for each thing that may follow, and all that it wrote is there. For the soak. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { hasProgram, programPath } from "../support/programs.ts";
import { PoolOnDisk, runToEnd, soakTest } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";

const MiB = 1024 * 1024;
const ignore = !hasProgram("fio") || !hasThinTools("0.9") || !hasThinTools("1.x");

/** What fio says that does not come to its end. */
async function failureOf(args: string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(programPath("fio")!, { args, stdin: "null" })
    .output();
  const said = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assert(code !== 0, `fio succeeded: ${said}`);
  return said;
}

function fio(url: string, ...args: string[]): string[] {
  return [
    "--ioengine=nbd",
    `--uri=${url}`,
    "--name=fill",
    "--bs=64k",
    "--verify=crc32c",
    "--verify_fatal=1",
    "--verify_state_save=0",
    "--output-format=terse",
    ...args,
  ];
}

for (const options of [["--error-if-no-space"], ["--no-space-timeout", "2"]]) {
  soakTest({
    name: `a pool that fio fills with ${options[0]} has its last block used, answers ENOSPC, and keeps all`,
    ignore,
    fn: async () => {
      await using pool = await PoolOnDisk.make("--data-size=256M");
      const server = await pool.serve(["--create", "disk=512M", ...options]);
      const url = server.url("disk");
      // One write at a time: so the first 256 MiB are what was written.
      const full = await failureOf(fio(url, "--rw=write", "--size=512m", "--do_verify=0"));
      assertMatch(full, /No space left on device/);
      const status = await pool.status();
      assertEquals([status.mode, status.data_used_bytes], ["out-of-data-space", 256 * MiB]);
      const verify = ["--rw=read", "--size=256m", "--iodepth=16", "--verify_only"];
      await runToEnd(programPath("fio")!, fio(url, ...verify));
      await server.stop();
      await pool.requireSound();
      const again = await pool.serve();
      await runToEnd(programPath("fio")!, fio(again.url("disk"), ...verify));
      await again.stop();
    },
  });
}

soakTest({
  name: "a pool that fio fills has its last block used while writes wait, and they go on after grow",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=256M");
    const server = await pool.serve(["--create", "disk=512M", "--no-space-timeout", "0"]);
    const url = server.url("disk");
    const filled = runToEnd(
      programPath("fio")!,
      fio(url, "--rw=randwrite", "--size=512m", "--iodepth=32", "--do_verify=1"),
    );
    while ((await pool.status()).parked === 0) await new Promise((resolve) => setTimeout(resolve, 1000));
    assertEquals((await pool.status()).data_used_bytes, 256 * MiB);
    await pool.verb("grow", "+256M");
    await filled;
    assertEquals((await pool.status()).data_used_bytes, 512 * MiB);
    await server.stop();
    await pool.requireSound();
  },
});
