/**
 * The replay of one record of the intent journal, with the engine's own operations.
 *
 * Why replay fits, though removals of thin devices, snapshots and growth are not recorded. All of these are answered only
 * after their commit, so after a crash they need not have happened, and a removal goes on from its mark in the catalogue. A
 * record can depend on one of them in two ways:
 * - It maps a block that such an operation freed, or added. But a freed block is in quarantine until the commit that freed it is
 *   durable (actors/pool/data_quarantine.ts), and an added one is known only after its commit. So every fresh block counts 0
 *   in the superblock on which replay builds.
 * - It changes a thin device that such an operation made. But clients reach the device only after the commit.
 * All other changes of mappings are recorded, in the order in which they were done. So each insert finds what it replaced.
 */
import type { Intent } from "./intent_record.ts";
import type { ThinMetadata } from "./thin_metadata.ts";

/**
 * Does the change again. Answers undefined, or why the record does not fit this metadata; then nothing has changed. Throws
 * MetadataFault like every operation of the engine: after "missing" the caller supplies the block and tries again.
 */
export function replayIntent(engine: ThinMetadata, intent: Intent): string | undefined {
  const { thin } = intent;
  if (engine.device(thin) === undefined) return `there is no thin device ${thin}`;
  if (intent.kind === "remove") {
    // One call removes the mappings of one leaf. After a "missing" the whole range is tried again, which finds the rest.
    let at = intent.begin;
    while (at < intent.end) at = engine.removeRange(thin, at, intent.end).next;
    return undefined;
  }
  const { vblock, dblock, replaced } = intent;
  if (dblock >= engine.dataBlocks) return `there is no data block ${dblock}`;
  const found = engine.lookup(thin, vblock);
  const before = found.kind === "provisioned" ? found.dblock : undefined;
  if (before !== replaced) {
    return `block ${vblock} of thin device ${thin} is mapped to ${before ?? "nothing"}, not to ${
      replaced ?? "nothing"
    }`;
  }
  if (engine.dataReferenceCount(dblock) !== 0) return `data block ${dblock} has another use by now`;
  engine.insertFromHeadroom(thin, vblock, dblock);
  return undefined;
}
