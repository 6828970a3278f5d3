/**
 * The remap functions of thin provisioning: what is done for one bio.
 *
 * Source: the note on remapping and bio_prison v2 that the author of dm-thin (Linux, drivers/md/dm-thin.c) sent to the
 * dm-devel mailing list. Its pseudo-code has the functions `remap`, `remapRead`, `remapWrite`, `breakSharing`, `provision`,
 * `discard`, `flush` and `remapAndWait`. They stand here in the same order; what the note leaves out comes after them.
 * Every `yield*` of a stub is one request message and its answer, or several where a device works in pieces or a range lies in
 * several lock regions. bio_task.ts starts and completes a remap, tries once more after it has made space, and then parks it.
 *
 * Differences from the note, each explained where it is:
 *
 *  - A shared lock is for reading or for writing, so that an upgrade can exclude writers and let reads go on (lock_cell.ts).
 *  - An upgrade gives up the shared lock, so the mapping is looked up again (`remapWrite`).
 *  - An unprovisioned block is not provisioned by a write-zeroes that allows holes: it reads as zeroes already (`remapWrite`).
 *    Nor is it, if the volume is to detect zeroes, by a write of zeroes.
 *  - A mapping older than the last snapshot gets the present time before a write in place (`writeInPlace`).
 *  - The write comes before the insert, not after it; a block that the bio covers is neither copied nor zeroed, any other
 *    new block is copied or zeroed first (`breakSharing`, `provision`).
 *  - Reads go on while a block is copied; they are shut out only while its mapping changes (`breakSharing`).
 *  - The data lock of a copy's old block is shared: the copy only reads it, and clones may copy one block at the same time.
 *  - A provision does not wait for readers (`provision`).
 *  - A discard removes a range of virtual blocks and passes nothing down itself (`remapDiscard`).
 *  - FAST_ZERO is refused where bytes or a block would be needed (`writeInPlace`, `breakSharing`, `provision`).
 *
 * Not here: FUA. One request may be many bios, and all of them must be durable before it is answered. So the volume starts
 * one flush bio when the others have ended (`#allBiosDone` in thin_volume.ts).
 */
import { unreachable } from "../../storage/base/assert.ts";
import type { IoResult, ReadResult } from "../../storage/device/port.ts";
import type { DBlock, ThinId, VBlock } from "../../storage/base/ids.ts";
import { isZeroes } from "../../storage/base/zeroes.ts";
import type { CounterName } from "../counters.ts";
import { bioStatusOf, isOfSource, statusOfAllocation, statusOfIo } from "./bio_status.ts";
import { checkSpace } from "./check_space.ts";
import type { Bio, BioStatus } from "./bio.ts";
import type { DeviceStub } from "../pool/device_messages.ts";
import { type AllocatorStub, Lease } from "../pool/allocator_messages.ts";
import type { DataLocks } from "../pool/data_locks.ts";
import type { Steps } from "../kernel/task.ts";
import { type BlockLock, lockRange, type RegionLocks } from "../pool/region_locks.ts";
import type { MetadataStub } from "../pool/metadata_messages.ts";
import type { Done, MetadataFailure } from "../pool/metadata_results.ts";
import type { SpaceStub } from "../pool/space_messages.ts";
import type { Mapping } from "../../storage/thin_metadata.ts";

/** A thin device and the actors that its bios send requests to. */
export interface Thin {
  readonly id: ThinId;
  readonly blockSizeBytes: number;
  readonly metadata: MetadataStub;
  readonly allocator: AllocatorStub;
  readonly dataLocks: DataLocks;
  readonly data: DeviceStub;
  readonly space: SpaceStub;
  /** A write of zeroes provisions nothing. */
  readonly detectsZeroes: boolean;
  /** Adds to a counter of the pool. */
  count(name: CounterName, amount?: number): void;
}

type Provisioned = Extract<Mapping, { kind: "provisioned" }>;

/**
 * Serves those bios of a batch that wait for nothing: their blocks can be locked at once, their mappings are in memory, and the
 * device reads or writes them at once. Each step is one message for all of them. A bio that is served has its `status`. Every
 * other bio starts again alone, below. Nothing here changes a mapping, and nothing waits while it holds a lock.
 *
 * The locks are shared ones, and each is held until the I/O of the whole batch has ended: see remapRead and remapWrite. A write
 * may be done in part and start again alone. Until it is answered it is concurrent with all that is under way, and NBD gives
 * requests in flight no order.
 */
