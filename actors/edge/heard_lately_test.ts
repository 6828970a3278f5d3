import { assert, assertEquals } from "@std/assert";
import { HeardLately } from "./heard_lately.ts";

Deno.test("a socket may be waited for once no other was heard for 10 ms", () => {
  const [heard, one, other] = [new HeardLately(), {}, {}];
  const mayWait = (socket: object, nowMs: number) => heard.waitEndMs(socket, nowMs) !== -Infinity;
  assertEquals(mayWait(one, Infinity), false);
  heard.note(one, true);
  const nowMs = performance.now();
  assertEquals([mayWait(one, nowMs), mayWait(one, nowMs + 10)], [false, true]);
  heard.note(other, true);
  assertEquals([mayWait(one, Infinity), mayWait(other, Infinity)], [false, true]);
  heard.note(one, false);
  const againMs = performance.now();
  assertEquals([mayWait(one, againMs + 9), mayWait(one, againMs + 10)], [false, true]);
});

Deno.test("a socket may be waited for until 2 ms after the event loop's last turn", () => {
  const [heard, one] = [new HeardLately(), {}];
  const beginMs = performance.now();
  heard.note(one, true);
  const endMs = heard.waitEndMs(one, Infinity);
  assert(endMs >= beginMs + 2 && endMs <= performance.now() + 2);
  heard.note(one, false);
  assertEquals(heard.waitEndMs(one, Infinity), endMs);
  while (performance.now() === endMs - 2);
  heard.note(one, true);
  assert(heard.waitEndMs(one, Infinity) > endMs);
});
