import { assertEquals } from "@std/assert";
import { Random } from "../../tests/support/world.ts";
import { Timers } from "./timers.ts";

function takeAll(timers: Timers, nowMs: number): void {
  for (let timer = timers.takeDue(nowMs); timer !== undefined; timer = timers.takeDue(nowMs)) timer.fire();
}

Deno.test("timers are taken by time, and equal times in the order they were set", () => {
  const random = new Random(2);
  const timers = new Timers();
  const expected: { readonly atMs: number; readonly ordinal: number }[] = [];
  const fired: number[] = [];
  for (let ordinal = 0; ordinal < 200; ordinal += 1) {
    const atMs = random.below(20);
    expected.push({ atMs, ordinal });
    timers.add({ atMs, fire: () => fired.push(ordinal) });
  }
  expected.sort((a, b) => a.atMs - b.atMs || a.ordinal - b.ordinal);
  takeAll(timers, 20);
  assertEquals(fired, expected.map((timer) => timer.ordinal));
});

Deno.test("a timer is due at its time and not before", () => {
  const timers = new Timers();
  timers.add({ atMs: 10, fire: () => {} });
  assertEquals(timers.takeDue(9.999), undefined);
  assertEquals(timers.nextMs, 10);
  assertEquals(timers.takeDue(10)?.atMs, 10);
  assertEquals(timers.nextMs, undefined);
});

Deno.test("a cancelled timer is gone, and cancelling it again does nothing", () => {
  const timers = new Timers();
  const timer = { atMs: 1, fire: () => {} };
  const other = { atMs: 2, fire: () => {} };
  timers.add(timer);
  timers.add(other);
  timers.cancel(timer);
  timers.cancel(timer);
  assertEquals(timers.length, 1);
  assertEquals(timers.takeDue(5), other);
});
