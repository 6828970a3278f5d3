/** Metadata contexts in the handshake: which are listed, which are selected, and for how long. */
import { assertEquals } from "@std/assert";
import { thinId } from "../../storage/base/ids.ts";
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_EINVAL,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_INFO,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_TOO_BIG,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_META_CONTEXT,
} from "./wire/constants.ts";
import { command, go, setContexts, type SimulatedClient } from "../../tests/nbd/simulated_client.ts";
import { TestServer } from "../../tests/nbd/simulated_server.ts";
import { bytes, join, option, string, u16, u32 } from "../../tests/nbd/wire_bytes.ts";

const allocation = "base:allocation";
const monday = "qemu:dirty-bitmap:monday";
const tuesday = "qemu:dirty-bitmap:tuesday";

/** A disk with two snapshots, and another without. */
function testServer(): TestServer {
  const server = new TestServer();
  server.disk.contexts.push(
    { name: monday, source: { kind: "dirty", thinId: thinId(7) } },
    { name: tuesday, source: { kind: "dirty", thinId: thinId(8) } },
  );
  server.pool.add("other", 2 ** 20);
  return server;
}

function greet(server: TestServer, ...options: Uint8Array[]): SimulatedClient {
  const client = server.connect();
  client.say(u32(3), ...options);
  client.takeOpening();
  client.takeOptionReplies();
  return client;
}

function greetStructured(server = testServer()): SimulatedClient {
  return greet(server, option(NBD_OPT_STRUCTURED_REPLY));
}

function listContexts(name: string, ...queries: string[]): Uint8Array {
  return option(NBD_OPT_LIST_META_CONTEXT, join(string(name), u32(queries.length), ...queries.map(string)));
}

/** Names with their ids, and the type of the last reply. */
function contextsOf(client: SimulatedClient, sent: Uint8Array): [string, number][] | number {
  client.say(sent);
  const replies = client.takeOptionReplies();
  const last = replies.pop();
  if (last?.type !== NBD_REP_ACK) return last?.type ?? 0;
  return replies.map(({ type, data }) => {
    assertEquals(type, NBD_REP_META_CONTEXT);
    return [
      new TextDecoder().decode(data.subarray(4)),
      new DataView(data.buffer, data.byteOffset).getUint32(0),
    ];
  });
}

/** The error of a block status after GO; 0 is success. */
function statusAfter(client: SimulatedClient, name = "disk"): number | undefined {
  client.say(go(name));
  client.takeOptionReplies();
  client.say(command(NBD_CMD_BLOCK_STATUS, 1, 0, 512));
  return client.takeReplies().at(-1)?.error;
}

const listings: [string, string[], string[]][] = [
  ["no query lists every context", [], [allocation, monday, tuesday]],
  ["base: lists what is in it", ["base:"], [allocation]],
  ["base:allocation lists itself", [allocation], [allocation]],
  ["qemu: lists every bitmap", ["qemu:"], [monday, tuesday]],
  ["qemu:dirty-bitmap: lists every bitmap", ["qemu:dirty-bitmap:"], [monday, tuesday]],
  ["the bitmap of a snapshot lists itself", [tuesday], [tuesday]],
  ["several queries list each context once", ["qemu:", monday, "base:", allocation], [
    allocation,
    monday,
    tuesday,
  ]],
  [
    "unknown namespaces and leaves are ignored",
    ["x-foo:bar", "nbd-server:", "base:foo", "qemu:x", "qemu:d:"],
    [],
  ],
  ["what is no query at all is ignored", ["", "base", "alloc", ":"], []],
];
for (const [what, queries, names] of listings) {
  Deno.test(`LIST_META_CONTEXT: ${what}`, () => {
    const expected = names.map((name): [string, number] => [name, 0]);
    assertEquals(contextsOf(greetStructured(), listContexts("disk", ...queries)), expected);
    // Also before structured replies are agreed on.
    assertEquals(contextsOf(greet(testServer()), listContexts("disk", ...queries)), expected);
  });
}

const selections: [string, string[], [string, number][]][] = [
  ["no query selects none", [], []],
  ["wildcards select none", ["base:", "qemu:", "qemu:dirty-bitmap:"], []],
  ["names select what they name, each with an id of its own", [tuesday, allocation], [[allocation, 1], [
    tuesday,
    2,
  ]]],
  ["a name that comes often selects once", Array(64).fill(allocation), [[allocation, 1]]],
  ["unknown names are ignored", ["base:foo", "x-foo:bar", "qemu:dirty-bitmap:friday", "base", ""], []],
];
for (const [what, queries, expected] of selections) {
  Deno.test(`SET_META_CONTEXT: ${what}`, () => {
    assertEquals(contextsOf(greetStructured(), setContexts("disk", ...queries)), expected);
  });
}

Deno.test("a selected context is told in the specified bytes", () => {
  const client = greetStructured();
  client.say(setContexts("disk", allocation));
  const sent = client.take(client.unreadBytes);
  const reply = (type: number, lengthBytes: number) =>
    join(u32(0x3e889), u32(0x0455_65a9), u32(NBD_OPT_SET_META_CONTEXT), u32(type), u32(lengthBytes));
  assertEquals(sent, join(reply(4, 19), u32(1), bytes(allocation), reply(1, 0)));
});

