/**
 * `rollback` and `resize`: what replaces the content of a volume, or cuts some of it off. Where a client has the volume
 * attached, both need `force`, because a file system on it does not expect that.
 */
import type { VolumeRecord } from "../../storage/catalogue.ts";
import { keptSnapshotName, parseName } from "../../storage/base/names.ts";
import { clientsNamedMax } from "../limits.ts";
import type { ResizeCommand, RollbackCommand } from "./admin_command.ts";
import {
  noThinIds,
  problemOfNewName,
  problemOfSize,
  roundUpToSectors,
  seeList,
  unfinishedTrim,
} from "./plan_checks.ts";
import { draft, type PlanContext, type PlanDraft, refusedPlan } from "./plan_draft.ts";
import { allowancesOf, endOfAllowances } from "./plan_allowances.ts";
import type { PlanRefused } from "./pool_messages.ts";

/**
 * The volume gets a new thin device, a snapshot of the snapshot. Its old one stays, under the name of a new snapshot. The
 * clock ticks, so that every mapping of the kept one is older than the clones that are made of it.
 */
export function planRollback(
  context: PlanContext,
  { snapshot, force }: RollbackCommand,
): PlanDraft | PlanRefused {
  const { catalogue } = context;
  const volumeName = parseName(snapshot).volume;
  const what = `roll back to "${snapshot}"`;
  const origin = catalogue.byName(snapshot);
  if (origin === undefined) return refusedPlan(`Cannot ${what}: there is no such snapshot. ${seeList}`);
  const volume = catalogue.byName(volumeName);
  if (volume === undefined) {
    return refusedPlan(`Cannot ${what}: the volume "${volumeName}" is gone. Clone the snapshot instead.`);
  }
  if (origin.owner !== volume.uid) {
    return refusedPlan(
      `Cannot ${what}: it is a snapshot of an earlier volume "${volumeName}", which is gone. Clone it instead.`,
    );
  }
  if (volume.trimFromBytes !== undefined) return refusedPlan(unfinishedTrim(`roll back "${volumeName}"`));
  const attached = problemOfAttached(context, volume, force);
  if (attached !== undefined) return refusedPlan(`Cannot ${what}: ${attached}`);
  const name = keptSnapshotName(volumeName, (taken) => catalogue.byName(taken) !== undefined);
  const full = problemOfNewName(catalogue, name);
  if (full !== undefined) return refusedPlan(`Cannot ${what} and keep what it replaces: ${full}`);
  const thinId = catalogue.freeThinIds(1)?.[0];
  if (thinId === undefined) return refusedPlan(noThinIds(`roll back "${volumeName}"`));
  const kept: VolumeRecord = {
    uid: context.newUid(),
    name,
    thinId: volume.thinId,
    sizeBytes: volume.sizeBytes,
    readOnly: true,
    origin: volume.uid,
    owner: volume.uid,
    created: context.now,
  };
  return draft([{ put: { ...volume, thinId, sizeBytes: origin.sizeBytes } }, { put: kept }], {
    snapshots: [{ thin: thinId, origin: origin.thinId }],
    tick: true,
    quiesceUids: new Set([volume.uid]),
    allowances: [...endOfAllowances(volume), ...allowancesOf({ ...volume, thinId })],
    result: { kind: "rolledBack", kept: name, exclusiveBytes: null },
  });
}

/** Growing is live. What lies beyond a smaller end is gone, so that needs `force` where clients are attached. */
export function planResize(context: PlanContext, command: ResizeCommand): PlanDraft | PlanRefused {
  const { name, sizeBytes, shrink, force } = command;
  const what = `resize "${name}"`;
  const record = context.catalogue.byName(name);
  if (record === undefined) return refusedPlan(`Cannot ${what}: there is no such volume. ${seeList}`);
  if (record.readOnly) {
    return refusedPlan(`Cannot ${what}: it is a read-only snapshot. Clone it and resize the clone.`);
  }
  const problem = problemOfSize(sizeBytes);
  if (problem !== undefined) return refusedPlan(`Cannot ${what}: ${problem}`);
  if (record.trimFromBytes !== undefined) return refusedPlan(unfinishedTrim(what));
  const newSizeBytes = roundUpToSectors(sizeBytes);
  if (newSizeBytes >= record.sizeBytes) {
    if (shrink && newSizeBytes > record.sizeBytes) {
      return refusedPlan(
        `Cannot ${what}: ${newSizeBytes} bytes are more than it has, ${record.sizeBytes}. Leave out --shrink to make it larger.`,
      );
    }
    return draft([{ put: { ...record, sizeBytes: newSizeBytes } }], {
      quiesceUids: new Set([record.uid]),
    });
  }
  const attached = problemOfAttached(context, record, force);
  if (attached !== undefined) return refusedPlan(`Cannot make "${name}" smaller: ${attached}`);
  return draft([{ put: { ...record, sizeBytes: newSizeBytes, trimFromBytes: newSizeBytes } }], {
    quiesceUids: new Set([record.uid]),
    trims: [{
      uid: record.uid,
      thinId: record.thinId,
      fromBytes: newSizeBytes,
      sizeBytes: newSizeBytes,
    }],
  });
}

/** Why a volume may not be changed under its clients, as a sentence; undefined if it may. */
function problemOfAttached(
  context: PlanContext,
  { uid }: VolumeRecord,
  force: boolean | undefined,
): string | undefined {
  const clients = force === true ? [] : context.clientsOf(uid);
  if (clients.length === 0) return undefined;
  const shown = clients.slice(0, clientsNamedMax).join(", ");
  const more = clients.length > clientsNamedMax ? ` and ${clients.length - clientsNamedMax} more` : "";
  return `${shown}${more} ${clients.length === 1 ? "is" : "are"} attached. Detach first, or use --force.`;
}
