/**
 * What a removal leaves to do when its names are durably gone: the thin devices are deleted slice by slice, each a legal
 * transaction, and then their records are dropped. If we stop in between, the next start continues from there.
 */
import type { ThinId } from "../../storage/base/ids.ts";
import { SliceEnd } from "../../storage/slices.ts";
import type { AdminResult } from "./admin_command.ts";
import { done, reasonOfFailure, refused } from "./admin_outcome.ts";
import type { AdminPeers } from "./admin_peers.ts";
import { countReserved } from "./count_own.ts";
import { rest, type Steps } from "../kernel/task.ts";
import type { MetadataFailure } from "../pool/metadata_results.ts";
import type { Deletion } from "./pool_messages.ts";

/** Deletes devices behind the commands, one at a time, and rests between slices. It ends early when the pool is to stop. */
export function* removalTask(peers: AdminPeers, deletions: readonly Deletion[]): Steps<void> {
  const result = yield* removeBehind(peers, deletions);
  peers.kernel.tell(peers.pool.address, { type: "removalTaskEnded", result });
}

function* removeBehind(peers: AdminPeers, deletions: readonly Deletion[]): Steps<AdminResult> {
  // Writes without space wait for what comes back, in every mode.
  using _removal = peers.thin.space.removal();
  const deleted = yield* deleteDevices(peers, deletions, true);
  if (deleted.kind !== "done") return deleted;
  // A change of the catalogue, so it waits for the command that is carried out.
  const forgotten = yield* peers.pool.forgetRemoved(deletions.map(({ uid }) => uid));
  // Refused before it was tried, as when the pool is about to stop.
  if (forgotten.kind === "refused" && !forgotten.reason.startsWith(made)) {
    return refused(`${made}, but not its last step, which the next start does: ${forgotten.reason}`);
  }
  if (forgotten.kind === "done") yield* peers.thin.allocator.reclaim();
  yield* countReserved(peers);
  return forgotten;
}

/** Deletes devices. `isBehind`: the pool is asked before each slice, as it may be about to stop. */
export function* deleteDevices(
  peers: AdminPeers,
  deletions: readonly Deletion[],
  isBehind: boolean,
): Steps<AdminResult> {
  const end = new SliceEnd(peers.kernel.knobs.sliceDevices);
  for (const { thinId } of deletions) {
    const outcome = yield* deleteDevice(peers, thinId, isBehind);
    if (outcome === "stopping") {
      return refused(`${notAllBack}: the pool is being closed. The next start goes on.`);
    }
    if (outcome !== undefined) return refused(`${notAllBack}: ${reasonOfFailure(outcome)}.`);
    if (end.isDue()) yield* rest();
  }
  return done;
}

const made = "The change is made";
const notAllBack = `${made}, but not all space came back`;

function* deleteDevice(
  peers: AdminPeers,
  thinId: ThinId,
  isBehind: boolean,
): Steps<MetadataFailure | "stopping" | undefined> {
  const { metadata } = peers.thin;
  const device = yield* metadata.device(thinId);
  if (device.kind === "noDevice") return undefined;
  if (device.kind !== "device") return device;
  for (;;) {
    if (isBehind && !(yield* peers.pool.mayRemove())) return "stopping";
    const slice = yield* metadata.deleteSlice(thinId);
    if (slice.kind !== "deleted") return slice;
    if (slice.gone) return undefined;
    // A request that arrives meanwhile waits for one slice at most, a part of a millisecond.
    yield* rest();
  }
}
