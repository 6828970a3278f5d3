/** The order of a command's steps, and what is undone when one of them fails. */
import { assertEquals } from "@std/assert";
import { geometryOf } from "../../storage/base/geometry.ts";
import { thinId } from "../../storage/base/ids.ts";
import type { Change, Revoke } from "../pool/thin_device_messages.ts";
import type { MetadataFailure } from "../pool/metadata_results.ts";
import { emptyPlan, ScriptedPeers } from "../../tests/support/scripted_peers.ts";
import type { ChangeCommand } from "./admin_command.ts";
import { removalTask } from "./removal_task.ts";
import { adminTask, change, finishDeletions, lookTask } from "./admin_task.ts";
import type { Admin, AdminEnded, AdminPlan, LookEnded, Settle } from "./pool_messages.ts";

const create: ChangeCommand = { verb: "create", name: "a", sizeBytes: 1 };
const full: MetadataFailure = { kind: "noMetadataSpace" };
const fullSentence =
  "The pool was not changed: the metadata is full; remove volumes or snapshots, or make it larger with `grow --metadata`.";

function planOf(more: Partial<AdminPlan>): AdminPlan {
  return { ...emptyPlan, ...more };
}

/** A plan of snapshots with thin ids from 1 on. */
function snapshotsOf(count: number): Partial<AdminPlan> {
  const snapshots = Array.from({ length: count }, (_, at) => ({ thin: thinId(at + 1), origin: thinId(99) }));
  return { snapshots, tick: true };
}

/** Carries out a command and gives its result. */
function resultOf(peers: ScriptedPeers, command: ChangeCommand = create): unknown {
  return peers.run(change(peers.peers, command));
}

Deno.test("a change is in the journal before it is in the metadata, and there before it is committed", () => {
  const peers = new ScriptedPeers();
  assertEquals(resultOf(peers), { kind: "done" });
  assertEquals(peers.order, ["plan", "appendLine", "change", "commit", "settle"]);
});

Deno.test("a command's result is told to the pool when the command has ended", () => {
  const peers = new ScriptedPeers();
  peers.run(adminTask(peers.peers, create));
  assertEquals(peers.order.at(-1), "adminEnded");
  assertEquals(peers.sent<AdminEnded>("adminEnded")[0]?.result, { kind: "done" });
});

Deno.test("a command that is refused when it is planned touches neither journal nor metadata", () => {
  const peers = new ScriptedPeers().answer("plan", { kind: "refused", reason: "No." });
  assertEquals(resultOf(peers), { kind: "refused", reason: "No." });
  assertEquals(peers.order, ["plan"]);
});

Deno.test("a plan that takes several slices is asked for again until it is whole", () => {
  const peers = new ScriptedPeers().answer("plan", { kind: "more" }, { kind: "more" }, emptyPlan);
  assertEquals(resultOf(peers), { kind: "done" });
  assertEquals(peers.order.slice(0, 4), ["plan", "plan", "plan", "appendLine"]);
});

Deno.test("a line that cannot be appended leaves the metadata alone, and the staged change is abandoned", () => {
  const result = { kind: "ioError", reason: "a bad block" };
  const peers = new ScriptedPeers().answer("appendLine", { result, isLong: false });
  assertEquals(resultOf(peers), {
    kind: "refused",
    reason: "The pool was not changed: writing the catalogue failed: a bad block.",
  });
  assertEquals(peers.order, ["plan", "appendLine", "settle"]);
  assertEquals(peers.sent<Settle>("settle")[0]?.isKept, false);
});

Deno.test("a line that has no room is tried again after the journal was rewritten", () => {
  const peers = new ScriptedPeers().answer("appendLine", { result: { kind: "noSpace" }, isLong: false });
  assertEquals(resultOf(peers), { kind: "done" });
  assertEquals(peers.order, [
    "plan",
    "appendLine",
    "askPiece",
    "finishRewrite",
    "appendLine",
    "change",
    "commit",
    "settle",
  ]);
});

Deno.test("a line that has no room after a rewrite either refuses the command", () => {
  const noRoom = { result: { kind: "noSpace" }, isLong: false };
  const peers = new ScriptedPeers().answer("appendLine", noRoom, noRoom);
  assertEquals(resultOf(peers), {
    kind: "refused",
    reason:
      "The pool was not changed: the host is full, and what room there is in the catalogue is kept for removing. " +
      "Remove volumes or snapshots, or make room on the host.",
  });
  assertEquals(peers.order.includes("change"), false);
});

Deno.test("a change that the metadata refuses is taken back from the journal, and nothing is committed", () => {
  const peers = new ScriptedPeers().answer("change", full);
  assertEquals(resultOf(peers), { kind: "refused", reason: fullSentence });
  assertEquals(peers.order, ["plan", "appendLine", "change", "retractLine", "settle"]);
  assertEquals(peers.sent<Settle>("settle")[0]?.isKept, false);
});

