/** Attached clients that break the rules: each request's exact answer, and a stream that stays in step. */
import { requestBytesMax } from "../../actors/limits.ts";
import { assert, assertEquals } from "@std/assert";
import {
  commandName,
  errorName,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_RESIZE,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_EPERM,
  NBD_REPLY_TYPE_NONE,
} from "../../actors/nbd/wire/constants.ts";
import { diskBytes, HostilePool, hostileTest, mondayContent, pattern, smallBytes } from "./hostile_pool.ts";
import type { Command, RawClient } from "./raw_client.ts";
import { bytes, join, request } from "./wire_bytes.ts";

/** One request and the error that answers it; 0 is success. */
type Case = readonly [what: string, command: Command, error: number];

const wholeBytes = new Uint8Array(requestBytesMax + 512);
const payloadOf = (lengthBytes: number) => wholeBytes.subarray(0, lengthBytes);
const maxU32 = 2 ** 32 - 1;

/** READ, TRIM, CACHE, WRITE_ZEROES and WRITE of `lengthBytes` at a place where they do not fit. */
function beyond(where: string, offset: readonly [number, number], lengthBytes: number): Case[] {
  const range = { offset, lengthBytes };
  const errors = [
    [NBD_CMD_READ, NBD_EINVAL],
    [NBD_CMD_TRIM, NBD_EINVAL],
    [NBD_CMD_CACHE, NBD_EINVAL],
    [NBD_CMD_WRITE_ZEROES, NBD_ENOSPC],
    [NBD_CMD_WRITE, NBD_ENOSPC],
  ] as const;
  return errors.map(([type, error]) => {
    const payload = type === NBD_CMD_WRITE ? { payload: payloadOf(lengthBytes) } : {};
    return [`${commandName(type)} of ${lengthBytes} ${where}`, { type, ...range, ...payload }, error];
  });
}

const cases: readonly Case[] = [
  // The payload is drained.
  ["WRITE of 32 MiB and 512", { type: NBD_CMD_WRITE, payload: payloadOf(requestBytesMax + 512) }, NBD_EINVAL],
  ["WRITE of 32 MiB", { type: NBD_CMD_WRITE, payload: payloadOf(requestBytesMax) }, 0],
  ["READ of 32 MiB", { type: NBD_CMD_READ, lengthBytes: requestBytesMax }, 0],
  ["READ of 32 MiB and a byte", { type: NBD_CMD_READ, lengthBytes: requestBytesMax + 1 }, NBD_EINVAL],
  ["READ of 4 GiB less a byte", { type: NBD_CMD_READ, lengthBytes: maxU32 }, NBD_EINVAL],
  ["READ of nothing", { type: NBD_CMD_READ }, 0],
  ["WRITE of nothing", { type: NBD_CMD_WRITE }, 0],
  ["TRIM of nothing", { type: NBD_CMD_TRIM }, 0],
  ["WRITE_ZEROES of nothing", { type: NBD_CMD_WRITE_ZEROES }, 0],
  ["CACHE of nothing", { type: NBD_CMD_CACHE }, 0],
  ...[0, 1].flatMap((flags) =>
    [NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES].map((type): Case => [
      `${commandName(type)} of nothing in the midst of a block, flags ${flags},`,
      { type, offsetBytes: 4097, flags },
      0,
    ])
  ),
  ["READ of nothing at the end", { type: NBD_CMD_READ, offsetBytes: diskBytes }, 0],
  ["WRITE of nothing at the end", { type: NBD_CMD_WRITE, offsetBytes: diskBytes }, 0],
  ["READ of nothing beyond the end", { type: NBD_CMD_READ, offsetBytes: diskBytes + 1 }, NBD_EINVAL],
  ["WRITE of nothing beyond the end", { type: NBD_CMD_WRITE, offsetBytes: diskBytes + 1 }, NBD_ENOSPC],
  ["BLOCK_STATUS of nothing", { type: NBD_CMD_BLOCK_STATUS }, NBD_EINVAL],
  ...beyond("at the end", [0, diskBytes], 1),
  ...beyond("across the end by one", [0, diskBytes - 511], 512),
  ...beyond("at 2^32", [1, 0], 512),
  ...beyond("just below 2^53", [2 ** 21 - 1, maxU32], 512),
  ...beyond("at 2^53", [2 ** 21, 0], 1),
  ...beyond("at 2^63", [2 ** 31, 0], 1),
  ...beyond("where the sum wraps to 512", [maxU32, maxU32 - 511], 1024),
  ...beyond("at 2^64 - 1, where the sum wraps to 0", [maxU32, maxU32], 1),
  ["TRIM of 4 GiB less a byte", { type: NBD_CMD_TRIM, lengthBytes: maxU32 }, NBD_EINVAL],
  ["WRITE_ZEROES of 4 GiB less a byte", { type: NBD_CMD_WRITE_ZEROES, lengthBytes: maxU32 }, NBD_ENOSPC],
  ["READ to the last byte", { type: NBD_CMD_READ, offsetBytes: diskBytes - 1, lengthBytes: 1 }, 0],
  ["WRITE to the last byte", { type: NBD_CMD_WRITE, offsetBytes: diskBytes - 1, payload: payloadOf(1) }, 0],
  // No payload is assumed.
  ["RESIZE", { type: NBD_CMD_RESIZE, offsetBytes: 4096 }, NBD_EINVAL],
  ["command 9", { type: 9, lengthBytes: maxU32 }, NBD_EINVAL],
  ["command 99", { type: 99, lengthBytes: 512 }, NBD_EINVAL],
  ["command 0x0101, whose low byte is WRITE", { type: 0x0101, lengthBytes: 512 }, NBD_EINVAL],
  ["command 65535", { type: 65535, lengthBytes: maxU32, flags: 65535 }, NBD_EINVAL],
  // The range of a FLUSH is reserved.
  ["FLUSH with a range", { type: NBD_CMD_FLUSH, offset: [maxU32, 7], lengthBytes: maxU32 }, 0],
  ["BLOCK_STATUS without a context", { type: NBD_CMD_BLOCK_STATUS, lengthBytes: 512 }, NBD_EINVAL],
];

