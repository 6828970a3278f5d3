/**
 * Counting the blocks that volumes with a reserve map alone (storage/device_allowances.ts): when a reserve is set, at the start of
 * a pool, and after a removal, which may have left blocks to one volume that others shared. At the start and after a removal,
 * a volume without relatives maps all its blocks alone. The others, and a volume whose reserve is set, take one walk over all
 * mappings, which a command that does not need the number does without: then what is owed is too large, never too small.
 */
import type { ThinId } from "../../storage/base/ids.ts";
import type { FamilyKey } from "../../storage/families.ts";
import { deviceUsage } from "../../storage/usage.ts";
import type { Steps } from "../kernel/task.ts";
import { AllowanceStub } from "../pool/allowance_messages.ts";
import type { AdminResult } from "./admin_command.ts";
import type { AdminPeers } from "./admin_peers.ts";
import { readerOfCommit, runWalk } from "./held_walk.ts";

/** Counts for these devices. Where the metadata is damaged the old numbers stay: they are not too large. */
function* countOwn(peers: AdminPeers, thins: readonly ThinId[]): Steps<void> {
  if (thins.length === 0) return;
  const allowances = new AllowanceStub(peers.kernel, peers.thin.metadata.address);
  // The commit comes after the beginning, so it misses nothing that is given back and not noted.
  allowances.beginCount(thins);
  if (!(yield* isAllCommitted(peers))) return allowances.cancelCount(thins);
  const held = yield* readerOfCommit(peers);
  const usage = yield* runWalk(peers, held, deviceUsage());
  peers.thin.metadata.releaseCommit(held.hold);
  if (usage.kind !== "usage") return allowances.cancelCount(thins);
  const counted = new Map(usage.devices.map(({ thinId, exclusiveBlocks }) => [thinId, exclusiveBlocks]));
  // A device that another command has removed meanwhile has none.
  allowances.endCount(thins.map((thin) => ({ thin, blocks: counted.get(thin) ?? 0 })));
}

/**
 * Commits; false if what is on disk is not what metadata has in memory. There a device may map blocks that it has given back
 * before the count began.
 */
function* isAllCommitted({ readOnly, thin: { metadata } }: AdminPeers): Steps<boolean> {
  if (readOnly) return (yield* metadata.facts()).dirtyBlocks === 0;
  return (yield* metadata.commit()).kind === "done";
}

/** Counts for all volumes with a reserve, if one of them is owed something. */
export function* countReserved(peers: AdminPeers): Steps<void> {
  const { dataOwed } = yield* peers.thin.metadata.facts();
  if (dataOwed === 0) return;
  const { records } = yield* peers.pool.registry();
  const reserved = records.filter(({ deleting, reserveBytes }) => !deleting && reserveBytes !== undefined);
  const related = yield* countAlone(peers, reserved.map(({ thinId }) => thinId));
  if (peers.countsByWalk) yield* countOwn(peers, related);
}

/** Counts for those of the devices that share with none: the metadata has their numbers. Answers the others. */
function* countAlone(peers: AdminPeers, thins: readonly ThinId[]): Steps<ThinId[]> {
  const { kernel, pool, thin: { metadata } } = peers;
  const allowances = new AllowanceStub(kernel, metadata.address);
  allowances.beginCount(thins);
  // Metadata answers this after the counts have begun. A snapshot that it makes later spoils the count of its origin. The
  // change that made an earlier one is either in the families, which the pool is asked for next, or still staged.
  yield* metadata.facts();
  const { families, isChanging } = yield* pool.registry();
  const members = new Map<FamilyKey, number>();
  for (const family of families.values()) members.set(family, (members.get(family) ?? 0) + 1);
  const related: ThinId[] = [];
  for (const thin of thins) {
    const family = families.get(thin);
    const isAlone = !isChanging && family !== undefined && members.get(family) === 1;
    const device = isAlone ? yield* metadata.device(thin) : undefined;
    if (device?.kind === "device") {
      allowances.endCount([{ thin, blocks: device.mappedBlocks }]);
      continue;
    }
    allowances.cancelCount([thin]);
    if (!isAlone) related.push(thin);
  }
  return related;
}

/** Sets a reserve. The blocks of the volume are counted before: what it has already is not owed to it. */
export function* reserveCounted(
  peers: AdminPeers,
  name: string,
  change: () => Steps<AdminResult>,
): Steps<AdminResult> {
  const { records } = yield* peers.pool.registry();
  const found = records.filter((record) => record.name === name && !record.deleting && !record.readOnly);
  const thins = found.map(({ thinId }) => thinId);
  yield* countOwn(peers, thins);
  const result = yield* change();
  new AllowanceStub(peers.kernel, peers.thin.metadata.address).dropUnused(thins);
  return result;
}