Deno.test("a line that cannot be taken back is named in the result", () => {
  const peers = new ScriptedPeers().answer("change", full)
    .answer("retractLine", { kind: "ioError", reason: "a bad block" });
  assertEquals(resultOf(peers), {
    kind: "refused",
    reason: `${fullSentence} Taking back its line in the catalogue failed too: a bad block.`,
  });
});

Deno.test("a change whose commit fails is not taken back: the pool has failed, and a restart decides", () => {
  const peers = new ScriptedPeers().answer("commit", { kind: "poolFailed" });
  assertEquals(resultOf(peers), {
    kind: "refused",
    reason: "The change is not durable: the pool has failed; restart it.",
  });
  assertEquals(peers.order.includes("retractLine"), false);
  assertEquals(peers.sent<Settle>("settle").map(({ isKept }) => isKept), [true]);
});

Deno.test("volumes are flushed, then quiet, before their thin devices change", () => {
  const peers = new ScriptedPeers();
  peers.answer("plan", planOf({ quiesce: [peers.volume], quietUntil: "devices", ...snapshotsOf(1) }));
  assertEquals(resultOf(peers), { kind: "done" });
  assertEquals(
    peers.order,
    ["plan", "appendLine", "commit", "suspend", "change", "cutMade", "commit", "settle"],
  );
});

Deno.test("a volume that gets another device stays quiet until that is durable", () => {
  const peers = new ScriptedPeers();
  peers.answer("plan", planOf({ quiesce: [peers.volume], ...snapshotsOf(1) }));
  assertEquals(resultOf(peers), { kind: "done" });
  assertEquals(peers.order.slice(-3), ["change", "commit", "settle"]);
});

Deno.test("where the flush before a snapshot fails, no volume is suspended and the line is taken back", () => {
  const peers = new ScriptedPeers();
  peers.answer("plan", planOf({ quiesce: [peers.volume], ...snapshotsOf(1) }));
  peers.answer("commit", { kind: "poolFailed" });
  assertEquals(resultOf(peers), {
    kind: "refused",
    reason: "The pool was not changed: the pool has failed; restart it.",
  });
  assertEquals(peers.order, ["plan", "appendLine", "commit", "retractLine", "settle"]);
});

Deno.test("a new size shows only after its commit", () => {
  const peers = new ScriptedPeers();
  assertEquals(resultOf(peers, { verb: "resize", name: "a", sizeBytes: 2 }), { kind: "done" });
  assertEquals(peers.order, ["plan", "appendLine", "change", "commit", "settle"]);
});

Deno.test("the clients of a removed volume have left before anything of it is written", () => {
  const peers = new ScriptedPeers().answer("plan", planOf({ evict: ["uid"] }));
  assertEquals(resultOf(peers), { kind: "done" });
  assertEquals(peers.order.slice(0, 3), ["plan", "evict", "appendLine"]);
});

Deno.test("the pool is told that the journal is long only after the commit of its last line", () => {
  const long = { result: { kind: "ok" }, isLong: true };
  const peers = new ScriptedPeers().answer("appendLine", long);
  resultOf(peers);
  assertEquals(peers.order.slice(-3), ["commit", "journalLong", "settle"]);
  const failed = new ScriptedPeers().answer("appendLine", long).answer("commit", { kind: "poolFailed" });
  resultOf(failed);
  assertEquals(failed.order.includes("journalLong"), false);
});

Deno.test("many snapshots are made in slices of one instant, and only the last slice lets a commit begin", () => {
  const peers = new ScriptedPeers({ sliceRecords: 10, sliceDevices: 2, sliceDevicesMax: 2 });
  peers.answer("plan", planOf({ ...snapshotsOf(5), create: [thinId(50)] }));
  assertEquals(resultOf(peers), { kind: "done" });
  const slices = peers.sent<Change>("change");
  assertEquals(slices.map(({ snapshots }) => snapshots.length), [2, 2, 1]);
  assertEquals(slices.map(({ tick }) => tick), [true, false, false]);
  assertEquals(slices.map(({ create }) => create.length), [1, 0, 0]);
  assertEquals(slices.map(({ hasMore }) => hasMore), [true, true, false]);
});

Deno.test("a change that finds no space half way is revoked, with its line and its transaction id", () => {
  const peers = new ScriptedPeers({ sliceRecords: 10, sliceDevices: 2, sliceDevicesMax: 2 });
  peers.answer("plan", planOf({ ...snapshotsOf(5), create: [thinId(50)] }));
  peers.answer("change", { kind: "done" }, { kind: "done" }, full);
  assertEquals(resultOf(peers), { kind: "refused", reason: fullSentence });
  const revoked = peers.sent<Revoke>("revoke");
  assertEquals(revoked.flatMap(({ thins }) => thins), [1, 2, 3, 4, 50].map(thinId));
  assertEquals(revoked.map(({ hasMore }) => hasMore), [true, true, false]);
  assertEquals(revoked.map(({ transactionId }) => transactionId), [7n, 7n, 7n]);
  assertEquals(peers.order.slice(-2), ["retractLine", "settle"]);
});

