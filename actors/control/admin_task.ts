/**
 * Admin commands as message sequences. Those that change something run one at a time.
 *
 * Order of a change: 1. append the line to the catalogue's journal, durably; 2. change thin devices and transaction id in
 * the metadata; 3. commit. If we stop before the commit is durable, the superblock has the old id, and the next start drops
 * the line. If we stop after it, the superblock has the line's id, and the line holds. So catalogue and metadata agree.
 */
import { type IoResult, reasonOfIo } from "../../storage/device/port.ts";
import { vblock } from "../../storage/base/ids.ts";
import type { AdminCommand, AdminResult } from "./admin_command.ts";
import type { AdminPeers } from "./admin_peers.ts";
import { deleteDevices } from "./removal_task.ts";
import { rewriteCatalogue } from "./catalogue_rewrite.ts";
import type { Appended } from "./catalogue_journal.ts";
import { done, reasonOfFailure, refused } from "./admin_outcome.ts";
import { checkPool, dumpPool, poolStatus } from "./admin_reports.ts";
import { reserveCounted } from "./count_own.ts";
import { growPool, rescanDevices } from "./pool_growth.ts";
import { join, rest, type Steps } from "../kernel/task.ts";
import type { Address } from "../kernel/address.ts";
import type { Done, MetadataFailure } from "../pool/metadata_results.ts";
import type {
  Admin,
  AdminPlan,
  Deletion,
  LifetimeCommand,
  PlanRefused,
  PlanStep,
  Trim,
} from "./pool_messages.ts";
import { poolSpace, volumeTree } from "./space_reports.ts";
import type { TextOutMessage } from "./text_out.ts";
import { freedBy, listVolumes } from "./volume_list.ts";
import { removeMappings } from "../volume/remap.ts";
import { zeroTail } from "../volume/zero_tail.ts";

/** Carries out a command and tells the pool. */
export function* adminTask(peers: AdminPeers, command: AdminCommand | LifetimeCommand): Steps<void> {
  const result = yield* perform(peers, command);
  peers.kernel.tell(peers.pool.address, { type: "adminEnded", result });
}

/** Carries out a command that only looks, and tells the pool. */
export function* lookTask(peers: AdminPeers, look: Admin): Steps<void> {
  const result = yield* perform(peers, look.command, look.out);
  peers.kernel.tell(peers.pool.address, { type: "lookEnded", look, result });
}

/** The flag is of the superblock on disk, which the pool that has it open would write again from memory. */
const isOpen = refused(
  "Cannot clear needs_check: a process has the pool open. Stop it, and run `check --clear-needs-check` then.",
);

function* perform(
  peers: AdminPeers,
  command: AdminCommand | LifetimeCommand,
  out?: Address<TextOutMessage>,
): Steps<AdminResult> {
  switch (command.verb) {
    case "list":
      return yield* listVolumes(peers, command);
    case "tree":
      return yield* volumeTree(peers, command);
    case "df":
      return yield* poolSpace(peers, command);
    case "status":
      return yield* poolStatus(peers);
    case "check":
      return command.clearNeedsCheck === true ? isOpen : yield* checkPool(peers);
    case "dump":
      return yield* dumpPool(peers, out);
    case "grow":
      return yield* growPool(peers, command);
    case "rescan":
      return yield* rescanDevices(peers);
    case "reserve":
      if (command.reserveBytes === null) return yield* change(peers, command);
      return yield* reserveCounted(peers, command.name, () => change(peers, command));
    case "rm":
      if (command.dryRun) return yield* freedBy(peers, command);
      return yield* change(peers, command);
    case "rollback":
      return yield* withExclusiveBytes(peers, yield* change(peers, command));
    default:
      return yield* change(peers, command);
  }
}

/** Adds to the result of a rollback what the snapshot that it kept holds alone. */
function* withExclusiveBytes(peers: AdminPeers, result: AdminResult): Steps<AdminResult> {
  if (result.kind !== "rolledBack") return result;
  const freed = yield* freedBy(peers, { verb: "rm", names: [result.kept], dryRun: true, force: false });
  return { ...result, exclusiveBytes: freed.kind === "wouldFree" ? freed.bytes : null };
}

