import { assertEquals } from "@std/assert";
import { type VolumeRecord } from "../../storage/catalogue.ts";
import { catalogueFrom } from "../../storage/catalogue_open.ts";
import { thinId } from "../../storage/base/ids.ts";
import { planStep } from "./admin_plan.ts";

function recordOf(more: Partial<VolumeRecord> & Pick<VolumeRecord, "uid" | "name">): VolumeRecord {
  return {
    thinId: thinId(Number(more.uid)),
    sizeBytes: 65536,
    readOnly: false,
    origin: null,
    owner: null,
    created: null,
    ...more,
  };
}

Deno.test("a clone takes a tick of the clock, unless it is of a snapshot of ours, which is never written", () => {
  const catalogue = catalogueFrom({
    transactionId: 0n,
    settings: { blockSizeBytes: 65536, metadataPath: "m", dataPath: "d" },
    nextThinId: 9,
    volumes: [
      recordOf({ uid: "1", name: "written" }),
      recordOf({ uid: "2", name: "written@s", readOnly: true, origin: "1", owner: "1" }),
      // As a device of another program's that is served read-only: it may map blocks of the present time.
      recordOf({ uid: "3", name: "borrowed", readOnly: true }),
    ],
  });
  const context = {
    catalogue,
    now: "",
    timeAfter: () => "",
    newUid: () => "4",
    claim: () => 0,
    hold: () => {},
    clientsOf: () => [],
    perSlice: 1,
  };
  const ticks = ["written", "written@s", "borrowed"].map((source) => {
    const plan = planStep(context, { verb: "clone", source, name: "new" });
    return plan.kind === "draft" && plan.tick;
  });
  assertEquals(ticks, [true, false, true]);
});
