/** Which scenarios are explored. */
import { defaultKnobs } from "../../../actors/knobs.ts";
import { type Kind, kinds, type Layout, nameOf, type Scenario, type State, states } from "./scenario.ts";

/** Every pair of kinds in every state, with free blocks and with none. */
export function pairs(layout: Layout): Scenario[] {
  const scenarios: Scenario[] = [];
  for (const state of states) {
    for (const [index, first] of kinds.entries()) {
      for (const second of kinds.slice(index)) {
        scenarios.push({ state, layout, kinds: [first, second], dataBlocks: 4 });
        // Where the two differ, which of them is on the second block matters.
        if (layout !== "apart") continue;
        if (first !== second) scenarios.push({ state, layout, kinds: [second, first], dataBlocks: 4 });
      }
    }
  }
  return scenarios;
}

/** As many data blocks as are mapped at the beginning, and one at least: what is freed must be used again. */
export function tight(scenario: Scenario): Scenario {
  return {
    ...scenario,
    dataBlocks: scenario.layout === "two blocks" && scenario.state !== "unmapped" ? 2 : 1,
  };
}

const batched: readonly Kind[] = ["read", "partial write", "covering write", "FUA write"];

/**
 * The same with bios in batches, where that makes a difference, which takes two bios that may go in one: all in one batch,
 * and from three on also two in a batch, so that one is beside another.
 */
export function inBatches(scenario: Scenario): Scenario[] {
  const { kinds, layout } = scenario;
  const bios = kinds.filter((kind) => batched.includes(kind)).length * (layout === "two blocks" ? 2 : 1);
  const sizes = bios < 2 ? [] : bios === 2 ? [defaultKnobs.batchBiosMax] : [defaultKnobs.batchBiosMax, 2];
  return sizes.map((together) => ({ ...scenario, together }));
}

/** Every triple of kinds in a state, on one block. */
export function triples(state: State): Scenario[] {
  const scenarios: Scenario[] = [];
  for (const [index, first] of kinds.entries()) {
    for (const [more, second] of kinds.slice(index).entries()) {
      for (const third of kinds.slice(index + more)) {
        scenarios.push({ state, layout: "one block", kinds: [first, second, third], dataBlocks: 4 });
      }
    }
  }
  return scenarios;
}

/**
 * A block is freed, passed down and used again while others are under way: by a discard, where there is no other block,
 * and by the removal of the snapshot that shared it.
 */
export function reuses(): Scenario[] {
  const scenarios: Scenario[] = [];
  const others: readonly Kind[] = ["read", "partial write", "covering write"];
  for (const other of others) {
    const mapped = { state: "mapped", dataBlocks: 1 } as const;
    scenarios.push({ ...mapped, layout: "one block", kinds: ["discard", "flush", other] });
    scenarios.push({ ...mapped, layout: "apart", kinds: [other, "discard", "covering write"] });
  }
  for (const other of others) {
    scenarios.push({
      state: "shared",
      layout: "one block",
      kinds: ["rm", "covering write", other],
      dataBlocks: 4,
    });
  }
  return scenarios;
}

/**
 * A block that the time rule calls shared is written in place: where its snapshot has gone, while that goes, and while
 * another volume that has it lets go of it.
 */
export function leavings(): Scenario[] {
  const one = { layout: "one block", dataBlocks: 4 } as const;
  const writes: readonly Kind[] = ["partial write", "covering write", "write-zeroes", "FUA write"];
  const scenarios: Scenario[] = [];
  for (const [index, first] of kinds.entries()) {
    for (const second of kinds.slice(index)) {
      scenarios.push({ ...one, state: "left", kinds: [first, second] });
    }
  }
  for (const kind of writes) {
    scenarios.push({ ...one, state: "shared", kinds: [kind, "rm"] });
    scenarios.push({ ...one, state: "cloned", kinds: [kind, "other's FUA write"] });
    scenarios.push({ ...one, state: "cloned", kinds: [kind, "other's discard"] });
  }
  return scenarios;
}

/** A rollback to a snapshot beside what a client asks of the volume meanwhile. */
export function rollbacks(): Scenario[] {
  const one = { state: "shared", layout: "one block", dataBlocks: 4 } as const;
  return kinds.map((other) => ({ ...one, kinds: ["rollback", other] }) as const);
}

/** A clone beside a client that attaches to it before the command is answered, or after, and writes. */
export function clones(): Scenario[] {
  const scenarios: Scenario[] = [];
  for (const write of ["clone's write", "clone's FUA write"] as const) {
    for (const state of states) {
      scenarios.push({ state, layout: "one block", dataBlocks: 4, kinds: ["clone", write] });
    }
    // Of the snapshot, so that what the volume gets meanwhile is not in the clone.
    for (const other of ["flush", "partial write"] as const) {
      scenarios.push({ state: "shared", layout: "one block", dataBlocks: 4, kinds: ["clone", write, other] });
    }
  }
  return scenarios;
}

