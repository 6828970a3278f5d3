/**
 * The sequence diagrams of actors/ARCHITECTURE.md, drawn from recorded traces of real bios on a pool in memory.
 * `deno task diagrams` writes them into the document; a test fails when they are stale.
 */
import { type TraceEvent, traceMermaid, TraceRecorder } from "../../actors/kernel/trace.ts";
import { makeTestingFiles, testingBlockSizeBytes, TestingPool, type TestingVolume } from "../support/pool.ts";

const block = new Uint8Array(testingBlockSizeBytes).fill(1);
const part = block.subarray(0, 4096);

/** One diagram: what is there before, and what is recorded. */
interface Scene {
  readonly title: string;
  prepare(pool: TestingPool, volume: TestingVolume): void;
  record(pool: TestingPool, volume: TestingVolume): void;
}

const scenes: readonly Scene[] = [
  {
    title: "Read of a provisioned block",
    prepare: (_, volume) => volume.write(0, block),
    record: (_, volume) => volume.read(0, 4096),
  },
  {
    title: "Read of an unprovisioned block",
    prepare: () => {},
    record: (_, volume) => volume.read(0, 4096),
  },
  {
    title: "Write to a block of its own",
    prepare: (_, volume) => volume.write(0, block),
    record: (_, volume) => volume.write(0, part),
  },
  {
    title: "Write that provisions",
    prepare: (_, volume) => volume.write(testingBlockSizeBytes, block),
    record: (_, volume) => volume.write(0, part),
  },
  {
    title: "Write that breaks sharing",
    prepare: (pool, volume) => {
      volume.write(0, block);
      pool.admin({ verb: "snapshot", names: ["a@s"] });
    },
    record: (_, volume) => volume.write(0, part),
  },
  {
    title: "Write to a block whose snapshot is gone",
    prepare: (pool, volume) => {
      volume.write(0, block);
      pool.admin({ verb: "snapshot", names: ["a@s"] });
      pool.admin({ verb: "rm", names: ["a@s"], force: true, dryRun: false });
    },
    record: (_, volume) => volume.write(0, part),
  },
  {
    title: "Discard, and what the next commit does with the block",
    prepare: (_, volume) => {
      volume.write(0, block);
      volume.perform("flush", 0, 0);
    },
    record: (_, volume) => {
      volume.perform("discard", 0, testingBlockSizeBytes);
      volume.perform("flush", 0, 0);
    },
  },
  {
    title: "Two snapshots at one point in time",
    prepare: (pool, volume) => {
      pool.admin({ verb: "create", name: "b", sizeBytes: testingBlockSizeBytes });
      pool.attach("b");
      volume.write(0, block);
    },
    record: (pool) => pool.admin({ verb: "snapshot", names: ["a@s", "b@s"] }),
  },
];

function record(scene: Scene): readonly TraceEvent[] {
  const pool = new TestingPool(makeTestingFiles());
  pool.admin({ verb: "create", name: "a", sizeBytes: 16 * testingBlockSizeBytes });
  const volume = pool.attach("a");
  scene.prepare(pool, volume);
  const recorder = new TraceRecorder();
  pool.kernel.trace = recorder;
  scene.record(pool, volume);
  // What the client does comes from outside the kernel.
  return recorder.events.map((event) => event.from === "outside" ? { ...event, from: "client" } : event);
}

const beginMark = "<!-- diagrams: written by `deno task diagrams` -->";
const endMark = "<!-- end of diagrams -->";

/** The document with its diagrams drawn anew. */
export function withDiagrams(document: string): string {
  const begin = document.indexOf(beginMark);
  const end = document.indexOf(endMark);
  if (begin < 0 || end < begin) throw new Error("the document has no place for diagrams");
  const drawn = scenes.map((scene) =>
    `### ${scene.title}\n\n\`\`\`mermaid\n${traceMermaid(record(scene))}\n\`\`\`\n`
  );
  return `${document.slice(0, begin)}${beginMark}\n\n${drawn.join("\n")}\n${document.slice(end)}`;
}

/** Where the diagrams are. */
export const documentUrl = new URL("../../actors/ARCHITECTURE.md", import.meta.url);

if (import.meta.main) {
  await Deno.writeTextFile(documentUrl, withDiagrams(await Deno.readTextFile(documentUrl)));
}
