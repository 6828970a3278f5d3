/** `tree` and `df`: the volumes by what they were made from, and where the space of the pool is. */
import { SliceEnd, type Slices, sortedSlices } from "../../storage/slices.ts";
import type {
  AdminCommand,
  AdminResult,
  PoolSpace,
  SpaceBytes,
  TreeListing,
  VolumeListing,
} from "./admin_command.ts";
import type { AdminPeers } from "./admin_peers.ts";
import { restingBetween } from "./held_walk.ts";
import type { Steps } from "../kernel/task.ts";
import type { Fill } from "../pool/gauge_messages.ts";
import { listings } from "./volume_list.ts";

/** `tree`: every volume and snapshot behind what it was made from. */
export function* volumeTree(
  peers: AdminPeers,
  { exact = false }: AdminCommand & { readonly verb: "tree" },
): Steps<AdminResult> {
  const listed = yield* listings(peers, [], exact);
  if ("kind" in listed) return listed;
  return {
    kind: "tree",
    volumes: yield* restingBetween(treeSlices(listed, peers.kernel.knobs.sliceRecords)),
  };
}

/** In the order in which they are listed, below each. Not recursive: a chain of clones may be as long as a pool has volumes. */
function* treeSlices(listed: readonly VolumeListing[], perSlice: number): Slices<TreeListing[]> {
  const end = new SliceEnd(perSlice);
  const childrenOf = new Map<string | null, VolumeListing[]>();
  for (const volume of listed) {
    if (end.isDue()) yield;
    const siblings = childrenOf.get(volume.origin);
    if (siblings === undefined) childrenOf.set(volume.origin, [volume]);
    else siblings.push(volume);
  }
  const tree: TreeListing[] = [];
  // The next one is at the end.
  const open: TreeListing[] = [];
  const push = (origin: string | null, depth: number) => {
    for (const child of childrenOf.get(origin)?.toReversed() ?? []) open.push({ ...child, depth });
  };
  push(null, 0);
  for (let volume = open.pop(); volume !== undefined; volume = open.pop()) {
    if (end.isDue()) yield;
    tree.push(volume);
    push(volume.name, volume.depth + 1);
  }
  return tree;
}

/** `df`: how full the pool is, and what each volume holds alone. */
export function* poolSpace(
  peers: AdminPeers,
  { exact = false }: AdminCommand & { readonly verb: "df" },
): Steps<AdminResult> {
  const listed = yield* listings(peers, [], exact);
  if ("kind" in listed) return listed;
  const { data, metadata, host } = (yield* peers.gauge.gauge(
    yield* peers.thin.metadata.facts(),
    yield* peers.thin.space.facts(),
  )).measure;
  const { sliceRecords } = peers.kernel.knobs;
  // The largest first: digits in the order of what is left to the largest number.
  const keyOf = ({ exclusive_bytes: bytes }: VolumeListing) =>
    String(Number.MAX_SAFE_INTEGER - (bytes ?? 0)).padStart(16, "0");
  const volumes = yield* restingBetween(sortedSlices(listed, keyOf, sliceRecords));
  const space: PoolSpace = {
    data: bytesOf(data),
    metadata: bytesOf(metadata),
    host: host === undefined ? null : bytesOf(host),
    shared_bytes: sharedBytes(data.usedBytes, listed),
    volumes,
  };
  return { kind: "df", space };
}

function bytesOf({ totalBytes, usedBytes }: Fill): SpaceBytes {
  return { total_bytes: totalBytes, used_bytes: usedBytes, free_bytes: totalBytes - usedBytes };
}

/** What is used and held by no volume alone. Of a pool that is written meanwhile it is about so much. */
function sharedBytes(usedBytes: number, listed: readonly VolumeListing[]): number | null {
  let aloneBytes = 0;
  for (const { exclusive_bytes } of listed) {
    if (exclusive_bytes === null) return null;
    aloneBytes += exclusive_bytes;
  }
  return Math.max(0, usedBytes - aloneBytes);
}
