/**
 * Classic faults, put back into a copy of the product: does the search find each?
 *
 * The sources of the product and of the search are copied to a folder of their own, one fault is put in by replacing text
 * that must be there exactly once, and the copy's own search is loaded from there. The product itself is not touched.
 */
import type { compareBatches } from "./compare.ts";
import type { explore, Explored, newCrashes } from "./explore.ts";
import type { Scenario } from "./scenario.ts";

/** A fault, and where it shows. */
export interface Fault {
  readonly name: string;
  readonly edits: readonly { readonly file: string; readonly from: string; readonly to: string }[];
  readonly scenario: Scenario;
  readonly withCrashes: boolean;
  /** It shows where clients see with batches what they do not see with batches of one, and nowhere else. */
  readonly comparesBatches?: true;
}

const provisionEnd = `  const written = yield* remapAndWait(thin, bio, fresh.dblock);
  if (written !== "ok") return fresh.failed(written);
  return yield* insert(thin, bio, fresh, "provisions");
`;

const unsharedHas =
  "return now.all || committing.all || now.blocks.has(block) || committing.blocks.has(block);";

const deviceForgets = {
  file: "actors/pool/block_device.ts",
  from: "this.#kernel.reply(request, this.#lost ?? result);",
  to: "this.#kernel.reply(request, result);",
};

