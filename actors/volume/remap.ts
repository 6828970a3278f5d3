/**
 * The remap function of thin provisioning: what servicing one bio does.
 *
 * It is written to be read beside the note it comes from: the same functions, the same order, and every `yield*`
 * is one message and its answer. Where it differs, a comment says why.
 */
import { unreachable } from "../../storage/base/assert.ts";
import type { IoResult } from "../../storage/device/port.ts";
import type { DBlock, ThinId, VBlock } from "../../storage/base/ids.ts";
import { type Bio, type BioStatus, dataOf } from "./bio.ts";
import type { DeviceStub } from "../pool/block_device.ts";
import { type AllocatorStub, Lease } from "../pool/data_allocator.ts";
import type { DataLocks } from "../pool/data_locks.ts";
import type { Steps } from "../kernel/task.ts";
import { type BlockLock, lockRange } from "../pool/lock_region.ts";
import type { Done, MetadataFailure, MetadataStub } from "../pool/metadata_messages.ts";
import type { Mapping } from "../../storage/thin_metadata.ts";

/** A thin device as its bios see it: its number, and whom they ask. */
export interface Thin {
  readonly id: ThinId;
  readonly blockSizeBytes: number;
  readonly metadata: MetadataStub;
  readonly allocator: AllocatorStub;
  readonly dataLocks: DataLocks;
  readonly data: DeviceStub;
}

type Provisioned = Extract<Mapping, { kind: "provisioned" }>;

const runsPerLookup = 1024;

/** How we handle a bio depends on what it is, on whether the block is provisioned, and on whether it is shared. */
export function remap(thin: Thin, bio: Bio): Steps<BioStatus> {
  switch (bio.kind) {
    case "read":
      return remapRead(thin, bio);
    case "write":
    case "writeZeroes":
      return remapWrite(thin, bio);
    case "discard":
      return remapDiscard(thin, bio);
    case "flush":
      return remapFlush(thin);
    case "ensureSpace":
      return ensureSpace(thin, bio);
    default:
      return unreachable(bio.kind);
  }
}

function* remapRead(thin: Thin, bio: Bio): Steps<BioStatus> {
  using _lock = yield* bio.regions[0]!.block(bio.vblock, "read");
  const mapping = yield* thin.metadata.lookup(thin.id, bio.vblock);
  switch (mapping.kind) {
    case "unprovisioned":
      if (bio.request?.takesSegments !== true) dataOf(bio).fill(0);
      return "hole";
    case "provisioned":
      return yield* remapAndWait(thin, bio, mapping.dblock);
    default:
      return statusOf(mapping);
  }
}

function* remapWrite(thin: Thin, bio: Bio): Steps<BioStatus> {
  using lock = yield* bio.regions[0]!.block(bio.vblock, "write");
  let mapping = yield* thin.metadata.lookup(thin.id, bio.vblock);
  if (mapping.kind === "provisioned" && !mapping.shared) {
    return yield* writeInPlace(thin, bio, mapping);
  }
  if (mapping.kind === "unprovisioned" && readsAsZeroes(bio)) return "ok";

  // Two writers that both hold the block and both upgrade would wait for each other for ever. So an upgrade gives
  // up the shared hold, and whoever was granted first may have provisioned or copied the block: look it up again.
  // Reads go on meanwhile. Who was alone from the first look to the grant needs no second one: what a block is mapped
  // to changes under a lock that excludes writers, and it becomes shared only while the volume has no bios.
  const upgraded = yield* lock.upgrade();
  if (upgraded !== "alone") mapping = yield* thin.metadata.lookup(thin.id, bio.vblock);
  switch (mapping.kind) {
    case "unprovisioned":
      return yield* provision(thin, bio);
    case "provisioned":
      if (!mapping.shared) return yield* writeInPlace(thin, bio, mapping);
      return yield* breakSharing(thin, bio, lock, mapping.dblock);
    default:
      return statusOf(mapping);
  }
}

/**
 * If we stop before the mapping is inserted, the old block is still mapped and whole. It is inserted after the
 * data is on the device, and the commit flushes the device before its superblock: no crash publishes the stale
 * bytes of the new block. On every failure the lease gives the new block back.
 */
