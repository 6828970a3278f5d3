/** Undoes the slices of a change, before any commit. */
import { assert } from "../../storage/base/assert.ts";
import { MetadataFault, type ThinMetadata } from "../../storage/thin_metadata.ts";
import type { Revoke } from "./metadata_messages.ts";

/**
 * Undoes one slice. The blocks of the slice are new in this transaction, so this frees blocks and copies very few. False if
 * there was no space even for those. Throws {@linkcode MetadataFault}: after "missing" the caller runs it again, and it skips
 * the thin devices that are deleted already.
 */
export function takeBack(engine: ThinMetadata, { thins, transactionId, hasMore }: Revoke): boolean {
  try {
    for (const thin of thins) {
      if (engine.device(thin) === undefined) continue;
      assert(engine.deleteThin(thin, 1), "a snapshot just made has a leaf of its own");
    }
    if (!hasMore) engine.change({ create: [], snapshots: [], tick: false, transactionId });
    return true;
  } catch (error) {
    if (error instanceof MetadataFault && error.fault.kind === "noMetadataSpace") return false;
    throw error;
  }
}
