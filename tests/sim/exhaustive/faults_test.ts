/** Each classic fault, put back into a copy of the product, is found by the search; the product itself passes there. */
import { assert, assertEquals } from "@std/assert";
import { explore, newCrashes } from "./explore.ts";
import { faults, findFault } from "./faults.ts";
import { intentFaults } from "./intent_faults.ts";
import { nameOf } from "./scenario.ts";

for (const fault of [...faults, ...intentFaults]) {
  Deno.test(`the search finds the fault: ${fault.name}`, async () => {
    const sound = explore(fault.scenario, 1000, fault.withCrashes ? newCrashes() : undefined);
    assertEquals(sound.problem, undefined, "without the fault");
    // The latest is found at schedule 1525.
    const { problem, schedule, counts } = await findFault(fault, 2000);
    assert(problem !== undefined, `nothing was found in ${counts.schedules} schedules`);
    console.log(`${fault.name}: ${nameOf(fault.scenario)}, schedule ${counts.schedules}`);
    console.log(`  ${problem}`);
    for (const line of schedule) console.log(`    ${line}`);
  });
}
