/** What clients borrow for large READs, on real sockets: what was sent is lent on, and too slow a client ends. */
import { assert, assertEquals } from "@std/assert";
import { loanPaceMs, requestBytesMax } from "../../actors/limits.ts";
import { NBD_CMD_READ } from "../../actors/nbd/wire/constants.ts";
import { type HostilePool, hostileTest, pattern } from "./hostile_pool.ts";
import type { RawClient } from "./raw_client.ts";

const MiB = 2 ** 20;
const headerBytes = 28;

/** Four clients that have asked for all that can be borrowed, each with 32 MiB of `content`. */
async function hogs(pool: HostilePool, content: Uint8Array): Promise<RawClient[]> {
  using writer = await pool.attach();
  for (let at = 0; at < requestBytesMax; at += content.length) await writer.write(at, content);
  await writer.disconnect();
  const clients = await Promise.all(Array.from({ length: 4 }, () => pool.attach()));
  for (const client of clients) {
    await client.sendCommand({ type: NBD_CMD_READ, lengthBytes: requestBytesMax });
  }
  for (const client of clients) await client.receive(headerBytes);
  return clients;
}

hostileTest(
  "what slow readers have taken is lent to others, and they get the rest as it was",
  async (pool) => {
    const content = pattern(MiB, 3);
    const clients = await hogs(pool, content);
    using other = await pool.attach();
    const begunMs = performance.now();
    const reading = other.read(0, 4 * MiB);
    // Less than the pace at which nobody is closed would take this long.
    for (let taken = 0; taken < 8; taken += 1) {
      for (const client of clients) assertEquals(await client.receive(MiB), content);
    }
    assertEquals((await reading).subarray(3 * MiB), content);
    const tookMs = performance.now() - begunMs;
    assert(tookMs < loanPaceMs, `it waited for ${tookMs} ms`);
    for (const client of clients) {
      for (let taken = 8; taken < 32; taken += 1) assertEquals(await client.receive(MiB), content);
      client.close();
    }
    await other.disconnect();
  },
);

hostileTest(
  "readers that take 64 KiB of 32 MiB are closed when another client waits, and it is served",
  async (pool) => {
    const clients = await hogs(pool, pattern(MiB, 3));
    for (const client of clients) await client.receive(65536);
    using other = await pool.attach("disk", { timeoutMs: 3 * loanPaceMs });
    assertEquals((await other.read(0, requestBytesMax)).length, requestBytesMax);
    assertEquals(pool.connections < 5, true);
    await other.disconnect();
    for (const client of clients) client.close();
  },
);