for (const structured of [false, true]) {
  const kind = structured ? "structured" : "simple";
  Deno.test(`requests out of bounds get their error and nothing else, with ${kind} replies`, async (t) => {
    await using pool = await HostilePool.serve();
    for (const [what, command, error] of cases) {
      const outcome = error === 0 ? "is done" : `is ${errorName(error)}`;
      await t.step(`${what} ${outcome}`, async () => {
        using client = await pool.attach("disk", { structured });
        await requireAnswer(client, command, error);
        await requireInStep(client);
        await client.disconnect();
      });
    }
    await pool.requireUnharmed();
  });
}

/** The request has this one reply. */
async function requireAnswer(client: RawClient, command: Command, error: number): Promise<void> {
  const reply = await client.perform(command);
  assertEquals(errorName(reply.error), errorName(error));
  assertEquals(client.inFlight, 0);
}

/** The next request is understood, and answered by itself. */
async function requireInStep(client: RawClient): Promise<void> {
  await client.write(4096, bytes("in step"));
  assertEquals(await client.read(4096, 7), bytes("in step"));
}

/** The flags that a command takes besides FUA, which all take: bit numbers. */
const takenFlags: Readonly<Record<number, readonly number[]>> = {
  [NBD_CMD_READ]: [2],
  [NBD_CMD_WRITE_ZEROES]: [1, 4],
};

for (const structured of [false, true]) {
  hostileTest(
    `each flag on each command is done or EINVAL, ${structured ? "structured" : "simple"} replies`,
    async (pool) => {
      using client = await pool.attach("disk", { structured });
      for (let type = 0; type <= 10; type += 1) {
        if (type === NBD_CMD_DISC) continue;
        for (let bit = 0; bit < 16; bit += 1) {
          const taken = bit === 0 || (takenFlags[type]?.includes(bit) ?? false);
          const isKnown = type < NBD_CMD_BLOCK_STATUS && (type !== NBD_CMD_READ || bit !== 2 || structured);
          const payload = type === NBD_CMD_WRITE ? { payload: payloadOf(65536) } : {};
          // A whole block, which is always zeroed fast.
          const reply = await client.perform({ type, flags: 1 << bit, lengthBytes: 65536, ...payload });
          const expected = taken && isKnown ? 0 : NBD_EINVAL;
          assertEquals(reply.error, expected, `${commandName(type)} with flag ${bit}`);
        }
      }
      await requireInStep(client);
      await client.disconnect();
    },
  );
}

