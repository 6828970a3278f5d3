/** What the listener does when the operator asks for its clients, or kicks one. */
import { assertEquals } from "@std/assert";
import { command, type SimulatedClient } from "../../tests/nbd/simulated_client.ts";
import { TestServer } from "../../tests/nbd/simulated_server.ts";
import { option, u32 } from "../../tests/nbd/wire_bytes.ts";
import type { Address } from "../kernel/address.ts";
import type { Steps } from "../kernel/task.ts";
import { connectionsMax, crowdedHandshakeMs, drainMs, kickMsMax, refusedIdentitiesMax } from "../limits.ts";
import { NbdListenerStub } from "./listener.ts";
import type { ClientFacts, NbdConnectionMessage } from "./messages.ts";
import { RefusedIdentities } from "./refused_identities.ts";
import { NBD_CMD_FLUSH, NBD_OPT_STARTTLS } from "./wire/constants.ts";

const far = "192.0.2.7";

/** Kicks a client; the answer, when there is one, is the last of the list that is returned. */
function kick(server: TestServer, client: number, refuseMs = 0): string[] {
  const answers: string[] = [];
  server.kernel.start("kick", kicking(server, client, refuseMs, answers));
  server.kernel.run();
  server.clock.runAllYields();
  return answers;
}

function* kicking(server: TestServer, client: number, refuseMs: number, answers: string[]): Steps<void> {
  const { kind } = yield* new NbdListenerStub(server.listener).kick(client, refuseMs);
  answers.push(kind);
}

function clientsOf(server: TestServer): readonly ClientFacts[] {
  const found: ClientFacts[] = [];
  server.kernel.start("clients", listing(server, found));
  server.kernel.run();
  return found;
}

function* listing(server: TestServer, found: ClientFacts[]): Steps<void> {
  found.push(...yield* new NbdListenerStub(server.listener).listClients());
}

function isGreeted(client: SimulatedClient): boolean {
  return !client.closed && client.unreadBytes > 0;
}

Deno.test("clients are listed with number, peer, identity, the volume they are attached to, and since when", () => {
  const server = new TestServer();
  const since = server.clock.wallTime();
  const near = server.attach();
  server.connect({ identity: far });
  const [attached, waiting] = clientsOf(server);
  const peer = "a simulated client";
  assertEquals(attached, { id: 1, peer, identity: undefined, uid: attached?.uid, since });
  assertEquals(typeof attached?.uid, "string");
  assertEquals(waiting, { id: 2, peer, identity: far, uid: undefined, since });
  near.reset();
  assertEquals(clientsOf(server).map(({ id }) => id), [2]);
});

Deno.test("a kick closes that client and no other, also one that reads no replies, and is answered when it has left", () => {
  const server = new TestServer();
  const [stays, paused] = [server.attach(), server.attach()];
  paused.reads = false;
  server.disk.volume.holdRequests = true;
  paused.say(command(NBD_CMD_FLUSH, 1));
  const answers = kick(server, 2);
  // The volume still works for it, so it holds its place and its volume.
  assertEquals([paused.closed, stays.closed, answers], [true, false, []]);
  server.finishAll();
  assertEquals([answers, clientsOf(server).map(({ id }) => id)], [["left"], [1]]);
  assertEquals(
    server.log.filter((line) => line.includes("kicked")),
    ["closing the connection from a simulated client: the operator has kicked it"],
  );
});

Deno.test("a kick without a time lets the client's host come back at once", () => {
  const server = new TestServer();
  server.attach({ identity: far });
  assertEquals(kick(server, 1), ["left"]);
  assertEquals(server.attach({ identity: far }).closed, false);
});

