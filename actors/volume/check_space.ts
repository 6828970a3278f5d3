/**
 * Comparing what a range needs with what is free, before a write-zeroes with NO_HOLE changes anything. Blocks of the
 * volume's own need nothing; unmapped and shared ones need one free data block each.
 *
 * It leases nothing, and what it counts as free contains blocks that are leased to other bios or wait in quarantine. So
 * "noDataSpace" is sure: the range does not fit. "ok" is not: a later bio of the range may still find no space, and then
 * the request fails with a part of it done.
 */
import { AllowanceStub } from "../pool/allowance_messages.ts";
import type { Steps } from "../kernel/task.ts";
import type { Bio, BioStatus } from "./bio.ts";
import { bioStatusOf } from "./bio_status.ts";
import type { MetadataStub } from "../pool/metadata_messages.ts";
import type { ThinId } from "../../storage/base/ids.ts";

/** See the head of this file. */
export function* checkSpace(
  thin: { readonly id: ThinId; readonly metadata: MetadataStub },
  bio: Bio,
): Steps<BioStatus> {
  const blocks = bio.vblockEnd - bio.vblock;
  let [mapped, own] = [0, 0];
  let next = bio.vblock;
  const { lookupRunsMax } = thin.metadata.kernel.knobs;
  while (next < bio.vblockEnd) {
    const range = yield* thin.metadata.lookupRange(thin.id, next, bio.vblockEnd, lookupRunsMax);
    if (range.kind !== "range") return bioStatusOf(range);
    for (const run of range.runs) {
      mapped += run.length;
      if (!run.shared) own += run.length;
    }
    next = range.next;
  }
  const room = yield* new AllowanceStub(thin.metadata.kernel, thin.metadata.address).room(thin.id);
  if (blocks - mapped > room.quotaLeft) return "quotaExceeded";
  return blocks - own <= room.dataFree ? "ok" : "noDataSpace";
}