export function* remapBatch(thin: Thin, bios: readonly Bio[]): Steps<void> {
  using locks = new DisposableStack();
  for (const [region, those] of regionsOf(bios)) locks.use(yield* region.atOnce(those));
  const locked = bios.filter(({ isLocked }) => isLocked);
  yield* thin.metadata.lookupAtOnce(thin.id, locked);
  const inPlace = locked.filter((bio) => isInPlace(thin, bio));
  yield* thin.data.transferAtOnce(inPlace);
  for (const bio of locked) bio.status = statusInBatch(bio);
}

/** The bios of each lock region, ascending (invariant I5). Most volumes have one region. */
function regionsOf(bios: readonly Bio[]): Iterable<readonly [RegionLocks, readonly Bio[]]> {
  const { region } = bios[0]!;
  if (bios.every((bio) => bio.region === region)) return [[region, bios]];
  const regions = [...Map.groupBy(bios, (bio) => bio.region)];
  return regions.sort(([a], [b]) => a.blockBegin - b.blockBegin);
}

/** Whether the bio is to be read from or written to the block that it is mapped to, and where that is. */
function isInPlace(thin: Thin, bio: Bio): boolean {
  const { mapping } = bio;
  if (mapping?.kind !== "provisioned") return false;
  bio.atBytes = mapping.dblock * thin.blockSizeBytes + bio.offsetBytes;
  return bio.kind === "read" || (!mapping.shared && !mapping.isOld);
}

/** How a bio has ended; undefined if it goes on alone. */
function statusInBatch(bio: Bio): BioStatus | undefined {
  if (bio.result !== undefined) return statusOfTransfer(bio, bio.result);
  if (bio.kind !== "read" || bio.mapping?.kind !== "unprovisioned") return undefined;
  bio.readZeroes();
  return "hole";
}

/** How a bio is handled depends on its kind, on whether its block is provisioned, and on whether that is shared. */
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
    case "checkSpace":
      return checkSpace(thin, bio);
    default:
      return unreachable(bio.kind);
  }
}

function* remapRead(thin: Thin, bio: Bio): Steps<BioStatus> {
  using _lock = yield* bio.region.block(bio.vblock, "read");
  const mapping = yield* thin.metadata.lookup(thin.id, bio.vblock);
  switch (mapping.kind) {
    case "unprovisioned":
      // "hole" is the note's Success for this case. It tells the volume that the bytes are zeroes, so that the connection
      // can send a hole instead of them.
      bio.readZeroes();
      return "hole";
    case "provisioned":
      return yield* remapAndWait(thin, bio, mapping.dblock);
    default:
      return bioStatusOf(mapping);
  }
}

function* remapWrite(thin: Thin, bio: Bio): Steps<BioStatus> {
  using lock = yield* bio.region.block(bio.vblock, "write");
  let mapping = yield* thin.metadata.lookup(thin.id, bio.vblock);
  if (mapping.kind === "provisioned" && !mapping.shared) {
    return yield* writeInPlace(thin, bio, mapping);
  }
  if (mapping.kind === "unprovisioned" && staysUnprovisioned(thin, bio)) return "ok";

  // Two writers that held the block and both waited for the other's release would wait for ever. So an upgrade gives up
  // the shared hold and queues for "exclude writers"; reads go on. Another writer may be granted first and provision or
  // copy the block, so the mapping is looked up again. After "alone" it need not be: no other writer held the block or
  // waited for it since the first look-up. A mapping changes only under a lock that excludes writers, and becomes shared
  // only while the volume is suspended and has no bios.
  const upgraded = yield* lock.upgrade();
  if (upgraded !== "alone") mapping = yield* thin.metadata.lookup(thin.id, bio.vblock);
  switch (mapping.kind) {
    case "unprovisioned":
      if (staysUnprovisioned(thin, bio)) return "ok";
      if (mapping.refusal !== undefined) return bioStatusOf({ kind: mapping.refusal });
      return yield* provision(thin, bio);
    case "provisioned":
      if (!mapping.shared) return yield* writeInPlace(thin, bio, mapping);
      if (mapping.refusal !== undefined) return bioStatusOf({ kind: mapping.refusal });
      return yield* breakSharing(thin, bio, lock, mapping.dblock);
    default:
      return bioStatusOf(mapping);
  }
}

