/** Taking back what the slices of a change have made, before any commit. */
import { assert } from "../../storage/base/assert.ts";
import { MetadataFault, type ThinMetadata } from "../../storage/thin_metadata.ts";
import type { Revoke } from "./metadata_messages.ts";

/**
 * Takes a slice back. Its blocks are of this transaction, so this frees some and at most moves a few; false if there was no
 * space even for that. Throws {@linkcode MetadataFault}: after "missing" it runs again, and passes over what is gone.
 */
export function takeBack(engine: ThinMetadata, { thins, transactionId, hasMore }: Revoke): boolean {
  try {
    for (const thin of thins) {
      if (engine.device(thin) === undefined) continue;
      assert(engine.deleteThin(thin, 1), "a snapshot just made has no leaf of its own");
    }
    if (!hasMore) engine.change({ create: [], snapshots: [], tick: false, transactionId });
    return true;
  } catch (error) {
    if (error instanceof MetadataFault && error.fault.kind === "noMetadataSpace") return false;
    throw error;
  }
}
