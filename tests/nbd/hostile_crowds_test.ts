/** Clients that go at any byte, stay for ever, or come by the thousand: what one of them does is nobody else's loss. */
import { assert, assertEquals } from "@std/assert";
import {
  connectionBytesMax,
  connectionsMax,
  crowdedHandshakeMs,
  drainMs,
  handshakeMs,
  handshakeOptionsMax,
} from "../../actors/limits.ts";
import {
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_ENOSPC,
  NBD_OPT_GO,
  NBD_OPT_LIST,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ERR_UNSUP,
} from "../../actors/nbd/wire/constants.ts";
import { HostilePool, hostileTest, pattern, pause, sendAnyhow } from "./hostile_pool.ts";
import { infoRequest, type RawClient } from "./raw_client.ts";
import { join, option, request, u32 } from "./wire_bytes.ts";

const MiB = 2 ** 20;
const handshake = join(
  u32(3),
  option(NBD_OPT_STRUCTURED_REPLY),
  option(NBD_OPT_GO, infoRequest("disk", [3])),
);

/** Gives the first MiB of `disk` bytes, so that reading it takes more than a socket holds. */
async function fill(pool: HostilePool): Promise<void> {
  using client = await pool.attach();
  await client.write(0, pattern(MiB, 9));
  await client.disconnect();
}

hostileTest("a client may go at every byte of its handshake", async (pool) => {
  for (let length = 0; length <= handshake.length; length += 1) {
    for (const waits of [false, true]) {
      using client = await pool.connect();
      if (waits) await client.receiveOpening();
      await sendAnyhow(client, handshake.subarray(0, length));
      if (waits) await pause(0);
    }
  }
  await pool.everybodyLeft();
});

hostileTest(
  "a client may go at every byte of a WRITE, which then happens whole or not at all",
  async (pool) => {
    const before = pattern(700, 1);
    const after = pattern(700, 2);
    using honest = await pool.attach();
    const write = join(request({ type: NBD_CMD_WRITE, offset: [0, 65000], length: 700 }), after);
    for (let length = 0; length <= write.length; length += 1) {
      await honest.write(65000, before);
      {
        using client = await pool.attach();
        await client.send(write.subarray(0, length));
      }
      while (pool.connections > 1) await pause(0);
      const found = await honest.read(65000, 700);
      const isWhole = length === write.length;
      assertEquals(found.toHex(), (isWhole ? after : before).toHex(), `gone after ${length} bytes`);
    }
    await honest.disconnect();
  },
);

hostileTest("10,000 clients come and go, and the server keeps nothing of them", async (pool) => {
  const alive = () => pool.process.kernel.tasksRunning;
  const tasks = alive();
  let refused = 0;
  const crowd = async (each: number) => {
    for (let i = each; i < 10_000; i += 32) {
      using client = await pool.connect();
      if (i % 4 === 1) await client.receiveOpening();
      if (i % 4 === 2) await sendAnyhow(client, handshake.subarray(0, i % handshake.length));
      if (i % 4 === 3) {
        await sendAnyhow(client, handshake, request({ type: NBD_CMD_READ, length: 4096 }));
        refused += (await client.receive(18)).length - 18;
      }
    }
  };
  await Promise.all(Array.from({ length: 32 }, (_, each) => crowd(each)));
  await pool.everybodyLeft();
  assertEquals([refused, alive()], [0, tasks]);
});

Deno.test("500 clients at once that say nothing: those above the cap are closed, an honest one gets in, all of them at the deadline", async () => {
  await using pool = await HostilePool.serve();
  using eldest = await pool.greeted();
  using dribbler = await pool.greeted();
  using flooder = await pool.greeted();
  const begunMs = performance.now();
  const silent = await Promise.all(Array.from({ length: 500 }, () => pool.connect(2 * handshakeMs)));
  const received = silent.map((client) => client.receiveAll());
  const lists = Array<Uint8Array>(10_000).fill(option(NBD_OPT_LIST));
  const flooding = sendAnyhow(flooder, ...lists);
  const dribbling = (async () => {
    const slow = option(99, new Uint8Array(4096));
    for (let at = 0; performance.now() - begunMs < 2 * handshakeMs; at += 1) {
      await dribbler.send(slow.subarray(at % slow.length, at % slow.length + 1));
      await pause(10);
    }
  })().then(() => false, () => true);
  await pause(crowdedHandshakeMs + 100);
  assertEquals(pool.connections, connectionsMax);
  using _late = await pool.greeted();
  assert(await eldest.isClosedByServer(), "the eldest has not made room");
  assertEquals(pool.connections, connectionsMax);
  const openings = (await Promise.all(received)).map((bytes) => bytes.length);
  const tookMs = performance.now() - begunMs;
  // Where the machine takes more than a second to connect them all, the last come in place of the first.
  const served = openings.filter((length) => length === 18).length;
  assert(served >= connectionsMax - 3, `only ${served} were greeted`);
  assertEquals(openings.filter((length) => length === 0).length, 500 - served);
  assert(tookMs > handshakeMs - 1000 && tookMs < handshakeMs + 5000, `closed after ${tookMs} ms`);
  assert(await dribbling, "a client that dribbles its option is still there");
  await flooding;
  for (const client of silent) client.close();
  await pool.requireUnharmed();
});

hostileTest("more options than anybody needs end the connection, each before them answered", async (pool) => {
  using client = await pool.greeted();
  const sending = sendAnyhow(client, ...Array<Uint8Array>(handshakeOptionsMax + 100).fill(option(99)));
  for (let i = 0; i < handshakeOptionsMax; i += 1) {
    assertEquals((await client.receiveOptionReply()).replyType, NBD_REP_ERR_UNSUP);
  }
  assert(await client.isClosedByServer());
  await sending;
});

