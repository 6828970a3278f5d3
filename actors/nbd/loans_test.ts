/** What is lent comes back: from clients that are slow while others wait, and bit by bit from those that are not. */
import { assert, assertEquals } from "@std/assert";
import { command, read, type SimulatedClient, write } from "../../tests/nbd/simulated_client.ts";
import { TestServer } from "../../tests/nbd/simulated_server.ts";
import { NBD_CMD_DISC } from "./wire/constants.ts";
import {
  borrowedBytesMax,
  identityBorrowMax,
  loanCheckMs,
  loanPaceBytesMin,
  loanPaceMs,
  loanPieceBytes,
  requestBytesMax,
} from "../limits.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const dayMs = 24 * 3600 * 1000;
/** A structured reply's header with the offset that is behind it. */
const headerBytes = 28;
const hogsMax = borrowedBytesMax / requestBytesMax;

/** A READ that is answered in one piece, holes too. */
function readAll(cookie: number, offsetBytes: number, lengthBytes: number): Uint8Array {
  return read(cookie, offsetBytes, lengthBytes, 1 << 2);
}

function cookiesOf(client: SimulatedClient): number[] {
  return client.takeReplies().filter(({ isLast }) => isLast).map(({ cookie }) => cookie);
}

/** Clients that have borrowed all there is, each for a READ of which they take nothing yet. */
function deafClients(server: TestServer): SimulatedClient[] {
  return Array.from({ length: hogsMax }, () => {
    const client = server.attach();
    client.reads = false;
    client.say(readAll(1, 0, requestBytesMax));
    return client;
  });
}

function areClosed(clients: readonly SimulatedClient[]): boolean[] {
  return clients.map(({ closed }) => closed);
}

Deno.test("clients that take 64 KiB of a READ each 20 s delay a large request of another for 20 s at most", () => {
  const server = new TestServer();
  const hogs = deafClients(server);
  for (let at = 0; at < 30; at += 1) {
    server.clock.pass(20_000);
    for (const hog of hogs) hog.takePart(64 * KiB);
  }
  assertEquals(areClosed(hogs), [false, false, false, false]);
  const client = server.attach();
  client.say(readAll(7, 0, requestBytesMax));
  server.clock.pass(loanPaceMs - 1);
  assertEquals([areClosed(hogs), cookiesOf(client)], [[false, false, false, false], []]);
  server.clock.pass(2 * loanCheckMs);
  assertEquals([areClosed(hogs), cookiesOf(client)], [[true, true, true, true], [7]]);
  assert(server.log.some((line) => line.includes("takes its replies too slowly, and other clients wait")));
});

Deno.test("a paused client that holds what nobody waits for is not closed, nor once those who waited have gone", () => {
  const server = new TestServer();
  const hogs = deafClients(server);
  server.clock.pass(dayMs);
  const client = server.attach();
  client.say(readAll(7, 0, requestBytesMax));
  server.clock.pass(loanPaceMs / 2);
  client.reset();
  server.clock.pass(dayMs);
  assertEquals(areClosed(hogs), [false, false, false, false]);
});

Deno.test("what a reader has taken of a large READ is lent to others while it takes the rest", () => {
  const server = new TestServer();
  const hogs = deafClients(server);
  const client = server.attach();
  client.say(readAll(7, 0, 4 * MiB));
  hogs[0]!.takePart(headerBytes + 5 * MiB);
  server.clock.pass(loanCheckMs);
  assertEquals([cookiesOf(client), server.actor?.lentBytes], [[], borrowedBytesMax - 3 * MiB]);
  hogs[0]!.takePart(MiB);
  server.clock.pass(loanCheckMs);
  assertEquals([cookiesOf(client), areClosed(hogs)], [[7], [false, false, false, false]]);
  // Everything comes back once, however it came.
  for (const hog of hogs) hog.takeSend();
  assertEquals([server.actor?.lentBytes, hogs.map(cookiesOf)], [0, [[1], [1], [1], [1]]]);
});

Deno.test("a reader at the pace is not closed however many wait, and memory that the system has is not lent", () => {
  const server = new TestServer();
  const hogs = deafClients(server);
  const client = server.attach();
  client.say(readAll(7, 0, requestBytesMax));
  for (const hog of hogs) {
    hog.isPinned = true;
    hog.takePart(headerBytes);
  }
  for (let at = 0; at < 4; at += 1) {
    for (const hog of hogs) hog.takePart(loanPaceBytesMin);
    server.clock.pass(loanPaceMs);
  }
  assertEquals([areClosed(hogs), server.actor?.lentBytes], [[false, false, false, false], borrowedBytesMax]);
  for (const hog of hogs) hog.isPinned = false;
  server.clock.pass(loanCheckMs);
  assertEquals(
    server.actor?.lentBytes,
    borrowedBytesMax - hogsMax * (4 * loanPaceBytesMin - 2 * loanPieceBytes),
  );
});