Deno.test("SET_META_CONTEXT needs structured replies or extended headers first", () => {
  assertEquals(contextsOf(greet(testServer()), setContexts("disk", allocation)), NBD_REP_ERR_INVALID);
  const extended = greet(testServer(), option(NBD_OPT_EXTENDED_HEADERS));
  assertEquals(contextsOf(extended, setContexts("disk", allocation)), [[allocation, 1]]);
});

Deno.test("contexts of an unknown export are refused", () => {
  const client = greetStructured();
  assertEquals(contextsOf(client, setContexts("nothing", allocation)), NBD_REP_ERR_UNKNOWN);
  assertEquals(contextsOf(client, listContexts("nothing")), NBD_REP_ERR_UNKNOWN);
});

Deno.test("64 queries are answered and 65 are too big", () => {
  const client = greetStructured();
  const names = Array.from({ length: 64 }, (_, i) => `x-a:${i}`);
  for (const ask of [setContexts, listContexts]) {
    assertEquals(contextsOf(client, ask("disk", ...names)), []);
    assertEquals(contextsOf(client, ask("disk", ...names, allocation)), NBD_REP_ERR_TOO_BIG);
  }
});

Deno.test("64 queries of the longest kind for the longest name are looked at", () => {
  const client = greetStructured();
  const names = Array.from({ length: 64 }, (_, i) => `x-${i}:`.padEnd(4096, "a"));
  assertEquals(contextsOf(client, setContexts("n".repeat(4096), ...names)), NBD_REP_ERR_UNKNOWN);
  assertEquals(contextsOf(client, setContexts("disk", ...names)), []);
});

Deno.test("malformed queries are refused and the next option is in step", () => {
  const client = greetStructured();
  const malformed = [
    join(string("disk"), u32(0xffff_ffff)),
    join(string("disk"), u32(1), u32(100), bytes("base:")),
    join(string("disk"), u32(1), string("base:".padEnd(5000, "x"))),
    join(string("disk"), u32(1), string(allocation), u32(0)),
    join(string("disk"), u32(1), string("base:\0")),
    u32(100),
  ];
  for (const data of malformed) {
    assertEquals(contextsOf(client, option(NBD_OPT_SET_META_CONTEXT, data)), NBD_REP_ERR_INVALID);
    assertEquals(contextsOf(client, option(NBD_OPT_LIST_META_CONTEXT, data)), NBD_REP_ERR_INVALID);
  }
  const tooLong = option(NBD_OPT_SET_META_CONTEXT, new Uint8Array(300_000));
  assertEquals(contextsOf(client, tooLong), NBD_REP_ERR_TOO_BIG);
  assertEquals(contextsOf(client, setContexts("disk", allocation)), [[allocation, 1]]);
});

Deno.test("the selection made last holds for the export it named", () => {
  const client = greetStructured();
  client.say(setContexts("other"), setContexts("disk", allocation));
  assertEquals(statusAfter(client), 0);
});

Deno.test("a selection for the default export holds for its name, and the other way round", () => {
  for (const [set, attach] of [["", "disk"], ["disk", ""]] as const) {
    const client = greetStructured(new TestServer());
    client.say(setContexts(set, allocation));
    assertEquals(statusAfter(client, attach), 0);
  }
});

const cleared: [string, Uint8Array][] = [
  ["a selection of none", setContexts("disk")],
  ["a selection that fails for its name", setContexts("nothing", allocation)],
  ["a selection that is malformed", option(NBD_OPT_SET_META_CONTEXT, u32(7))],
  ["a selection that is too long to look at", option(NBD_OPT_SET_META_CONTEXT, new Uint8Array(300_000))],
  ["a selection for another export", setContexts("other", allocation)],
];
for (const [what, sent] of cleared) {
  Deno.test(`${what} leaves nothing of the one before`, () => {
    const client = greetStructured();
    client.say(setContexts("disk", allocation), sent);
    assertEquals(statusAfter(client), NBD_EINVAL);
  });
}

Deno.test("a failed selection after extended headers takes BLOCK_STATUS_PAYLOAD back", () => {
  const client = greet(testServer(), option(NBD_OPT_EXTENDED_HEADERS), setContexts("disk", allocation));
  const flagsOf = (name: string) => {
    client.say(option(NBD_OPT_INFO, join(string(name), u16(0))));
    return client.takeOptionReplies()[0]?.data.subarray(10);
  };
  assertEquals([flagsOf("disk"), flagsOf("other")], [u16(0x1ded), u16(0xded)]);
  contextsOf(client, option(NBD_OPT_SET_META_CONTEXT, u32(7)));
  assertEquals(flagsOf("disk"), u16(0xded));
});

Deno.test("a long list of contexts goes out in parts, too", () => {
  const server = new TestServer();
  for (let i = 0; i < 5000; i++) {
    server.disk.contexts.push({
      name: `qemu:dirty-bitmap:snap-${i}`,
      source: { kind: "dirty", thinId: thinId(i) },
    });
  }
  const client = greetStructured(server);
  const before = client.sends.length;
  const listed = contextsOf(client, listContexts("disk"));
  assertEquals(Array.isArray(listed) && listed.length, 5001);
  assertEquals(client.sends.length - before > 2, true);
});