/** A change: planned by the pool, made durable, and finished (trims) after that. Devices are deleted behind it. */
export function* change(peers: AdminPeers, step: PlanStep): Steps<AdminResult> {
  const plan = yield* planned(peers, step);
  const unchanged = unchangedBy(step);
  if (plan.kind === "refused") {
    return unchanged === notChanged ? plan : refused(`${unchanged}: ${plan.reason}`);
  }
  if (plan.evict.length > 0) yield* peers.pool.evict(plan.evict);
  const applied = yield* applyPlan(peers, plan, unchanged);
  if (applied.kind !== "done") return applied;
  const trimmed = yield* finishTrims(peers, plan.trims);
  if (trimmed.kind !== "done") return trimmed;
  const { deletions } = plan;
  // The names are durably gone. The space comes back behind the command.
  if (deletions.length > 0) peers.kernel.tell(peers.pool.address, { type: "removeDevices", deletions });
  return plan.result;
}

/** Plans a step in slices; between two of them all other turns go first. */
function* planned({ pool }: AdminPeers, step: PlanStep): Steps<AdminPlan | PlanRefused> {
  for (;;) {
    const plan = yield* pool.plan(step);
    if (plan.kind !== "more") return plan;
    yield* rest();
  }
}

function* settled({ pool }: AdminPeers, isKept: boolean): Steps<void> {
  while ((yield* pool.settle(isKept)) === "more") yield* rest();
}

const notChanged = "The pool was not changed";
const notDurable = "The change is not durable";

/** Begins the sentence about a step that failed. The steps that finish a command fail after the command itself is done. */
function unchangedBy(step: PlanStep): string {
  if (step.verb !== "forget" && step.verb !== "trimmed") return notChanged;
  return "The change is made, but its last step failed, and the next start repeats it";
}

/**
 * Makes a plan durable. The snapshots of one plan are one point in time: every volume they are taken of is quiet
 * while the thin devices are made, and continues directly afterwards; its next write to a block breaks sharing.
 */
function* applyPlan(peers: AdminPeers, plan: AdminPlan, unchanged: string): Steps<AdminResult> {
  const { metadata } = peers.thin;
  const { result: appended, isLong } = yield* appendLine(peers, plan);
  tellOfCatalogue(peers, appended);
  if (appended.kind !== "ok") {
    // The line is not in the file, or the file takes no more lines: the last line is that of an earlier change.
    yield* settled(peers, false);
    return refused(`${unchanged}: ${reasonOfAppend(appended)}`);
  }
  // Flush now, so that less is left to flush while writers wait. A commit and no bare flush, because a flush that fails
  // must fail the pool: the next flush would answer ok for data that the host has dropped.
  if (plan.quiesce.length > 0) {
    const early = yield* metadata.commit();
    if (early.kind !== "done") return yield* takeBack(peers, unchanged, reasonOfFailure(early));
  }
  yield* join("suspend", plan.quiesce.map((volume) => volume.suspend()));
  const changed = yield* changeDevices(peers, plan);
  if (changed.kind !== "done") return yield* takeBack(peers, unchanged, reasonOfFailure(changed));
  // From here on any commit makes the change durable; if none succeeds, the pool fails.
  // What only has a snapshot taken of it goes on now. What the change gives another device or size, and what it makes, is
  // there for clients after the commit only. If we stop before it, the new device does not exist, and a change of its
  // mappings that was acknowledged could not be replayed. And with a new size: what a client writes beyond the old end may
  // lie in a block that is mapped already; a later growth would show those bytes where nothing was written.
  if (plan.quietUntil !== "settled") peers.kernel.tell(peers.pool.address, { type: "cutMade" });
  const committed = yield* metadata.commit();
  if (isLong && committed.kind === "done") peers.kernel.tell(peers.pool.address, { type: "journalLong" });
  const zeroed = committed.kind === "done" ? yield* zeroTails(peers, plan.trims) : done;
  yield* settled(peers, true);
  return committed.kind === "done"
    ? zeroed
    : refused(`${unchanged === notChanged ? notDurable : unchanged}: ${reasonOfFailure(committed)}.`);
}

