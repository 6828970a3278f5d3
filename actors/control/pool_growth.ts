/**
 * `grow` and `rescan`: the pool gets the use of more data blocks and metadata blocks, while it is served.
 *
 * Steps: 1. the sizes are checked against what the format and the free metadata allow; 2. both devices become so large,
 * durably, the metadata stored whole by the host; 3. the space maps grow, in slices; 4. a commit makes that durable, and
 * announces the new geometry. If we stop before step 4 is durable, the superblock has the old sizes, or those that a commit
 * between two slices of step 3 found; and devices that are larger than it says are right: the next growth uses them. If we
 * stop after it, the devices have the sizes since step 2 (storage/FORMAT.md, "How growth survives a crash").
 */
import {
  dataBytesOf,
  type Geometry,
  metadataBytesOf,
  type PoolBlocks,
  poolBlocksOf,
} from "../../storage/base/geometry.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { formatSize, metadataBytesMax, roundUp, type SizeChange } from "../../storage/base/sizes.ts";
import { type IoResult, reasonOfIo } from "../../storage/device/port.ts";
import type { GrowthRefusal } from "../../storage/thin_metadata.ts";
import { rest, type Steps } from "../kernel/task.ts";
import { metadataAskedBytesMax } from "../limits.ts";
import type { AdminCommand, AdminResult, PoolSizes } from "./admin_command.ts";
import type { AdminPeers } from "./admin_peers.ts";
import { reasonOfFailure, refused } from "./admin_outcome.ts";

/** `grow`: to the sizes that were asked for. */
export function* growPool(
  peers: AdminPeers,
  { data, metadata }: Extract<AdminCommand, { readonly verb: "grow" }>,
): Steps<AdminResult> {
  if (data === null && metadata === null) {
    return notGrown("no size was given. Write grow SIZE, grow +SIZE or grow --metadata SIZE");
  }
  for (const change of [data, metadata]) {
    // The command line gives whole numbers only; a caller of the library may give anything.
    const problem = change === null ? undefined : problemOfBytes(change.bytes);
    if (problem !== undefined) return notGrown(problem);
  }
  const committed = yield* peers.thin.metadata.commit();
  if (committed.kind !== "done") return notGrown(reasonOfFailure(committed));
  const { geometry } = yield* peers.thin.metadata.facts();
  const dataBytes = bytesAfter(data, dataBytesOf(geometry));
  const metadataBytes = bytesAfter(metadata, metadataBytesOf(geometry));
  // dm-thin uses 15.875 GiB of metadata. 16 GiB is accepted as a round number for all of that, as for a new pool.
  const usedBytes = metadataBytes <= metadataAskedBytesMax
    ? Math.min(metadataBytes, metadataBytesMax)
    : metadataBytes;
  const wanted = poolBlocksOf({
    dataBlocks: Math.floor(dataBytes / geometry.blockSizeBytes),
    metadataBlocks: Math.ceil(usedBytes / metadataBlockSizeBytes),
  });
  if (data?.added && wanted.dataBlocks === geometry.dataBlocks) {
    return notGrown(
      `${formatSize(data.bytes)} is less than one block of ${formatSize(geometry.blockSizeBytes)}`,
    );
  }
  return yield* growTo(peers, geometry, wanted);
}

/** Why a number of bytes is no size, as words to follow a colon. */
function problemOfBytes(bytes: number): string | undefined {
  if (Number.isSafeInteger(bytes) && bytes > 0) return undefined;
  return `a size of ${bytes} bytes is no whole positive number. Give one that is`;
}

function bytesAfter(change: SizeChange | null, presentBytes: number): number {
  if (change === null) return presentBytes;
  return change.added ? presentBytes + change.bytes : change.bytes;
}

/** `rescan`: to the sizes that the devices have by now. */
export function* rescanDevices(peers: AdminPeers): Steps<AdminResult> {
  const committed = yield* peers.thin.metadata.commit();
  if (committed.kind !== "done") return notGrown(reasonOfFailure(committed));
  const { geometry } = yield* peers.thin.metadata.facts();
  const data = yield* peers.thin.data.grow(dataBytesOf(geometry), false);
  if (data.result.kind !== "ok") return notGrown(reasonOfGrowth("data", data.result));
  const metadata = yield* peers.metadataDevice.grow(metadataBytesOf(geometry), true);
  if (metadata.result.kind !== "ok") return notGrown(reasonOfGrowth("metadata", metadata.result));
  const usedBytes = Math.min(metadata.sizeBytes, metadataBytesMax);
  return yield* growTo(
    peers,
    geometry,
    poolBlocksOf({
      dataBlocks: Math.floor(data.sizeBytes / geometry.blockSizeBytes),
      metadataBlocks: Math.floor(usedBytes / metadataBlockSizeBytes),
    }),
  );
}