/**
 * Steps: copy the old block unless the bio covers it, write, insert the mapping. The commit, later, flushes the data device
 * before it writes the superblock.
 *
 * A covered block is not copied: the write replaces every byte that the copy would bring.
 *
 * If we stop after the copy or the write, nothing maps the new block: the old one is mapped and whole. If we stop after
 * the insert and before the commit, the same is true, because the insert was in memory only. If we stop after the commit,
 * the new block is mapped and its bytes are durable. So the old content of the new block is never readable. This needs the
 * write before the insert: were the mapping inserted first, a commit between the two would publish that content.
 *
 * On a failure the lease gives the block back, or retires it if the device cannot write it.
 *
 * The old block is locked before the new one, whatever their numbers (an exception to invariant I5): no other task knows the
 * new block, so none waits for it.
 */
function* breakSharing(thin: Thin, bio: Bio, lock: BlockLock, dblockOld: DBlock): Steps<BioStatus> {
  if (bio.fastZero) return "notSupported";
  const allocation = yield* thin.allocator.allocate();
  if (allocation.kind !== "allocated") return statusOfAllocation(allocation);
  using fresh = new Lease(thin.allocator, allocation.dblock);
  // Damaged metadata may count a mapped block as free. If we locked it twice here, we would wait for ourselves.
  if (fresh.dblock === dblockOld) return bioStatusOf(yield* thin.metadata.reportMappedFree(dblockOld));
  // We grab data locks to avoid races with passdown.
  using _old = yield* thin.dataLocks.source(dblockOld);
  using _new = yield* thin.dataLocks.fresh(fresh.dblock);
  if (!coversBlock(thin, bio)) {
    const copied = yield* thin.data.copy(
      dblockOld * thin.blockSizeBytes,
      fresh.dblock * thin.blockSizeBytes,
      thin.blockSizeBytes,
    );
    if (copied.kind !== "ok") return isOfSource(copied) ? "ioError" : fresh.failed(statusOfIo(copied));
    thin.count("copiedBytes", thin.blockSizeBytes);
  }
  const written = yield* remapAndWait(thin, bio, fresh.dblock);
  if (written !== "ok") return fresh.failed(written);
  // Wait for the readers of the old block: once it is unmapped, it may be passed down and used again.
  yield* lock.promote();
  return yield* insert(thin, bio, fresh, "sharingBroken");
}

/**
 * Steps: zero what the bio does not cover, write, insert the mapping. If we stop before a commit that has the insert, the
 * virtual block is not provisioned and reads as zeroes, as before. The write comes before the insert for the same reason
 * as in {@linkcode breakSharing}. On a failure the lease gives the block back, or retires it if the device cannot write it.
 *
 * The lock is not promoted: no old block is unmapped, so readers need not be waited for. A reader that looked up before the
 * insert has found nothing and answers zeroes, which is right for a read concurrent with this write.
 */
function* provision(thin: Thin, bio: Bio): Steps<BioStatus> {
  if (bio.fastZero) return "notSupported";
  const allocation = yield* thin.allocator.allocate();
  if (allocation.kind !== "allocated") return statusOfAllocation(allocation);
  using fresh = new Lease(thin.allocator, allocation.dblock);
  using _new = yield* thin.dataLocks.fresh(fresh.dblock);
  if (!coversBlock(thin, bio)) {
    const zeroed = yield* zeroRest(thin, bio, fresh.dblock);
    if (zeroed.kind !== "ok") return fresh.failed(statusOfIo(zeroed));
  }
  const written = yield* remapAndWait(thin, bio, fresh.dblock);
  if (written !== "ok") return fresh.failed(written);
  return yield* insert(thin, bio, fresh, "provisions");
}

/**
 * A discard bio is a range of whole blocks, so its lock is a range lock. The note passes the block down, then removes its
 * mapping. Here the order is the reverse: metadata reports blocks without a reference to the allocator, which keeps them in
 * quarantine until the commit is durable. Then it passes them down under their data locks, before they can be leased again.
 * If we passed down first and stopped before the commit, the last commit would map a block of zeroes. There is no look-up:
 * the reference counts tell which blocks are not shared.
 *
 * Where metadata is short of space, a removal or an insert waits for a commit while its lock is held (an exception to invariant
 * I5): a commit takes no lock of a block, so it does not wait for this one.
 */
function* remapDiscard(thin: Thin, bio: Bio): Steps<BioStatus> {
  using _lock = yield* lockRange(bio.regions, bio.vblock, bio.vblockEnd);
  const removed = yield* removeMappings(thin, bio.vblock, bio.vblockEnd);
  return removed.kind === "done" ? "ok" : bioStatusOf(removed);
}

/**
 * Commits all changes so far, their data first. Flushes that arrive while a commit runs share the next one. Unlike in the note,
 * other metadata operations go on meanwhile, in the next transaction.
 */
