/** How much memory the server takes, whatever its clients ask for at once. */
import { assert } from "@std/assert";
import { residentBytesMax } from "../../actors/limits.ts";
import { hasProgram, hasPythonNbd, programPath } from "../support/programs.ts";
import { PoolOnDisk, runToEnd } from "../support/server.ts";
import { Agent } from "./agent.ts";

const MiB = 1024 * 1024;

Deno.test({
  name: "16 connections with 64 requests of 1 MiB each keep the server within the bound of actors/limits.ts",
  ignore: !hasProgram("fio") || !hasPythonNbd(),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=4G");
    await pool.verb("create", "disk0", "2G");
    await using agent = new Agent();
    const server = await pool.serve();
    // The page cache that reads are sent from is the host's: of a process's own memory there is no high-water mark.
    let peak = 0;
    const look = setInterval(() => peak = Math.max(peak, server.memoryBytes("RssAnon")), 20);
    for (const rw of ["write", "randrw", "read"]) {
      await runToEnd(programPath("fio")!, [
        "--ioengine=nbd",
        `--uri=${server.url("disk0")}`,
        "--name=many",
        "--numjobs=16",
        "--iodepth=64",
        "--bs=1m",
        `--rw=${rw}`,
        "--size=64m",
        "--offset_increment=64m",
        "--output-format=terse",
      ]);
    }
    const flood = { export: "disk0", connections: 16, depth: 64, length: MiB, rounds: 2 };
    await agent.call("flood", { socket: server.socket, ...flood });
    clearInterval(look);
    assert(peak > 0, "nobody looked");
    assert(
      peak <= residentBytesMax,
      `${Math.round(peak / MiB)} MiB at most, above ${Math.round(residentBytesMax / MiB)}`,
    );
    await server.stop();
  },
});