/**
 * Appends the line of a plan. Without room for it the journal is rewritten first, and the line is tried again. That is
 * allowed here, because all lines before this one are durable in the superblock.
 */
function* appendLine(peers: AdminPeers, plan: AdminPlan): Steps<Appended> {
  const appended = yield* peers.journal.append(plan.line, plan.room);
  if (appended.result.kind !== "noSpace") return appended;
  const rewritten = yield* rewriteCatalogue(peers);
  return rewritten.kind === "ok" ? yield* peers.journal.append(plan.line, plan.room) : appended;
}

/** Tells the log once that the catalogue takes no line. The command gets the reason as its result. */
function tellOfCatalogue({ kernel, refusals }: AdminPeers, appended: IoResult): void {
  if (appended.kind === "ok") return kernel.tell(refusals, { type: "served", what: "catalogue" });
  const detail = appended.kind === "noSpace"
    ? "the host has no space but what is kept for removing"
    : reasonOfIo(appended);
  kernel.tell(refusals, { type: "refused", what: "catalogue", detail });
}

function reasonOfAppend(result: Exclude<IoResult, { kind: "ok" }>): string {
  if (result.kind !== "noSpace") return `writing the catalogue failed: ${reasonOfIo(result)}.`;
  return "the host is full, and what room there is in the catalogue is kept for removing. " +
    "Remove volumes or snapshots, or make room on the host.";
}

/**
 * Changes the thin devices, in slices if there are thousands. No commit begins between the first slice and the last, so if we
 * stop there, the whole change is lost. A change that finds no space is taken back by as many slices.
 */
function* changeDevices(peers: AdminPeers, plan: AdminPlan): Steps<Done | MetadataFailure> {
  const { metadata } = peers.thin;
  const { create, snapshots, tick, transactionId, allowances } = plan;
  const pace = new ChangePace(peers, snapshots.length);
  let made = 0;
  for (;;) {
    const isFirst = made === 0;
    const slice = snapshots.slice(made, made + pace.devices);
    const hasMore = made + slice.length < snapshots.length;
    const changed = yield* metadata.change({
      create: isFirst ? create : [],
      snapshots: slice,
      // All snapshots are of one instant.
      tick: isFirst && tick,
      transactionId,
      ...(hasMore || allowances.length === 0 ? {} : { allowances }),
      hasMore,
    });
    if (changed.kind !== "done") {
      // After any failure other than missing space the pool writes no more, so no part of the change becomes durable.
      const isUndone = changed.kind === "noMetadataSpace" || changed.kind === "reserved";
      if (!isUndone || isFirst) return changed;
      const revoked = yield* revokeDevices(peers, plan, made);
      return revoked.kind === "done" ? changed : revoked;
    }
    made += slice.length;
    if (!hasMore) return changed;
    if (isFirst && plan.quietUntil === "firstSlice") {
      peers.kernel.tell(peers.pool.address, { type: "cutMade" });
    }
    pace.made(made);
  }
}

/** Takes back the first `made` snapshots of a plan, and what it created. */
function* revokeDevices(peers: AdminPeers, plan: AdminPlan, made: number): Steps<Done | MetadataFailure> {
  const thins = [...plan.snapshots.slice(0, made).map(({ thin }) => thin), ...plan.create];
  const transactionId = plan.transactionId - 1n;
  for (let at = 0;;) {
    const slice = thins.slice(at, at + peers.kernel.knobs.sliceDevices);
    at += slice.length;
    const hasMore = at < thins.length;
    const revoked = yield* peers.thin.metadata.revoke({ thins: slice, transactionId, hasMore });
    if (revoked.kind !== "done" || !hasMore) return revoked;
  }
}

/** How many thin devices a slice of a change makes: more when little is left of the time for all slices. */
class ChangePace {
  devices: number;
  readonly #peers: AdminPeers;
  readonly #total: number;
  readonly #begunMs: number;

