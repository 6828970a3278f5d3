/** The operations of the metadata actor that change the transaction, each as a call of the engine. */
import { assert, unreachable } from "../../storage/base/assert.ts";
import type { VBlock } from "../../storage/base/ids.ts";
import { MetadataFault, type ThinMetadata } from "../../storage/thin_metadata.ts";
import type { Insert, RemoveRange } from "./metadata_messages.ts";
import type { Change, DeleteSlice, Grow, Revoke } from "./thin_device_messages.ts";
import type { IntentJournal } from "./intent_journal.ts";
import { metadataDone } from "./metadata_reads.ts";

/** An operation that changes the transaction. */
export type ChangeOperation = Insert | RemoveRange | Change | Revoke | DeleteSlice | Grow;

/**
 * The answer to a change, which is recorded if it changes mappings; undefined for a {@linkcode Revoke} that found no space. Throws {@linkcode MetadataFault}: the engine
 * has undone the operation, and after "missing" the caller reads the block and tries again.
 */
export function executeChange(
  engine: ThinMetadata,
  operation: ChangeOperation,
  intents: IntentJournal,
  leavesPerDeleteSlice: number,
): unknown {
  switch (operation.type) {
    case "insert":
      insert(engine, operation, intents);
      return metadataDone;
    case "removeRange":
      return { kind: "removed", next: removeRange(engine, operation, intents) };
    case "change":
      engine.change(operation);
      return metadataDone;
    case "revoke":
      return revoke(engine, operation) ? metadataDone : undefined;
    case "deleteSlice":
      return { kind: "deleted", gone: engine.deleteThin(operation.thin, leavesPerDeleteSlice) };
    case "grow":
      return { kind: "grown", isWhole: grow(engine, operation) };
    default:
      return unreachable(operation);
  }
}

/** Recorded if it changes the mapping, and not only its time. */
function insert(engine: ThinMetadata, { thin, vblock, dblock }: Insert, intents: IntentJournal): void {
  const replaced = engine.insert(thin, vblock, dblock);
  if (replaced !== dblock) intents.append({ kind: "insert", thin, vblock, dblock, replaced });
}

/** Recorded as far as it was done. */
function removeRange(
  engine: ThinMetadata,
  { thin, begin, end }: RemoveRange,
  intents: IntentJournal,
): VBlock {
  const { next, removedBlocks } = engine.removeRange(thin, begin, end);
  if (removedBlocks > 0) intents.append({ kind: "remove", thin, begin, end: next });
  return next;
}

/** The metadata at once, as it needs no block but its own; of the data one step. True if that was the last. */
function grow(engine: ThinMetadata, { wanted }: Grow): boolean {
  engine.growth.growMetadata(wanted.metadataBlocks);
  return engine.growth.growData(wanted.dataBlocks) === wanted.dataBlocks;
}

/**
 * Undoes one slice of a change. The blocks of the slice are new in this transaction, so this frees blocks and copies very few.
 * False if there was no space even for those. When it is tried again, it skips the thin devices that are deleted already.
 */
function revoke(engine: ThinMetadata, { thins, transactionId, hasMore }: Revoke): boolean {
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

/**
 * True for changes that come in thousands and that no commit waits for, and for the steps of a growth, each of which makes
 * as many blocks dirty as hundreds of them. A command's change of thin devices is neither.
 */
export function makesDirty({ type }: { readonly type: string }): boolean {
  return type === "insert" || type === "removeRange" || type === "deleteSlice" || type === "grow";
}

/**
 * Whether a change that found no metadata block waits for a commit, which gives back what was freed so far, as dm-thin commits
 * before it uses its reserve up (`alloc_data_block`, drivers/md/dm-thin.c). Not a slice behind the first: the commit would wait
 * for the last one.
 */
export function isServedByCommit(
  engine: ThinMetadata,
  { type }: { readonly type: string },
  isChanging: boolean,
): boolean {
  if (type === "freeze" || type === "revoke" || (type === "change" && isChanging)) return false;
  return engine.metadataReleasable > 0;
}