hostileTest("a structured READ of nothing is one NONE chunk", async (pool) => {
  using client = await pool.attach();
  const { chunks } = await client.perform({ type: NBD_CMD_READ });
  assertEquals(chunks.map(({ type, isLast }) => [type, isLast]), [[NBD_REPLY_TYPE_NONE, true]]);
  await client.disconnect();
});

hostileTest(
  "a read-only export answers EPERM to every change, drains it and stays as it is",
  async (pool) => {
    using client = await pool.attach("small@monday");
    for (const lengthBytes of [1, 512, 65536, 2 ** 20, requestBytesMax, requestBytesMax + 512]) {
      await requireAnswer(
        client,
        { type: NBD_CMD_WRITE, payload: payloadOf(lengthBytes).fill(9) },
        NBD_EPERM,
      );
      assertEquals(await client.read(0, 4096), mondayContent);
    }
    for (const type of [NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES]) {
      for (const lengthBytes of [0, 4096, smallBytes + 1, maxU32]) {
        await requireAnswer(client, { type, lengthBytes }, NBD_EPERM);
      }
    }
    await requireAnswer(client, { type: NBD_CMD_WRITE, payload: payloadOf(4096), flags: 0xffff }, NBD_EPERM);
    assertEquals(await client.read(0, 4096), mondayContent);
    await client.disconnect();
  },
);

/** Bytes that cannot be followed: what is owed comes, and then the end. */
const unfollowable: readonly (readonly [what: string, sent: Uint8Array])[] = [
  ["a request with a wrong magic", join(bytes("GET "), new Uint8Array(24))],
  [
    "a request with an extended request's magic",
    join(Uint8Array.of(0x21, 0xe4, 0x1c, 0x71), new Uint8Array(28)),
  ],
  ["a request with the magic of a reply", join(Uint8Array.of(0x67, 0x44, 0x66, 0x98), new Uint8Array(24))],
  ["an option in place of a request", join(bytes("IHAVEOPT"), new Uint8Array(20))],
  ["a WRITE of 4 GiB less a byte", join(request({ type: 1, length: maxU32 }), new Uint8Array(64))],
  ["a WRITE of 64 MiB and a byte", request({ type: 1, length: 2 * requestBytesMax + 1 })],
  ["a WRITE of 2 GiB", request({ type: 1, length: 2 ** 31 })],
];

Deno.test("what cannot be followed closes the connection, behind the replies that are owed", async (t) => {
  await using pool = await HostilePool.serve();
  for (const [what, sent] of unfollowable) {
    await t.step(`${what} closes the connection`, async () => {
      using client = await pool.attach();
      const owed = request({ type: NBD_CMD_FLUSH, cookie: [1, 2] });
      await client.send(owed, sent, owed);
      const { length } = await client.receiveAll();
      assertEquals(length, 16, "one simple reply to the FLUSH before it, none to the one behind");
      await pool.everybodyLeft();
    });
  }
  await pool.requireUnharmed();
});

hostileTest("a WRITE of 64 MiB is drained and EINVAL", async (pool) => {
  using client = await pool.attach();
  await requireAnswer(
    client,
    { type: NBD_CMD_WRITE, payload: new Uint8Array(2 * requestBytesMax) },
    NBD_EINVAL,
  );
  await requireInStep(client);
  await client.disconnect();
});

hostileTest("a WRITE of which half comes is never seen by others, whoever waits", async (pool) => {
  const content = pattern(200_000, 5);
  using honest = await pool.attach();
  await honest.write(0, content);
  for (const sentBytes of [0, 1, 65536, 131072, 199_999]) {
    using client = await pool.attach();
    await client.send(request({ type: NBD_CMD_WRITE, length: 200_000 }), payloadOf(sentBytes).fill(0xee));
    assertEquals((await honest.read(0, 200_000)).toHex(), content.toHex());
    client.close();
  }
  await honest.disconnect();
  await pool.everybodyLeft();
  using after = await pool.attach();
  assertEquals((await after.read(0, 200_000)).toHex(), content.toHex());
  await after.disconnect();
});

hostileTest("one byte at offset 1 is read and written, and its neighbours stay", async (pool) => {
  using client = await pool.attach();
  await client.write(0, bytes("abc"));
  await client.write(1, bytes("X"));
  assertEquals(await client.read(0, 3), bytes("aXc"));
  assertEquals(await client.read(1, 1), bytes("X"));
  await client.disconnect();
});

