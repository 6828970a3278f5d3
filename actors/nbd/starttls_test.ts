/** STARTTLS as the state of a connection sees it; nothing is encrypted here. Real TLS is in tests/e2e/tls_clients_test.ts. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_DISC,
  NBD_EINVAL,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_TLS_REQD,
  NBD_REP_INFO,
  NBD_REP_META_CONTEXT,
  NBD_REP_SERVER,
} from "./wire/constants.ts";
import { command, go, read, setContexts, type SimulatedClient } from "../../tests/nbd/simulated_client.ts";
import { TestServer } from "../../tests/nbd/simulated_server.ts";
import { bytes, option, u32 } from "../../tests/nbd/wire_bytes.ts";
import { tlsHandshakeMs } from "../limits.ts";
import type { TlsPolicy } from "./socket_port.ts";

function greet(server: TestServer, tls: TlsPolicy): SimulatedClient {
  const client = server.connect({ tls });
  client.takeOpening();
  client.say(u32(3));
  return client;
}

function repliesTo(client: SimulatedClient, ...options: Uint8Array[]): [number, number][] {
  client.say(...options);
  return client.takeOptionReplies().map((reply) => [reply.option, reply.type]);
}

/** A client inside TLS. */
function secured(server: TestServer, tls: TlsPolicy): SimulatedClient {
  const client = greet(server, tls);
  assertEquals(repliesTo(client, option(NBD_OPT_STARTTLS)), [[NBD_OPT_STARTTLS, NBD_REP_ACK]]);
  client.secure();
  return client;
}

for (const tls of ["allow", "require"] as const) {
  Deno.test(`with TLS at ${tls} nothing is read between the answer to STARTTLS and the end of its handshake`, () => {
    const client = greet(new TestServer(), tls);
    client.say(option(NBD_OPT_STARTTLS));
    assertEquals(client.takeOptionReplies().length, 1);
    client.say(option(NBD_OPT_LIST));
    assertEquals([client.isSecuring, client.unsentBytes], [true, 16]);
    client.secure();
    client.pump();
    assertEquals(client.takeOptionReplies().map((reply) => reply.type), [NBD_REP_SERVER, NBD_REP_ACK]);
  });

  Deno.test(`with TLS at ${tls} a client may attach inside it`, () => {
    const client = secured(new TestServer(), tls);
    assertEquals(repliesTo(client, go("disk")), [[NBD_OPT_GO, NBD_REP_INFO], [NBD_OPT_GO, NBD_REP_ACK]]);
  });
}

Deno.test("where TLS is off, STARTTLS is refused by policy and clear text goes on", () => {
  const client = greet(new TestServer(), "off");
  assertEquals(repliesTo(client, option(NBD_OPT_STARTTLS)), [[NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY]]);
  assertEquals(repliesTo(client, go("disk")).at(-1), [NBD_OPT_GO, NBD_REP_ACK]);
});

Deno.test("where TLS is allowed, a client may go on without it", () => {
  const client = greet(new TestServer(), "allow");
  assertEquals(repliesTo(client, go("disk")).at(-1), [NBD_OPT_GO, NBD_REP_ACK]);
});

Deno.test("where TLS is required, all but STARTTLS and ABORT is told so", () => {
  const server = new TestServer();
  const client = greet(server, "require");
  const refused = [
    NBD_OPT_LIST,
    NBD_OPT_INFO,
    NBD_OPT_GO,
    NBD_OPT_STRUCTURED_REPLY,
    NBD_OPT_SET_META_CONTEXT,
    4444,
  ];
  for (const number of refused) {
    assertEquals(repliesTo(client, option(number)), [[number, NBD_REP_ERR_TLS_REQD]]);
  }
  assertEquals(repliesTo(client, go("disk")), [[NBD_OPT_GO, NBD_REP_ERR_TLS_REQD]]);
  assertEquals(repliesTo(client, option(NBD_OPT_ABORT)), [[NBD_OPT_ABORT, NBD_REP_ACK]]);
  assertEquals(client.closed, true);
  assertEquals(server.log, ["refused a simulated client: it did not ask for TLS"]);
});

Deno.test("where TLS is required, EXPORT_NAME in clear text ends the connection", () => {
  const server = new TestServer();
  const client = greet(server, "require");
  client.say(option(NBD_OPT_EXPORT_NAME, bytes("disk")));
  assertEquals([client.closed, client.unreadBytes], [true, 0]);
  assertEquals(server.log, ["refused a simulated client: it did not ask for TLS"]);
});