  constructor(peers: AdminPeers, total: number) {
    this.#peers = peers;
    this.#total = total;
    this.#begunMs = peers.kernel.clock.now();
    this.devices = peers.kernel.knobs.sliceDevices;
  }

  /** To be told after each slice how many devices are made. */
  made(devices: number): void {
    const { clock, knobs } = this.#peers.kernel;
    const passedMs = clock.now() - this.#begunMs;
    const leftMs = Math.max(0, knobs.changeMsMax - passedMs);
    const isLate = (this.#total - devices) * passedMs > devices * leftMs;
    const wanted = isLate ? this.devices * 2 : this.devices / 2;
    this.devices = Math.min(knobs.sliceDevicesMax, Math.max(knobs.sliceDevices, wanted));
  }
}

/**
 * Zeroes the rest of the last block of volumes that became smaller. Only after the new size is durable: if we stopped in
 * between in the other order, the volume would have its old size and would have lost its end. The volumes are quiet meanwhile.
 */
export function* zeroTails(peers: AdminPeers, trims: readonly Trim[]): Steps<AdminResult> {
  for (const trim of trims) {
    const status = yield* zeroTail(peers.kernel, { ...peers.thin, id: trim.thinId }, trim.fromBytes);
    if (status === "ok" || status === "hole") continue;
    return refused(
      `The volume is smaller, but zeroing what lies beyond its end failed: ${status}. Until a restart has done it, the ` +
        "volume keeps its size; free some space first.",
    );
  }
  return done;
}

function* takeBack(peers: AdminPeers, unchanged: string, reason: string): Steps<AdminResult> {
  const taken = yield* peers.journal.retract();
  yield* settled(peers, false);
  const more = taken.kind === "ok"
    ? ""
    : ` Taking back its line in the catalogue failed too: ${reasonOfIo(taken)}.`;
  return refused(`${unchanged}: ${reason}.${more}`);
}

/** Deletes devices before anything else goes on, as a start does that needs their space. */
export function* finishDeletions(peers: AdminPeers, deletions: readonly Deletion[]): Steps<AdminResult> {
  if (deletions.length === 0) return done;
  using _removal = peers.thin.space.removal();
  const deleted = yield* deleteDevices(peers, deletions, false);
  if (deleted.kind !== "done") return deleted;
  const forgotten = yield* change(peers, { verb: "forget", uids: deletions.map(({ uid }) => uid) });
  if (forgotten.kind !== "done") return forgotten;
  yield* peers.thin.allocator.reclaim();
  return done;
}

/** Drops the records of devices that are deleted, and tells the pool. */
export function* forgetTask(peers: AdminPeers, uids: readonly string[]): Steps<void> {
  const result = yield* change(peers, { verb: "forget", uids });
  peers.kernel.tell(peers.pool.address, { type: "adminEnded", result });
}

/** Removes the blocks beyond the end of volumes that became smaller; no client can reach those blocks any more. */
export function* finishTrims(peers: AdminPeers, trims: readonly Trim[]): Steps<AdminResult> {
  for (const trim of trims) {
    using _removal = peers.thin.space.removal();
    const first = vblock(Math.ceil(trim.fromBytes / peers.thin.blockSizeBytes));
    const removed = yield* removeMappings({ ...peers.thin, id: trim.thinId }, first, vblockEnd);
    if (removed.kind !== "done") {
      return refused(`The volume is smaller, but not all space came back: ${reasonOfFailure(removed)}.`);
    }
    const trimmed = yield* change(peers, { verb: "trimmed", uid: trim.uid });
    if (trimmed.kind !== "done") return trimmed;
    yield* peers.thin.allocator.reclaim();
  }
  return done;
}

/** Past any virtual block a volume of 2^53 bytes can have. */
const vblockEnd = vblock(2 ** 44);

/** The next step where metadata is damaged. */
export const adviceOnDamage =
  "`check` names all damage; `thin_repair` can rebuild the metadata into another file.";
