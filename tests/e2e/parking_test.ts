/** A full pool that is served: what waits, what passes it, and what ends it, with real sockets and programs. */
import { assert, assertEquals } from "@std/assert";
import { NBD_CMD_TRIM, NBD_CMD_WRITE, NBD_ENOSPC, NBD_ESHUTDOWN } from "../../actors/nbd/wire/constants.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { hasProgram, hasPythonNbd, programPath } from "../support/programs.ts";
import { PythonChild } from "../support/python_child.ts";
import { PoolOnDisk, runToEnd, type ServerProcess, soakTest } from "../support/server.ts";
import { SmallHost } from "../torture/host.ts";

const MiB = 1024 * 1024;
const blockBytes = 64 * 1024;

/** A pool of 16 MiB that is full but for `freeBlocks`: the volume "ballast" has the rest. The volume "disk" has nothing. */
class FullPool implements AsyncDisposable {
  private constructor(readonly pool: PoolOnDisk, readonly server: ServerProcess) {}

  static async make(freeBlocks: number, ...options: string[]): Promise<FullPool> {
    const pool = await PoolOnDisk.make("--data-size=16M");
    const server = await pool.serve(["--create", "ballast=16M", "--create", "disk=64M", ...options]);
    const client = await RawClient.attach({ path: server.socket }, "ballast");
    await client.write(0, new Uint8Array(16 * MiB - freeBlocks * blockBytes).fill(9));
    await client.disconnect();
    return new FullPool(pool, server);
  }

  attach(name = "disk"): Promise<RawClient> {
    return RawClient.attach({ path: this.server.socket }, name);
  }

  async parked(): Promise<number> {
    return (await this.pool.status()).parked;
  }

