/** What the metadata actor records, and what the next process makes of it. */
import { assert, assertEquals } from "@std/assert";
import { dblock, metadataBlockSizeBytes, thinId, vblock } from "../../storage/base/ids.ts";
import { deviceFault, startCollecting } from "../../tests/support/stand_ins.ts";
import { IntentMemory, testBinding } from "../../tests/support/intent_memory.ts";
import { MetadataDriver } from "../../tests/support/metadata_driver.ts";
import { MetadataBench } from "../../tests/support/metadata.ts";
import { intentHeaderBytes } from "../../storage/intent_headers.ts";
import { findIntents } from "../../storage/intent_read.ts";
import { type Intent, intentRecordBytes } from "../../storage/intent_record.ts";
import { ThinMetadata } from "../../storage/thin_metadata.ts";
import { intentSegmentBytes } from "../limits.ts";
import { type Replayed, replayTask } from "./intent_replay.ts";

const one = thinId(1);

/** A pool of 20 mappings with an intent journal, and the next process. */
class Bench {
  readonly file: IntentMemory;
  readonly metadata: MetadataBench;
  readonly intents;

  constructor(segmentBytes = intentSegmentBytes) {
    this.file = new IntentMemory(segmentBytes);
    this.intents = this.file.journal();
    this.metadata = MetadataBench.withMapped(20, { intents: this.intents });
  }

  /** Maps block `at` to a fresh data block. */
  insert(at: number): number {
    const { stub } = this.metadata;
    return this.metadata.ask(stub.insert(one, vblock(at), dblock(1000 + at))).length;
  }

  /** What an open finds of what the file has. */
  found(): readonly Intent[] {
    const superblock = this.metadata.device.bytes.slice(0, metadataBlockSizeBytes);
    const result = findIntents(this.file.bytes, testBinding, superblock);
    return result.kind === "found" ? result.intents : [];
  }

  /** The process dies, and the next one replays. */
  replay(intents = this.found()): Replayed {
    const { device, data, world } = this.metadata;
    const answers: Replayed[] = [];
    const task = replayTask({
      data: data.stub,
      metadata: device.stub,
      openEngine: () => openOn(device.bytes),
      intents,
      isWriting: true,
      writesMax: 4,
    });
    startCollecting(world.kernel, task, answers);
    world.runReady();
    return answers[0]!;
  }

  /** What the blocks are mapped to on the device. */
  mapped(...blocks: number[]): (number | undefined)[] {
    const driver = new MetadataDriver(this.metadata.device.bytes.slice(), 100);
    return blocks.map((at) => {
      const found = driver.run((engine) => engine.lookup(one, vblock(at)));
      return found.kind === "provisioned" ? found.dblock : undefined;
    });
  }
}

function openOn(bytes: Uint8Array): ThinMetadata {
  return ThinMetadata.open(bytes.slice(0, metadataBlockSizeBytes), {
    cacheBlocks: 100,
    deviceBlocks: bytes.length / metadataBlockSizeBytes,
    readOnly: false,
  });
}

Deno.test("changes that were answered and not committed are there after the process died", () => {
  const bench = new Bench();
  bench.insert(30);
  bench.metadata.ask(bench.metadata.stub.removeRange(one, vblock(3), vblock(6)));
  bench.insert(4);
  bench.intents.writeOut();
  assertEquals(bench.mapped(30, 4, 5), [undefined, 4, 5]);
  assertEquals(bench.replay().kind, "replayed");
  assertEquals(bench.mapped(30, 3, 4, 5, 6), [1030, undefined, 1004, undefined, 6]);
  assertEquals(bench.found(), [], "the new superblock has it all");
});

Deno.test("a change is not in the file before writeOut, and all of a run go with one write", () => {
  const bench = new Bench();
  bench.file.writes.length = 0;
  for (let at = 30; at < 40; at += 1) bench.insert(at);
  assertEquals(bench.file.writes, []);
  bench.intents.writeOut();
  bench.intents.writeOut();
  assertEquals(bench.file.writes, [10 * intentRecordBytes]);
});