Deno.test("the log tells who is attached inside TLS, and says nothing of a client that asked for something before it", () => {
  const server = new TestServer();
  const client = greet(server, "require");
  assertEquals(repliesTo(client, option(NBD_OPT_LIST)), [[NBD_OPT_LIST, NBD_REP_ERR_TLS_REQD]]);
  client.say(option(NBD_OPT_STARTTLS));
  client.secure();
  client.say(go("disk"), command(NBD_CMD_DISC, 1));
  greet(server, "allow").say(go("disk"));
  assertEquals(server.log, [
    'a simulated client attached to "disk", TLS',
    'a simulated client left "disk"',
    'a simulated client attached to "disk"',
  ]);
});

Deno.test("STARTTLS with data is invalid, and so is a second one", () => {
  const client = greet(new TestServer(), "require");
  const withData = option(NBD_OPT_STARTTLS, bytes("x"));
  assertEquals(repliesTo(client, withData), [[NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID]]);
  assertEquals(repliesTo(client, option(NBD_OPT_STARTTLS)), [[NBD_OPT_STARTTLS, NBD_REP_ACK]]);
  client.secure();
  assertEquals(repliesTo(client, option(NBD_OPT_STARTTLS)), [[NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID]]);
  assertEquals(repliesTo(client, go("disk")).at(-1), [NBD_OPT_GO, NBD_REP_ACK]);
});

/** Goes on inside TLS, attaches and reads: what the READ is answered with. */
function typesOfReadOverTls(client: SimulatedClient) {
  client.say(option(NBD_OPT_STARTTLS));
  client.secure();
  client.say(go("disk"));
  client.takeOptionReplies();
  client.say(read(1, 0, 512));
  return client.takeReplies(new Map([[1, 512]])).map((reply) => reply.type);
}

Deno.test("structured replies that were negotiated before STARTTLS are forgotten", () => {
  const client = greet(new TestServer(), "allow");
  client.say(option(NBD_OPT_STRUCTURED_REPLY));
  assertEquals(typesOfReadOverTls(client), ["simple"]);
});

Deno.test("extended headers that were negotiated before STARTTLS are forgotten", () => {
  const client = greet(new TestServer(), "allow");
  assertEquals(repliesTo(client, option(NBD_OPT_EXTENDED_HEADERS)).at(-1)?.[1], NBD_REP_ACK);
  assertEquals(typesOfReadOverTls(client), ["simple"]);
});

Deno.test("metadata contexts that were selected before STARTTLS are forgotten", () => {
  const client = greet(new TestServer(), "allow");
  client.say(option(NBD_OPT_STRUCTURED_REPLY), setContexts("disk", "base:allocation"));
  assertEquals(client.takeOptionReplies().map((reply) => reply.type), [
    NBD_REP_ACK,
    NBD_REP_META_CONTEXT,
    NBD_REP_ACK,
  ]);
  client.say(option(NBD_OPT_STARTTLS));
  client.secure();
  client.say(option(NBD_OPT_STRUCTURED_REPLY), go("disk"));
  client.takeOptionReplies();
  client.say(command(NBD_CMD_BLOCK_STATUS, 1, 0, 512));
  assertEquals(client.takeReplies().map((reply) => reply.error), [NBD_EINVAL]);
});

Deno.test("clear text behind STARTTLS ends the connection and is never looked at", () => {
  const server = new TestServer();
  const client = greet(server, "allow");
  client.say(option(NBD_OPT_STARTTLS), go("disk"));
  assertEquals([client.closed, client.isSecuring, client.unreadBytes], [true, false, 0]);
  assertStringIncludes(server.log.at(-1) ?? "", "more in clear text behind STARTTLS");
});

Deno.test("a TLS handshake has a deadline of its own", () => {
  const server = new TestServer();
  const client = greet(server, "require");
  client.say(option(NBD_OPT_STARTTLS));
  server.clock.pass(tlsHandshakeMs - 1);
  assertEquals(client.closed, false);
  server.clock.pass(1);
  assertEquals(client.closed, true);
  assertStringIncludes(server.log.at(-1) ?? "", "its TLS handshake took too long");
});

Deno.test("a client that vanishes in its TLS handshake leaves nobody behind", () => {
  const server = new TestServer();
  const client = greet(server, "require");
  client.say(option(NBD_OPT_STARTTLS));
  client.reset();
  assertStringIncludes(server.log.at(-1) ?? "", "connection reset");
  server.stop();
  assertEquals(server.stopped, true);
});
