/**
 * Counting the blocks that volumes with a reserve map alone (storage/device_allowances.ts): when a reserve is set, at the start of
 * a pool, and after a removal, which may have left blocks to one volume that others shared. A volume without relatives maps all
 * its blocks alone. For the others it takes one walk over all mappings, which a command that does not need the number does
 * without: then what is owed is too large, never too small.
 */
import type { ThinId } from "../../storage/base/ids.ts";
import type { FamilyKey } from "../../storage/families.ts";
import { deviceUsage } from "../../storage/usage.ts";
import type { Steps } from "../kernel/task.ts";
import { AllowanceStub } from "../pool/allowance_messages.ts";
import type { AdminResult } from "./admin_command.ts";
import type { AdminPeers } from "./admin_peers.ts";
import { commitFirst, readerOfCommit, runWalk } from "./held_walk.ts";

/** Counts for these devices. Where the metadata is damaged the old numbers stay: they are not too large. */
function* countOwn(peers: AdminPeers, thins: readonly ThinId[]): Steps<void> {
  if (thins.length === 0) return;
  const allowances = new AllowanceStub(peers.kernel, peers.thin.metadata.address);
  // The commit comes after the beginning, so it misses nothing that is given back and not noted.
  allowances.beginCount(thins);
  yield* commitFirst(peers);
  const held = yield* readerOfCommit(peers);
  const usage = yield* runWalk(peers, held, deviceUsage());
  peers.thin.metadata.releaseCommit(held.hold);
  if (usage.kind !== "usage") return allowances.cancelCount(thins);
  const counted = new Map(usage.devices.map(({ thinId, exclusiveBlocks }) => [thinId, exclusiveBlocks]));
  // A device that another command has removed meanwhile has none.
  allowances.endCount(thins.map((thin) => ({ thin, blocks: counted.get(thin) ?? 0 })));
}

/** Counts for all volumes with a reserve, if one of them is owed something. */
export function* countReserved(peers: AdminPeers): Steps<void> {
  const { dataOwed } = yield* peers.thin.metadata.facts();
  if (dataOwed === 0) return;
  const { records, families } = yield* peers.pool.registry();
  const members = new Map<FamilyKey, number>();
  for (const family of families.values()) members.set(family, (members.get(family) ?? 0) + 1);
  const alone: ThinId[] = [];
  const related: ThinId[] = [];
  for (const { thinId, deleting, reserveBytes } of records) {
    if (deleting || reserveBytes === undefined) continue;
    const family = families.get(thinId);
    const isAlone = family !== undefined && members.get(family) === 1;
    (isAlone ? alone : related).push(thinId);
  }
  yield* countAlone(peers, alone);
  if (peers.countsByWalk) yield* countOwn(peers, related);
}

/** Counts for devices that share with none: the metadata has the numbers. */
function* countAlone(peers: AdminPeers, thins: readonly ThinId[]): Steps<void> {
  const allowances = new AllowanceStub(peers.kernel, peers.thin.metadata.address);
  for (const thin of thins) {
    allowances.beginCount([thin]);
    const device = yield* peers.thin.metadata.device(thin);
    if (device.kind === "device") allowances.endCount([{ thin, blocks: device.mappedBlocks }]);
    else allowances.cancelCount([thin]);
  }
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
