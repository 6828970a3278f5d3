/**
 * What a command means for the catalogue and the devices: a draft, or a sentence that refuses. Pure: it changes nothing.
 */
import { unreachable } from "../../storage/base/assert.ts";
import type { CatalogueChange, VolumeRecord } from "../../storage/catalogue.ts";
import { type ThinId } from "../../storage/base/ids.ts";
import { parseName, snapshotName } from "../../storage/base/names.ts";
import { SliceEnd, type Slices, wholeOf } from "../../storage/slices.ts";
import {
  isOlderThanItsSnapshots,
  noThinIds,
  problemOfNewName,
  problemOfSize,
  roundUpToSectors,
  seeList,
  unfinishedTrim,
} from "./plan_checks.ts";
import type { CloneCommand, CreateCommand } from "./admin_command.ts";
import { draft, type PlanContext, type PlanDraft, refusedPlan } from "./plan_draft.ts";
import { planResize, planRollback } from "./plan_content.ts";
import {
  planEndHeld,
  planOutlived,
  planWritten,
  problemOfLifetime,
  settingsOfLifetime,
} from "./plan_lifetimes.ts";
import { cloneOf, planFork } from "./plan_fork.ts";
import { planAllowance } from "./plan_allowances.ts";
import { addRemoval, draftOfRemovals, noRemovals } from "./plan_removals.ts";
import type { MakeHeld, PlanRefused, PlanStep } from "./pool_messages.ts";

/** {@linkcode planSlices} at once. */
export function planStep(context: PlanContext, step: PlanStep): PlanDraft | PlanRefused {
  return wholeOf(planSlices(context, step));
}

/**
 * Plans a step, in slices: the catalogue must stay as it is until the last. Every name is well-formed; whether it exists
 * is decided here.
 */
export function* planSlices(context: PlanContext, step: PlanStep): Slices<PlanDraft | PlanRefused> {
  switch (step.verb) {
    case "create":
      return planCreate(context, step);
    case "snapshot":
      return yield* planSnapshot(context, step.names);
    case "clone":
      return planClone(context, step);
    case "fork":
      return yield* planFork(context, step);
    case "rollback":
      return planRollback(context, step);
    case "rename":
      return yield* planRename(context, step.from, step.to);
    case "resize":
      return planResize(context, step);
    case "quota":
    case "reserve":
      return planAllowance(context, step);
    case "rm":
      return yield* planRemove(context, step.names, step.force);
    case "forget":
      return draft(step.uids.map((uid) => ({ remove: uid })));
    case "trimmed":
      return planTrimmed(context, step.uid);
    case "written":
      return planWritten(context, step.uid);
    case "outlived":
      return yield* planOutlived(context, step.uids);
    case "makeHeld":
      return planHeld(context, step);
    case "endHeld":
      return planEndHeld(context, step.uid);
    case "reconcile":
      return planReconcile(context, step);
    default:
      return unreachable(step);
  }
}

/**
 * Whether a step gives space back, and so may use the room that the catalogue keeps for removals. What the start of a pool
 * finds in the metadata may use it too, so that a pool on a full host opens.
 */
export function removesSomething(step: PlanStep, draft: PlanDraft): boolean {
  switch (step.verb) {
    case "rm":
    case "outlived":
    case "endHeld":
    case "forget":
    case "trimmed":
    case "reconcile":
      return true;
    case "create":
    case "snapshot":
    case "clone":
    case "fork":
    case "rollback":
    case "rename":
    case "resize":
    case "quota":
    case "reserve":
    case "written":
    case "makeHeld":
      return draft.trims.length > 0;
    default:
      return unreachable(step);
  }
}

