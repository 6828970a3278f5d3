/** What every removal of volumes has in its plan, whether a command or the end of a lifetime asks for it. */
import type { CatalogueChange, VolumeRecord } from "../../storage/catalogue.ts";
import type { DeviceAllowance } from "../../storage/device_allowances.ts";
import { endOfAllowances } from "./plan_allowances.ts";
import { draft, type PlanDraft } from "./plan_draft.ts";
import type { Deletion } from "./pool_messages.ts";

/** The volumes that one plan removes. */
export interface PlannedRemovals {
  readonly changes: CatalogueChange[];
  readonly evict: string[];
  readonly deletions: Deletion[];
  readonly allowances: DeviceAllowance[];
}

/** A plan that removes nothing yet. */
export function noRemovals(): PlannedRemovals {
  return { changes: [], evict: [], deletions: [], allowances: [] };
}

/** Adds a volume whose clients have been claimed ({@linkcode PlanContext.claim}). */
export function addRemoval(removals: PlannedRemovals, record: VolumeRecord): void {
  const { uid, thinId } = record;
  removals.changes.push({ put: { ...record, deleting: true } });
  removals.evict.push(uid);
  removals.deletions.push({ uid, thinId });
  removals.allowances.push(...endOfAllowances(record));
}

/** The draft that removes them. */
export function draftOfRemovals({ changes, ...more }: PlannedRemovals): PlanDraft {
  return draft(changes, more);
}
