/** Zeroes the rest of a volume's last block after the volume became smaller. Otherwise a later growth would show old bytes. */
import { Bio, type BioStatus } from "./bio.ts";
import { vblock } from "../../storage/base/ids.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Steps } from "../kernel/task.ts";
import { mailboxes } from "../mailboxes.ts";
import { LockRegion } from "../pool/lock_region.ts";
import { RegionLocks } from "../pool/region_locks.ts";
import { remap, type Thin } from "./remap.ts";

/**
 * Zeroes from `fromBytes` to the end of its block with a write-zeroes bio. The volume is suspended or not open, so no other
 * bio uses the block, and a lock region for this bio alone is enough.
 */
export function* zeroTail(kernel: Kernel, thin: Thin, fromBytes: number): Steps<BioStatus> {
  const offsetBytes = fromBytes % thin.blockSizeBytes;
  if (offsetBytes === 0) return "ok";
  const block = vblock(Math.floor(fromBytes / thin.blockSizeBytes));
  const region = kernel.spawn(
    "region of a tail",
    mailboxes.tailRegion,
    (self) => new LockRegion(kernel, self),
  );
  const locks = new RegionLocks(kernel, region, block, block + 1);
  const bio = new Bio(
    "writeZeroes",
    undefined,
    block,
    vblock(block + 1),
    offsetBytes,
    thin.blockSizeBytes - offsetBytes,
  );
  bio.regions = [locks];
  let status = yield* remap(thin, bio);
  // A shared block is copied, which needs a free block. Those freed since the last commit wait for one.
  if (status === "noDataSpace" && (yield* thin.allocator.reclaim())) status = yield* remap(thin, bio);
  locks.retire();
  return status;
}