function planCreate(
  context: PlanContext,
  command: CreateCommand,
): PlanDraft | PlanRefused {
  const { name, sizeBytes, singleWriter } = command;
  const problem = problemOfNewName(context.catalogue, name) ?? problemOfSize(sizeBytes) ??
    problemOfLifetime(command);
  if (problem !== undefined) return refusedPlan(`Cannot create "${name}": ${problem}`);
  const thinId = context.catalogue.freeThinIds(1)?.[0];
  if (thinId === undefined) return refusedPlan(noThinIds(`create "${name}"`));
  const record: VolumeRecord = {
    uid: context.newUid(),
    name,
    thinId,
    sizeBytes: roundUpToSectors(sizeBytes),
    readOnly: false,
    origin: null,
    owner: null,
    created: context.now,
    ...(singleWriter === true ? { singleWriter } : {}),
    ...settingsOfLifetime(context, command),
  };
  return draft([{ put: record }], { create: [thinId] });
}

function* planSnapshot(context: PlanContext, names: readonly string[]): Slices<PlanDraft | PlanRefused> {
  const what = `take ${names.length === 1 ? `the snapshot "${names[0]}"` : `${names.length} snapshots`}`;
  const changes: CatalogueChange[] = [];
  const snapshots: { thin: ThinId; origin: ThinId }[] = [];
  const quiesceUids = new Set<string>();
  const end = new SliceEnd(context.perSlice);
  const met = new Set<string>();
  const thinIds = context.catalogue.unusedThinIds();
  for (const name of names) {
    if (end.isDue()) yield;
    if (met.has(name)) {
      return refusedPlan(`Cannot ${what}: a name stands there twice. Give each once.`);
    }
    met.add(name);
    const origin = context.catalogue.byName(parseName(name).volume);
    if (origin === undefined) {
      return refusedPlan(`Cannot ${what}: there is no volume "${parseName(name).volume}". ${seeList}`);
    }
    // The snapshot would keep the blocks beyond the end, and a clone of it could grow and show their bytes.
    if (origin.trimFromBytes !== undefined) return refusedPlan(unfinishedTrim(what));
    const taken = problemOfNewName(context.catalogue, name, names.length);
    if (taken !== undefined) return refusedPlan(`Cannot ${what}: ${taken}`);
    const thinId = thinIds.next().value;
    if (thinId === undefined) return refusedPlan(noThinIds(what));
    changes.push({
      put: {
        uid: context.newUid(),
        name,
        thinId,
        sizeBytes: origin.sizeBytes,
        readOnly: true,
        origin: origin.uid,
        owner: origin.uid,
        created: context.now,
      },
    });
    snapshots.push({ thin: thinId, origin: origin.thinId });
    quiesceUids.add(origin.uid);
  }
  return draft(changes, { snapshots, tick: true, quiesceUids, quietUntil: "devices" });
}

function planClone(context: PlanContext, command: CloneCommand): PlanDraft | PlanRefused {
  const { source, name } = command;
  const what = `clone "${source}" as "${name}"`;
  const origin = context.catalogue.byName(source);
  if (origin === undefined) return refusedPlan(`Cannot ${what}: there is no "${source}". ${seeList}`);
  if (origin.trimFromBytes !== undefined) return refusedPlan(unfinishedTrim(what));
  const taken = problemOfNewName(context.catalogue, name) ?? problemOfLifetime(command);
  if (taken !== undefined) return refusedPlan(`Cannot ${what}: ${taken}`);
  const thinId = context.catalogue.freeThinIds(1)?.[0];
  if (thinId === undefined) return refusedPlan(noThinIds(what));
  const record = cloneOf(context, origin, name, thinId, settingsOfLifetime(context, command));
  return draft([{ put: record }], {
    snapshots: [{ thin: thinId, origin: origin.thinId }],
    tick: !isOlderThanItsSnapshots(origin),
    quiesceUids: new Set(origin.readOnly ? [] : [origin.uid]),
    quietUntil: "devices",
  });
}

/**
 * The volume counts as written to from its first record on: if we stop after that is durable, the next start removes it, whether a
 * client has written to it or not.
 */
