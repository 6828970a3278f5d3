/** A short case of the long run, and what a run of 16 million volumes comes to. */
import { assert, assertEquals } from "@std/assert";
import { defaultKnobs } from "../../actors/knobs.ts";
import { catalogueChangesBytesMin } from "../../actors/limits.ts";
import { thinIdMax } from "../../storage/base/ids.ts";
import { HistoryPool, runHistory } from "./history.ts";
import { makeTestingFiles, testingBlockSizeBytes, TestingPool } from "../support/pool.ts";
import { tenthsTable } from "./tenths.ts";

Deno.test("what the server keeps does not grow with the volumes that have come and gone", () => {
  const lines = runHistory(2500, () => {});
  // So few cycles say nothing of time, and the catalogue is written anew only every 400 of them.
  const judged = lines.filter(({ quantity: { key } }) => key !== "cycle" && key !== "catalogue");
  const grown = judged.filter(({ isFlat }) => !isFlat);
  assertEquals(grown, [], tenthsTable(lines));
  const catalogue = lines.find(({ quantity }) => quantity.key === "catalogue");
  assert(catalogue!.last <= catalogueChangesBytesMin + 8192, tenthsTable(lines));
});

Deno.test("after the last of the 24-bit thin ids the first is used again, and those in use are left out", () => {
  const history = new HistoryPool(thinIdMax - 4);
  assertEquals(history.thinIds(), new Map([["base", thinIdMax - 4], ["base@s", thinIdMax - 3]]));
  const clone = (name: string) => {
    history.command({ verb: "clone", source: "base@s", name });
    return history.thinIds().get(name);
  };
  assertEquals(clone("stays"), thinIdMax - 2);
  for (let cycle = 0; cycle < 5; cycle += 1) history.cycle();
  assertEquals(clone("after"), 3, "5 more have come and gone: two before the end, 0, 1 and 2");
  history.requireSound();
});

Deno.test("volumes that no client uses are closed when too many are open, and opened again", () => {
  const pool = new TestingPool(makeTestingFiles(64, 4096));
  const count = defaultKnobs.openVolumesMax + 50;
  const open = () => [...pool.kernel.mailboxHighWater().keys()].filter((name) => name.startsWith("volume "));
  for (let index = 0; index < count; index += 1) {
    assertEquals(pool.admin({ verb: "create", name: `v${index}`, sizeBytes: testingBlockSizeBytes }), {
      kind: "done",
    });
  }
  const first = pool.attach("v0");
  first.write(0, new Uint8Array(512).fill(7));
  for (let index = 1; index < count; index += 1) pool.attach(`v${index}`).detach();
  assertEquals(open().length, defaultKnobs.openVolumesMax);
  assert(open().includes("volume v0"), "a volume with a client stays open");
  assert(!open().includes("volume v1"), "the one opened first goes first");
  first.detach();
  pool.attach("v1").detach();
  assert(!open().includes("volume v0"));
  assertEquals(pool.attach("v0").read(0, 512), new Uint8Array(512).fill(7));
  assertEquals(pool.kernel.tasksInFlight(), []);
});
