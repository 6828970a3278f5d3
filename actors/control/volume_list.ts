/** `list` and `rm -n`: what volumes and snapshots map, and what removing them would free. */
import { present } from "../../storage/base/assert.ts";
import type { ThinId } from "../../storage/base/ids.ts";
import { blocksFreedByRemoval } from "../../storage/removal.ts";
import type { VolumeRecord } from "../../storage/catalogue.ts";
import { isDamaged } from "../../storage/metadata_scan.ts";
import { SliceEnd, type Slices } from "../../storage/slices.ts";
import type { AdminCommand, AdminResult, VolumeListing } from "./admin_command.ts";
import { refused } from "./admin_outcome.ts";
import type { AdminPeers } from "./admin_peers.ts";
import { chosenVolumes } from "./chosen_volumes.ts";
import { figuresOf, type VolumeFiguresByThin } from "./figures.ts";
import { commitFirst, readerOfCommit, restingBetween, runWalk, seeCheck } from "./held_walk.ts";
import type { Steps } from "../kernel/task.ts";
import { seeList } from "./plan_checks.ts";
import type { Registry } from "./pool_messages.ts";

/** `list`: volumes and snapshots, with what each maps and owns alone. */
export function* listVolumes(
  peers: AdminPeers,
  { names = [], exact = false }: AdminCommand & { readonly verb: "list" },
): Steps<AdminResult> {
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
  const volumes = yield* restingBetween(listingSlices(peers, registry, chosen, figures));
  return { kind: "volumes", volumes };
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
      read_only: record.readOnly,
      // The volume that it was made from may have been removed.
      origin: record.origin === null ? null : nameOf.get(record.origin) ?? null,
      created: record.created,
      attached: attached.get(record.uid) ?? 0,
    });
  }
  return volumes;
}

/** `rm -n`: how many bytes removing all of these would free. */
export function* freedBy(
  peers: AdminPeers,
  command: AdminCommand & { readonly verb: "rm" },
): Steps<AdminResult> {
  const { records } = yield* peers.pool.registry();
  const thins = yield* restingBetween(thinsOf(records, command.names, peers.kernel.knobs.sliceRecords));
  if (typeof thins === "string") {
    return refused(
      `Cannot tell what removing "${thins}" would free: there is no such volume or snapshot. ${seeList}`,
    );
  }
  yield* commitFirst(peers);
  const reader = yield* readerOfCommit(peers);
  const removal = yield* runWalk(peers, reader, blocksFreedByRemoval(thins));
  peers.thin.metadata.releaseCommit(reader.hold);
  if (removal.kind !== "freed") {
    return refused(`Cannot tell what would be freed: ${removal.sentence} ${seeCheck}`);
  }
  return { kind: "wouldFree", bytes: removal.blocks * peers.thin.blockSizeBytes };
}

function* thinsOf(
  records: readonly VolumeRecord[],
  names: readonly string[],
  perSlice: number,
): Slices<ThinId[] | string> {
  const end = new SliceEnd(perSlice);
  const byName = new Map<string, ThinId>();
  for (const { name, deleting, thinId } of records) {
    if (end.isDue()) yield;
    if (!deleting) byName.set(name, thinId);
  }
  const thins = new Set<ThinId>();
  for (const name of names) {
    if (end.isDue()) yield;
    const thin = byName.get(name);
    if (thin === undefined) return name;
    thins.add(thin);
  }
  return [...thins];
}