  /** Waits until so many writes wait for space. */
  async untilParked(bios: number): Promise<void> {
    for (let tries = 0; await this.parked() < bios; tries += 1) {
      assert(tries < 100, `${await this.parked()} writes wait, not ${bios}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.pool[Symbol.asyncDispose]();
  }
}

function write(block: number, value: number) {
  return {
    type: NBD_CMD_WRITE,
    offsetBytes: block * blockBytes,
    payload: new Uint8Array(blockBytes).fill(value),
  };
}

Deno.test("on one connection, READ, WRITE in place, FLUSH and TRIM pass more writes that wait than it has credits for", async () => {
  await using full = await FullPool.make(1);
  const client = await full.attach();
  await client.write(0, write(0, 1).payload);
  for (let block = 1; block <= 40; block += 1) await client.sendCommand(write(block, 2));
  await full.untilParked(40);
  await client.write(0, write(0, 3).payload);
  assertEquals((await client.read(0, 512))[0], 3);
  await client.flush();
  const status = await full.pool.status();
  assertEquals([status.mode, status.data], ["out-of-data-space", "full"]);
  await full.pool.verb("rm", "ballast");
  for (let block = 1; block <= 40; block += 1) assertEquals((await client.receiveReply()).error, 0);
  assertEquals([(await full.pool.status()).mode, await full.parked()], ["write", 0]);
  const trimmed = await client.perform({ type: NBD_CMD_TRIM, offsetBytes: 0, lengthBytes: blockBytes });
  assertEquals(trimmed.error, 0);
  client.close();
});

Deno.test("a write that waits fails after the timeout", async () => {
  await using full = await FullPool.make(0, "--no-space-timeout", "1");
  const client = await full.attach();
  const beginMs = performance.now();
  assertEquals((await client.perform(write(0, 1))).error, NBD_ENOSPC);
  assert(performance.now() - beginMs >= 1000);
  client.close();
});

for (const isRead of [true, false]) {
  const while_ = isRead ? "its client is read from" : "nothing is read from its client";
  Deno.test(`a write that is sent again is not overwritten by its older self, which waited while ${while_}`, async () => {
    await using full = await FullPool.make(0);
    const killed = await full.attach();
    await killed.sendCommand(write(0, 1));
    // More requests than may wait with memory of their own and than the client has credits for.
    for (let block = 1; !isRead && block < 300; block += 1) {
      await killed.sendCommand({ ...write(block, 1), payload: new Uint8Array(512).fill(1) });
    }
    await full.untilParked(isRead ? 1 : 256);
    killed.close();
    const client = await full.attach();
    await client.sendCommand(write(0, 2));
    for (let tries = 0; await full.parked() !== 1; tries += 1) {
      assert(tries < 200, `${await full.parked()} writes wait`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await full.pool.verb("rm", "ballast");
    assertEquals((await client.receiveReply()).error, 0);
    await client.flush();
    assertEquals(await client.read(0, blockBytes), write(0, 2).payload);
    assertEquals((await client.read(blockBytes, 512))[0], 0);
    client.close();
  });
}

Deno.test("kick closes the connection of a write that waits, which is not done later; another client's write is", async () => {
  await using full = await FullPool.make(0, "--no-space-timeout", "0");
  const kicked = await full.attach();
  await kicked.sendCommand(write(0, 1));
  await full.untilParked(1);
  const clients: { id: number }[] = JSON.parse(await full.pool.verb("clients", "--json")).clients;
  const other = await full.attach();
  await other.sendCommand(write(1, 2));
  await full.untilParked(2);
  await full.pool.verb("kick", String(clients[0]!.id));
  assertEquals((await kicked.receiveAll()).length, 0);
  kicked.close();
  assertEquals(await full.parked(), 1);
  await full.pool.verb("rm", "ballast");
  assertEquals((await other.receiveReply()).error, 0);
  assertEquals((await other.read(0, 512))[0], 0);
  assertEquals((await other.read(blockBytes, 512))[0], 2);
  other.close();
});

Deno.test("rm --force answers the writes that wait, and its clients hold it up no longer", async () => {
  await using full = await FullPool.make(0);
  const client = await full.attach();
  await client.sendCommand(write(0, 1));
  await full.untilParked(1);
  await full.pool.verb("rm", "--force", "disk");
  assertEquals((await client.receiveReply()).error, NBD_ESHUTDOWN);
  assertEquals(await full.parked(), 0);
  client.close();
});

Deno.test("a server that stops closes the connections of writes that wait without an answer", async () => {
  await using full = await FullPool.make(0);
  const client = await full.attach();
  await client.sendCommand(write(0, 1));
  await full.untilParked(1);
  const beginMs = performance.now();
  await full.server.stop();
  assert(performance.now() - beginMs < 4000, "the server waited for a write without space");
  assertEquals((await client.receiveAll()).length, 0);
  client.close();
});

Deno.test({
  name: "fio fills a pool, waits, goes on when a volume is removed, and finds all that it wrote",
  ignore: !hasProgram("fio"),
  fn: async () => {
    await using full = await FullPool.make(40);
    const fio = runToEnd(programPath("fio")!, [
      "--ioengine=nbd",
      `--uri=${full.server.url("disk")}`,
      "--name=fill",
      "--rw=randwrite",
      "--bs=16k",
      "--size=8m",
      "--iodepth=32",
      "--verify=crc32c",
      "--do_verify=1",
      "--verify_fatal=1",
      "--verify_state_save=0",
      "--output-format=terse",
    ]);
    await full.untilParked(8);
    await full.pool.verb("rm", "ballast");
    await fio;
    assertEquals((await full.pool.status()).mode, "write");
  },
});

Deno.test({
  name:
    "writes wait for a host that has no room under the data, and go on within two seconds of there being some",
  ignore: !SmallHost.isPossible(),
  fn: async () => {
    await using pool = await PoolOnDisk.folder();
    await using _host = await SmallHost.mount(pool.folder, 24 * MiB);
    await pool.verb("init", "--data-size=1G", "--metadata-size=2M");
    const server = await pool.serve(["--create", "disk=1G"]);
    const client = await RawClient.attach({ path: server.socket }, "disk");
    // In place, but into a hole of the file: of this block, one page has been written.
    await client.write(0, new Uint8Array(4096).fill(1));
    Deno.writeFileSync(pool.path("ballast"), new Uint8Array(8 * MiB));
    const whole = { type: NBD_CMD_WRITE, payload: new Uint8Array(MiB).fill(2) };
    let sent = 0;
    for (; sent < 40 && (await pool.status()).parked === 0; sent += 1) {
      await client.sendCommand({ ...whole, offsetBytes: (1 + sent) * MiB });
    }
    await client.sendCommand({ ...write(0, 3), offsetBytes: 0 });
    const status = await pool.status();
    assertEquals([status.mode, status.data], ["out-of-data-space", "host-full"]);
    assert((status.host_free_bytes ?? Infinity) < blockBytes);
    Deno.removeSync(pool.path("ballast"));
    for (let answers = 0; answers <= sent; answers += 1) assertEquals((await client.receiveReply()).error, 0);
    await client.flush();
    assertEquals([(await client.read(0, 1))[0], (await client.read(MiB, 1))[0]], [3, 2]);
    assertEquals((await pool.status()).mode, "write");
    client.close();
  },
});

/** Two connections, each with a write that waits for space. They say nothing for so long, and then have their answers. */
const waitingConnections = `
import nbd, sys, time
uris, seconds = sys.argv[1:3], int(sys.argv[3])
connections = [nbd.NBD(), nbd.NBD()]
for connection, uri in zip(connections, uris):
    connection.connect_uri(uri)
    assert connection.can_multi_conn()
payloads = [bytes([at + 1]) * 65536 for at in range(2)]
cookies = [
    connection.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(payloads[at])), at * 65536)
    for at, connection in enumerate(connections)
]
end = time.monotonic() + seconds
while time.monotonic() < end:
    for connection, cookie in zip(connections, cookies):
        connection.poll(100)
        assert not (connection.aio_is_closed() or connection.aio_is_dead()), connection.connection_state()
        assert not connection.aio_command_completed(cookie)
print("waited", flush=True)
for connection, cookie in zip(connections, cookies):
    while not connection.aio_command_completed(cookie):
        connection.poll(-1)
for at, connection in enumerate(connections):
    connection.flush()
    assert connection.pread(65536, (1 - at) * 65536) == payloads[1 - at]
    connection.shutdown()
print("done", flush=True)
`;

soakTest({
  name:
    "two connections whose writes wait for 35 s stay open, over a Unix socket and over TCP, and go on after a growth",
  ignore: !hasPythonNbd(),
  fn: async () => {
    const options = ["--no-space-timeout", "0", "--listen", "tcp:127.0.0.1:0"];
    await using full = await FullPool.make(0, ...options);
    const { pool, server } = full;
    const port = /127\.0\.0\.1:(\d+)$/m.exec(server.stdout)![1];
    const script = pool.path("waiting.py");
    await Deno.writeTextFile(script, waitingConnections);
    await using client = new PythonChild(new URL(`file://${script}`), [
      server.url("disk"),
      `nbd://127.0.0.1:${port}/disk`,
      "35",
    ]);
    const clients = async () => {
      const listed: { id: number }[] = JSON.parse(await pool.verb("clients", "--json")).clients;
      return listed.map(({ id }) => id);
    };
    await full.untilParked(2);
    const before = await clients();
    assertEquals(before.length, 2);
    assertEquals(await client.nextLine(), "waited");
    assertEquals([await clients(), await full.parked()], [before, 2]);
    await pool.verb("grow", "+16M");
    assertEquals(await client.nextLine(), "done");
    assertEquals(await full.parked(), 0);
  },
});
