/** The task of one bio: remap it; if there was no space, make space once and remap it again. */
import type { Bio, BioDone, BioStatus } from "./bio.ts";
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Steps } from "../kernel/task.ts";
import { remap, type Thin } from "./remap.ts";

/** Serves the bio and tells its volume. This is the only place where a bio is completed. */
export function* bioTask(kernel: Kernel, volume: Address<BioDone>, thin: Thin, bio: Bio): Steps<void> {
  let status = yield* remap(thin, bio);
  if (status === "noDataSpace" || status === "noMetadataSpace") {
    // No lock is held here: a discard that would free space must not wait for a bio that needs it.
    if (yield* makeSpace(thin, status)) status = yield* remap(thin, bio);
  }
  if (status === "noMetadataSpace") kernel.tell(thin.metadata.address, { type: "spaceRefused" });
  kernel.tell(volume, { type: "bioDone", bio, status });
}

/** Commits, so that blocks freed since the last commit can be used. True if there may be more space than before. */
function* makeSpace(thin: Thin, status: BioStatus): Steps<boolean> {
  if (status === "noDataSpace") return yield* thin.allocator.reclaim();
  const committed = yield* thin.metadata.commit();
  return committed.kind === "done";
}
