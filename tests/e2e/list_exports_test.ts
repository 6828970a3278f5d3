/** A client that asks about every export takes its time: libnbd over TCP needs 0.2 s for each. */
import { assertEquals } from "@std/assert";
import { hasProgram, requiredProgram } from "../support/programs.ts";
import { PoolOnDisk, runToEnd } from "../support/server.ts";

Deno.test({
  name: "nbdinfo --list over TCP tells of 101 exports",
  ignore: !hasProgram("nbdinfo"),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size", "64M", "--metadata-size", "4M");
    await pool.verb("create", "d", "1M");
    await pool.verb("snapshot", ...Array.from({ length: 100 }, (_, i) => `d@${i}`));
    const server = await pool.serve(["--listen", "tcp:127.0.0.1:0"]);
    const port = /nbd:\/\/127\.0\.0\.1:(\d+)/.exec(server.stdout)?.[1];
    const told = await runToEnd(requiredProgram("nbdinfo"), ["--list", `nbd://127.0.0.1:${port}`]);
    assertEquals(told.match(/^export=/gm)?.length, 101);
    await server.stop();
  },
});
