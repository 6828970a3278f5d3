/** What the pool does to throw-away volumes on its own: it notes that one was written to, and removes those whose time is over. */
import type { VolumeSettings } from "../../storage/volume_settings.ts";
import { lifetimeMsMax } from "../limits.ts";
import type { LifetimeOptions } from "./admin_command.ts";
import { SliceEnd, type Slices } from "../../storage/slices.ts";
import { draft, type PlanContext, type PlanDraft, refusedPlan } from "./plan_draft.ts";
import { addRemoval, draftOfRemovals, noRemovals } from "./plan_removals.ts";
import type { PlanRefused } from "./pool_messages.ts";

/** What is wrong with these options of a command; undefined if nothing is. The library and the control socket check none. */
export function problemOfLifetime(
  { ephemeral, lingerMs = null, ttlMs = null }: LifetimeOptions,
): string | undefined {
  if (lingerMs !== null && !ephemeral) return "only ephemeral volumes linger. Give --ephemeral too.";
  const isTime = (ms: number | null) =>
    ms === null || (Number.isSafeInteger(ms) && ms >= 0 && ms <= lifetimeMsMax);
  return isTime(lingerMs) && isTime(ttlMs)
    ? undefined
    : "a time is no whole number of milliseconds, or longer than a hundred years.";
}

/** The settings of a volume with this lifetime. */
export function settingsOfLifetime(
  { timeAfter }: PlanContext,
  { ephemeral, lingerMs = null, ttlMs = null }: LifetimeOptions,
): VolumeSettings {
  return {
    ...(ephemeral === true ? { ephemeral } : {}),
    ...(lingerMs === null ? {} : { lingerMs }),
    ...(ttlMs === null ? {} : { expires: timeAfter(ttlMs) }),
  };
}

/** A client has written to an ephemeral volume, which is kept over a restart. */
export function planWritten({ catalogue }: PlanContext, uid: string): PlanDraft | PlanRefused {
  const record = catalogue.byUid(uid);
  if (record === undefined || record.deleting || record.ephemeral === undefined) {
    return refusedPlan("The volume is not ephemeral any more.");
  }
  return draft([{ put: { ...record, written: true } }]);
}

/** Removes those of the volumes that are still there and have no client. One that a client has attached to waits for it. */
export function* planOutlived(
  context: PlanContext,
  uids: readonly string[],
): Slices<PlanDraft | PlanRefused> {
  const removals = noRemovals();
  const end = new SliceEnd(context.perSlice);
  for (const uid of uids) {
    if (end.isDue()) yield;
    const record = context.catalogue.byUid(uid);
    if (record === undefined || record.deleting || context.clientsOf(uid).length > 0) continue;
    // In the same turn as the question, so that no client comes in between.
    context.claim(uid);
    addRemoval(removals, record);
  }
  return removals.changes.length === 0
    ? refusedPlan("No volume is to go any more.")
    : draftOfRemovals(removals);
}

/** Removes a volume whose hold has ended, also under its clients. */
export function planEndHeld(context: PlanContext, uid: string): PlanDraft | PlanRefused {
  const record = context.catalogue.byUid(uid);
  if (record === undefined || record.deleting) {
    return { ...refusedPlan("The volume is gone."), isGone: true };
  }
  context.claim(uid);
  const removals = noRemovals();
  addRemoval(removals, record);
  return draftOfRemovals(removals);
}
