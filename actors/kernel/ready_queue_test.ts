import { assertEquals, assertThrows } from "@std/assert";
import { Defect } from "../../storage/base/assert.ts";
import { Random } from "../../tests/support/world.ts";
import { ReadyQueue } from "./ready_queue.ts";

Deno.test("whichever is taken, the others keep their order, as in a plain list", () => {
  const random = new Random(1);
  const queue = new ReadyQueue();
  const list: number[] = [];
  for (let step = 0; step < 20_000; step += 1) {
    // Grows past the first ring of 1024 and shrinks again.
    const wantsPush = random.below(100) < (step < 10_000 ? 60 : 40);
    if (wantsPush || list.length === 0) {
      const ready = random.below(2 ** 20) - 2 ** 19;
      queue.push(ready);
      list.push(ready);
    } else {
      const index = random.below(list.length);
      assertEquals(queue.take(index), list.splice(index, 1)[0]);
    }
    assertEquals(queue.length, list.length);
  }
  while (list.length > 0) assertEquals(queue.take(0), list.shift());
});

Deno.test("a scheduler that chooses an index that is not there is a defect", () => {
  const queue = new ReadyQueue();
  queue.push(7);
  assertThrows(() => queue.take(1), Defect, "the scheduler chose an index that is not there");
  assertThrows(() => queue.take(-1), Defect, "the scheduler chose an index that is not there");
});