function* remapFlush(thin: Thin): Steps<BioStatus> {
  const committed = yield* thin.metadata.commit();
  return committed.kind === "done" ? "ok" : bioStatusOf(committed);
}

/**
 * Does the bio's I/O on the data block. The bio is the target of its read: the device fills its memory, or answers with a
 * mapped segment of the host's page cache, from which the request is then answered.
 */
function* remapAndWait(thin: Thin, bio: Bio, dblock: DBlock): Steps<BioStatus> {
  const at = dblock * thin.blockSizeBytes + bio.offsetBytes;
  switch (bio.kind) {
    case "read":
      return statusOfTransfer(bio, yield* thin.data.read(bio, at));
    case "write":
      return statusOfIo(yield* thin.data.write(bio.memory(), at));
    default:
      return statusOfIo(yield* thin.data.zero(at, bio.lengthBytes));
  }
}

// What the note leaves out.

/**
 * Writes to a block of the volume's own. If its mapping is older than the volume's last snapshot, that snapshot has given
 * the block up since (it was removed, or wrote to its own copy). Then the mapping is inserted again with the present time.
 * So the block stays the volume's own from now on, and writing to it again needs no space.
 *
 * Metadata calls a block not shared only if no commit that a crash can restore has a second reference to it. So if we stop
 * after the new time is durable and before the write is, the block has its old bytes, and the time is right. If we stop
 * before that, the block has old or new bytes, as after any write without a flush, and the next write finds the old time
 * again.
 *
 * FAST_ZERO asks for an error where zeroing is not much faster than writing. Every function that would write bytes refuses
 * it, before it changes anything. Whole blocks of such a request are a discard, which only unmaps.
 */
function* writeInPlace(thin: Thin, bio: Bio, mapping: Provisioned): Steps<BioStatus> {
  if (bio.fastZero) return "notSupported";
  if (mapping.isOld) {
    const inserted = yield* thin.metadata.insert(thin.id, bio.vblock, mapping.dblock);
    if (inserted.kind !== "done") return bioStatusOf(inserted);
  }
  return yield* remapAndWait(thin, bio, mapping.dblock);
}

/** Inserts the mapping to a new block, which is metadata's from then on. */
function* insert(
  thin: Thin,
  bio: Bio,
  fresh: Lease,
  counter: "provisions" | "sharingBroken",
): Steps<BioStatus> {
  const inserted = yield* thin.metadata.insert(thin.id, bio.vblock, fresh.dblock);
  if (inserted.kind !== "done") return bioStatusOf(inserted);
  fresh.keep();
  thin.count(counter);
  return "ok";
}

/** Unmaps a range, one leaf at a time. Where metadata is short of space, a slice waits for the commit of those before it. */
export function* removeMappings(thin: Thin, begin: VBlock, end: VBlock): Steps<Done | MetadataFailure> {
  let next = begin;
  while (next < end) {
    const removed = yield* thin.metadata.removeRange(thin.id, next, end);
    if (removed.kind !== "removed") return removed;
    next = removed.next;
  }
  return { kind: "done" };
}

/** Zeroes what the bio does not cover of a new block, so that its old content is never read. */
function* zeroRest(thin: Thin, bio: Bio, dblock: DBlock): Steps<IoResult> {
  const begin = dblock * thin.blockSizeBytes;
  const bioEnd = bio.offsetBytes + bio.lengthBytes;
  const head = yield* thin.data.zero(begin, bio.offsetBytes);
  if (head.kind !== "ok") return head;
  return yield* thin.data.zero(begin + bioEnd, thin.blockSizeBytes - bioEnd);
}

/** True for a whole data block. A volume's last block may be cut short: then its rest is zeroed like any other rest. */
function coversBlock(thin: Thin, bio: Bio): boolean {
  return bio.lengthBytes === thin.blockSizeBytes;
}

/**
 * An unprovisioned block is zero already, all of it, so zeroes for any part of it change nothing. A write-zeroes may ask for a
 * block all the same. Bytes are only looked at where there is no block.
 */
function staysUnprovisioned(thin: Thin, bio: Bio): boolean {
  if (bio.kind === "writeZeroes") return !bio.noHole;
  if (!thin.detectsZeroes || !isZeroes(bio.memory())) return false;
  thin.count("zeroesDetected");
  return true;
}

/** The status of a bio whose read or write has ended so. */
function statusOfTransfer(bio: Bio, found: ReadResult): BioStatus {
  if (found.kind !== "mapped") return statusOfIo(found);
  bio.takeMapped(found);
  return "ok";
}
