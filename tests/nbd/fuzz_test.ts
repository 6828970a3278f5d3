/** The fuzzer, as far as it goes in a test run, and that it can fail. */
import { assertEquals, assertThrows } from "@std/assert";
import { framesInTests } from "./fuzz.ts";
import { fuzzCodec, fuzzCodecSeed } from "./fuzz_codec.ts";
import { FrameMaker } from "./fuzz_frames.ts";
import { fuzzLive } from "./fuzz_live.ts";
import { judge } from "./fuzz_oracle.ts";
import { TestServer, testSizeBytes } from "./simulated_server.ts";
import { join, option, randomNumbers, request, string, u16, u32 } from "./wire_bytes.ts";

Deno.test("a million frames leave the decoders and the connection as they were, and in step", () => {
  fuzzCodec(framesInTests.codec, 1);
});

Deno.test("50,000 frames on real connections harm nobody", async () => {
  await fuzzLive(framesInTests.live, 1);
});

Deno.test("one seed of the fuzzer gives the same bytes each time", () => {
  const once = () => {
    const maker = new FrameMaker(randomNumbers(5), 65536);
    return Array.from({ length: 20 }, () => maker.session("disk", 2 ** 20).bytes.toHex());
  };
  assertEquals(once(), once());
  const report = { frames: 0, sessions: 0, verdicts: { handshake: 0, transmission: 0, ambiguous: 0 } };
  fuzzCodecSeed(5, report);
  fuzzCodecSeed(5, report);
  assertEquals(report.sessions, 128);
});

/** A right exchange: a READ, a WRITE beyond the end and a FLUSH, with structured replies. */
function exchange(): { sent: Uint8Array; received: Uint8Array; isComplete: true } {
  const sent = join(
    u32(3),
    option(8),
    option(7, join(string("disk"), u16(0))),
    request({ type: 0, cookie: [1, 1], length: 100 }),
    request({ type: 1, cookie: [1, 2], offset: [0, testSizeBytes], length: 3 }),
    Uint8Array.of(1, 2, 3),
    request({ type: 3, cookie: [1, 3] }),
  );
  const client = new TestServer().connect();
  client.say(sent);
  client.end();
  return { sent, received: client.take(client.unreadBytes), isComplete: true };
}

const exports = new Map([["disk", { sizeBytes: testSizeBytes, readOnly: false }]]);

Deno.test("the oracle takes what is right, and no byte of it less", () => {
  const right = exchange();
  assertEquals(judge(right, exports), "transmission");
  for (let length = 0; length < right.received.length; length += 1) {
    assertThrows(() => judge({ ...right, received: right.received.subarray(0, length) }, exports), Error);
  }
});

Deno.test("the oracle takes no reply twice, none that is not owed, and no other error", () => {
  const right = exchange();
  const { received } = right;
  const flushReply = received.slice(-16);
  assertThrows(
    () => judge({ ...right, received: join(received, flushReply) }, exports),
    Error,
    "a reply to nobody",
  );
  const others: [number, string][] = [
    [received.length - 1, "a reply to nobody"],
    [received.length - 9, "error 1 in place of 0"],
    [received.length - 13, "magic"],
    [3, "a wrong opening"],
  ];
  for (const [at, sentence] of others) {
    const wrong = received.slice();
    wrong[at]! ^= 1;
    assertThrows(() => judge({ ...right, received: wrong }, exports), Error, sentence);
  }
});
