/** The torture test for some twenty seconds; for ten minutes it belongs to `deno task soak`. */
import { assertEquals } from "@std/assert";
import { hasProgram, hasPythonNbd } from "../support/programs.ts";
import { SmallHost } from "./host.ts";
import { SlowDevice } from "./slow_device.ts";
import { torture } from "./torture.ts";

const ignore = !hasPythonNbd() || !hasProgram("fio");

for (const [seed, stderr] of [[1, "a stderr without a reader"], [2, "a full stderr"]] as const) {
  Deno.test({
    name:
      `few descriptors, ${stderr}, a full host, a stalled device and hostile clients together cost no client a byte`,
    ignore,
    fn: async () => {
      const said: string[] = [];
      const { problems } = await torture({
        seconds: 15,
        seed,
        stallMs: 3_000,
        say: (line) => said.push(line),
      });
      assertEquals(problems, [], said.join("\n"));
    },
  });
}

// What this machine does not allow is left out of the test above; it shows as skipped.
Deno.test({ name: "the torture has a tmpfs that is full", ignore: !SmallHost.isPossible(), fn: () => {} });
Deno.test({ name: "the torture has a device that stalls", ignore: !SlowDevice.isPossible(), fn: () => {} });