Deno.test("a kick with a time refuses the client's host for so long, logged once, and no other host", () => {
  const server = new TestServer();
  server.attach({ identity: far });
  assertEquals(kick(server, 1, 60_000), ["left"]);
  assertEquals([server.connect({ identity: far }).closed, server.connect({ identity: far }).closed], [
    true,
    true,
  ]);
  assertEquals(isGreeted(server.connect({ identity: "192.0.2.8" })), true);
  assertEquals(isGreeted(server.connect()), true);
  assertEquals(
    server.log.filter((line) => line.startsWith("refused")),
    ["refused a simulated client: the operator has refused 192.0.2.7 for a time"],
  );
  server.clock.pass(59_999);
  assertEquals(server.connect({ identity: far }).closed, true);
  server.clock.pass(1);
  assertEquals(isGreeted(server.connect({ identity: far })), true);
});

Deno.test("a client that shows a certificate which is refused is closed", () => {
  const server = new TestServer();
  const identity = 'the certificate of "alice"';
  server.attach({ identity });
  assertEquals(kick(server, 1, 60_000), ["left"]);
  const client = server.connect({ identity: far, tls: "require" });
  client.say(u32(3), option(NBD_OPT_STARTTLS));
  assertEquals(client.closed, false);
  client.secure(identity);
  assertEquals(client.closed, true);
  const other = server.connect({ identity: far, tls: "require" });
  other.say(u32(3), option(NBD_OPT_STARTTLS));
  other.secure('the certificate of "bob"');
  assertEquals(other.closed, false);
});

Deno.test("a client that shows a refused certificate is closed, also if it attaches before the listener knows", () => {
  const server = new TestServer();
  const identity = 'the certificate of "alice"';
  server.attach({ identity });
  assertEquals(kick(server, 1, 60_000), ["left"]);
  const client = server.attach({ identity: far });
  const connection = client.connection as Address<NbdConnectionMessage>;
  server.kernel.tell(server.listener, { type: "identified", connection, identity });
  server.kernel.run();
  assertEquals(client.closed, true);
});

Deno.test("a client that waits for a place is closed when its host is refused", () => {
  const server = new TestServer();
  const silent = Array.from({ length: connectionsMax - 16 }, () => server.connect({ lingers: true }));
  const remote = Array.from({ length: 16 }, () => server.attach({ identity: far }));
  server.clock.pass(crowdedHandshakeMs);
  const late = server.connect({ identity: far });
  assertEquals([late.closed, late.unreadBytes], [false, 0]);
  kick(server, silent.length + 1, 60_000);
  assertEquals([late.closed, remote.filter(({ closed }) => closed).length], [true, 1]);
  for (const client of silent) client.pump();
  assertEquals(late.unreadBytes, 0);
});

Deno.test("what cannot be kicked is said, and nothing is done then", () => {
  const server = new TestServer();
  const local = server.attach();
  assertEquals([kick(server, 7), kick(server, 1, 1000)], [["noClient"], ["local"]]);
  assertEquals(local.closed, false);
});

Deno.test("a listener that stops answers a kick whose client cannot leave", () => {
  const server = new TestServer();
  const client = server.attach();
  server.disk.volume.holdRequests = true;
  client.say(command(NBD_CMD_FLUSH, 1));
  const answers = kick(server, 1);
  server.stop();
  assertEquals([answers, server.stopped], [[], false]);
  server.clock.pass(drainMs);
  assertEquals([answers, server.stopped], [["stopping"], true]);
  assertEquals(kick(server, 1), ["stopping"]);
});

Deno.test("so many hosts are refused at once and no more, and those whose time is over make room", () => {
  const refused = new RefusedIdentities();
  for (let index = 0; index < refusedIdentitiesMax; index++) {
    assertEquals(refused.hasRoomFor(`host ${index}`, 0), true);
    refused.refuse(`host ${index}`, index === 0 ? 1000 : kickMsMax);
  }
  assertEquals([refused.hasRoomFor("another", 999), refused.hasRoomFor("host 5", 999)], [false, true]);
  assertEquals(refused.hasRoomFor("another", 1000), true);
  refused.refuse("host 5", 1500);
  assertEquals(refused.refuses("host 5", 2000), "first");
  assertEquals([refused.refuses("host 5", 2000), refused.refuses(undefined, 2000)], ["again", "no"]);
});
