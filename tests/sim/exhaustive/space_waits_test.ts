/**
 * Writes that wait for space beside what frees some, in the first schedules of each case: each write ends well, whatever
 * the order. `main.ts` goes over more of them, and over their crashes.
 */
import { assert, assertEquals } from "@std/assert";
import { waitings, waitingsOfThree } from "./cases.ts";
import { explore } from "./explore.ts";
import { nameOf } from "./scenario.ts";

const schedulesMax = 40;

Deno.test("a write without space beside a discard or a removal that frees some is done in every schedule", () => {
  let schedules = 0;
  for (const scenario of [...waitings(), ...waitingsOfThree()]) {
    const { counts, problem, schedule } = explore(scenario, schedulesMax, undefined);
    assertEquals(problem, undefined, `${nameOf(scenario)}\n${schedule.join("\n")}`);
    schedules += counts.schedules;
  }
  assert(schedules > 500, "the search has become small");
});
