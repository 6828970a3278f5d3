import { assert, assertEquals, assertRejects } from "@std/assert";
import { Kernel } from "../../kernel/kernel.ts";
import { ignoreRing, newLoop } from "../../../tests/support/running_ring.ts";
import type { RingLoop } from "./ring_loop.ts";
import { wake, WakeUps } from "./wake_ups.ts";

/** A test that the loop itself ends after 5 s: while it waits, no timer of the test can. */
function loopTest(name: string, run: (loop: RingLoop) => Promise<void>): void {
  Deno.test({
    name,
    ignore: ignoreRing,
    fn: async () => {
      const loop = newLoop();
      let isLate = false;
      const late = loop.pause(5000).then(() => {
        isLate = true;
        loop.end();
      });
      await run(loop);
      assert(!isLate, "the loop waited for what had come");
      void late;
      assert(loop.ring.finish(1000));
    },
  });
}

loopTest("what waits for a pause goes on in all its steps before the next wait", async (loop) => {
  let steps = 0;
  const waiting = (async () => {
    await loop.pause(1);
    for (; steps < 10; steps += 1) await Promise.resolve();
    loop.end();
  })();
  await loop.run();
  await waiting;
  assertEquals(steps, 10);
});

loopTest("an alarm rings once, never early, and the one set last counts", async (loop) => {
  const rung: string[] = [];
  const beginMs = performance.now();
  loop.setAlarm(beginMs + 2, () => rung.push("replaced"));
  const atMs = beginMs + 7.123456;
  loop.setAlarm(atMs, () => {
    assert(performance.now() >= atMs);
    rung.push("kept");
    loop.setAlarm(performance.now() + 3, () => loop.end());
  });
  await loop.run();
  assertEquals(rung, ["kept"]);
});

loopTest("an alarm that was cleared does not ring, and one that is due rings at once", async (loop) => {
  loop.setAlarm(performance.now(), () => assert(false, "it was cleared"));
  loop.clearAlarm();
  void loop.pause(5).then(() => {
    loop.setAlarm(performance.now() - 10, () => loop.end());
  });
  await loop.run();
});

loopTest("what was yielded runs in the next pass, and what it yields in the pass after", async (loop) => {
  const passes: number[] = [];
  const again = () => {
    passes.push(loop.passMs);
    if (passes.length < 3) loop.yield(again);
    else loop.end();
  };
  loop.yield(again);
  await loop.run();
  assertEquals(new Set(passes).size, 3);
});

loopTest("Deno's event loop has turns from the first that begins to the last that ends", async (loop) => {
  let ticks = 0;
  const ticking = setInterval(() => ticks += 1, 1);
  loop.beginTurns();
  loop.beginTurns();
  loop.endTurns();
  loop.setAlarm(performance.now() + 100, () => {
    assert(ticks > 3, "timers of Deno had no turn");
    loop.endTurns();
    ticks = 0;
    loop.setAlarm(performance.now() + 100, () => loop.end());
  });
  await loop.run();
  clearInterval(ticking);
  // One may have been due when the turns ended.
  assert(ticks <= 1, "Deno had turns that nothing asked for");
});

loopTest("a message that is announced is heard, before or after its announcement", async (loop) => {
  const wakeUps = new WakeUps(loop);
  const { port1, port2 } = new MessageChannel();
  const heard: number[] = [];
  port1.onmessage = ({ data }) => {
    heard.push(data);
    wakeUps.heard();
    if (heard.length === 3) loop.end();
  };
  const send = (message: number) => {
    port2.postMessage(message);
    wake(wakeUps.fd);
  };
  send(1);
  void loop.pause(20).then(() => {
    send(2);
    send(3);
  });
  await loop.run();
  port1.close();
  port2.close();
  assertEquals(heard, [1, 2, 3]);
});

loopTest("completions of one moment are delivered in one run of the kernel", async (loop) => {
  const kernel = new Kernel({ clock: loop });
  loop.serve(kernel);
  const drains = new Set<number>();
  const told: string[] = [];
  const actor = kernel.spawn("hears", 8, () => ({
    receive: (message: { readonly type: string }) => {
      drains.add(kernel.drains);
      told.push(message.type);
      if (told.length === 4) loop.end();
    },
  }));
  for (const type of ["a", "b", "c", "d"]) {
    loop.ring.push({ operation: 0, fd: -1 }, () => kernel.post(actor, { type }));
  }
  await loop.run();
  assertEquals([told, drains.size], [["a", "b", "c", "d"], 1]);
});

loopTest(
  "what a completion throws ends the loop, and the others of that moment are still told of",
  async (loop) => {
    const told: number[] = [];
    for (let count = 0; count < 3; count += 1) {
      loop.ring.push({ operation: 0, fd: -1 }, () => {
        told.push(count);
        if (count === 1) throw new RangeError("a defect");
      });
    }
    await assertRejects(() => loop.run(), RangeError, "a defect");
    assertEquals(told, [0, 1]);
    loop.ring.reap();
    assertEquals(told, [0, 1, 2]);
  },
);
