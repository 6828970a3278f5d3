/** Clients that do anything, under schedules that do anything: nothing breaks, and everybody leaves in the end. */
import { assertEquals } from "@std/assert";
import { NBD_CMD_DISC } from "../storage/nbd/constants.ts";
import { join, randomNumbers, request, u32 } from "../tests/nbd/wire_bytes.ts";
import type { SchedulerPolicy } from "./kernel/ports.ts";
import { stalledSendMs } from "./limits.ts";
import { go, read, type SimulatedClient, TestServer, write } from "../tests/nbd/simulated_client.ts";

type Random = () => number;

/** One message a turn, of anybody. */
function anyOrder(random: Random): SchedulerPolicy {
  return { messagesPerTurnMax: 1, choose: (readyCount) => Math.floor(random() * readyCount) };
}

function below(random: Random, bound: number): number {
  return Math.floor(random() * bound);
}

/** A request: mostly in order, sometimes far from it. */
function anyRequest(random: Random, cookie: number): Uint8Array {
  const offsetBytes = below(random, 2 ** 20);
  const kind = random();
  if (kind < 0.35) return read(cookie, offsetBytes, below(random, 300_000), random() < 0.2 ? 1 << 2 : 0);
  if (kind < 0.7) return write(cookie, offsetBytes, new Uint8Array(below(random, 150_000)).fill(cookie));
  const type = random() < 0.02 ? NBD_CMD_DISC : 3 + below(random, 7);
  const flags = random() < 0.1 ? below(random, 64) : 0;
  return request({
    type,
    flags,
    cookie: [0, cookie],
    offset: [0, offsetBytes],
    length: below(random, 2 ** 32),
  });
}

function session(random: Random, flips: number): Uint8Array {
  const requests = Array.from({ length: 1 + below(random, 40) }, (_, i) => anyRequest(random, i));
  const bytes = join(u32(3), go("disk"), ...requests);
  for (let i = 0; i < flips; i++) bytes[below(random, bytes.length)]! ^= 1 << below(random, 8);
  return bytes;
}

function disturb(server: TestServer, clients: readonly SimulatedClient[], random: Random): void {
  const { disk } = server;
  const client = clients[below(random, clients.length)]!;
  const what = random();
  // Delivered with what follows, in any order.
  if (random() < 0.3) server.kernel.tell(server.poolAddress, { type: "tick" });
  if (what < 0.3 && client.isSending) client.takeSend();
  else if (what < 0.35) disk.volume.holdRequests = !disk.volume.holdRequests;
  else if (what < 0.6 && disk.volume.waiting.length > 0) server.finishOne();
  else if (what < 0.62) client.reset();
  else if (what < 0.64) client.end();
  else if (what < 0.66) server.clock.advance(stalledSendMs / 3);
  else if (what < 0.67) server.pool.tellClients(disk, { type: "exportGone", uid: disk.info.uid });
  else if (what < 0.7) {
    const sizeBytes = below(random, 2 ** 21);
    server.pool.tellClients(disk, { type: "exportResized", uid: disk.info.uid, sizeBytes });
  }
  client.pump();
}

for (const flips of [0, 3]) {
  Deno.test(`any clients under any schedule leave in the end, with ${flips} bits flipped`, () => {
    for (let seed = 1; seed <= 60; seed++) {
      const random = randomNumbers(seed);
      const server = new TestServer(anyOrder(random));
      const clients = Array.from({ length: 3 }, () => {
        const client = server.connect({
          pieceBytes: 1 + below(random, 100_000),
          reads: random() < 0.5,
          lingers: random() < 0.5,
        });
        client.say(session(random, flips));
        return client;
      });
      for (let i = 0; i < 60; i++) disturb(server, clients, random);
      server.disk.volume.holdRequests = false;
      server.finishAll();
      server.stop();
      server.clock.advance(2 * stalledSendMs);
      server.finishAll();
      for (const client of clients) client.pump();
      const left = [...server.kernel.mailboxHighWater().keys()].filter((name) => name.startsWith("nbd conn"));
      const outcome = [server.stopped, server.kernel.stopped, server.disk.clients.size, left];
      assertEquals(outcome, [true, false, 0, []], `seed ${seed}`);
    }
  });
}
