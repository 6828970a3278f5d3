import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { UserError } from "../../storage/base/errors.ts";
import { ignoreRing } from "../../tests/support/running_ring.ts";
import type { FromPool, ToPool } from "./border.ts";
import { PoolLink } from "./pool_link.ts";
import { openWorkerBorder } from "./worker_border.ts";

/** Rings and event descriptors of this process. */
function rings(): number {
  let count = 0;
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    try {
      if (/io_uring|eventfd/.test(Deno.readLinkSync(`/proc/self/fd/${name}`))) count += 1;
    } catch {
      // It was closed meanwhile.
    }
  }
  return count;
}

/** Waits until there are so many; undefined: until there are the same for a while. */
async function settled(wanted?: number): Promise<number> {
  let last = { count: -1, sinceMs: 0 };
  const endMs = performance.now() + 10_000;
  for (;;) {
    const [count, nowMs] = [rings(), performance.now()];
    if (count !== last.count) last = { count, sinceMs: nowMs };
    if (count === wanted || nowMs > endMs || wanted === undefined && nowMs > last.sinceMs + 200) return count;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const unknownTaken = { type: "textTaken", number: 77, taken: "gone" } as const satisfies ToPool;

Deno.test({
  name: "an I/O thread that ends before it was up, or with its pool refused, leaves no descriptor",
  ignore: ignoreRing,
  fn: async () => {
    openWorkerBorder(() => {}).close();
    await new Promise((resolve) => setTimeout(resolve, 20));
    // Some belong to the process from its first thread on.
    const before = await settled();
    await assertRejects(() => PoolLink.open("/nowhere", { io: "io_uring" }), UserError, "does not exist");
    assertEquals(await settled(before), before);
  },
});

Deno.test({
  name: "an I/O thread that dies says so once, and every request is answered, also those to come",
  ignore: ignoreRing,
  fn: async () => {
    const heard: FromPool[] = [];
    const died = Promise.withResolvers<void>();
    const border = openWorkerBorder((message) => {
      heard.push(message);
      if (message.type === "failed") died.resolve();
    });
    border.send(unknownTaken);
    border.send({ type: "close", number: 1 });
    await died.promise;
    border.send({ type: "close", number: 2 });
    border.close();
    const numbers = heard.flatMap((message) => message.type === "threw" ? [message.number] : []);
    assertEquals(numbers.toSorted(), [1, 2]);
    const failures = heard.flatMap((message) => message.type === "failed" ? [message.error.message] : []);
    assertEquals(failures.length, 1);
    assertStringIncludes(failures[0]!, "a piece was taken that was not sent");
  },
});