hostileTest("clients that go in the midst of large replies leave nothing behind", async (pool) => {
  await fill(pool);
  for (let i = 0; i < 50; i += 1) {
    using client = await pool.attach();
    for (let reads = 0; reads < 8; reads += 1) {
      await client.sendCommand({ type: NBD_CMD_READ, lengthBytes: i % 2 === 0 ? MiB : 32 * MiB });
    }
    await client.receive(1 + i * 1000);
  }
});

hostileTest(
  "clients that do not read, and half frames that never end, delay nobody else",
  async (pool) => {
    await fill(pool);
    const hostile: RawClient[] = [];
    for (let i = 0; i < 8; i += 1) {
      const client = await pool.attach();
      hostile.push(client);
      if (i % 2 === 0) {
        for (let reads = 0; reads < 40; reads += 1) {
          await client.sendCommand({
            type: NBD_CMD_READ,
            lengthBytes: MiB,
          });
        }
      } else {
        await client.send(request({ type: NBD_CMD_WRITE, length: 32 * MiB }), new Uint8Array(i * 1000));
      }
    }
    using honest = await pool.attach();
    const content = pattern(65536, 4);
    const begunMs = performance.now();
    for (let i = 0; i < 100; i += 1) {
      await honest.write(i * 65536, content);
      assertEquals((await honest.read(i * 65536, 65536)).length, 65536);
    }
    // As much as a connection has of its own. More has to be borrowed, and the others hold all of that.
    await honest.write(0, new Uint8Array(connectionBytesMax));
    const tookMs = performance.now() - begunMs;
    assert(tookMs < 10_000, `201 requests took ${tookMs} ms beside clients that do not read`);
    await honest.disconnect();
    for (const client of hostile) client.close();
  },
);

hostileTest(
  "a stopping server waits for no half frame and no client that does not read",
  async (pool) => {
    await fill(pool);
    using half = await pool.attach();
    await half.send(request({ type: NBD_CMD_WRITE, length: 4096 }), new Uint8Array(4095));
    using idle = await pool.attach();
    using deaf = await pool.attach();
    for (let i = 0; i < 40; i += 1) await deaf.sendCommand({ type: NBD_CMD_READ, lengthBytes: MiB });
    using haggling = await pool.greeted();
    const begunMs = performance.now();
    await pool.stop();
    const tookMs = performance.now() - begunMs;
    assert(tookMs < drainMs + 2000, `it stopped after ${tookMs} ms`);
    for (const client of [half, idle, haggling]) assert(await client.isClosedByServer());
    await deaf.receiveAll();
    await pool.serveAgain();
  },
);

hostileTest(
  "TRIM of 4 GiB less 512 at an odd offset takes less than a second, and others go on",
  async (pool) => {
    using client = await pool.attach("huge");
    using other = await pool.attach("small");
    const begunMs = performance.now();
    const trimming = client.perform({ type: NBD_CMD_TRIM, offsetBytes: 513, lengthBytes: 2 ** 32 - 512 });
    assertEquals((await other.read(0, 4096)).length, 4096);
    assertEquals((await trimming).error, 0);
    assert(performance.now() - begunMs < 1000, "it took a second");
    await other.disconnect();
    await client.disconnect();
  },
);

hostileTest(
  "WRITE_ZEROES of 4 GiB less 512 leaves zeroes everywhere, and what lay beside",
  async (pool) => {
    using client = await pool.attach("huge");
    const content = pattern(3000, 8);
    for (const at of [0, 65536 * 3 + 5, 2 ** 32 - 1000]) await client.write(at, content);
    const range = { offsetBytes: 513, lengthBytes: 2 ** 32 - 512 };
    assertEquals((await client.perform({ type: NBD_CMD_WRITE_ZEROES, ...range })).error, 0);
    assertEquals(await client.read(0, 513), content.subarray(0, 513));
    assertEquals(await client.read(513, 3000), new Uint8Array(3000));
    assertEquals(await client.read(65536 * 3, 4096), new Uint8Array(4096));
    assertEquals(await client.read(2 ** 32 - 1000, 1001), new Uint8Array(1001));
    assertEquals(await client.read(2 ** 32 + 1, 1999), content.subarray(1001));
    await client.disconnect();
  },
);

Deno.test("zeroes that must stay provisioned do not fit: ENOSPC at once, nothing kept, and the pool goes on", async () => {
  await using pool = await HostilePool.serve(16 * MiB);
  using client = await pool.attach("huge");
  const range = { offsetBytes: 0, lengthBytes: 2 ** 32 - 512 };
  const reply = await client.perform({ type: NBD_CMD_WRITE_ZEROES, flags: 2, ...range });
  assertEquals(reply.error, NBD_ENOSPC);
  let error = 0;
  for (let at = 0; error === 0; at += MiB) {
    error = (await client.perform({ type: NBD_CMD_WRITE, offsetBytes: at, payload: pattern(MiB, at) })).error;
    assert(at <= 16 * MiB, "more was written than the pool has");
  }
  assertEquals(error, NBD_ENOSPC);
  assertEquals((await client.read(0, 4096)).toHex(), pattern(4096, 0).toHex());
  assertEquals((await client.perform({ type: NBD_CMD_TRIM, lengthBytes: 4 * MiB })).error, 0);
  assertEquals((await client.perform({ type: NBD_CMD_FLUSH })).error, 0);
  await client.write(8 * MiB, pattern(MiB, 5));
  await client.disconnect();
  await pool.requireUnharmed();
});
