/** The verbs that make, replace and end volumes, as a person gives them, with clients attached. */
import { assertEquals, assertMatch } from "@std/assert";
import { hasProgram, requiredProgram } from "../support/programs.ts";
import { PoolOnDisk } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";

/** What nbdinfo says of a URI. */
function sizeAt(uri: string): string {
  const { stdout } = new Deno.Command(requiredProgram("nbdinfo"), { args: ["--size", uri] }).outputSync();
  return new TextDecoder().decode(stdout);
}

const ignore = !hasProgram("nbdinfo") || !hasThinTools("0.9") || !hasThinTools("1.x");

Deno.test("fork prints its names, and as JSON where each is served", { ignore }, async () => {
  await using pool = await PoolOnDisk.make();
  await pool.verb("create", "base", "4M");
  await pool.verb("snapshot", "base@s");
  assertEquals(await pool.verb("fork", "base@s", "--count", "2"), "base-fork-1\nbase-fork-2\n");
  const offline = JSON.parse(await pool.verb("fork", "base", "--name", "one", "--json"));
  assertEquals(offline, { volumes: [{ name: "one", uris: [] }] });
  const server = await pool.serveAt(["--listen", "tcp:127.0.0.1:0"]);
  const port = /listening nbd:\/\/127\.0\.0\.1:(\d+)/.exec(server.stdout)![1]!;
  const { volumes } = JSON.parse(
    await pool.verb("fork", "base@s", "--count", "12", "--name", "vm-%03d", "--json"),
  );
  assertEquals(volumes.length, 12);
  const socket = `${pool.directory}/nbd.sock`;
  assertEquals(volumes[11], {
    name: "vm-012",
    uris: [`nbd://127.0.0.1:${port}/vm-012`, `nbd+unix:///vm-012?socket=${socket}`],
  });
  const taken = await pool.cli(["fork", "base", "--count", "20", "--name", "vm-%03d"]);
  assertEquals([taken.status, taken.stdout], [1, ""]);
  assertMatch(taken.stderr, /^Cannot fork "base": "vm-001" exists already\..* Nothing was made\.\n$/);
  assertEquals((await pool.list()).length, 1 + 1 + 2 + 1 + 12);
  for (const uri of volumes[4].uris) assertEquals(sizeAt(uri), "4194304\n");
  await server.stop();
  await pool.requireSound();
});