function* breakSharing(thin: Thin, bio: Bio, lock: BlockLock, dblockOld: DBlock): Steps<BioStatus> {
  if (bio.fastZero) return "notSupported";
  const allocation = yield* thin.allocator.allocate();
  if (allocation.kind !== "allocated") return allocation.kind === "failed" ? "ioError" : "noDataSpace";
  using fresh = new Lease(thin.allocator, allocation.dblock);
  // Metadata that counts fewer holders than there are says that a block is free which is still mapped here.
  if (fresh.dblock === dblockOld) return statusOf(yield* thin.metadata.reportMappedFree(dblockOld));
  // We grab data locks to avoid races with passdown.
  using _old = yield* thin.dataLocks.source(dblockOld);
  using _new = yield* thin.dataLocks.fresh(fresh.dblock);
  if (!coversBlock(thin, bio)) {
    const copied = yield* thin.data.copy(
      dblockOld * thin.blockSizeBytes,
      fresh.dblock * thin.blockSizeBytes,
      thin.blockSizeBytes,
    );
    if (copied.kind !== "ok") return isOfSource(copied) ? "ioError" : fresh.unfilled(statusOfIo(copied));
  }
  const written = yield* remapAndWait(thin, bio, fresh.dblock);
  if (written !== "ok") return fresh.unfilled(written);
  // Whoever still reads the old block is waited for: once unmapped it may be passed down and used again.
  yield* lock.promote();
  return yield* insert(thin, bio, fresh);
}

/** If we stop before the mapping is inserted, the block is not provisioned and reads as zeroes, as before. */
function* provision(thin: Thin, bio: Bio): Steps<BioStatus> {
  if (bio.fastZero) return "notSupported";
  const allocation = yield* thin.allocator.allocate();
  if (allocation.kind !== "allocated") return allocation.kind === "failed" ? "ioError" : "noDataSpace";
  using fresh = new Lease(thin.allocator, allocation.dblock);
  using _new = yield* thin.dataLocks.fresh(fresh.dblock);
  if (!coversBlock(thin, bio)) {
    const zeroed = yield* zeroRest(thin, bio, fresh.dblock);
    if (zeroed.kind !== "ok") return fresh.unfilled(statusOfIo(zeroed));
  }
  const written = yield* remapAndWait(thin, bio, fresh.dblock);
  if (written !== "ok") return fresh.unfilled(written);
  return yield* insert(thin, bio, fresh);
}

function* insert(thin: Thin, bio: Bio, fresh: Lease): Steps<BioStatus> {
  const inserted = yield* thin.metadata.insert(thin.id, bio.vblock, fresh.dblock);
  if (inserted.kind !== "done") return statusOf(inserted);
  fresh.keep();
  return "ok";
}

/**
 * A discard covers a range of blocks. Blocks that nobody references any more wait with the allocator until the
 * commit is durable; it passes them down under their data locks before they can be allocated again.
 */
function* remapDiscard(thin: Thin, bio: Bio): Steps<BioStatus> {
  using _lock = yield* lockRange(bio.regions, bio.vblock, bio.vblockEnd);
  const removed = yield* removeMappings(thin, bio.vblock, bio.vblockEnd);
  return removed.kind === "done" ? "ok" : statusOf(removed);
}

/** Unmaps a range, a leaf at a time. Where metadata is short, a commit frees what the last slices have let go of. */
export function* removeMappings(thin: Thin, begin: VBlock, end: VBlock): Steps<Done | MetadataFailure> {
  let next = begin;
  let committedAt: VBlock | undefined;
  while (next < end) {
    const removed = yield* thin.metadata.removeRange(thin.id, next, end);
    if (removed.kind === "removed") {
      next = removed.next;
      continue;
    }
    if (removed.kind !== "noMetadataSpace" || committedAt === next) return removed;
    const committed = yield* thin.metadata.commit();
    if (committed.kind !== "done") return committed;
    committedAt = next;
  }
  return { kind: "done" };
}

/** Commits what was done so far, the data first; flushes that come while a commit runs share the next. */
function* remapFlush(thin: Thin): Steps<BioStatus> {
  const committed = yield* thin.metadata.commit();
  return committed.kind === "done" ? "ok" : statusOf(committed);
}