hostileTest(
  "two writers of neighbouring bytes in one block, on two connections, both survive",
  async (pool) => {
    using odd = await pool.attach();
    using even = await pool.attach();
    const count = 500;
    for (let i = 0; i < count; i += 1) {
      await Promise.all([
        even.sendCommand({ type: NBD_CMD_WRITE, offsetBytes: 2 * i, payload: Uint8Array.of(1) }),
        odd.sendCommand({ type: NBD_CMD_WRITE, offsetBytes: 2 * i + 1, payload: Uint8Array.of(2) }),
      ]);
      const replies = await Promise.all([even.receiveReply(), odd.receiveReply()]);
      assertEquals(replies.map((reply) => reply.error), [0, 0]);
    }
    const read = await odd.read(0, 2 * count);
    assertEquals(read, Uint8Array.from({ length: 2 * count }, (_, i) => 1 + i % 2));
    await odd.disconnect();
    await even.disconnect();
  },
);

hostileTest("128 requests with one cookie get a reply each", async (pool) => {
  using client = await pool.attach();
  const cookie = [0xdead, 0xbeef] as const;
  const header = request({ type: NBD_CMD_FLUSH, cookie, length: 0 });
  await client.send(...Array<Uint8Array>(128).fill(header));
  const replies = await client.receive(128 * 16);
  for (let i = 0; i < 128; i += 1) {
    const expected = join(Uint8Array.of(0x67, 0x44, 0x66, 0x98), new Uint8Array(4), header.subarray(8, 16));
    assertEquals(replies.subarray(16 * i, 16 * i + 16), expected);
  }
  await requireInStep(client);
  await client.disconnect();
});

hostileTest(
  "a thousand READs whose replies are not read at first are all answered right",
  async (pool) => {
    using client = await pool.attach();
    const content = pattern(65536, 23);
    await client.write(0, content);
    const sending = (async () => {
      for (let i = 0; i < 1000; i += 1) {
        await client.sendCommand({ type: NBD_CMD_READ, offsetBytes: i, lengthBytes: 60_000 });
      }
    })();
    await new Promise((resolve) => setTimeout(resolve, 100));
    for (let i = 0; i < 1000; i += 1) {
      const reply = await client.receiveReply();
      const offsetBytes = (reply.cookie[1] - 2) % 1000;
      assert(
        reply.data.toHex() === content.subarray(offsetBytes, offsetBytes + 60_000).toHex(),
        "a wrong reply",
      );
    }
    await sending;
    assertEquals(client.inFlight, 0);
    await client.disconnect();
  },
);

hostileTest("DISC with 8 READs and 8 WRITEs in flight: 16 replies, then the end", async (pool) => {
  using client = await pool.attach();
  for (let i = 0; i < 8; i += 1) {
    await client.sendCommand({ type: NBD_CMD_READ, offsetBytes: i * 65536, lengthBytes: 65536 });
    await client.sendCommand({
      type: NBD_CMD_WRITE,
      offsetBytes: i * 65536,
      payload: payloadOf(65536),
      flags: 1,
    });
  }
  await client.sendCommand({ type: NBD_CMD_DISC });
  for (let i = 0; i < 16; i += 1) assertEquals((await client.receiveReply()).error, 0);
  assert(await client.isClosedByServer());
});

hostileTest("DISC with junk in its fields, and bytes behind it, gets no reply", async (pool) => {
  using client = await pool.attach();
  const junk = { flags: 0xffff, cookie: [1, 2], offset: [maxU32, maxU32], length: maxU32 } as const;
  const write = request({ type: NBD_CMD_WRITE, length: 4 });
  await client.send(request({ type: NBD_CMD_DISC, ...junk }), write, bytes("late"), bytes("junk"));
  assert(await client.isClosedByServer());
  using after = await pool.attach();
  assertEquals(await after.read(0, 4), new Uint8Array(4));
  await after.disconnect();
});

hostileTest("a client that closes its half gets the replies it is owed, then the end", async (pool) => {
  using client = await pool.attach();
  for (let i = 0; i < 16; i += 1) await client.sendCommand({ type: NBD_CMD_READ, lengthBytes: 65536 });
  await client.closeWrite();
  for (let i = 0; i < 16; i += 1) assertEquals((await client.receiveReply()).data.length, 65536);
  assert(await client.isClosedByServer());
});
