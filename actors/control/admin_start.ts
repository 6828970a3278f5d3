/**
 * The first and the last task of a pool. The start loads the metadata, gives records to thin devices that another program
 * made, and finishes what a crash interrupted; the stop commits.
 */
import type { ThinId } from "../../storage/base/ids.ts";
import type { Steps } from "../kernel/task.ts";
import type { AdminResult } from "./admin_command.ts";
import type { AdminPeers, PoolPeers } from "./admin_peers.ts";
import { withBlockSize } from "./pool_geometry.ts";
import { AllowanceStub } from "../pool/allowance_messages.ts";
import { countReserved } from "./count_own.ts";
import { allowancesOf } from "./plan_allowances.ts";
import { adoptedSizeBytes } from "./plan_checks.ts";
import { done, reasonOfFailure, refused } from "./admin_outcome.ts";
import { adviceOnDamage, change, finishDeletions, finishTrims, zeroTails } from "./admin_task.ts";
import type { Deletion, FoundDevice, Reconcile, Registry, Trim } from "./pool_messages.ts";

/** What the start of a pool does before it serves: load, reconcile, and finish what a crash interrupted. */
export function* startTask(peers: PoolPeers): Steps<void> {
  const result = yield* startSteps(peers);
  peers.kernel.tell(peers.pool.address, { type: "adminEnded", result });
}

function* startSteps(actors: PoolPeers): Steps<AdminResult> {
  const loaded = yield* actors.thin.metadata.load();
  if (loaded.kind !== "done") {
    return refused(`Cannot open the pool: ${reasonOfFailure(loaded)}. ${adviceOnDamage}`);
  }
  const peers = withBlockSize(actors, yield* actors.pool.geometry());
  const reconciled = yield* reconcile(peers);
  if (reconciled.kind !== "done") return reconciled;
  const registry = yield* peers.pool.registry();
  // Before any client is let in. How much of a reserve is used is counted below; until then all of it counts as owed.
  const allowances = registry.records.flatMap((record) => record.deleting ? [] : allowancesOf(record));
  new AllowanceStub(peers.kernel, peers.thin.metadata.address).set(allowances);
  if (peers.readOnly) {
    // Only for `status`: what interrupted work would give back is not owed.
    yield* countReserved(peers);
    return done;
  }
  const { deletions, trims } = interruptedIn(registry);
  // Work that cannot be finished is logged, and tried again at the next start. The pool opens all the same: a full pool must
  // open so that space can be freed, and a damaged one so that the rest can be read.
  // Deletions come first where a volume became smaller: they may free the space that zeroing a tail in a shared block
  // needs. Otherwise they go on behind the commands.
  if (trims.length > 0) {
    const deleted = yield* finishDeletions(peers, deletions);
    if (deleted.kind === "refused") peers.log(deleted.reason);
  } else if (deletions.length > 0) {
    peers.kernel.tell(peers.pool.address, { type: "removeDevices", deletions });
  }
  for (const trim of trims) {
    const zeroed = yield* zeroTails(peers, [trim]);
    // The volume cannot grow before both are done.
    const trimmed = zeroed.kind === "refused" ? zeroed : yield* finishTrims(peers, [trim]);
    if (trimmed.kind === "refused") peers.log(trimmed.reason);
  }
  yield* countReserved(peers);
  return done;
}

/** Work that a stop has interrupted. */
function interruptedIn({ records }: Registry): {
  readonly deletions: readonly Deletion[];
  readonly trims: readonly Trim[];
} {
  const deletions: Deletion[] = [];
  const trims: Trim[] = [];
  for (const { uid, thinId, deleting, trimFromBytes: fromBytes, sizeBytes } of records) {
    if (deleting) deletions.push({ uid, thinId });
    else if (fromBytes !== undefined) trims.push({ uid, thinId, fromBytes, sizeBytes });
  }
  return { deletions, trims };
}

/** Gives a record to thin devices that another program made without changing the transaction id, and drops records of those it deleted. */
function* reconcile(peers: AdminPeers): Steps<AdminResult> {
  const { metadata } = peers.thin;
  const listed = yield* metadata.thins();
  const { records } = yield* peers.pool.registry();
  const thins = new Set(listed);
  const known = new Set<ThinId>();
  const lost: string[] = [];
  const lostNames: string[] = [];
  for (const record of records) {
    known.add(record.thinId);
    if (record.deleting || thins.has(record.thinId)) continue;
    lost.push(record.uid);
    lostNames.push(record.name);
  }
  const found: FoundDevice[] = [];
  for (const thinId of listed) {
    if (known.has(thinId)) continue;
    const device = yield* metadata.device(thinId);
    if (device.kind === "noDevice") continue;
    if (device.kind !== "device") {
      return refused(`Cannot open the pool: ${reasonOfFailure(device)}. ${adviceOnDamage}`);
    }
    found.push({ thinId, sizeBytes: adoptedSizeBytes(device.highest, peers.thin.blockSizeBytes) });
  }
  if (lost.length === 0 && found.length === 0) return done;
  const step: Reconcile = { verb: "reconcile", found, lost };
  if (peers.readOnly) yield* peers.pool.adopt(step);
  else {
    const changed = yield* change(peers, step);
    if (changed.kind !== "done") return changed;
  }
  if (found.length > 0) {
    const ids = some(found.map((device) => String(device.thinId)));
    peers.log(
      `Another program made thin devices in this pool: ${ids}. They are listed as volumes "thin-ID".`,
    );
  }
  if (lost.length > 0) {
    peers.log(
      `Another program deleted thin devices of this pool: ${some(lostNames)}. They are listed no more.`,
    );
  }
  return done;
}

/** The first ten of a list, and how many more there are, for a sentence. */
function some(names: readonly string[]): string {
  const shown = names.slice(0, 10).join(", ");
  return names.length <= 10 ? shown : `${shown} and ${names.length - 10} more`;
}

/** The end of a pool: a last commit, so that nothing acknowledged is lost. */
export function* stopTask(peers: PoolPeers): Steps<void> {
  let result: AdminResult = done;
  // A walk reads the metadata device, which is closed after the stop.
  yield* peers.figures.stop();
  if (!peers.readOnly) {
    const committed = yield* peers.thin.metadata.commit(true);
    if (committed.kind !== "done") {
      const { trouble } = yield* peers.pool.registry();
      const reason = trouble ?? reasonOfFailure(committed);
      result = refused(
        `The pool was closed without a last commit: ${reason}. What was not flushed since the one before is lost.`,
      );
    }
  }
  peers.kernel.tell(peers.pool.address, { type: "adminEnded", result });
}
