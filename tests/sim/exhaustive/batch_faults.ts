/** Faults of batches, put back into a copy of the product: see faults.ts. */
import type { Fault } from "./faults.ts";
import type { Scenario } from "./scenario.ts";

const twice = { kinds: ["partial write", "partial write"], layout: "one block", dataBlocks: 4 } as const;

/** While two reads are in a batch, their block may be discarded, passed down and used again by the write of the other block. */
const reuseBesideBatch: Scenario = {
  state: "mapped",
  layout: "apart",
  kinds: ["discard", "read", "read", "covering write"],
  dataBlocks: 1,
  together: 2,
};

export const batchFaults: readonly Fault[] = [
  {
    name: "a batch that writes a shared block in place",
    edits: [{
      file: "actors/volume/remap.ts",
      from: '  return bio.kind === "read" || (!mapping.shared && !mapping.isOld);',
      to: "  return true;",
    }],
    scenario: { ...twice, state: "shared", together: 2 },
    withCrashes: false,
  },
  {
    name: "a batch that looks up before it locks",
    edits: [
      {
        file: "actors/volume/remap.ts",
        from: "  using locks = new DisposableStack();\n",
        to: "  yield* thin.metadata.lookupAtOnce(thin.id, bios);\n  using locks = new DisposableStack();\n",
      },
      {
        file: "actors/volume/remap.ts",
        from: "  yield* thin.metadata.lookupAtOnce(thin.id, locked);\n",
        to: "",
      },
    ],
    // The block that was found is discarded, passed down and used again before it is read.
    scenario: { ...reuseBesideBatch, last: ["lockAtOnce"] },
    withCrashes: false,
  },
  {
    name: "a batch that overtakes a discard that has the lock",
    edits: [{
      file: "actors/pool/lock_region.ts",
      from: "      if (this.#mayEnter(cell, wanted.vblock, wanted.access, ticket)) {",
      to: "      if (ticket > 0 || this.#mayEnter(cell, wanted.vblock, wanted.access, ticket)) {",
    }],
    scenario: { ...reuseBesideBatch, last: ["removeRange", "transferAtOnce"] },
    withCrashes: false,
  },
  {
    name: "a batch that answers for want of space what goes on alone",
    edits: [{
      file: "actors/volume/remap.ts",
      from: '  if (bio.kind !== "read" || bio.mapping?.kind !== "unprovisioned") return undefined;',
      to: `  if (bio.mapping?.kind !== "unprovisioned") return undefined;
  if (bio.kind !== "read") return "noDataSpace";`,
    }],
    // The only block is enough for both. That there is too little of it is no wrong answer by itself.
    scenario: { ...twice, state: "unmapped", dataBlocks: 1 },
    withCrashes: false,
    comparesBatches: true,
  },
];
