/** Clients of a server on the ring that vanish at any moment: nothing of them stays. */
import { assert, assertEquals } from "@std/assert";
import {
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
} from "../../actors/nbd/wire/constants.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { ignoreRing } from "../support/running_ring.ts";
import { PoolOnDisk, type ServerProcess, soak } from "../support/server.ts";
import { pause } from "../support/socket_pair.ts";
import { Random } from "../support/world.ts";
import { usageOf } from "../torture/poor_server.ts";

const MiB = 1 << 20;
const volumeBytes = 32 * MiB;

/** Connects, goes on for a while, and closes with whatever is under way. */
async function vanish(server: ServerProcess, random: Random): Promise<void> {
  using client = await RawClient.connect({ path: server.socket });
  const phase = random.below(10);
  if (phase === 0) return;
  await client.greet();
  if (phase === 1) return;
  await client.go("disk");
  const requests = random.below(10);
  for (let count = 0; count < requests; count += 1) {
    const lengthBytes = 512 * (1 + random.below(count === 0 ? 2048 : 128));
    const type = [
      NBD_CMD_READ,
      NBD_CMD_READ,
      NBD_CMD_WRITE,
      NBD_CMD_WRITE_ZEROES,
      NBD_CMD_TRIM,
      NBD_CMD_FLUSH,
    ][
      random.below(6)
    ]!;
    const payload = type === NBD_CMD_WRITE ? { payload: new Uint8Array(lengthBytes).fill(count + 1) } : {};
    const range = type === NBD_CMD_FLUSH ? {} : { offsetBytes: 512 * random.below(40_000), lengthBytes };
    await client.sendCommand({ type, ...range, ...payload });
  }
  if (phase === 2) await client.send(new Uint8Array(13));
  if (random.chance(0.5)) await pause(random.below(5));
}

async function manyVanish(server: ServerProcess, count: number, random: Random): Promise<void> {
  let begun = 0;
  await Promise.all(Array.from({ length: 10 }, async () => {
    while (begun < count) {
      begun += 1;
      // One that finds all places taken by those before it is gone, too.
      await vanish(server, random).catch(requireRefused);
    }
  }));
}

function requireRefused(error: unknown): void {
  const isLost = error instanceof Deno.errors.BrokenPipe || error instanceof Deno.errors.ConnectionReset;
  if (!isLost && !/the server closed/.test(String(error))) throw error;
}

/** Sockets that a server has open. */
function socketsOf(server: ServerProcess): number {
  const folder = `/proc/${server.pid}/fd`;
  return [...Deno.readDirSync(folder)].filter(({ name }) => {
    try {
      return Deno.readLinkSync(`${folder}/${name}`).startsWith("socket:");
    } catch (error) {
      // It was closed meanwhile.
      if (error instanceof Deno.errors.NotFound) return false;
      throw error;
    }
  }).length;
}

/** Waits until the server has no more sockets than that. */
async function socketsAfter(server: ServerProcess, wanted: number): Promise<number> {
  const endMs = performance.now() + 10_000;
  while (socketsOf(server) > wanted && performance.now() < endMs) await pause(20);
  return socketsOf(server);
}

Deno.test({
  name: "200 clients that vanish with requests in flight leave no socket, no memory and a sound pool",
  ignore: ignoreRing,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=128M");
    const server = await pool.serve(["--io", "io_uring", "--create", `disk=${volumeBytes}`]);
    const random = new Random(7);
    const before = socketsOf(server);
    // What is made once, and kept.
    await manyVanish(server, 120, random);
    assertEquals(await socketsAfter(server, before), before);
    const ownBytes = usageOf(server.pid).ownBytes;
    await manyVanish(server, soak ? 5000 : 80, random);
    assertEquals(await socketsAfter(server, before), before);
    const grownBytes = usageOf(server.pid).ownBytes - ownBytes;
    assert(grownBytes < 96 * MiB, `${Math.round(grownBytes / MiB)} MiB more than before`);
    using client = await RawClient.attach({ path: server.socket }, "disk");
    await client.write(0, new Uint8Array(4096).fill(5));
    assertEquals((await client.read(0, 4096)).every((byte) => byte === 5), true);
    await client.disconnect();
    await server.stop();
    await pool.verb("check");
  },
});
