/** Zeroing the rest of a volume's last block after the volume became smaller, or a later growth would show stale bytes. */
import type { Bio, BioStatus } from "./bio.ts";
import { vblock } from "../../storage/base/ids.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Steps } from "../kernel/task.ts";
import { mailboxMax } from "../limits.ts";
import { LockRegion, RegionLocks } from "../pool/lock_region.ts";
import { remap, type Thin } from "./remap.ts";

/**
 * Zeroes from `fromBytes` to the end of its block: a write-zeroes bio like any other. The volume is suspended, or not
 * open, so a lock region of its own serves.
 */
export function* zeroTail(kernel: Kernel, thin: Thin, fromBytes: number): Steps<BioStatus> {
  const offsetBytes = fromBytes % thin.blockSizeBytes;
  if (offsetBytes === 0) return "ok";
  const block = vblock(Math.floor(fromBytes / thin.blockSizeBytes));
  const region = kernel.spawn("region of a tail", mailboxMax, (self) => new LockRegion(kernel, self));
  const locks = new RegionLocks(kernel, region, block, block + 1);
  const bio: Bio = {
    kind: "writeZeroes",
    request: undefined,
    segment: undefined,
    admitted: undefined,
    vblock: block,
    vblockEnd: vblock(block + 1),
    offsetBytes,
    lengthBytes: thin.blockSizeBytes - offsetBytes,
    dataBegin: 0,
    noHole: false,
    fastZero: false,
    regions: [locks],
  };
  let status = yield* remap(thin, bio);
  // A shared block is copied, which may need what was freed lately.
  if (status === "noDataSpace" && (yield* thin.allocator.reclaim())) status = yield* remap(thin, bio);
  locks.retire();
  return status;
}
