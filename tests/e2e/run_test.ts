/** `run`: a program with a throw-away volume, with a server and without one. */
import { assert, assertEquals } from "@std/assert";
import { PoolOnDisk } from "../support/server.ts";

const volumes = async (pool: PoolOnDisk) => (await pool.list()).map(({ name }) => name);

for (const isServed of [false, true]) {
  const where = isServed ? "on a server" : "without a server";

  Deno.test(`run gives qemu-io a clone, several times over, and leaves nothing behind, ${where}`, async () => {
    await using pool = await PoolOnDisk.make();
    await pool.verb("create", "base", "16M");
    const server = isServed ? await pool.serveAt(["--listen", "tcp:127.0.0.1:0"]) : undefined;
    const line = 'nbdinfo --size "$uri" && qemu-io -f raw -c "write -P 7 0 64k" "$uri" > /dev/null && ' +
      'qemu-io -f raw -c "read -P 7 0 64k" "$uri" | grep -c "read 65536/65536" && test -S "$unixsocket"';
    const ran = await pool.cli(["run", "--fork", "base", "--", line]);
    assertEquals([ran.status, ran.stdout], [0, "16777216\n1\n"], ran.stderr);
    assertEquals(await volumes(pool), ["base"]);
    await server?.stop();
  });
}

Deno.test("run ends with the status of the program, and takes its words apart without a shell", async () => {
  await using pool = await PoolOnDisk.make();
  const words = await pool.cli([
    "run",
    "--size",
    "1M",
    "--",
    "/bin/echo",
    "at $unixsocket",
    "a  b",
    "--fork",
  ]);
  assertEquals(words.status, 0);
  assert(/^at \/.*nbd\.sock a {2}b --fork\n$/.test(words.stdout), words.stdout);
  assertEquals((await pool.cli(["run", "--size", "1M", "--", "exit 7"])).status, 7);
  assertEquals((await pool.cli(["run", "--size", "1M", "--", "kill -9 $$"])).status, 137);
  assertEquals((await pool.cli(["run", "--size", "1M"])).status, 2);
  assertEquals(await volumes(pool), []);
});
