/**
 * `fork`: many clones of one volume or snapshot in one transaction, all or none.
 *
 * The first fork is a snapshot of the source, and all others are snapshots of the first. It shares every block with the
 * source, and nothing writes to it before the command ends. So the source is quiet only while the first slice of thin devices
 * is made. The others need no tick of the clock: every mapping of the first fork is older than the tick at which it was made.
 */
import type { CatalogueChange, VolumeRecord } from "../../storage/catalogue.ts";
import { hasNumber, nameOfPattern } from "../../storage/base/name_pattern.ts";
import { parseName, problemOfName } from "../../storage/base/names.ts";
import type { ThinId } from "../../storage/base/ids.ts";
import { SliceEnd, type Slices } from "../../storage/slices.ts";
import type { VolumeSettings } from "../../storage/volume_settings.ts";
import type { ForkCommand } from "./admin_command.ts";
import {
  isOlderThanItsSnapshots,
  noThinIds,
  problemOfNewName,
  seeList,
  unfinishedTrim,
} from "./plan_checks.ts";
import { problemOfLifetime, settingsOfLifetime } from "./plan_lifetimes.ts";
import { draft, type PlanContext, type PlanDraft, refusedPlan } from "./plan_draft.ts";
import type { PlanRefused } from "./pool_messages.ts";

/** Plans a fork. Every name is new, or nothing is done. */
export function* planFork(context: PlanContext, command: ForkCommand): Slices<PlanDraft | PlanRefused> {
  const { source } = command;
  const what = `fork "${source}"`;
  const origin = context.catalogue.byName(source);
  if (origin === undefined) return refusedPlan(`Cannot ${what}: there is no "${source}". ${seeList}`);
  if (origin.trimFromBytes !== undefined) return refusedPlan(unfinishedTrim(what));
  const problem = problemOfFork(command);
  if (problem !== undefined) return refusedPlan(`Cannot ${what}: ${problem}`);
  const names = yield* namesOf(context, command);
  if (typeof names === "string") return refusedPlan(`Cannot ${what}: ${names} Nothing was made.`);
  const thinIds = context.catalogue.unusedThinIds();
  const settings = settingsOfLifetime(context, command);
  const changes: CatalogueChange[] = [];
  const snapshots: { thin: ThinId; origin: ThinId }[] = [];
  const end = new SliceEnd(context.perSlice);
  for (const name of names) {
    if (end.isDue()) yield;
    const thin = thinIds.next().value;
    if (thin === undefined) return refusedPlan(noThinIds(what));
    changes.push({ put: cloneOf(context, origin, name, thin, settings) });
    snapshots.push({ thin, origin: snapshots[0]?.thin ?? origin.thinId });
  }
  return draft(changes, {
    snapshots,
    tick: !isOlderThanItsSnapshots(origin),
    quiesceUids: new Set(origin.readOnly ? [] : [origin.uid]),
    quietUntil: "firstSlice",
    result: { kind: "forked", volumes: names.map((name) => ({ name, uris: [] })) },
  });
}

/** The record of a writable volume that shares every block with `origin`. */
export function cloneOf(
  context: PlanContext,
  origin: VolumeRecord,
  name: string,
  thinId: ThinId,
  settings: VolumeSettings,
): VolumeRecord {
  return {
    uid: context.newUid(),
    name,
    thinId,
    sizeBytes: origin.sizeBytes,
    readOnly: false,
    origin: origin.uid,
    owner: null,
    created: context.now,
    ...settings,
  };
}

/** What is wrong with a command that the library or the control socket passed unchecked. */
function problemOfFork({ count, name, ephemeral, lingerMs, ttlMs }: ForkCommand): string | undefined {
  if (!Number.isSafeInteger(count) || count < 1) return `${count} is no number of forks. Give 1 or more.`;
  if (count > 1 && name !== null && !hasNumber(name)) {
    return `${count} forks cannot all have the name "${name}". Write %d in it, as vm-%03d.`;
  }
  return problemOfLifetime({ ephemeral, lingerMs, ttlMs });
}

/** The names of the forks; or why they cannot be given, as a sentence. Without a pattern, taken numbers are left out. */
function* namesOf(
  { catalogue, perSlice }: PlanContext,
  { source, count, name }: ForkCommand,
): Slices<string[] | string> {
  const pattern = name ?? `${parseName(source).volume}-fork-%d`;
  const longest = problemOfName(nameOfPattern(pattern, count));
  if (longest !== undefined) return longest;
  const names: string[] = [];
  const end = new SliceEnd(perSlice);
  for (let ordinal = 1; names.length < count; ordinal += 1) {
    if (end.isDue()) yield;
    const candidate = nameOfPattern(pattern, ordinal);
    if (name === null && catalogue.byName(candidate) !== undefined) continue;
    const problem = problemOfNewName(catalogue, candidate, count);
    if (problem !== undefined) return problem;
    names.push(candidate);
  }
  return names;
}