Deno.test("a change that fails for another reason than space is not revoked, because no commit can follow", () => {
  const peers = new ScriptedPeers({ sliceRecords: 10, sliceDevices: 2, sliceDevicesMax: 2 });
  peers.answer("plan", planOf(snapshotsOf(5)));
  peers.answer("change", { kind: "done" }, { kind: "damaged", reason: "a block" });
  assertEquals(resultOf(peers), { kind: "refused", reason: "The pool was not changed: a block." });
  assertEquals(peers.order.includes("revoke"), false);
});

const deletions = [{ uid: "u", thinId: thinId(3) }];

Deno.test("the pool is told to delete thin devices after the commit of their removal, and the command ends", () => {
  const peers = new ScriptedPeers().answer("plan", planOf({ deletions }));
  assertEquals(resultOf(peers), { kind: "done" });
  assertEquals(peers.order.slice(3), ["commit", "settle", "removeDevices"]);
});

Deno.test("behind the commands thin devices are deleted slice by slice, and their records are forgotten after that", () => {
  const peers = new ScriptedPeers().answer("deleteSlice", { kind: "deleted", gone: false });
  peers.answer("mayRemove", true, true).answer("forgetRemoved", { kind: "done" });
  // No volume is owed anything, so nothing is counted.
  peers.answer("facts", { dataOwed: 0 });
  peers.run(removalTask(peers.peers, deletions));
  assertEquals(peers.order, [
    "device",
    "mayRemove",
    "deleteSlice",
    "mayRemove",
    "deleteSlice",
    "forgetRemoved",
    "reclaim",
    "facts",
    "removalTaskEnded",
  ]);
});

Deno.test("behind the commands nothing more is deleted when the pool is to stop", () => {
  const peers = new ScriptedPeers().answer("mayRemove", false);
  peers.run(removalTask(peers.peers, deletions));
  assertEquals(peers.order, ["device", "mayRemove", "removalTaskEnded"]);
});

Deno.test("a removal whose commit fails deletes no thin device", () => {
  const peers = new ScriptedPeers().answer("plan", planOf({ deletions }));
  peers.answer("commit", { kind: "poolFailed" });
  resultOf(peers);
  assertEquals(peers.order.includes("removeDevices"), false);
});

Deno.test("a deletion that finds no space says that the removal itself is done", () => {
  const peers = new ScriptedPeers().answer("deleteSlice", full);
  assertEquals(peers.run(finishDeletions(peers.peers, deletions)), {
    kind: "refused",
    reason:
      "The change is made, but not all space came back: the metadata is full; remove volumes or snapshots, or make it larger with `grow --metadata`.",
  });
  assertEquals(peers.order.includes("plan"), false, "the record stays, so the next start deletes the device");
});

Deno.test("a thin device that is gone already is forgotten without being deleted", () => {
  const peers = new ScriptedPeers().answer("device", { kind: "noDevice" });
  assertEquals(peers.run(finishDeletions(peers.peers, deletions)), { kind: "done" });
  assertEquals(peers.order.includes("deleteSlice"), false);
});

Deno.test("a last step that fails says that the change itself is made", () => {
  const peers = new ScriptedPeers().answer("plan", { kind: "refused", reason: "No." });
  assertEquals(peers.run(finishDeletions(peers.peers, deletions)), {
    kind: "refused",
    reason: "The change is made, but its last step failed, and the next start repeats it: No.",
  });
});

const fill = { usedBytes: 0, totalBytes: 65536 };

Deno.test("a command that looks tells the pool which one has ended, and changes nothing", () => {
  const peers = new ScriptedPeers().answer("registry", {
    kind: "registry",
    isChanging: false,
    mode: "write",
    trouble: null,
    records: [],
    attached: new Map(),
  }).answer("facts", {
    kind: "facts",
    geometry: geometryOf({ blockSizeBytes: 65536, dataBlocks: 1, metadataBlocks: 1 }),
    intents: { kind: "none" },
  }).answer("gauge", {
    measure: { data: fill, metadata: fill, host: undefined, space: { short: [], parked: 0 } },
    low: [],
  });
  const look = { type: "admin", command: { verb: "status" }, out: undefined } as unknown as Admin;
  peers.run(lookTask(peers.peers, look));
  assertEquals(peers.order, ["registry", "facts", "gauge", "lookEnded"]);
  assertEquals(peers.sent<LookEnded>("lookEnded")[0]?.look === look, true);
});
