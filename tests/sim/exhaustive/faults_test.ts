/** Each classic fault, put back into a copy of the product, is found by the search; the product itself passes there. */
import { assert, assertEquals } from "@std/assert";
import { soak } from "../../support/server.ts";
import { batchFaults } from "./batch_faults.ts";
import { compareBatches } from "./compare.ts";
import { explore, newCrashes } from "./explore.ts";
import { exploreFault, faults, findFault } from "./faults.ts";
import { intentFaults } from "./intent_faults.ts";
import { nameOf } from "./scenario.ts";

/** The fault that takes longest, a block passed down after it was leased again, is found by the 1525th schedule. */
const schedulesMax = 2000;

/** The product passes as many schedules as the fault took, and at least so many. */
const soundSchedulesMin = soak ? 1000 : 100;

for (const fault of [...faults, ...batchFaults, ...intentFaults]) {
  Deno.test(`the search finds the fault: ${fault.name}`, async () => {
    const { problem, schedule, counts } = await findFault(fault, schedulesMax);
    assert(problem !== undefined, `nothing was found in ${counts.schedules} schedules`);
    const soundMax = Math.max(counts.schedules, soundSchedulesMin);
    const sound = exploreFault(fault, soundMax, { explore, newCrashes, compareBatches });
    assertEquals(sound.problem, undefined, "without the fault");
    console.log(`${fault.name}: ${nameOf(fault.scenario)}, schedule ${counts.schedules}`);
    console.log(`  ${problem}`);
    for (const line of schedule) console.log(`    ${line}`);
  });
}
