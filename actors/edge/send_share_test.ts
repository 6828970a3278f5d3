import { assertEquals } from "@std/assert";
import { SendShare } from "./send_share.ts";

Deno.test("one who sends alone has the whole round, and several have equal shares of it", () => {
  const share = new SendShare();
  const [a, b, c, d] = [{}, {}, {}, {}] as const;
  assertEquals([share.take(a, 0), share.take(a, 1), share.take(b, 2)], [2, 2, 1]);
  assertEquals([share.take(c, 3), share.take(d, 4), share.take(a, 5)], [2 / 3, 0.5, 0.5]);
  // A period later all of them still count, two later only who has sent since.
  assertEquals([share.take(a, 10), share.take(a, 20), share.take(b, 21)], [0.5, 2, 1]);
  assertEquals(share.take(a, 100), 2);
});
