/** Clients that do anything, under schedules that do anything: nothing breaks, and everybody leaves in the end. */
import { assertEquals } from "@std/assert";
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_LIST,
  NBD_OPT_STRUCTURED_REPLY,
} from "./wire/constants.ts";
import {
  extendedRequest,
  join,
  option,
  randomNumbers,
  request,
  u32,
  u64,
} from "../../tests/nbd/wire_bytes.ts";
import type { SchedulerPolicy } from "../kernel/ports.ts";
import { stalledSendMs } from "../limits.ts";
import { go, read, setContexts, type SimulatedClient, write } from "../../tests/nbd/simulated_client.ts";
import { TestServer } from "../../tests/nbd/simulated_server.ts";

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

/** The same with extended headers: payloads with anything, lengths of any size. */
function anyExtendedRequest(random: Random, cookie: number): Uint8Array {
  const offset: readonly [number, number] = [0, below(random, 2 ** 20)];
  const payload = random() < 0.5
    ? join(u64(below(random, 2 ** 20)), u32(1), u32(below(random, 3)))
    : undefined;
  const kind = random();
  if (payload === undefined) {
    const any = below(random, 10);
    // A WRITE takes what follows for its payload: not here.
    const type = kind < 0.02 ? NBD_CMD_DISC : any === NBD_CMD_WRITE ? NBD_CMD_READ : any;
    const length = below(random, 2 ** (kind < 0.8 ? 18 : 53));
    const flags = random() < 0.1 ? below(random, 32) : 0;
    return extendedRequest({ type, flags, cookie: [0, cookie], offset, length });
  }
  const type = kind < 0.5 ? NBD_CMD_WRITE : kind < 0.9 ? NBD_CMD_BLOCK_STATUS : below(random, 10);
  const sent = payload.subarray(0, kind < 0.7 ? 12 : below(random, 17));
  const fields = {
    type,
    flags: NBD_CMD_FLAG_PAYLOAD_LEN,
    cookie: [0, cookie],
    offset,
    length: sent.length,
  } as const;
  return join(extendedRequest(fields), sent);
}

function session(random: Random, flips: number): Uint8Array {
  const extended = random() < 0.5;
  const anyKind = extended ? anyExtendedRequest : anyRequest;
  const requests = Array.from({ length: 1 + below(random, 40) }, (_, i) => anyKind(random, i));
  const negotiation = [option(extended ? NBD_OPT_EXTENDED_HEADERS : NBD_OPT_STRUCTURED_REPLY)];
  if (random() < 0.5) negotiation.push(option(NBD_OPT_LIST));
  if (random() < 0.8) negotiation.push(setContexts("disk", "base:allocation"));
  const haggled = extended || random() < 0.7 ? negotiation : [];
  const bytes = join(u32(3), ...haggled, go("disk"), ...requests);
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
  else if (what < 0.6 && isHolding(disk)) server.finishOne();
  else if (what < 0.62) client.reset();
  else if (what < 0.64) client.end();
  else if (what < 0.66) server.clock.pass(stalledSendMs / 3);
  else if (what < 0.67) server.pool.tellClients(disk, { type: "exportGone", uid: disk.info.uid });
  else if (what < 0.7) {
    const sizeBytes = below(random, 2 ** 21);
    server.pool.tellClients(disk, { type: "exportResized", uid: disk.info.uid, sizeBytes });
  }
  client.pump();
}

function isHolding({ volume }: TestServer["disk"]): boolean {
  return volume.waiting.length > 0 || volume.waitingStatus.length > 0;
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
      server.clock.pass(2 * stalledSendMs);
      server.finishAll();
      for (const client of clients) client.pump();
      const left = [...server.kernel.mailboxHighWater().keys()].filter((name) => name.startsWith("nbd conn"));
      const outcome = [server.stopped, server.kernel.stopped, server.disk.clients.size, left];
      assertEquals(outcome, [true, false, 0, []], `seed ${seed}`);
    }
  });
}
