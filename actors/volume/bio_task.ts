/** The life of one bio: remap it, and if there was no space, see once whether some can be had. */
import type { Bio, BioDone, BioStatus } from "./bio.ts";
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Steps } from "../kernel/task.ts";
import { remap, type Thin } from "./remap.ts";

/** Serves the bio and tells its volume. Completion happens here and nowhere else. */
export function* bioTask(kernel: Kernel, volume: Address<BioDone>, thin: Thin, bio: Bio): Steps<void> {
  let status = yield* remap(thin, bio);
  if (status === "noDataSpace" || status === "noMetadataSpace") {
    // Nothing is held here: a discard that would free space is not kept waiting by a bio that needs it.
    if (yield* makeSpace(thin, status)) status = yield* remap(thin, bio);
  }
  if (status === "noMetadataSpace") kernel.tell(thin.metadata.address, { type: "spaceRefused" });
  kernel.tell(volume, { type: "bioDone", bio, status });
}

/** True if there may be space now that was not there before: blocks freed lately wait for a commit. */
function* makeSpace(thin: Thin, status: BioStatus): Steps<boolean> {
  if (status === "noDataSpace") return yield* thin.allocator.reclaim();
  const committed = yield* thin.metadata.commit();
  return committed.kind === "done";
}