/** Whether a range can be provisioned whole: blocks of its own count, unmapped and shared ones need a free one. */
function* ensureSpace(thin: Thin, bio: Bio): Steps<BioStatus> {
  let needed = bio.vblockEnd - bio.vblock;
  let next = bio.vblock;
  while (next < bio.vblockEnd) {
    const range = yield* thin.metadata.lookupRange(thin.id, next, bio.vblockEnd, runsPerLookup);
    if (range.kind !== "range") return statusOf(range);
    for (const run of range.runs) if (!run.shared) needed -= run.length;
    next = range.next;
  }
  const facts = yield* thin.metadata.facts();
  return needed <= facts.dataFree ? "ok" : "noDataSpace";
}

function* remapAndWait(thin: Thin, bio: Bio, dblock: DBlock): Steps<BioStatus> {
  const at = dblock * thin.blockSizeBytes + bio.offsetBytes;
  switch (bio.kind) {
    case "read":
      if (bio.request?.takesSegments) bio.segment = yield* thin.data.mapSegment(at, bio.lengthBytes);
      if (bio.segment !== undefined) return "ok";
      return statusOfIo(yield* thin.data.read(dataOf(bio), at));
    case "write":
      return statusOfIo(yield* thin.data.write(dataOf(bio), at));
    default:
      return statusOfIo(yield* thin.data.zero(at, bio.lengthBytes));
  }
}

/**
 * A block of the volume's own. If its mapping is older than the last snapshot, that one is gone, and the first write
 * gives the mapping the present time: so it stays the volume's own whoever else lets go of what meanwhile, and what was
 * written since the last snapshot never needs space again.
 *
 * No commit that a crash could bring back has another holder of the block; that is why it is called not shared. So if we
 * stop after the new time is durable and before the write is, the block is there as it was, and the time says rightly
 * that nobody shares it. If we stop before that, old and new bytes are both the volume's, as with any write that was not
 * flushed, and the next one finds the old time again.
 */
function* writeInPlace(thin: Thin, bio: Bio, mapping: Provisioned): Steps<BioStatus> {
  if (bio.fastZero) return "notSupported";
  if (mapping.isOld) {
    const inserted = yield* thin.metadata.insert(thin.id, bio.vblock, mapping.dblock);
    if (inserted.kind !== "done") return statusOf(inserted);
  }
  return yield* remapAndWait(thin, bio, mapping.dblock);
}

/** Zeroes what the bio does not cover of a fresh block, so that nobody ever sees what was there. */
function* zeroRest(thin: Thin, bio: Bio, dblock: DBlock): Steps<IoResult> {
  const begin = dblock * thin.blockSizeBytes;
  const bioEnd = bio.offsetBytes + bio.lengthBytes;
  const head = yield* thin.data.zero(begin, bio.offsetBytes);
  if (head.kind !== "ok") return head;
  return yield* thin.data.zero(begin + bioEnd, thin.blockSizeBytes - bioEnd);
}

/** Whole data blocks only: the rest of a volume's partial last block is zeroed like any other rest. */
function coversBlock(thin: Thin, bio: Bio): boolean {
  return bio.lengthBytes === thin.blockSizeBytes;
}

/** An unprovisioned block is zero already, unless it must become provisioned. */
function readsAsZeroes(bio: Bio): boolean {
  return bio.kind === "writeZeroes" && !bio.noHole;
}

/** What a client is told about a metadata operation that did not happen. */
export function statusOf(failure: MetadataFailure): BioStatus {
  switch (failure.kind) {
    case "noMetadataSpace":
    case "poolFailed":
      return failure.kind;
    // A pool that damage has made read-only: whoever was let in before it is not to blame.
    case "readOnly":
    case "damaged":
    case "clockExhausted":
      return "ioError";
    default:
      return unreachable(failure);
  }
}

/** A copy that failed because of what was to be copied: the block that it was for is not to blame. */
function isOfSource(copied: IoResult): boolean {
  return copied.kind === "ioError" && copied.isOfSource === true;
}

function statusOfIo(result: IoResult): BioStatus {
  if (result.kind === "noSpace") return "noDataSpace";
  return result.kind === "ok" ? "ok" : "ioError";
}
