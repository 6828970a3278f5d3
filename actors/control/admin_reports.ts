/** Admin commands that only look: they read the blocks of the last durable commit, which are kept meanwhile. */
import { checkMetadata } from "../../storage/check.ts";
import { dumpMetadata } from "../../storage/dump.ts";
import type { AdminResult, PoolStatus } from "./admin_command.ts";
import type { AdminPeers } from "./admin_peers.ts";
import type { Address } from "../kernel/address.ts";
import {
  commitFirst,
  type CommitReader,
  readerOfCommit,
  readHeldBlock,
  runWalk,
  seeCheck,
} from "./held_walk.ts";
import { SliceEnd } from "../../storage/slices.ts";
import { rest, type Steps } from "../kernel/task.ts";
import type { Fill, SpaceLevels } from "../pool/gauge_messages.ts";
import type { SpaceNeed } from "../pool/space_messages.ts";
import { sendText, type TextOutMessage } from "./text_out.ts";
import type { Registry } from "./pool_messages.ts";

/** `status`: the pool's mode and how full it is. */
export function* poolStatus(peers: AdminPeers): Steps<AdminResult> {
  const registry = yield* peers.pool.registry();
  const facts = yield* peers.thin.metadata.facts();
  const { geometry } = facts;
  const space = yield* peers.thin.space.facts();
  const levels = yield* peers.gauge.gauge(facts, space);
  const { data, metadata, host } = levels.measure;
  return {
    kind: "status",
    status: {
      mode: registry.mode,
      transaction_id: Number(facts.transactionId),
      block_size_bytes: geometry.blockSizeBytes,
      data_total_bytes: data.totalBytes,
      data_used_bytes: data.usedBytes,
      data_reserved_bytes: facts.dataOwed * geometry.blockSizeBytes,
      metadata_total_bytes: metadata.totalBytes,
      metadata_used_bytes: metadata.usedBytes,
      volumes: registry.records.reduce((count, { deleting }) => deleting ? count : count + 1, 0),
      attached: [...registry.attached.values()].reduce((sum, clients) => sum + clients, 0),
      trouble: registry.trouble,
      ...spaceWords(levels),
      host_free_bytes: host === undefined ? null : host.totalBytes - host.usedBytes,
      ...(yield* removingOf(peers, registry)),
      parked: space.parked,
      reason: sentenceOf(registry),
      intent_journal: facts.intents.kind,
      intent_journal_reason: facts.intents.reason,
      intent_journal_waiting: facts.intents.waiting,
    },
  };
}

/** The removals under way. */
function* removingOf(
  { kernel, thin }: AdminPeers,
  { records }: Registry,
): Steps<Pick<PoolStatus, "removing" | "removing_bytes">> {
  let [removing, blocks] = [0, 0];
  const end = new SliceEnd(kernel.knobs.sliceRecords);
  for (const { thinId, deleting } of records) {
    if (end.isDue()) yield* rest();
    if (deleting !== true) continue;
    removing += 1;
    const device = yield* thin.metadata.device(thinId);
    if (device.kind === "device") blocks += device.mappedBlocks;
  }
  return { removing, removing_bytes: blocks * thin.blockSizeBytes };
}

/** How full the devices and the host are. */
function spaceWords(
  { measure: { data, metadata, host, space: { short } }, low }: SpaceLevels,
): Pick<PoolStatus, "data" | "metadata" | "host"> {
  const wordOf = (need: SpaceNeed, { usedBytes, totalBytes }: Fill) =>
    short.includes(need) || usedBytes === totalBytes ? "full" : low.includes(need) ? "low" : "ok";
  return {
    data: short.includes("host") ? "host-full" : wordOf("data", data),
    metadata: wordOf("metadata", metadata),
    host: host === undefined ? null : wordOf("host", host),
  };
}

function sentenceOf({ mode, trouble, reason }: Registry): string | null {
  if (reason === null) return null;
  if (trouble !== null) return `The pool writes no more: ${trouble}.`;
  const next = mode === "out-of-metadata-space"
    ? "Remove volumes or snapshots, or make the metadata larger: `grow --metadata +SIZE`."
    : "Trim or remove something, or make the pool larger: `grow +SIZE`. If the host is full, make room there.";
  return `Writes that need space wait or fail: ${reason}. ${next}`;
}

/** `check` of a pool that is being served: the last durable commit is checked while changes go on. */
export function* checkPool(peers: AdminPeers): Steps<AdminResult> {
  yield* commitFirst(peers);
  const reader = yield* readerOfCommit(peers);
  const report = yield* runWalk(peers, reader, checkMetadata({ deviceBlocks: reader.metadataBlocks }));
  peers.thin.metadata.releaseCommit(reader.hold);
  const { intents: { waiting } } = yield* peers.thin.metadata.facts();
  const notes = waiting === 0
    ? report.notes
    : [...report.notes, `${waiting} changes wait in the intent journal; \`status\` says why.`];
  return { kind: "checked", problems: report.problems, notes, waiting };
}

/** `dump` of a pool that is being served: the last durable commit, as thin_dump writes it. */
export function* dumpPool(
  peers: AdminPeers,
  out: Address<TextOutMessage> | undefined,
): Steps<AdminResult> {
  yield* commitFirst(peers);
  const reader = yield* readerOfCommit(peers);
  const result = yield* dumpCommit(peers, reader, out);
  peers.thin.metadata.releaseCommit(reader.hold);
  return result;
}

function* dumpCommit(
  peers: AdminPeers,
  reader: CommitReader,
  out: Address<TextOutMessage> | undefined,
): Steps<AdminResult> {
  const dump = dumpMetadata();
  let step = dump.next();
  while (!step.done) {
    if (step.value.kind === "read") {
      step = dump.next(yield* readHeldBlock(peers, reader, step.value.block));
      continue;
    }
    const taken = out === undefined ? "taken" : yield* sendText(out, step.value.text);
    if (taken === "gone") return { kind: "refused", reason: "The dump broke off: its reader went away." };
    step = dump.next();
  }
  if (step.value.kind === "whole") return { kind: "done" };
  return {
    kind: "refused",
    reason: `Cannot dump the metadata: it is damaged. ${step.value.sentence} ${seeCheck}`,
  };
}
