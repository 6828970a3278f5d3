/** Which clients have a place, which have to wait for one, and which make room. */
import { Random } from "../../tests/support/world.ts";
import { assertEquals } from "@std/assert";
import { NBD_CMD_DISC, NBD_OPT_STARTTLS } from "./wire/constants.ts";
import { option, u32 } from "../../tests/nbd/wire_bytes.ts";
import { connectionsMax, crowdedHandshakeMs, handshakeMs, linkCheckMs, silentPeerMs } from "../limits.ts";
import { CounterSums } from "../counters.ts";
import { Places } from "./places.ts";
import { command, cookiesOf, go, read } from "../../tests/nbd/simulated_client.ts";
import { TestServer } from "../../tests/nbd/simulated_server.ts";

Deno.test("clients above the cap are closed, and served again when there is room", () => {
  const server = new TestServer();
  const clients = Array.from({ length: connectionsMax }, () => server.attach());
  const refused = [server.connect(), server.connect()];
  assertEquals(refused.map(({ closed }) => closed), [true, true]);
  assertEquals(server.log.filter((line) => line.startsWith("refused")).length, 1);
  clients[7]?.say(command(NBD_CMD_DISC, 0));
  assertEquals(server.attach().closed, false);
});

Deno.test("clients that do not attach make room when their time is up, and take nothing from those that are attached", () => {
  const server = new TestServer();
  const attached = server.attach();
  const silent = Array.from({ length: connectionsMax - 1 }, () => server.connect());
  assertEquals(server.connect().closed, true);
  assertEquals(
    server.log.at(-1),
    "refused a simulated client: 64 clients are connected, and no more are served at once",
  );
  attached.say(read(1, 0, 512));
  assertEquals(cookiesOf(attached), [1]);
  server.clock.pass(handshakeMs - 1);
  assertEquals(silent.filter(({ closed }) => closed).length, 0);
  server.clock.pass(1);
  assertEquals(silent.filter(({ closed }) => closed).length, connectionsMax - 1);
  assertEquals([attached.closed, server.attach().closed], [false, false]);
});

Deno.test("at the cap the client that has not attached for longest makes room after a second, logged once, and an attached one never does", () => {
  const server = new TestServer();
  const [first, ...attached] = Array.from({ length: 3 }, () => server.attach());
  const silent = Array.from({ length: connectionsMax - 3 }, () => server.connect());
  server.clock.pass(crowdedHandshakeMs - 1);
  assertEquals([server.connect().closed, silent.some(({ closed }) => closed)], [true, false]);
  server.clock.pass(1);
  const late = [server.attach(), server.attach()];
  assertEquals(silent.map(({ closed }) => closed).indexOf(false), late.length);
  assertEquals(server.log.filter((line) => /in favour of/.test(line)), [
    "closing the connection from a simulated client, which has attached to no export, in favour of a simulated client: " +
    "64 clients are connected, and no more are served at once",
  ]);
  // With all of them attached, none makes room.
  while (silent.some(({ closed }) => !closed)) late.push(server.attach());
  server.clock.pass(handshakeMs);
  assertEquals(server.connect().closed, true);
  assertEquals([...attached, ...late].some(({ closed }) => closed), false);
  first?.say(command(NBD_CMD_DISC, 0));
  assertEquals(server.attach().closed, false);
});

Deno.test("at the cap a client that has hung up in its handshake makes room at once, without a word, and an attached one never does", () => {
  const server = new TestServer();
  const attached = server.attach();
  const silent = Array.from({ length: connectionsMax - 1 }, () => server.connect());
  for (const client of [attached, silent[5]!, silent[9]!]) client.hasHungUp = true;
  const late = [server.attach(), server.attach()];
  assertEquals(silent.flatMap(({ closed }, at) => closed ? [at] : []), [5, 9]);
  assertEquals([attached, ...late].map(({ closed }) => closed), [false, false, false]);
  assertEquals(server.log.filter((line) => /in favour of|refused/.test(line)), []);
  assertEquals(server.connect().closed, true);
});

Deno.test("a client that has hung up before it was looked at takes no place at the cap, and is no refusal", () => {
  const sums = new CounterSums();
  const server = new TestServer(undefined, undefined, sums);
  const silent = Array.from({ length: connectionsMax }, () => server.connect());
  silent[3]!.hasHungUp = true;
  assertEquals(server.connect({ hasHungUp: true }).closed, true);
  assertEquals([silent[3]!.closed, sums.of("connectionsRefused"), server.log], [false, 0, []]);
  assertEquals(server.attach().closed, false);
});

Deno.test("a client that comes while another makes room waits until that socket is closed, or the place is given away", () => {
  const server = new TestServer();
  const attached = server.attach();
  const silent = Array.from({ length: connectionsMax - 1 }, () => server.connect({ lingers: true }));
  server.clock.pass(crowdedHandshakeMs);
  const late = [server.connect(), server.connect()];
  assertEquals(late.map(({ closed, unreadBytes }) => [closed, unreadBytes]), [[false, 0], [false, 0]]);
  silent[0]?.pump();
  assertEquals(late.map(({ unreadBytes }) => unreadBytes), [18, 0]);
  attached.say(command(NBD_CMD_DISC, 0));
  assertEquals(late.map(({ unreadBytes }) => unreadBytes), [18, 18]);
  // The place of the second one that made room is for the client that comes next.
  const next = server.connect();
  assertEquals([next.closed, silent[2]?.closed], [false, false]);
  silent[1]?.pump();
  assertEquals(next.unreadBytes, 18);
});