export const faults: readonly Fault[] = [
  {
    name: "upgrade without a second lookup",
    edits: [{
      file: "actors/volume/remap.ts",
      from:
        '  if (upgraded !== "alone") mapping = yield* thin.metadata.lookup(thin.id, bio.vblock);\n  switch',
      to: "  switch",
    }],
    scenario: scenario("unmapped", ["partial write", "partial write"]),
    withCrashes: false,
  },
  {
    name: "upgrade while holding shared",
    edits: [
      {
        file: "actors/pool/lock_region.ts",
        from: "    cell.writers -= 1;\n    cell.upgrades",
        to: "    cell.upgrades",
      },
      {
        file: "actors/pool/lock_region.ts",
        from: "    if (upgrade !== undefined && cell.writers === 0 && !cell.excluding) {",
        to:
          "    if (upgrade !== undefined && cell.writers === 1 && !cell.excluding) {\n      cell.writers = 0;",
      },
    ],
    scenario: scenario("unmapped", ["partial write", "partial write"]),
    withCrashes: false,
  },
  {
    name: "insert before data on a covering write",
    edits: [{
      file: "actors/volume/remap.ts",
      from: provisionEnd,
      to: `  const inserted = yield* insert(thin, bio, fresh, "provisions");
  return inserted === "ok" ? yield* remapAndWait(thin, bio, fresh.dblock) : inserted;
`,
    }],
    scenario: scenario("unmapped", ["covering write", "flush"]),
    withCrashes: true,
  },
  {
    name: "superblock before the data's flush",
    edits: [{
      file: "actors/pool/commit.ts",
      from: `  const [dataFlushed, blocksWritten] = yield* join("commit part", [
    data.flush(frozen.isAlone),
    writeBlocks(device, frozen.blocks, writesMax),
  ]);
`,
      to: `  const blocksWritten = yield* writeBlocks(device, frozen.blocks, writesMax);
  yield* device.write(frozen.superblock, 0);
  const dataFlushed = yield* data.flush();
`,
    }],
    scenario: scenario("unmapped", ["partial write", "flush"]),
    withCrashes: true,
  },
  {
    name: "a block used again before the commit",
    edits: [{
      file: "actors/pool/data_allocator.ts",
      from: "this.#quarantine.freed(message.runs);",
      to: "this.#free.push(...message.runs);",
    }],
    scenario: { ...scenario("mapped", ["discard", "covering write"]), layout: "apart", dataBlocks: 1 },
    withCrashes: true,
  },
  {
    name: "discard without its lock",
    edits: [{
      file: "actors/volume/remap.ts",
      from: "  using _lock = yield* lockRange(bio.regions, bio.vblock, bio.vblockEnd);\n",
      to: "",
    }],
    // A write that copies the block beside the discard inserts its copy after it, with what was to be discarded.
    scenario: scenario("shared", ["partial write", "discard"]),
    withCrashes: false,
  },
  {
    name: "a fresh block not zeroed",
    edits: [{
      file: "actors/volume/remap.ts",
      from: "const zeroed = yield* zeroRest(thin, bio, fresh.dblock);",
      to: "const zeroed = ok;",
    }, {
      file: "actors/volume/remap.ts",
      from: "type Provisioned =",
      to: 'const ok: IoResult = { kind: "ok" };\ntype Provisioned =',
    }],
    scenario: scenario("unmapped", ["partial write", "read"]),
    withCrashes: false,
  },
  {
    name: "passdown before the commit",
    edits: [{
      file: "actors/pool/data_quarantine.ts",
      from: "for (const run of runs) this.#freedNow.addRun(run);",
      to: `for (const run of runs) {
      this.#freedNow.addRun(run);
      const { device, locks } = this.#parts;
      this.#kernel.start("passdown", passDownRun(device, locks, run, this.#blockSizeBytes));
    }`,
    }],
    scenario: scenario("shared", ["rm", "partial write"]),
    withCrashes: true,
  },
  {
    name: "no promotion before a shared block is switched",
    edits: [{ file: "actors/volume/remap.ts", from: "  yield* lock.promote();\n", to: "" }],
    scenario: scenario("shared", ["read", "covering write", "rm"]),
    withCrashes: false,
  },
  {
    name: "a block written in place that another volume has let go of since the last commit",
    edits: [{ file: "storage/recently_unshared.ts", from: unsharedHas, to: "return false;" }],
    scenario: scenario("cloned", ["partial write", "other's FUA write"]),
    withCrashes: true,
  },
  {
    name: "a block written in place that another volume lets go of in a commit under way",
    edits: [{
      file: "storage/recently_unshared.ts",
      from: unsharedHas,
      to: "return now.all || now.blocks.has(block) && committing !== now;",
    }],
    scenario: scenario("cloned", ["partial write", "other's FUA write"]),
    withCrashes: true,
  },
  {
    name: "a block written in place whose path another volume has too",
    edits: [{
      file: "storage/thin_mappings.ts",
      from: "return isPathShared || count !== 1 || isOld && (",
      to: "return isPathShared && !isOld || count !== 1 || isOld && (",
    }],
    scenario: scenario("cloned", ["partial write", "read"]),
    withCrashes: false,
  },
  {
    name: "a flush answered before its commit",
    edits: [{
      file: "actors/volume/thin_volume.ts",
      from: "    this.#requests += 1;\n    this.#starting.push(admitted);",
      to: `    if (request.kind === "flush") this.#done.add(request);
    this.#requests += 1;
    this.#starting.push(admitted);`,
    }, {
      file: "actors/volume/thin_volume.ts",
      from: "    this.#requests -= 1;\n    this.#done.add(request);",
      to: `    this.#requests -= 1;
    if (request.kind !== "flush") this.#done.add(request);`,
    }],
    scenario: scenario("mapped", ["partial write", "flush"]),
    withCrashes: true,
  },
  {
    name: "a block passed down after it was leased again",
    edits: [{
      file: "actors/pool/data_quarantine.ts",
      from: "this.#freedDurable.has(block) || (this.#passingDown?.has(block) ?? false);",
      to: "this.#freedDurable.has(block);",
    }],
    scenario: { ...scenario("mapped", ["discard", "flush", "covering write"]), dataBlocks: 1 },
    withCrashes: false,
  },
  {
    name: "a device that forgets that a flush failed",
    edits: [deviceForgets],
    scenario: { ...scenario("mapped", ["flush", "FUA write"]), failingFlush: { device: "data", ordinal: 0 } },
    withCrashes: true,
  },
  {
    name: "a commit beside a flush that fails",
    edits: [{
      file: "actors/pool/metadata.ts",
      from: "if (this.#requests.flushes === 0) return false;",
      to: "if (this.#requests.flushes <= 9) return false;",
    }],
    scenario: {
      ...scenario("unmapped", ["flush", "FUA write"]),
      failingFlush: { device: "data", ordinal: 1 },
    },
    withCrashes: true,
  },
  {
    name: "a commit between slices",
    edits: [{
      file: "actors/pool/metadata.ts",
      from: "this.#isChanging && this.#refusal === undefined",
      to: "this.#isChanging && this.#requests.waiting < 0",
    }],
    scenario: { ...scenario("mapped", ["two snapshots", "flush"]), perSlice: 1 },
    withCrashes: true,
  },
  {
    name: "changes go on after a commit that failed",
    edits: [deviceForgets, {
      file: "actors/pool/metadata.ts",
      from: "    this.#refusal = refusal;\n",
      to: "    if (reason.length === 0) this.#refusal = refusal;\n",
    }],
    scenario: { ...scenario("mapped", ["flush", "FUA write"]), failingFlush: { device: "data", ordinal: 0 } },
    withCrashes: true,
  },
  {
    name: "a flush that failed, tried again as if it had not",
    edits: [
      deviceForgets,
      {
        file: "actors/pool/commit.ts",
        from: "    data.flush(frozen.isAlone),\n",
        to: "    flushTwice(data),\n",
      },
      {
        file: "actors/pool/commit.ts",
        from: "function stepFailure(",
        to: `function* flushTwice(data: DeviceStub): Steps<IoResult> {
  const first = yield* data.flush();
  return first.kind === "ok" ? first : yield* data.flush();
}

function stepFailure(`,
      },
    ],
    scenario: {
      ...scenario("unmapped", ["read", "FUA write"]),
      failingFlush: { device: "data", ordinal: 0 },
    },
    withCrashes: true,
  },
];

