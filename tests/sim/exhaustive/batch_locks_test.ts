/** A batch beside another request whose messages are held: it uses no block that it could not lock. */
import { assertEquals } from "@std/assert";
import { Execution, Ids } from "./execution.ts";
import { HeldPool } from "./held_pool.ts";
import { Independence } from "./independence.ts";

Deno.test("a batch leaves a block to the discard that has locked it, and goes on when that has ended", () => {
  const pool = new HeldPool({
    state: "mapped",
    layout: "one block",
    kinds: ["discard", "partial write", "read"],
    dataBlocks: 4,
    together: 2,
  });
  const execution = new Execution(pool, new Ids(), new Independence());
  const run = (isHeld: (type: string) => boolean) => {
    for (;;) {
      const enabled = execution.enabled().filter(({ message }) => !isHeld(message.type));
      // The range lock first, so that the batch finds it.
      const next = enabled.find(({ message }) => message.type === "lockRange") ?? enabled[0];
      if (next === undefined) return;
      execution.receive(next);
    }
  };
  run((type) => type === "removeRange");
  assertEquals(pool.ops.map(({ answers }) => answers), [0, 0, 0]);
  assertEquals(
    execution.events.some(({ message }) => message.type === "lookup" || message.type === "write"),
    false,
  );
  run(() => false);
  assertEquals(pool.ops.map(({ status }) => status), ["ok", "ok", "ok"]);
});
