/**
 * The torture test by hand, and in `deno task soak`:
 *
 *   deno run -A tests/torture/main.ts [--minutes N] [--seed N] [--stall-ms N] [--without PART,PART]
 *
 * Exits with 0 if every client's data were right and the server lived, else with 1 and a sentence for each problem.
 */
import { parseArgs } from "node:util";
import { type Part, torture } from "./torture.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
    "stall-ms": { type: "string", default: "6000" },
    without: { type: "string", default: "" },
  },
});
const seed = Number(values.seed);
console.log(`torture for ${values.minutes} minutes, seed ${seed}`);
const interrupt = Promise.withResolvers<never>();
// It may come before anything waits for it.
interrupt.promise.catch(() => {});
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  Deno.addSignalListener(signal, () => interrupt.reject(new Error(`interrupted by ${signal}`)));
}
const { problems, missing } = await torture({
  seconds: Number(values.minutes) * 60,
  seed,
  stallMs: Number(values["stall-ms"]),
  without: values.without.split(",") as Part[],
  interrupt: interrupt.promise,
  say: (line) => console.log(line),
});
for (const part of missing) console.log(`left out: ${part}`);
for (const problem of problems.slice(0, 20)) console.log(`PROBLEM ${problem.slice(0, 500)}`);
console.log(`${problems.length} problems`);
Deno.exit(problems.length === 0 ? 0 : 1);
