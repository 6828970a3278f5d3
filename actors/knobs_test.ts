/** The knobs at their lowest values, and values that are not legal. */
import { assertEquals, assertThrows } from "@std/assert";
import { Defect } from "../storage/base/assert.ts";
import { ManualClock } from "../tests/support/world.ts";
import type { Message } from "./kernel/address.ts";
import { Kernel } from "./kernel/kernel.ts";
import { rest, type Steps } from "./kernel/task.ts";
import { checkKnobs, defaultKnobs, type Knobs, lowestKnobs } from "./knobs.ts";

const names = Object.keys(lowestKnobs) as (keyof Knobs)[];

interface Note extends Message {
  readonly type: "note";
}

function* restingTask(rests: number, ended: () => void): Steps<void> {
  for (let count = 0; count < rests; count += 1) yield* rest();
  ended();
}

Deno.test("a kernel with every knob at its lowest value delivers all messages and ends tasks that rest", () => {
  const clock = new ManualClock();
  const kernel = new Kernel({ clock, knobs: lowestKnobs });
  let heard = 0;
  const address = kernel.spawn<Note>("ear", 100, () => ({ receive: () => void (heard += 1) }));
  for (let count = 0; count < 100; count += 1) kernel.tell(address, { type: "note" });
  let ended = 0;
  for (let task = 0; task < 3; task += 1) kernel.start("rests", restingTask(10, () => ended += 1));
  kernel.run();
  // More than 100 deliveries and 30 rests need, each in a drain of its own.
  for (let drains = 0; drains < 1000; drains += 1) {
    clock.runYields();
    clock.advance(0);
  }
  assertEquals([heard, ended], [100, 3]);
});

Deno.test("no knob is legal below its lowest value, and none that a bound is a sum of above its default", () => {
  checkKnobs(lowestKnobs);
  checkKnobs(defaultKnobs);
  for (const name of names) {
    assertThrows(() => checkKnobs({ ...defaultKnobs, [name]: lowestKnobs[name] - 1 }), Defect);
    assertThrows(() => checkKnobs({ ...defaultKnobs, [name]: NaN }), Defect);
  }
  const above = names.filter((name) => {
    try {
      checkKnobs({ ...defaultKnobs, sliceDevicesMax: Infinity, [name]: Infinity });
      return false;
    } catch {
      return true;
    }
  });
  assertEquals(above, [
    "biosPerVolumeMax",
    "statusPerVolumeMax",
    "dirtyBlocksMax",
    "commitWritesMax",
    "flushesMax",
    "looksMax",
  ]);
});