Deno.test("a client that says goodbye and takes nothing of its READ delays others no longer", () => {
  const server = new TestServer();
  const hogs = deafClients(server);
  for (const hog of hogs) hog.say(command(NBD_CMD_DISC, 0));
  const client = server.attach();
  client.say(readAll(7, 0, requestBytesMax));
  server.clock.pass(loanPaceMs + loanCheckMs);
  assertEquals(cookiesOf(client), [7]);
});

Deno.test("who borrows for a WRITE and sends next to nothing of it is closed when others wait, and not before", () => {
  const server = new TestServer();
  const hogs = Array.from({ length: hogsMax }, () => server.attach());
  const half = write(1, 0, new Uint8Array(requestBytesMax)).subarray(0, requestBytesMax / 2);
  for (const hog of hogs) hog.say(half);
  server.clock.pass(dayMs);
  const client = server.attach();
  client.say(readAll(7, 0, requestBytesMax));
  server.clock.pass(loanPaceMs - 1);
  assertEquals([areClosed(hogs), cookiesOf(client)], [[false, false, false, false], []]);
  hogs[0]?.say(new Uint8Array(loanPaceBytesMin));
  hogs[1]?.say(new Uint8Array(loanPaceBytesMin - 1));
  server.clock.pass(1);
  assertEquals([areClosed(hogs), cookiesOf(client)], [[false, true, true, true], [7]]);
  hogs[0]?.say(new Uint8Array(requestBytesMax / 2 + 28 - loanPaceBytesMin));
  assertEquals(cookiesOf(hogs[0]!), [1]);
});

Deno.test("a WRITE that begins while others wait has its time from then on", () => {
  const server = new TestServer();
  server.disk.volume.holdRequests = true;
  const hogs = Array.from({ length: hogsMax }, () => server.attach());
  for (const hog of hogs) hog.say(readAll(1, 0, requestBytesMax));
  const writer = server.attach();
  writer.say(write(2, 0, new Uint8Array(requestBytesMax)).subarray(0, 1000));
  const waiting = server.attach();
  waiting.say(readAll(3, 0, requestBytesMax));
  server.clock.pass(loanPaceMs - 1);
  server.finishOne();
  assertEquals(server.disk.volume.waiting.length, hogsMax - 1);
  server.clock.pass(loanPaceMs - 1);
  assertEquals(writer.closed, false);
  server.clock.pass(2 * loanCheckMs);
  assertEquals(writer.closed, true);
});

Deno.test("a client that holds nothing is lent to before one that holds something and has waited for longer", () => {
  const server = new TestServer();
  const { volume } = server.disk;
  volume.holdRequests = true;
  const [greedy, patient, late, ...others] = Array.from(
    { length: 6 },
    () => server.attach({ takesSegments: false }),
  );
  greedy!.say(readAll(1, 0, 4 * MiB));
  for (const other of others) other.say(readAll(1, 64 * MiB, requestBytesMax));
  patient!.say(...Array.from({ length: 7 }, (_, i) => readAll(i, 128 * MiB, 4 * MiB)));
  greedy!.say(readAll(2, 0, 4 * MiB));
  late!.say(readAll(1, 192 * MiB, 4 * MiB));
  const offsets = () => volume.waiting.map(({ offsetBytes }) => offsetBytes / MiB).sort((a, b) => a - b);
  assertEquals(offsets(), [0, 64, 64, 64, 128, 128, 128, 128, 128, 128, 128]);
  volume.waiting.unshift(volume.waiting.pop()!);
  server.finishOne();
  assertEquals(offsets(), [0, 64, 64, 64, 128, 128, 128, 128, 128, 128, 192]);
  server.finishAll();
  assertEquals([cookiesOf(greedy!), cookiesOf(late!)], [[1, 2], [1]]);
});

Deno.test("the connections of one host borrow three quarters at most, and its clients wait only for each other then", () => {
  const server = new TestServer();
  const near = Array.from({ length: 4 }, () => server.attach({ identity: "10.0.0.1" }));
  for (const client of near) {
    client.reads = false;
    client.say(readAll(1, 0, requestBytesMax));
  }
  assertEquals(server.actor?.lentBytes, identityBorrowMax);
  const far = server.attach({ identity: "10.0.0.2" });
  far.reads = false;
  far.say(readAll(1, 0, requestBytesMax));
  server.clock.pass(2 * loanPaceMs);
  assertEquals([areClosed(near), far.closed], [[true, true, true, false], false]);
});
