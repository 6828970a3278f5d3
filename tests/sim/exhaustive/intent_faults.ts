/** Faults of the intent journal, for {@linkcode faults}: each loses something that was answered, or shows it wrongly, after a kill. */
import type { Fault } from "./faults.ts";
import type { Kind, Scenario, State } from "./scenario.ts";

const journal = "actors/pool/intent_journal.ts";
const changes = "actors/pool/metadata_changes.ts";

function edit(file: string, from: string, to: string): Fault["edits"][number] {
  return { file, from, to };
}

function scenario(state: State, kinds: readonly Kind[]): Scenario {
  return { state, kinds, layout: "one block", dataBlocks: 4 };
}

/** Two writes of different blocks, and a commit that may begin between them. */
const besideCommit: Scenario = {
  ...scenario("unmapped", ["covering write", "flush", "covering write"]),
  layout: "apart",
};

/** The change of a command shows, and quiet volumes go on, before it is durable. */
const shownBeforeCommit = [
  edit(
    "actors/control/admin_task.ts",
    "  const committed = yield* metadata.commit();\n  if (isLong",
    "  yield* settled(peers, true);\n  const committed = yield* metadata.commit();\n  if (isLong",
  ),
  edit(
    "actors/control/admin_task.ts",
    "zeroTails(peers, plan.trims) : done;\n  yield* settled(peers, true);\n",
    "zeroTails(peers, plan.trims) : done;\n",
  ),
];

/** See the head of this file. */
export const intentFaults: readonly Fault[] = [
  {
    name: "an answer before its record",
    edits: [edit(journal, "if (this.#collectedBytes > 0)", "if (this.#collectedBytes > intentRecordBytes)")],
    scenario: scenario("unmapped", ["covering write", "read"]),
    withCrashes: true,
  },
  {
    name: "a removal without a record",
    edits: [edit(changes, "if (removedBlocks > 0) intents", "if (removedBlocks > 1) intents")],
    scenario: scenario("mapped", ["discard", "read"]),
    withCrashes: true,
  },
  {
    name: "a renewal that is recorded",
    edits: [edit(changes, "if (replaced !== dblock) intents", "intents")],
    scenario: scenario("left", ["partial write", "partial write"]),
    withCrashes: true,
  },
  {
    name: "a record that names no replaced block",
    edits: [
      edit(
        changes,
        'kind: "insert", thin, vblock, dblock, replaced }',
        'kind: "insert", thin, vblock, dblock, replaced: undefined }',
      ),
    ],
    scenario: scenario("shared", ["partial write", "read"]),
    withCrashes: true,
  },
  {
    name: "a segment that follows none",
    edits: [
      edit(
        journal,
        "const follows = this.#isCommitting ? { generation: this.#generation, records: this.#records } : undefined;",
        "const follows = undefined;",
      ),
    ],
    scenario: besideCommit,
    withCrashes: true,
  },
  {
    name: "a segment given up before its transaction is durable",
    edits: [edit(journal, "this.#segment = this.#segment === 0 ? 1 : 0;", "this.#segment = 0;")],
    scenario: besideCommit,
    withCrashes: true,
  },
  {
    name: "a freeze that leaves records of its transaction unwritten",
    edits: [
      edit(
        journal,
        "    this.#isCommitting = true;\n    this.writeOut();\n",
        "    this.#isCommitting = true;\n",
      ),
    ],
    // Only an answer that comes after the freeze shows it.
    scenario: scenario("unmapped", ["covering write", "flush"]),
    withCrashes: true,
  },
  {
    name: "a segment that builds on the superblock before",
    edits: [
      edit(
        "actors/pool/metadata.ts",
        "this.#intents.freeze(frozen.superblock);",
        "this.#intents.freeze(this.#engine.durableSuperblock());",
      ),
    ],
    scenario: besideCommit,
    withCrashes: true,
  },
  {
    name: "a journal that is believed after a flush failed",
    edits: [edit("actors/pool/block_device.ts", "this.#intents?.fail(", "void (")],
    scenario: {
      ...scenario("unmapped", ["covering write", "flush"]),
      failingFlush: { device: "data", ordinal: 0 },
    },
    withCrashes: true,
  },
  {
    name: "a replay that ends after the first segment",
    edits: [edit("storage/intent_read.ts", "return intents.concat(recordsOf(second));", "return intents;")],
    scenario: besideCommit,
    withCrashes: true,
  },
  {
    name: "a replay that is not committed before the pool is opened",
    edits: [
      edit(
        "actors/pool/intent_replay.ts",
        '  if (!parts.isWriting) return { kind: "replayed", plan };\n',
        '  if (plan.blocks.length >= 0) return { kind: "replayed", plan };\n',
      ),
    ],
    scenario: scenario("unmapped", ["covering write", "read"]),
    withCrashes: true,
  },
  {
    name: "a new name that clients reach before its commit",
    edits: shownBeforeCommit,
    scenario: scenario("mapped", ["clone", "clone's write"]),
    withCrashes: true,
  },
  {
    name: "a rollback that clients see before its commit",
    edits: shownBeforeCommit,
    scenario: scenario("shared", ["rollback", "partial write"]),
    withCrashes: true,
  },
];