/** A growth beside anything. Without a free block, a write may then find the new one. */
export function growths(): Scenario[] {
  return states.flatMap((state) =>
    kinds.map((other) => ({ state, layout: "one block", kinds: ["grow", other], dataBlocks: 4 }) as const)
  );
}

/**
 * Writes without space wait, and what frees some is under way: a discard of the only block, or the removal of the snapshot
 * that shares it. In every schedule there is space for all of them in the end.
 */
export function waitings(): Scenario[] {
  const scenarios: Scenario[] = [];
  for (const write of ["partial write", "covering write", "FUA write", "write-zeroes"] as const) {
    const shared = { state: "shared", layout: "one block", dataBlocks: 1, waits: true } as const;
    scenarios.push({ ...shared, kinds: [write, "rm"] });
    if (write === "write-zeroes") continue;
    const apart = { state: "mapped", layout: "apart", dataBlocks: 1, waits: true } as const;
    scenarios.push({ ...apart, kinds: ["discard", write] });
    scenarios.push({ ...apart, kinds: ["grow", write] });
  }
  return scenarios;
}

/** The same with a commit beside them, or with two writes that wait. */
export function waitingsOfThree(): Scenario[] {
  const scenarios: Scenario[] = [];
  const shared = { state: "shared", layout: "one block", dataBlocks: 1, waits: true } as const;
  const apart = { state: "mapped", layout: "apart", dataBlocks: 1, waits: true } as const;
  for (const write of ["partial write", "covering write"] as const) {
    scenarios.push({ ...apart, kinds: ["discard", "flush", write] });
    scenarios.push({ ...shared, kinds: [write, "partial write", "rm"] });
  }
  scenarios.push({ ...apart, kinds: ["discard", "flush", "FUA write"] });
  return scenarios;
}

/** Pairs with room for one record in each segment of the intent journal: the next change waits for a commit. */
export function fullIntents(): Scenario[] {
  // Of three places two are kept for changes that run alone.
  return pairs("one block").map((scenario) => ({ ...scenario, intentRecords: 3 }));
}

/** A command whose changes go in slices of one, beside what makes a part of it durable if it can. */
export function sliced(): Scenario[] {
  const scenarios: Scenario[] = [];
  const one = { layout: "one block", dataBlocks: 4, perSlice: 1 } as const;
  const others: readonly Kind[] = [
    "flush",
    "FUA write",
    "partial write",
    "covering write",
    "read",
    "discard",
    "snapshot",
    "two snapshots",
  ];
  for (const state of states) {
    for (const other of others) {
      scenarios.push({ ...one, state, kinds: ["two snapshots", other] });
      if (other === "flush" || other === "FUA write") {
        for (const failingFlush of failingFlushes) {
          scenarios.push({ ...one, state, kinds: ["two snapshots", other], failingFlush });
        }
      }
    }
  }
  for (
    const other of ["flush", "FUA write", "partial write", "covering write", "discard", "snapshot"] as const
  ) {
    for (const state of states) scenarios.push({ ...one, state, kinds: ["three forks", other] });
  }
  scenarios.push({ ...one, state: "mapped", kinds: ["three forks", "partial write", "flush"] });
  scenarios.push({ ...one, state: "shared", kinds: ["two snapshots", "rm"] });
  scenarios.push({ ...one, state: "cloned", kinds: ["two snapshots", "other's FUA write"] });
  scenarios.push({ ...one, state: "cloned", kinds: ["two snapshots", "other's discard"] });
  scenarios.push({ ...one, state: "mapped", kinds: ["two snapshots", "partial write", "flush"] });
  return scenarios;
}

/** A commit flushes the data once, and the metadata before and after its superblock. */
const failingFlushes = [
  { device: "data", ordinal: 0 },
  { device: "data", ordinal: 1 },
  { device: "metadata", ordinal: 0 },
  { device: "metadata", ordinal: 1 },
  { device: "metadata", ordinal: 2 },
] as const;

/** A request that makes things durable, each of whose flushes fails once. */
export function failures(): Scenario[] {
  const scenarios: Scenario[] = [];
  const durable: readonly Kind[] = ["flush", "FUA write", "snapshot"];
  for (const state of states) {
    for (const first of durable) {
      for (const second of kinds) {
        for (const failingFlush of failingFlushes) {
          scenarios.push({ state, layout: "one block", kinds: [second, first], dataBlocks: 4, failingFlush });
        }
      }
    }
  }
  return scenarios;
}

export { nameOf };