function* growTo(peers: AdminPeers, geometry: Geometry, wanted: PoolBlocks): Steps<AdminResult> {
  const { metadata, data } = peers.thin;
  const refusal = yield* metadata.growthRefusal(wanted);
  if (refusal.kind !== "possible") return notGrown(reasonOfRefusal(refusal, geometry));
  // The metadata first: only it needs space of the host. Where that is refused, both devices are as they were, and `rescan`
  // finds nothing to take.
  const ofMetadata = yield* peers.metadataDevice.grow(wanted.metadataBlocks * metadataBlockSizeBytes, true);
  if (ofMetadata.result.kind !== "ok") return notGrown(reasonOfGrowth("metadata", ofMetadata.result));
  const ofData = yield* data.grow(wanted.dataBlocks * geometry.blockSizeBytes, false);
  if (ofData.result.kind !== "ok") {
    const isLarger = wanted.metadataBlocks > geometry.metadataBlocks;
    const kept = `. The metadata keeps its new size of ${
      formatSize(ofMetadata.sizeBytes)
    }, which \`rescan\` puts to use`;
    return notGrown(`${reasonOfGrowth("data", ofData.result)}${isLarger ? kept : ""}`);
  }
  for (;;) {
    const grown = yield* metadata.grow(wanted);
    if (grown.kind !== "grown") return yield* brokenOff(peers, reasonOfFailure(grown));
    if (grown.isWhole) break;
    yield* rest();
  }
  const committed = yield* metadata.commit();
  if (committed.kind !== "done") return refused(`The growth is not durable: ${reasonOfFailure(committed)}.`);
  return { kind: "grown", before: sizesIn(geometry), sizes: yield* sizesOf(peers) };
}

/** Commits what has grown before the free metadata was used up by others, so that the sizes are those on disk. */
function* brokenOff(peers: AdminPeers, reason: string): Steps<AdminResult> {
  const committed = yield* peers.thin.metadata.commit();
  if (committed.kind !== "done") {
    return refused(
      `The growth broke off: ${reason}. What had grown by then is not durable: ${
        reasonOfFailure(committed)
      }.`,
    );
  }
  const { data_total_bytes: dataBytes, metadata_total_bytes: metadataBytes } = yield* sizesOf(peers);
  return refused(
    `The growth broke off with ${formatSize(dataBytes)} of data and ${
      formatSize(metadataBytes)
    } of metadata: ` +
      `${reason}. Try again.`,
  );
}

function* sizesOf(peers: AdminPeers): Steps<PoolSizes> {
  const { geometry } = yield* peers.thin.metadata.facts();
  return sizesIn(geometry);
}

function sizesIn(geometry: Geometry): PoolSizes {
  return { data_total_bytes: dataBytesOf(geometry), metadata_total_bytes: metadataBytesOf(geometry) };
}

function notGrown(reason: string): AdminResult {
  return refused(`The pool was not grown: ${reason}.`);
}

function reasonOfGrowth(device: string, result: Exclude<IoResult, { readonly kind: "ok" }>): string {
  if (result.kind === "noSpace") {
    return `the host has not so much space for the ${device}. Make room there, or give a smaller size`;
  }
  return `the ${device} could not be made larger: ${reasonOfIo(result)}`;
}

function reasonOfRefusal(refusal: GrowthRefusal, { blockSizeBytes }: Geometry): string {
  const sizeOf = (device: "data" | "metadata", blocks: number) =>
    formatSize(blocks * (device === "data" ? blockSizeBytes : metadataBlockSizeBytes));
  switch (refusal.kind) {
    case "shrinks":
      return `the ${refusal.device} has ${
        sizeOf(refusal.device, refusal.blocks)
      } already, and a pool cannot become ` +
        "smaller. Give a larger size, or what to add, as in +10G";
    case "tooLarge":
      return `the ${refusal.device} can have at most ${sizeOf(refusal.device, refusal.blocksMax)} ` +
        `(${refusal.blocksMax} blocks), as dm-thin's format limits it. Give a smaller size`;
    case "needsMetadata": {
      const bytes = roundUp(refusal.metadataBlocks * metadataBlockSizeBytes, 1 << 20);
      return `the metadata is too small to count so much. Grow it as well: --metadata ${bytes / (1 << 20)}M`;
    }
  }
}
