/** A short run of what `deno task soak` does 200,000 times. */
import { assert } from "@std/assert";
import { hasThinTools } from "../support/thin_tools.ts";
import { runCycles } from "./cycles.ts";

Deno.test({
  name: "a volume made and removed 1,000 times leaves memory, descriptors and the catalogue as they were",
  ignore: !hasThinTools("0.9") || !hasThinTools("1.x"),
  fn: async () => {
    const report = await runCycles(1000, () => {});
    assert(report.isFlat, `\n${report.table}`);
  },
});
