/** The server with io_uring on a thread of its own: the same bytes as with Deno's calls. */
import { assertEquals } from "@std/assert";
import { Uring } from "../../actors/edge/ring/uring.ts";
import { hasProgram, programPath } from "../support/programs.ts";
import { PoolOnDisk, runToEnd } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";

function hasRing(): boolean {
  const ring = Uring.open();
  if (typeof ring === "string") return false;
  ring.close();
  return true;
}

const ignore = !hasRing() || !hasProgram("fio") || !hasThinTools("0.9") || !hasThinTools("1.x");

Deno.test({
  name: "fio finds with io_uring what it wrote, beside snapshots and removals, and after kill -9",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=256M");
    const serving = ["--io", "io_uring"];
    const server = await pool.serve([...serving, "--create", "disk=64M"]);
    const fio = (url: string, ...options: string[]) =>
      runToEnd(programPath("fio")!, [
        ...["--ioengine=nbd", `--uri=${url}`, "--name=job", "--rw=randwrite", "--bsrange=512-256k"],
        ...["--blockalign=512", "--size=64M", "--iodepth=16", "--verify=crc32c", "--verify_fatal=1"],
        ...["--verify_state_save=0", "--output-format=terse", ...options],
      ]);
    const written = fio(server.url("disk"), "--randseed=1");
    await pool.verb("snapshot", "disk@early");
    await pool.verb("clone", "disk@early", "fork");
    await written;
    await pool.verb("rm", "--wait", "fork", "disk@early");
    await server.kill();
    const again = await pool.serve(serving);
    await fio(again.url("disk"), "--randseed=1", "--verify_only");
    await again.stop();
    await pool.requireSound();
    assertEquals((await pool.list()).map(({ name }) => name), ["disk"]);
  },
});
