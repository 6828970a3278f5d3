/** Throw-away volumes with real clients. */
import { assert, assertEquals } from "@std/assert";
import { PoolOnDisk } from "../support/server.ts";

async function run(program: string, ...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, { args }).output();
  assert(success, `${program} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
}

Deno.test("an ephemeral volume outlives nbdinfo and qemu-img info, and goes when qemu-io has written and left", async () => {
  await using pool = await PoolOnDisk.make();
  const socket = pool.path("nbd.sock");
  const server = await pool.serve();
  await pool.verb("create", "ci", "16M", "--ephemeral");
  const uri = `nbd+unix:///ci?socket=${socket}`;
  await run("nbdinfo", uri);
  await run("qemu-img", "info", uri);
  assertEquals((await pool.list()).map(({ name }) => name), ["ci"]);
  await run("qemu-io", "-f", "raw", "-c", "write 0 64k", "-c", "flush", uri);
  assertEquals(await pool.list(), []);
  await server.stop();
  assert(server.stderr.includes(`Removed, as nothing uses them any more: "ci".`), server.stderr);
});
