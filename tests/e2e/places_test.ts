/** Who gets in where places are few: the owner of the Unix socket, whatever the network does. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { RawClient } from "../nbd/raw_client.ts";
import { PoolOnDisk } from "../support/server.ts";

/** Whether the server serves a new client. */
async function isServed(address: { path: string } | { hostname: string; port: number }): Promise<boolean> {
  using client = await RawClient.connect(address, { timeoutMs: 5000 });
  return await client.receiveOpening().then(() => true, () => false);
}

Deno.test("with --max-clients 16 one host over TCP has 11 places, and the Unix socket gets in beside it", async () => {
  await using pool = await PoolOnDisk.make("--data-size", "64M", "--metadata-size", "4M");
  const server = await pool.serve(["--max-clients", "16", "--listen", "tcp:127.0.0.1:0", "--create", "d=1M"]);
  const port = Number(/nbd:\/\/127\.0\.0\.1:(\d+)/.exec(server.stdout)?.[1]);
  const address = { hostname: "127.0.0.1", port };
  const clients = await Promise.all(Array.from({ length: 11 }, () => RawClient.attach(address, "d")));
  assertEquals(await isServed(address), false);
  assertEquals(await isServed(address), false);
  assert(await isServed({ path: server.socket }));
  for (const client of clients) client.close();
  await server.stop();
  const said =
    "11 clients of 127.0.0.1 are connected, and no more of one host or certificate are served at once";
  assertEquals(server.stderr.split(said).length, 2, server.stderr);
  assertStringIncludes(server.stderr, "refused 127.0.0.1:");
});

Deno.test("with --max-clients 3 the Unix socket gets in beside as many TCP clients as there may be", async () => {
  await using pool = await PoolOnDisk.make("--data-size", "64M", "--metadata-size", "4M");
  const server = await pool.serve(["--max-clients", "3", "--listen", "tcp:127.0.0.1:0", "--create", "d=1M"]);
  const address = {
    hostname: "127.0.0.1",
    port: Number(/nbd:\/\/127\.0\.0\.1:(\d+)/.exec(server.stdout)?.[1]),
  };
  const clients = [await RawClient.attach(address, "d"), await RawClient.attach(address, "d")];
  assertEquals(await isServed(address), false);
  assert(await isServed({ path: server.socket }));
  for (const client of clients) client.close();
  await server.stop();
});
