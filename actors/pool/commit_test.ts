/** The order of a commit's operations on both devices, and what each failure leads to. */
import { assertEquals } from "@std/assert";
import { metadataBlock, metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { defaultKnobs } from "../knobs.ts";
import { type DeviceOperation, Recorder, StandInDevice } from "../../tests/support/stand_ins.ts";
import { World } from "../../tests/support/world.ts";
import { commitTask, fetchTask, needsCheckTask } from "./commit.ts";
import type { Frozen } from "./commit_messages.ts";
import { type MetadataMessage, MetadataStub } from "./metadata_messages.ts";
import type { MetadataFailure } from "./metadata_results.ts";

const bs = metadataBlockSizeBytes;
const superblock = new Uint8Array(bs).fill(9);

/** A transaction that changed so many metadata blocks, from block 1 on. */
function frozenOf(blocksCount: number): Frozen {
  const blocks = Array.from({ length: blocksCount }, (_, at) => ({
    block: metadataBlock(at + 1),
    bytes: new Uint8Array(bs).fill(at),
  }));
  return { kind: "frozen", isAlone: false, blocks, superblock };
}

/** A metadata actor that answers the freeze as the test says, and two devices with one log of operations. */
class Bench {
  readonly world = new World();
  readonly log: string[] = [];
  readonly data = new StandInDevice(this.world.kernel, "data", new Uint8Array(0), { log: this.log });
  readonly device = new StandInDevice(this.world.kernel, "metadata", new Uint8Array(100 * bs), {
    log: this.log,
  });
  readonly metadata = new Recorder<MetadataMessage>(this.world.kernel, "metadata actor");
  readonly stub = new MetadataStub(this.world.kernel, this.metadata.address);

  /** Starts a commit and answers its freeze. */
  commit(frozen: Frozen | MetadataFailure): void {
    const { kernel } = this.world;
    kernel.start("commit", commitTask(this.stub, this.data.stub, this.device.stub));
    this.world.runReady();
    const freeze = this.metadata.take()[0]!;
    if (freeze.type !== "freeze") throw new Error(`no freeze but ${freeze.type}`);
    kernel.reply(freeze, frozen);
    this.world.runReady();
  }
}

Deno.test("a commit flushes the data and writes and flushes its blocks, then the superblock, then flushes that", () => {
  const bench = new Bench();
  bench.commit(frozenOf(2));
  assertEquals(bench.log.filter((line) => line.startsWith("data")), ["data flush"]);
  assertEquals(bench.log.filter((line) => line.startsWith("metadata")), [
    `metadata write ${bs}`,
    `metadata write ${2 * bs}`,
    "metadata flush",
    "metadata write 0",
    "metadata flush",
  ]);
  assertEquals(bench.metadata.take(), [{ type: "commitEnded", failure: undefined, begun: "frozen" }]);
});

Deno.test("the superblock is not written before the data device has flushed", () => {
  const bench = new Bench();
  bench.data.holds.add("flush");
  bench.commit(frozenOf(1));
  assertEquals(bench.log.includes("metadata write 0"), false);
  bench.data.finish();
  bench.world.runReady();
  assertEquals(bench.log.slice(-2), ["metadata write 0", "metadata flush"]);
});

Deno.test("the superblock is not written before the blocks of the commit are flushed", () => {
  const bench = new Bench();
  bench.device.holds.add("flush");
  bench.commit(frozenOf(1));
  assertEquals(bench.log.includes("metadata write 0"), false);
  bench.device.finish();
  bench.world.runReady();
  assertEquals(bench.log.slice(-2), ["metadata write 0", "metadata flush"]);
});

Deno.test("a commit has ended when its superblock is flushed, and not when it is written", () => {
  const bench = new Bench();
  bench.device.holds.add("flush");
  bench.commit(frozenOf(1));
  bench.device.finish();
  bench.world.runReady();
  assertEquals([bench.log.at(-1), bench.metadata.take()], ["metadata flush", []]);
  bench.device.finish();
  bench.world.runReady();
  assertEquals(bench.metadata.types, ["commitEnded"]);
});

/** What fails, from which operation on, what the commit says, and how many operations come after the failure. */
const failures: readonly (readonly [
  which: "data" | "device",
  operation: DeviceOperation,
  from: "begin" | "superblock" | "last flush",
  reason: string,
  hasSuperblock: boolean,
])[] = [
  ["data", "flush", "begin", "flushing the data device", false],
  ["device", "write", "begin", "writing metadata blocks", false],
  ["device", "flush", "begin", "writing metadata blocks", false],
  ["device", "write", "superblock", "writing the superblock", true],
  ["device", "flush", "last flush", "flushing the superblock", true],
];

for (const [which, operation, from, reason, hasSuperblock] of failures) {
  Deno.test(`a commit that fails ${reason} (${which} ${operation}, ${from}) does nothing after it and says so`, () => {
    const bench = new Bench();
    const { device } = bench;
    if (from === "begin") bench[which].fails.add(operation);
    device.holds.add("flush");
    bench.commit(frozenOf(1));
    if (from === "superblock") device.fails.add("write");
    device.finish();
    if (from === "last flush") device.fails.add("flush");
    bench.world.runReady();
    device.finish();
    bench.world.runReady();
    assertEquals(bench.metadata.take(), [
      { type: "commitEnded", failure: `${reason}: a fault of the test`, begun: "frozen" },
    ]);
    assertEquals(bench.log.includes("metadata write 0"), hasSuperblock);
    if (from === "superblock") assertEquals(bench.log.at(-1), "metadata write 0");
  });
}

Deno.test("metadata blocks of which one could not be written are not flushed", () => {
  const bench = new Bench();
  bench.device.fails.add("write");
  bench.commit(frozenOf(2));
  assertEquals(bench.log.includes("metadata flush"), false);
});

Deno.test("a commit of many blocks has a bounded number of writes under way", () => {
  const bench = new Bench();
  bench.device.holds.add("write");
  bench.commit(frozenOf(2 * defaultKnobs.commitWritesMax + 1));
  const underWay: number[] = [];
  while (bench.device.heldCount > 0) {
    underWay.push(bench.device.heldCount);
    bench.device.finish();
    bench.world.runReady();
  }
  assertEquals(
    underWay,
    [defaultKnobs.commitWritesMax, defaultKnobs.commitWritesMax, 1, 1],
    "the last one is the superblock",
  );
  assertEquals(bench.metadata.types, ["commitEnded"]);
});

Deno.test("where nothing has changed, a commit is a flush of the data device", () => {
  const bench = new Bench();
  bench.commit({ kind: "clean", flush: 7, isAlone: true });
  assertEquals(bench.log, ["data flush"]);
  assertEquals(bench.metadata.take(), [{ type: "flushEnded", flush: 7, failure: undefined }]);
});

Deno.test("a flush that fails where nothing has changed says so", () => {
  const bench = new Bench();
  bench.data.fails.add("flush");
  bench.commit({ kind: "clean", flush: 7, isAlone: true });
  assertEquals(bench.metadata.take(), [
    { type: "flushEnded", flush: 7, failure: "flushing the data device: a fault of the test" },
  ]);
});

Deno.test("a commit that is refused before it begins writes nothing, and is no failure", () => {
  const refusals: MetadataFailure[] = [
    { kind: "readOnly" },
    { kind: "poolFailed" },
    { kind: "damaged", reason: "a block" },
  ];
  for (const refusal of refusals) {
    const bench = new Bench();
    bench.commit(refusal);
    assertEquals(bench.log, []);
    assertEquals(bench.metadata.take(), [{ type: "commitEnded", failure: undefined, begun: refusal.kind }]);
  }
});

Deno.test("a transaction that finds no space to be completed is a failed commit that wrote nothing", () => {
  const bench = new Bench();
  bench.commit({ kind: "noMetadataSpace" });
  assertEquals(bench.log, []);
  assertEquals(bench.metadata.take(), [
    {
      type: "commitEnded",
      failure: "the transaction could not be completed: noMetadataSpace",
      begun: "noMetadataSpace",
    },
  ]);
});

Deno.test("a block that operations wait for is read from its place, and an error is told as it is", () => {
  const bench = new Bench();
  const { world, device, metadata, stub } = bench;
  const results: string[] = [];
  for (const fails of [false, true]) {
    if (fails) device.fails.add("read");
    world.kernel.start("fetch", fetchTask(stub, device.stub, metadataBlock(3), new Uint8Array(bs)));
    world.runReady();
    const message = metadata.take()[0]!;
    if (message.type === "fetched") results.push(`${message.block} ${message.result.kind}`);
  }
  assertEquals(results, ["3 ok", "3 ioError"]);
  assertEquals(bench.log, [`metadata read ${3 * bs}`, `metadata read ${3 * bs}`]);
});

Deno.test("the superblock with needs_check is written and flushed, and not flushed where it could not be written", () => {
  const bench = new Bench();
  assertEquals(bench.world.run(needsCheckTask(bench.device.stub, superblock)), { kind: "ok" });
  assertEquals(bench.log.splice(0), ["metadata write 0", "metadata flush"]);
  bench.device.fails.add("write");
  assertEquals(bench.world.run(needsCheckTask(bench.device.stub, superblock)).kind, "ioError");
  assertEquals(bench.log, ["metadata write 0"]);
});
