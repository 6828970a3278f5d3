/** The verbs that make, replace and end volumes, as a person gives them, with clients attached. */
import { assertEquals, assertMatch } from "@std/assert";
import { NBD_CMD_READ } from "../../actors/nbd/wire/constants.ts";
import { thinId } from "../../storage/base/ids.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { keepsIntents, leaveIntents, leftInserts } from "../support/left_intents.ts";
import { hasProgram, requiredProgram } from "../support/programs.ts";
import { PoolOnDisk } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";

const block = 65536;
const small = ["--data-size", "64M", "--metadata-size", "2M"];

const decoder = new TextDecoder();

function nbdinfo(...args: string[]): Deno.CommandOutput {
  return new Deno.Command(requiredProgram("nbdinfo"), { args }).outputSync();
}

const ignore = !hasProgram("nbdinfo") || !hasProgram("qemu-img") || !hasThinTools("0.9") ||
  !hasThinTools("1.x");

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
  for (const uri of volumes[4].uris) {
    assertEquals(decoder.decode(nbdinfo("--size", uri).stdout), "4194304\n", uri);
  }
  await server.stop();
  await pool.requireSound();
});

Deno.test({
  name:
    "an attached volume keeps its client through rename, rollback and resize, and is removed only by force",
  ignore: !hasThinTools("0.9") || !hasThinTools("1.x"),
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    const server = await pool.serve(["--create", "a=1M"]);
    const client = await RawClient.attach({ path: server.socket }, "a");
    await client.write(0, new Uint8Array(block).fill(1));
    await pool.verb("snapshot", "a@s");
    await client.write(0, new Uint8Array(block).fill(2));
    await pool.verb("rename", "a", "z");
    assertEquals(await client.read(0, block), new Uint8Array(block).fill(2));
    const attached = /: a client of [^ ]+ is attached\. Detach first, or use --force\.\n$/;
    const refusedRollback = await pool.cli(["rollback", "z@s"]);
    assertEquals([refusedRollback.status, refusedRollback.stdout], [1, ""]);
    assertMatch(refusedRollback.stderr, attached);
    const kept = await pool.verb("rollback", "z@s", "--force", "--json");
    assertEquals(JSON.parse(kept), { kept: "z@before-rollback-1", exclusive_bytes: block });
    assertEquals(await client.read(0, block), new Uint8Array(block).fill(1));
    const end = { type: NBD_CMD_READ, offsetBytes: (2 << 20) - 512, lengthBytes: 512 };
    assertEquals((await client.perform(end)).error, 22);
    await pool.verb("resize", "z", "2M");
    assertEquals((await client.perform(end)).data, new Uint8Array(512));
    const refusedShrink = await pool.cli(["resize", "z", "64K", "--shrink"]);
    assertEquals([refusedShrink.status, refusedShrink.stdout], [1, ""]);
    assertMatch(refusedShrink.stderr, attached);
    await pool.verb("resize", "z", "64K", "--shrink", "--force");
    assertEquals((await client.perform(end)).error, 22);
    assertEquals(await client.read(0, block), new Uint8Array(block).fill(1));

    const refused = await pool.cli(["rm", "z@s", "z"]);
    assertEquals(refused.status, 1);
    assertEquals(
      refused.stderr,
      'Cannot remove "z": a client is attached to it. Nothing was removed. Detach first, or use --force.\n',
    );
    assertEquals((await pool.list()).length, 3);
    assertEquals((await pool.list())[0]?.attached, 1);
    await pool.verb("rm", "--wait", "z@before-rollback-1");
    for (let index = 0; index < 20; index += 1) {
      await client.sendCommand({ type: 1, offsetBytes: 0, payload: new Uint8Array(block).fill(3) });
    }
    await pool.verb("rm", "z", "--force", "--wait");
    // What was in flight is answered, then the connection ends; nothing is half sent.
    while (client.inFlight > 0) assertEquals((await client.receiveReply()).error, 0);
    assertEquals((await client.receiveAll()).length, 0);
    client.close();
    assertEquals((await pool.list()).map((volume) => volume.name), ["z@s"]);
    assertEquals(await pool.used(), block);
    await server.stop();
    await pool.requireSound();
  },
});

Deno.test(
  "a volume for a single writer offers no multi-conn, and its second client is refused",
  { ignore },
  async () => {
    await using pool = await PoolOnDisk.make(...small);
    const server = await pool.serve();
    await pool.verb("create", "solo", "1M", "--single-writer");
    await pool.verb("create", "many", "1M");
    const can = (name: string) => nbdinfo("--can", "multi-conn", server.url(name)).code;
    assertEquals([can("many"), can("solo")], [0, 2]);
    const writer = await RawClient.attach({ path: server.socket }, "solo");
    await writer.write(0, new Uint8Array(block).fill(1));
    const second = nbdinfo("--size", server.url("solo"));
    assertEquals(second.code, 1);
    assertMatch(decoder.decode(second.stderr), /server policy prevents NBD_OPT_GO/);
    // libnbd does not show the sentence; qemu does.
    const qemu = new Deno.Command(requiredProgram("qemu-img"), { args: ["info", server.url("solo")] });
    const said = decoder.decode(qemu.outputSync().stderr);
    assertMatch(said, /"solo" takes one client at a time \(--single-writer\), and a client/);
    assertEquals(await writer.read(0, block), new Uint8Array(block).fill(1));
    await writer.disconnect();
    assertEquals(decoder.decode(nbdinfo("--size", server.url("solo")).stdout), "1048576\n");
    await server.stop();
  },
);

Deno.test({
  name: "rm without a server returns when the space is back",
  ignore: !keepsIntents,
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    await pool.verb("create", "a", "16M");
    await leaveIntents(pool.directory, leftInserts(thinId(1), 100));
    await pool.verb("create", "b", "1M");
    assertEquals((await pool.status()).data_used_bytes, 100 * block);
    await pool.verb("rm", "a");
    const { removing, data_used_bytes } = await pool.status();
    assertEquals([removing, data_used_bytes], [0, 0]);
  },
});

Deno.test("rm on a server returns when the names are gone, status tells the rest, and --wait waits for it", {
  ignore,
}, async () => {
  await using pool = await PoolOnDisk.make(...small);
  const server = await pool.serve();
  for (const name of ["a", "b"]) {
    await pool.verb("create", name, "16M");
    const client = await RawClient.attach({ path: server.socket }, name);
    for (let at = 0; at < 256; at += 1) await client.write(at * block, new Uint8Array(block).fill(1));
    await client.disconnect();
  }
  assertEquals(await pool.verb("rm", "a"), "");
  assertEquals((await pool.list()).map(({ name }) => name), ["b"]);
  for (let status = await pool.status(); status.removing > 0; status = await pool.status()) {
    assertEquals(status.removing_bytes <= 256 * block, true);
  }
  assertEquals(await pool.verb("rm", "--wait", "b"), "");
  const { removing, removing_bytes, data_used_bytes } = await pool.status();
  assertEquals([removing, removing_bytes, data_used_bytes], [0, 0, 0]);
  await server.stop();
  await pool.requireSound();
});