function scenario(state: Scenario["state"], kinds: Scenario["kinds"]): Scenario {
  return { state, kinds, layout: "one block", dataBlocks: 4 };
}

const root = new URL("../../../", import.meta.url);
/** What the search is made of. */
const parts = ["actors", "storage", "tests/sim/exhaustive", "tests/support", "tests/crash"];

/** The search's own functions of a copy. */
interface Copy {
  readonly explore: typeof explore;
  readonly newCrashes: typeof newCrashes;
  readonly compareBatches: typeof compareBatches;
}

/** Explores the scenario of a fault, with the product that has these functions. */
export function exploreFault(
  { scenario, withCrashes, comparesBatches }: Fault,
  schedulesMax: number,
  { explore, newCrashes, compareBatches }: Copy,
): Explored {
  const crashes = withCrashes ? newCrashes() : undefined;
  if (comparesBatches !== true) return explore(scenario, schedulesMax, crashes);
  const explored = compareBatches(scenario, schedulesMax, crashes).parts.map((part) => part.explored);
  return explored.find(({ problem }) => problem !== undefined) ?? explored.at(-1)!;
}

/** The files that a fault changes, with the fault. Throws an Error if a text to be replaced is not there exactly once. */
export function editedFiles(fault: Fault, read: (file: string) => string): ReadonlyMap<string, string> {
  const edited = new Map<string, string>();
  for (const { file, from, to } of fault.edits) {
    const text = edited.get(file) ?? read(file);
    const times = text.split(from).length - 1;
    if (times !== 1) {
      throw new Error(`"${fault.name}" does not fit ${file} any more: ${times} times it has\n${from}`);
    }
    edited.set(file, text.replace(from, () => to));
  }
  return edited;
}

/** Explores the fault's scenario in a copy that has the fault. */
export async function findFault(fault: Fault, schedulesMax: number): Promise<Explored> {
  const folder = await Deno.makeTempDir({ prefix: "fault-" });
  try {
    for (const part of parts) await copyFolder(part, folder);
    const edited = editedFiles(fault, (file) => Deno.readTextFileSync(`${folder}/${file}`));
    for (const [file, text] of edited) await Deno.writeTextFile(`${folder}/${file}`, text);
    const copied = `file://${folder}/tests/sim/exhaustive`;
    const [search, comparison] = [await import(`${copied}/explore.ts`), await import(`${copied}/compare.ts`)];
    return exploreFault(fault, schedulesMax, { ...search, ...comparison });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function copyFolder(part: string, to: string): Promise<void> {
  await Deno.mkdir(`${to}/${part}`, { recursive: true });
  for await (const entry of Deno.readDir(new URL(part, root))) {
    const path = `${part}/${entry.name}`;
    if (entry.isDirectory) await copyFolder(path, to);
    else if (entry.name.endsWith(".ts")) await Deno.copyFile(new URL(path, root), `${to}/${path}`);
  }
}
