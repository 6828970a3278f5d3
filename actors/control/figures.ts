/** The figures of volumes as of now, or the last ones with their age. */
import type { ThinId } from "../../storage/base/ids.ts";
import type { VolumeRecord } from "../../storage/catalogue.ts";
import type { FamilyKey } from "../../storage/families.ts";
import { isDamaged, type MetadataDamaged } from "../../storage/metadata_scan.ts";
import { SliceEnd, type Slices } from "../../storage/slices.ts";
import type { DeviceState } from "../../storage/thin_metadata.ts";
import type { AdminPeers } from "./admin_peers.ts";
import { type FamilyNow, type Figures, isOfNow } from "./figures_messages.ts";
import { restingBetween } from "./held_walk.ts";
import { rest, type Steps } from "../kernel/task.ts";
import type { Registry } from "./pool_messages.ts";

/** What one volume or snapshot maps, in data blocks. */
export interface VolumeFigures {
  readonly mappedBlocks: number;
  /** Of them, those that nothing else maps; undefined: never counted. */
  readonly exclusiveBlocks: number | undefined;
  /** Those that another volume or snapshot maps too; undefined: never counted. */
  readonly sharedBlocks: number | undefined;
  /** How long ago exclusive and shared blocks were counted; 0 if nothing has changed since; undefined: never. */
  readonly ageMs: number | undefined;
}

/** Figures by thin device. */
export type VolumeFiguresByThin = ReadonlyMap<ThinId, VolumeFigures>;

/**
 * The figures of these records. Where the last ones are not of now, new ones are waited for if counting is little work, or if
 * they must be exact; otherwise only for a moment, and counting goes on.
 */
export function* figuresOf(
  peers: AdminPeers,
  registry: Registry,
  chosen: readonly VolumeRecord[],
  exact: boolean,
): Steps<VolumeFiguresByThin | MetadataDamaged> {
  const { records, families } = registry;
  const { sliceRecords: perSlice, waitedMappingsMax, figuresWaitMs } = peers.kernel.knobs;
  const states = yield* statesOf(peers, records);
  const now = yield* restingBetween(familiesNow(chosen, records, families, states, perSlice));
  let figures = yield* peers.figures.last();
  const old = now.filter((family) => !isOfNow(figures.get(family.key), family));
  let isCounted = false;
  if (old.length > 0) {
    const mappings = old.reduce((sum, family) => sum + family.mappings, 0);
    const answer = yield* peers.figures.counted({
      families: old,
      isDeleting: records.some(({ deleting }) => deleting === true),
      waitMs: exact || mappings <= waitedMappingsMax ? undefined : figuresWaitMs,
    });
    if (isDamaged(answer)) return answer;
    isCounted = answer.kind === "counted";
    figures = answer.figures;
  }
  const exactKeys = new Set<FamilyKey>();
  for (const family of now) {
    const found = figures.get(family.key);
    // A walk that was made for this question may have begun after `now` was taken, when the family had other devices: its
    // figures are exact. In a pool that can commit no more, a walk sees an earlier commit: its figures are not.
    const isLater = isCounted && found !== undefined && found.transaction >= family.changedIn;
    if (isLater || isOfNow(found, family)) exactKeys.add(family.key);
  }
  const nowMs = peers.kernel.clock.now();
  return yield* restingBetween(
    volumeSlices({ chosen, families, figures, states, exactKeys, nowMs, perSlice }),
  );
}

/** What the devices of all records map now. */
function* statesOf(
  { kernel, thin }: AdminPeers,
  records: readonly VolumeRecord[],
): Steps<Map<ThinId, DeviceState>> {
  const states = new Map<ThinId, DeviceState>();
  const { sliceRecords } = kernel.knobs;
  for (let at = 0; at < records.length; at += sliceRecords) {
    const thins = records.slice(at, at + sliceRecords).map(({ thinId }) => thinId);
    const found = yield* thin.metadata.deviceStates(thins);
    found.forEach((state, index) => {
      if (state !== undefined) states.set(thins[index]!, state);
    });
    yield* rest();
  }
  return states;
}

/** A family, and how much work counting it is at most. */
interface FamilyWork extends FamilyNow {
  readonly key: FamilyKey;
  thins: ThinId[];
  changedIn: number;
  mappings: number;
}

/** The families of the chosen records, whole. */
function* familiesNow(
  chosen: readonly VolumeRecord[],
  records: readonly VolumeRecord[],
  families: Registry["families"],
  states: ReadonlyMap<ThinId, DeviceState>,
  perSlice: number,
): Slices<FamilyWork[]> {
  const end = new SliceEnd(perSlice);
  const byKey = new Map<FamilyKey, FamilyWork>();
  for (const { thinId } of chosen) {
    if (end.isDue()) yield;
    const key = keyOf(families, thinId);
    byKey.set(key, { key, thins: [], changedIn: 0, mappings: 0 });
  }
  for (const { thinId, deleting } of records) {
    if (end.isDue()) yield;
    const family = byKey.get(keyOf(families, thinId));
    if (family === undefined || deleting) continue;
    const state = states.get(thinId);
    family.thins.push(thinId);
    family.changedIn = Math.max(family.changedIn, state?.changedIn ?? 0);
    family.mappings += state?.mappedBlocks ?? 0;
  }
  return [...byKey.values()];
}

/** The family of a volume's device. A device that the families do not have shares blocks with no other: it is a family alone. */
function keyOf(families: Registry["families"], thin: ThinId): FamilyKey {
  return families.get(thin) ?? `device ${thin}`;
}

function* volumeSlices(from: {
  readonly chosen: readonly VolumeRecord[];
  readonly families: Registry["families"];
  readonly figures: Figures;
  readonly states: ReadonlyMap<ThinId, DeviceState>;
  /** Families whose figures are of now, or were counted for this question. */
  readonly exactKeys: ReadonlySet<FamilyKey>;
  readonly nowMs: number;
  readonly perSlice: number;
}): Slices<Map<ThinId, VolumeFigures>> {
  const end = new SliceEnd(from.perSlice);
  const volumes = new Map<ThinId, VolumeFigures>();
  for (const { thinId } of from.chosen) {
    if (end.isDue()) yield;
    const key = keyOf(from.families, thinId);
    const family = from.figures.get(key);
    const used = family?.devices.get(thinId);
    const isExact = from.exactKeys.has(key);
    const mappedBlocks = from.states.get(thinId)?.mappedBlocks ?? 0;
    volumes.set(thinId, {
      // Beside figures that were counted for this question stands what was mapped then, so that they add up.
      mappedBlocks: isExact && used !== undefined ? used.mappedBlocks : mappedBlocks,
      exclusiveBlocks: used?.exclusiveBlocks,
      sharedBlocks: used === undefined ? undefined : used.mappedBlocks - used.exclusiveBlocks,
      ageMs: used === undefined || family === undefined
        ? undefined
        : isExact
        ? 0
        : Math.max(1, Math.ceil(from.nowMs - family.countedMs)),
    });
  }
  return volumes;
}
