/** Changes that find no free metadata block: those that a commit can serve wait for it, and the others are refused. */
import { assert, assertEquals } from "@std/assert";
import { MetadataBench } from "../../tests/support/metadata.ts";
import type { ThinMetadata } from "../../storage/thin_metadata.ts";
import { dblock, thinId, vblock } from "../../storage/base/ids.ts";
import type { Operation } from "./metadata_messages.ts";
import { MetadataNotices } from "./metadata_notices.ts";
import type { Change } from "./thin_device_messages.ts";
import { type Attempt, WaitingOperations } from "./waiting_operations.ts";

const one = thinId(1);
const mapped = 1500;
/** Blocks of the volume from one leaf to the next at least. */
const stride = 130;

/** Thin 1 has a dozen leaves, and a transaction has blocks for copies of a part of them. The data device flushes when told. */
function tight(): MetadataBench {
  const bench = MetadataBench.withMapped(mapped, { metadataBlocks: 36 });
  bench.data.holds.add("flush");
  return bench;
}

/** Inserts into one leaf after the other until an insert is not done. */
function fill(bench: MetadataBench): { readonly answer: { readonly kind: string }[]; readonly at: number } {
  for (let at = 0; at < mapped; at += stride) {
    const answer = bench.insert(at);
    if (answer[0]?.kind !== "done") return { answer, at };
  }
  throw new Error("there is a block for every leaf");
}

function kindsOf(...answers: readonly { readonly kind: string }[][]): string[] {
  return answers.map((each) => each[0]?.kind ?? "open");
}

/** A slice of a change that creates a thin device. */
function sliceOf(thin: number, hasMore: boolean): Omit<Change, "type" | "replyTo" | "reply"> {
  return { create: [thinId(thin)], snapshots: [], tick: false, transactionId: 1n, hasMore };
}

Deno.test("an insert without a free metadata block waits for the commit that gives back what was freed", () => {
  const bench = tight();
  const { answer } = fill(bench);
  assertEquals([kindsOf(answer), bench.data.heldCount], [["open"], 1]);
  bench.finish(bench.data);
  assertEquals([kindsOf(answer), bench.space.take()], [["done"], []]);
});

Deno.test("where many inserts lack a metadata block, each commit serves some, and none is refused", () => {
  const bench = MetadataBench.withMapped(3000, { metadataBlocks: 44 });
  bench.data.holds.add("flush");
  const answers = Array.from({ length: 23 }, (_, leaf) => bench.insert(leaf * stride));
  let commits = 0;
  for (; kindsOf(...answers).includes("open"); commits += 1) {
    assertEquals(bench.data.heldCount, 1);
    bench.finish(bench.data, 1);
  }
  assertEquals([new Set(kindsOf(...answers)), commits > 1], [new Set(["done"]), true]);
});

Deno.test("a removal that has used up the headroom waits for the commit too", () => {
  const bench = tight();
  fill(bench);
  let answer: { readonly kind: string }[] = [];
  for (let at = 1; at < mapped; at += stride) {
    answer = bench.ask(bench.stub.removeRange(one, vblock(at), vblock(at + 1)));
    if (answer.length === 0) break;
  }
  assertEquals(kindsOf(answer), ["open"]);
  bench.finish(bench.data);
  assertEquals(kindsOf(answer), ["removed"]);
});

Deno.test("inserts queue behind an operation that waits for space, and removals pass it", () => {
  const bench = MetadataBench.withMapped(mapped, { metadataBlocks: 46 });
  bench.data.holds.add("flush");
  bench.insert(0);
  const create = Array.from({ length: 11 }, (_, made) => thinId(2 + made));
  const change = bench.ask(bench.stub.change({ ...sliceOf(2, false), create }));
  // There is enough for this one; then there would not be for the change.
  const insert = bench.insert(0);
  const removal = bench.ask(bench.stub.removeRange(one, vblock(1), vblock(2)));
  assertEquals(kindsOf(change, insert, removal), ["open", "open", "removed"]);
  while (bench.data.heldCount > 0) bench.finish(bench.data);
  // The change took what there was.
  assertEquals(kindsOf(change, insert), ["done", "noMetadataSpace"]);
});

