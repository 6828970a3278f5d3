/** `list` and `rm -n`: what volumes and snapshots map, and what removing them would free. */
import { present } from "../../storage/base/assert.ts";
import type { ThinId } from "../../storage/base/ids.ts";
import { blocksFreedByRemoval, type RemovalWanted } from "../../storage/removal.ts";
import type { VolumeRecord } from "../../storage/catalogue.ts";
import type { FamilyKey } from "../../storage/families.ts";
import { isDamaged } from "../../storage/metadata_scan.ts";
import { SliceEnd, type Slices } from "../../storage/slices.ts";
import type { AdminCommand, AdminResult, VolumeListing } from "./admin_command.ts";
import { refused, type RefusedCommand } from "./admin_outcome.ts";
import type { AdminPeers } from "./admin_peers.ts";
import { chosenVolumes } from "./chosen_volumes.ts";
import { figuresOf, type VolumeFiguresByThin } from "./figures.ts";
import {
  commitFirst,
  type CommitReader,
  readerOfCommit,
  restingBetween,
  runWalk,
  seeCheck,
} from "./held_walk.ts";
import type { Steps } from "../kernel/task.ts";
import { seeList } from "./plan_checks.ts";
import type { Registry } from "./pool_messages.ts";

/** `list`: volumes and snapshots, with what each maps and owns alone. */
export function* listVolumes(
  peers: AdminPeers,
  { names = [], exact = false }: AdminCommand & { readonly verb: "list" },
): Steps<AdminResult> {
  const listed = yield* listings(peers, names, exact);
  return "kind" in listed ? listed : { kind: "volumes", volumes: listed };
}

/** The volumes and snapshots with these names or matching these patterns, all if there is none; or why they cannot be listed. */
export function* listings(
  peers: AdminPeers,
  names: readonly string[],
  exact: boolean,
): Steps<VolumeListing[] | RefusedCommand> {
  const registry = yield* peers.pool.registry();
  const perSlice = peers.kernel.knobs.sliceRecords;
  const chosen = yield* restingBetween(chosenVolumes(registry.records, names, perSlice));
  if ("kind" in chosen) {
    return refused(`Cannot list "${chosen.name}": there is no such volume or snapshot. ${seeList}`);
  }
  const figures = yield* figuresOf(peers, registry, chosen, exact);
  if (isDamaged(figures)) {
    return refused(`Cannot list the volumes: the metadata is damaged. ${figures.sentence} ${seeCheck}`);
  }
  return yield* restingBetween(listingSlices(peers, registry, chosen, figures));
}

function* listingSlices(
  { kernel, thin }: AdminPeers,
  { records, attached }: Registry,
  chosen: readonly VolumeRecord[],
  figures: VolumeFiguresByThin,
): Slices<VolumeListing[]> {
  const end = new SliceEnd(kernel.knobs.sliceRecords);
  const nameOf = new Map<string, string>();
  for (const { uid, name, deleting } of records) {
    if (end.isDue()) yield;
    if (!deleting) nameOf.set(uid, name);
  }
  const bytesOf = (blocks: number | undefined) => blocks === undefined ? null : blocks * thin.blockSizeBytes;
  const volumes: VolumeListing[] = [];
  for (const record of chosen) {
    if (end.isDue()) yield;
    const used = present(figures.get(record.thinId), "what was chosen has figures");
    volumes.push({
      name: record.name,
      thin_id: record.thinId,
      size_bytes: record.sizeBytes,
      mapped_bytes: used.mappedBlocks * thin.blockSizeBytes,
      exclusive_bytes: bytesOf(used.exclusiveBlocks),
      shared_bytes: bytesOf(used.sharedBlocks),
      figures_age_ms: used.ageMs ?? null,
      quota_bytes: record.quotaBytes ?? null,
      reserve_bytes: record.reserveBytes ?? null,
      read_only: record.readOnly,
      // The volume that it was made from may have been removed.
      origin: record.origin === null ? null : nameOf.get(record.origin) ?? null,
      created: record.created,
      attached: attached.get(record.uid) ?? 0,
    });
  }
  return volumes;
}

/** `rm -n`: how many bytes come free if exactly these go. What is being removed already counts as gone. */
export function* freedBy(
  peers: AdminPeers,
  command: AdminCommand & { readonly verb: "rm" },
): Steps<AdminResult> {
  yield* commitFirst(peers);
  const reader = yield* readerOfCommit(peers);
  const freed = yield* freedIn(peers, reader, command.names);
  peers.thin.metadata.releaseCommit(reader.hold);
  return freed;
}

function* freedIn(peers: AdminPeers, reader: CommitReader, names: readonly string[]): Steps<AdminResult> {
  // Asked after the commit is held: a snapshot made since is not in it, but none that is in it may be missing here.
  const registry = yield* peers.pool.registry();
  const wanted = yield* restingBetween(removalSlices(registry, names, peers.kernel.knobs.sliceRecords));
  if ("missing" in wanted) {
    return refused(
      `Cannot tell what removing "${wanted.missing}" would free: there is no such volume or snapshot. ${seeList}`,
    );
  }
  const removal = yield* runWalk(peers, reader, blocksFreedByRemoval(wanted));
  if (removal.kind !== "freed") {
    return refused(`Cannot tell what would be freed: ${removal.sentence} ${seeCheck}`);
  }
  return { kind: "wouldFree", bytes: removal.blocks * peers.thin.blockSizeBytes };
}

/** The thin devices that are named, and the others of their families; or a name of which there is none. */
function* removalSlices(
  { records, families }: Registry,
  names: readonly string[],
  perSlice: number,
): Slices<RemovalWanted | { readonly missing: string }> {
  const end = new SliceEnd(perSlice);
  const byName = new Map<string, ThinId>();
  for (const { name, deleting, thinId } of records) {
    if (end.isDue()) yield;
    if (!deleting) byName.set(name, thinId);
  }
  const leaving = new Set<ThinId>();
  const touched = new Set<FamilyKey | undefined>();
  for (const name of names) {
    if (end.isDue()) yield;
    const thin = byName.get(name);
    if (thin === undefined) return { missing: name };
    leaving.add(thin);
    touched.add(families.get(thin));
  }
  const staying = new Set<ThinId>();
  for (const thin of byName.values()) {
    if (end.isDue()) yield;
    if (!leaving.has(thin) && touched.has(families.get(thin))) staying.add(thin);
  }
  return { leaving, staying };
}