function planHeld(context: PlanContext, { uid, name, content }: MakeHeld): PlanDraft | PlanRefused {
  const making: PlanContext = { ...context, newUid: () => uid };
  const lifetime = { name, ephemeral: true, lingerMs: 0 };
  const made = "source" in content
    ? planClone(making, { verb: "clone", source: content.source, ...lifetime })
    : planCreate(making, { verb: "create", sizeBytes: content.sizeBytes, ...lifetime });
  if (made.kind === "refused") return made;
  context.hold(uid);
  const changes = made.changes.map((change) =>
    "put" in change ? { put: { ...change.put, written: true as const } } : change
  );
  return { ...made, changes };
}

function* planRename(context: PlanContext, from: string, to: string): Slices<PlanDraft | PlanRefused> {
  const what = `rename "${from}" to "${to}"`;
  const record = context.catalogue.byName(from);
  if (record === undefined) return refusedPlan(`Cannot ${what}: there is no "${from}". ${seeList}`);
  const [fromName, toName] = [parseName(from), parseName(to)];
  if (toName.snapshot === undefined !== (fromName.snapshot === undefined)) {
    return refusedPlan(`Cannot ${what}: a volume stays a volume and a snapshot a snapshot.`);
  }
  if (fromName.snapshot !== undefined && toName.volume !== fromName.volume) {
    return refusedPlan(
      `Cannot ${what}: a snapshot stays with its volume. Rename it to "${fromName.volume}@...".`,
    );
  }
  if (from === to) return refusedPlan(`Cannot ${what}: that is its name already.`);
  const changes: CatalogueChange[] = [{ put: { ...record, name: to } }];
  const end = new SliceEnd(context.perSlice);
  for (const snapshot of context.catalogue.snapshotsOf(record.uid)) {
    if (end.isDue()) yield;
    const name = snapshotName(to, parseName(snapshot.name).snapshot ?? "");
    changes.push({ put: { ...snapshot, name } });
  }
  for (const change of changes) {
    if (end.isDue()) yield;
    const taken = "put" in change ? problemOfNewName(context.catalogue, change.put.name, 0) : undefined;
    if (taken !== undefined) return refusedPlan(`Cannot ${what}: ${taken}`);
  }
  return draft(changes);
}

function* planRemove(
  context: PlanContext,
  names: readonly string[],
  force: boolean,
): Slices<PlanDraft | PlanRefused> {
  const removals = noRemovals();
  const end = new SliceEnd(context.perSlice);
  const met = new Set<string>();
  for (const name of names) {
    if (end.isDue()) yield;
    if (met.has(name)) continue;
    met.add(name);
    const record = context.catalogue.byName(name);
    if (record === undefined) {
      return refusedPlan(
        `Cannot remove "${name}": there is no such volume or snapshot. Nothing was removed. ${seeList}`,
      );
    }
    const clients = context.claim(record.uid);
    if (clients > 0 && !force) {
      const who = clients === 1 ? "a client is" : `${clients} clients are`;
      return refusedPlan(
        `Cannot remove "${name}": ${who} attached to it. Nothing was removed. Detach first, or use --force.`,
      );
    }
    addRemoval(removals, record);
  }
  return draftOfRemovals(removals);
}

function planTrimmed(context: PlanContext, uid: string): PlanDraft | PlanRefused {
  const record = context.catalogue.byUid(uid);
  if (record === undefined) return refusedPlan("The volume that was made smaller is gone.");
  const { trimFromBytes: _done, ...rest } = record;
  return draft([{ put: rest }]);
}

function planReconcile(
  context: PlanContext,
  step: PlanStep & { readonly verb: "reconcile" },
): PlanDraft | PlanRefused {
  const changes: CatalogueChange[] = step.lost.map((uid) => ({ remove: uid }));
  for (const device of step.found) {
    let name = `thin-${device.thinId}`;
    for (let more = 2; context.catalogue.byName(name) !== undefined; more += 1) {
      name = `thin-${device.thinId}-${more}`;
    }
    changes.push({
      put: {
        uid: context.newUid(),
        name,
        thinId: device.thinId,
        sizeBytes: device.sizeBytes,
        readOnly: false,
        origin: null,
        owner: null,
        created: null,
      },
    });
  }
  return draft(changes);
}
