/** Walks over the metadata of the last durable commit, whose blocks are kept meanwhile; and what such a walk rests between. */
import type { MetadataBlocks } from "../../storage/base/geometry.ts";
import type { MetadataBlock } from "../../storage/base/ids.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { into } from "../../storage/device/port.ts";
import type { MetadataScan } from "../../storage/metadata_scan.ts";
import type { Slices } from "../../storage/slices.ts";
import type { PoolPeers } from "./admin_peers.ts";
import { rest, type Steps } from "../kernel/task.ts";

/** The next step where a walk met damage. */
export const seeCheck = "`check` names all damage.";

/** The actors that a walk sends requests to. */
export interface WalkPeers extends Pick<PoolPeers, "kernel" | "metadataDevice" | "readOnly"> {
  readonly thin: Pick<PoolPeers["thin"], "metadata">;
}

/** What the walks of one report read: the last durable commit, with one block at a time in memory. */
export interface CommitReader {
  readonly hold: number;
  readonly transaction: number;
  readonly superblock: Uint8Array;
  readonly metadataBlocks: MetadataBlocks;
  readonly buffer: Uint8Array;
}

/** Keeps the blocks of the last durable commit until `releaseCommit`. */
export function* readerOfCommit(peers: WalkPeers): Steps<CommitReader> {
  const { hold, transaction, superblock, geometry: { metadataBlocks } } = yield* peers.thin.metadata
    .holdCommit();
  return { hold, transaction, superblock, metadataBlocks, buffer: new Uint8Array(metadataBlockSizeBytes) };
}

/** Reads a block of it; undefined if it cannot be read. */
export function* readHeldBlock(
  peers: WalkPeers,
  reader: CommitReader,
  block: MetadataBlock,
): Steps<Uint8Array | undefined> {
  // The superblock on disk may be a later one by now, so it comes from memory. A walk asks for it after each piece of work;
  // other turns go first then.
  if (block === 0) {
    yield* rest();
    return reader.superblock;
  }
  const result = yield* peers.metadataDevice.read(into(reader.buffer), block * metadataBlockSizeBytes);
  return result.kind === "ok" ? reader.buffer : undefined;
}

/** Carries out a walk: reads what it asks for. */
export function* runWalk<Result>(
  peers: WalkPeers,
  reader: CommitReader,
  walk: MetadataScan<Result>,
): Steps<Result> {
  let step = walk.next();
  while (!step.done) step = walk.next(yield* readHeldBlock(peers, reader, step.value));
  return step.value;
}

/** Commits, because a report reads what is on disk, and changes in memory would be missing from it. */
export function* commitFirst(peers: WalkPeers): Steps<void> {
  if (!peers.readOnly) yield* peers.thin.metadata.commit();
}

/** Drives slices from a task: between two of them all other turns go first. */
export function* restingBetween<Result>(slices: Slices<Result>): Steps<Result> {
  let slice = slices.next();
  while (!slice.done) {
    yield* rest();
    slice = slices.next();
  }
  return slice.value;
}