Deno.test("an insert is refused, with no commit in vain, when a commit has nothing to give back", () => {
  const bench = MetadataBench.withMapped(mapped, { metadataBlocks: 40 });
  for (let thin = 2; bench.ask(bench.stub.change(sliceOf(thin, false)))[0]?.kind === "done"; thin += 1) {
    bench.commit();
  }
  bench.commit();
  bench.insert(0); // Reads its blocks.
  bench.log.length = 0;
  assertEquals([kindsOf(bench.insert(0)), bench.log], [["noMetadataSpace"], []]);
});

Deno.test("a command that finds no free metadata block waits for the commit, and a later slice of one is refused", () => {
  const bench = tight();
  fill(bench);
  bench.finish(bench.data);
  fill(bench);
  const first = bench.ask(bench.stub.change(sliceOf(2, true)));
  assertEquals(kindsOf(first), ["open"]);
  bench.finish(bench.data, 1);
  assertEquals(kindsOf(first), ["done"]);
  let answer = first;
  for (let thin = 3; answer[0]?.kind === "done"; thin += 1) {
    answer = bench.ask(bench.stub.change(sliceOf(thin, true)));
  }
  // The next commit would wait for the last slice.
  assert(bench.engine.metadataReleasable > 0);
  assertEquals(kindsOf(answer), ["noMetadataSpace"]);
});

Deno.test("those that wait for a commit are answered when it fails", () => {
  const bench = tight();
  bench.data.fails.add("flush");
  const { answer } = fill(bench);
  const behind = bench.insert(0);
  bench.finish(bench.data);
  assertEquals(kindsOf(answer, behind), ["poolFailed", "poolFailed"]);
});

Deno.test("those that wait for a commit are answered when damage ends all changes", () => {
  const bench = tight();
  const { answer } = fill(bench);
  const behind = bench.insert(0);
  bench.ask(bench.stub.reportMappedFree(dblock(3)));
  bench.finish(bench.data);
  assertEquals(kindsOf(answer, behind), ["readOnly", "readOnly"]);
});

Deno.test("an operation that ran alone lets the others go on when it waits for space, the freeze of its commit among them", () => {
  const waiting = new WaitingOperations(0);
  const attemptOf = (type: string): Attempt => ({ operation: { type } as Operation, misses: 0 });
  const [alone, freeze] = [attemptOf("insert"), attemptOf("freeze")];
  waiting.miss(alone, 7 as never);
  waiting.takeMissing(7 as never);
  waiting.delay(freeze);
  assertEquals(waiting.waitForSpace(alone), [freeze]);
  assertEquals([waiting.mustWait(freeze), waiting.takeSlowedDown()], [false, [alone]]);
});

Deno.test("the space watch is told of metadata blocks that a reader has kept until now", () => {
  const bench = MetadataBench.withMapped(mapped, { metadataBlocks: 36 });
  const held = bench.ask(bench.stub.holdCommit());
  bench.insert(0);
  assertEquals(bench.engine.metadataReleasable, 0);
  bench.commit();
  let at = 0;
  while (bench.insert(at)[0]?.kind === "done") at += stride;
  assertEquals([kindsOf(bench.insert(at)), bench.space.take()], [["noMetadataSpace"], []]);
  bench.stub.releaseCommit(held[0]!.hold);
  bench.world.runReady();
  assertEquals(bench.space.take(), [{ type: "spaceCame", need: "metadata" }]);
  assertEquals(kindsOf(bench.insert(at)), ["done"]);
});

Deno.test("the space watch is told when more metadata blocks are available than at the worst of several refusals", () => {
  // The bench for its peers.
  const { world, space, allocator, pool } = MetadataBench.withMapped(0);
  const engine = { metadataAvailable: 0 };
  const notices = new MetadataNotices(world.kernel, engine as unknown as ThinMetadata);
  notices.connect({
    type: "connect",
    space: space.address,
    allocator: allocator.address,
    pool: pool.address,
  });
  const refused = { type: "insert" } as Operation;
  notices.noteRefusal(refused);
  engine.metadataAvailable = 10;
  notices.noteRefusal(refused);
  engine.metadataAvailable = 8;
  notices.tellSpace();
  notices.tellSpace();
  world.runReady();
  assertEquals(space.take(), [{ type: "spaceCame", need: "metadata" }]);
});