Deno.test("a mapping that only gets the present time is not recorded", () => {
  const bench = new Bench();
  bench.metadata.insert(5);
  bench.intents.writeOut();
  assertEquals(bench.found(), []);
});

for (const isWritten of [false, true]) {
  Deno.test(`a process dies during a commit, its superblock ${isWritten ? "" : "not "}written`, () => {
    const bench = new Bench();
    const { device } = bench.metadata;
    bench.insert(30);
    device.holds.add(isWritten ? "flush" : "write");
    bench.metadata.ask(bench.metadata.stub.commit());
    if (isWritten) bench.metadata.finish(device, 1);
    bench.insert(31);
    bench.intents.writeOut();
    assertEquals(bench.found().length, isWritten ? 1 : 2);
    device.holds.clear();
    assertEquals(bench.replay().kind, "replayed");
    assertEquals(bench.mapped(30, 31), [1030, 1031]);
  });
}

Deno.test("a full segment holds changes until a commit has begun, and none is lost", () => {
  const bench = new Bench(intentHeaderBytes + 8 * intentRecordBytes);
  const { device } = bench.metadata;
  device.holds.add("flush");
  let answered = 0;
  for (let at = 30; at < 60; at += 1) answered += bench.insert(at);
  bench.intents.writeOut();
  assert(answered < 16, `${answered} changes were answered`);
  assertEquals(bench.found().length, answered);
  device.holds.clear();
  for (let round = 0; round < 20; round += 1) bench.metadata.finish(device);
  bench.intents.writeOut();
  assertEquals(bench.replay().kind, "replayed");
  assertEquals(bench.mapped(30, 45, 59), [1030, 1045, 1059]);
});

Deno.test("one record that does not fit, and nothing is done", () => {
  const bench = new Bench();
  bench.insert(30);
  bench.insert(31);
  bench.intents.writeOut();
  const { bytes } = bench.metadata.device;
  const before = bytes.slice();
  const bad: Intent = {
    kind: "insert",
    thin: one,
    vblock: vblock(7),
    dblock: dblock(2000),
    replaced: undefined,
  };
  assertEquals(bench.replay([...bench.found(), bad]).kind, "unfit");
  assertEquals(bytes, before);
});

Deno.test("a replay whose commit fails leaves the superblock, and the journal is replayed again", () => {
  const bench = new Bench();
  bench.insert(30);
  bench.intents.writeOut();
  bench.metadata.device.fails.add("write");
  assertEquals(bench.replay().kind, "stuck");
  bench.metadata.device.fails.clear();
  assertEquals(bench.replay().kind, "replayed");
  assertEquals(bench.mapped(30), [1030]);
});

Deno.test("a journal that cannot be written is void before anything is sent, and says so once", () => {
  const bench = new Bench();
  bench.insert(30);
  let writes = 0;
  bench.file.answer = () => (writes += 1) === 1 ? deviceFault : { kind: "ok" };
  bench.intents.writeOut();
  assertEquals(bench.intents.state.kind, "void");
  bench.insert(31);
  bench.intents.writeOut();
  bench.intents.fail("once more");
  assertEquals(bench.found(), []);
  assertEquals(bench.file.logged.length, 1);
});

Deno.test("a journal that cannot even be marked void is removed", () => {
  const bench = new Bench();
  bench.insert(30);
  bench.file.answer = () => deviceFault;
  bench.intents.writeOut();
  assertEquals(bench.file.isRemoved, true);
});

Deno.test("a commit that fails makes the journal void before it is answered", () => {
  const bench = new Bench();
  bench.insert(30);
  bench.intents.writeOut();
  bench.metadata.data.fails.add("flush");
  bench.metadata.commit();
  assertEquals(bench.intents.state.kind, "void");
  assertEquals(bench.found(), []);
});

Deno.test("at the end a journal is empty, unless it has what no commit has", () => {
  const bench = new Bench();
  bench.insert(30);
  bench.intents.writeOut();
  bench.intents.end();
  assertEquals(bench.found().length, 1);
  bench.metadata.commit();
  bench.intents.end();
  assertEquals(
    bench.file.bytes.subarray(intentHeaderBytes, 2 * intentHeaderBytes).every((b) => b === 0),
    true,
  );
});