Deno.test("a client that attaches just when it is to make room stays if it was faster, and then another one goes, or none", () => {
  const outcomes = new Set<string>();
  for (let seed = 0; seed < 100; seed++) {
    const random = new Random(seed);
    const choose = (readyCount: number) => random.below(readyCount);
    const server = new TestServer({ messagesPerTurnMax: 1, choose });
    const quick = server.connect();
    quick.say(u32(3));
    const isCrowded = seed % 2 === 0;
    const others = Array.from(
      { length: connectionsMax - 1 },
      () => isCrowded ? server.attach() : server.connect(),
    );
    server.clock.pass(crowdedHandshakeMs);
    quick.sayUnheard(go("disk"));
    const late = server.connect();
    const closed = others.filter((client) => client.closed).length;
    outcomes.add(`${isCrowded} ${quick.closed} ${closed} ${late.closed}`);
    quick.say(read(1, 0, 512));
    assertEquals([quick, ...others, late].filter((client) => !client.closed).length, connectionsMax);
  }
  assertEquals([...outcomes].sort(), [
    "false false 1 false",
    "false true 0 false",
    "true false 0 true",
    "true true 0 false",
  ]);
});

Deno.test("a listener that stops closes the clients that wait for a place", () => {
  const server = new TestServer();
  const silent = Array.from({ length: connectionsMax }, () => server.connect({ lingers: true }));
  server.clock.pass(crowdedHandshakeMs);
  const late = server.connect();
  server.stop();
  assertEquals([late.closed, server.stopped], [true, false]);
  for (const client of silent) client.pump();
  assertEquals([late.unreadBytes, server.stopped], [0, true]);
});

Deno.test("clients of one host, and those of all hosts, leave places to others", () => {
  const server = new TestServer();
  const places = new Places(connectionsMax);
  const near = Array.from({ length: places.ofOneIdentity }, () => server.attach({ identity: "10.0.0.1" }));
  assertEquals(server.connect({ identity: "10.0.0.1" }).closed, true);
  const far = Array.from(
    { length: places.remote - near.length },
    () => server.attach({ identity: "10.0.0.2" }),
  );
  assertEquals(server.connect({ identity: "10.0.0.3" }).closed, true);
  const local = Array.from({ length: connectionsMax - places.remote }, () => server.attach());
  assertEquals(server.connect().closed, true);
  assertEquals([...near, ...far, ...local].some(({ closed }) => closed), false);
  assertEquals(server.log.filter((line) => line.startsWith("refused")), [
    "refused a simulated client: 42 clients of 10.0.0.1 are connected, and no more of one host or certificate are served at once",
    "refused a simulated client: 56 clients are connected over TCP, and the other 8 places are for Unix sockets",
    "refused a simulated client: 64 clients are connected, and no more are served at once",
  ]);
  near[0]?.say(command(NBD_CMD_DISC, 0));
  assertEquals(server.attach({ identity: "10.0.0.3" }).closed, false);
});

Deno.test("a local client has a place however few there are, unless there is only one", () => {
  assertEquals([1, 2, 3, 7, 8, 16].map((clients) => new Places(clients).remote), [1, 1, 2, 6, 7, 14]);
});

Deno.test("room is made by a client whose place helps: of the same host, or local, or any", () => {
  const server = new TestServer();
  const places = new Places(connectionsMax);
  const eldest = server.connect({ identity: "10.0.0.2" });
  const near = Array.from({ length: places.ofOneIdentity }, () => server.connect({ identity: "10.0.0.1" }));
  server.clock.pass(crowdedHandshakeMs);
  const late = server.connect({ identity: "10.0.0.1" });
  assertEquals([late.closed, near[0]?.closed, near[1]?.closed, eldest.closed], [false, true, false, false]);
});

Deno.test("clients that show one certificate have the places of one identity together, wherever they come from", () => {
  const server = new TestServer();
  const places = new Places(connectionsMax);
  const show = (identity: string) => {
    const client = server.connect({ tls: "require", identity });
    client.say(u32(3), option(NBD_OPT_STARTTLS));
    client.secure("the certificate of a");
    return client;
  };
  const clients = Array.from({ length: places.ofOneIdentity + 1 }, (_, i) => show(`10.0.0.${i}`));
  assertEquals(clients.map(({ closed }) => closed).indexOf(true), places.ofOneIdentity);
  assertEquals(server.log, [
    "refused a simulated client: 42 clients of the certificate of a are connected, and no more of one host or certificate are served at once",
  ]);
  // Their hosts have all of their own places.
  const others = Array.from(
    { length: places.remote - places.ofOneIdentity },
    () => server.connect({ identity: "10.0.0.1" }),
  );
  assertEquals(others.some(({ closed }) => closed), false);
});

Deno.test("a server has as many places as it was told", () => {
  const server = new TestServer(undefined, 3);
  const clients = Array.from({ length: 3 }, () => server.attach());
  assertEquals([server.connect().closed, clients.some(({ closed }) => closed)], [true, false]);
});

Deno.test("a client whose host does not answer gives its place and its volume free, and a local one is not asked", () => {
  const server = new TestServer();
  const dead = server.attach({ identity: "10.0.0.1" });
  const paused = server.attach({ identity: "10.0.0.2" });
  dead.silentMs = silentPeerMs - 1;
  paused.reads = false;
  paused.say(read(1, 0, 512));
  server.clock.pass(linkCheckMs);
  assertEquals(dead.closed, false);
  dead.silentMs = silentPeerMs;
  server.clock.pass(linkCheckMs);
  assertEquals([dead.closed, paused.closed, server.disk.clients.size], [true, false, 1]);
  assertEquals(server.log.at(-2), "closing the connection from a simulated client: its host does not answer");
});
