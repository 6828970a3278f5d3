/**
 * The replay of the intent journal, when a pool is opened and before anything else is done with it.
 *
 * The steps, and what the next open finds if we stop after each:
 *
 *  1. All records are done again in memory, on an engine of their own. If we stop after it, the same superblock and journal.
 *  2. A commit, with the steps of commit.ts. If we stop before its superblock is written, the same superblock: the blocks that
 *     were written are free in it, and no data block was written at all. So the journal is replayed again.
 *  3. If we stop after its superblock is written, no segment builds on that one, and it has all changes of the journal.
 *
 * Only then does the journal begin anew. If one record does not fit, nothing is done: the engine is thrown away.
 */
import { type MetadataBlock, metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { filled, into, reasonOfIo } from "../../storage/device/port.ts";
import type { Intent } from "../../storage/intent_record.ts";
import { replayIntent } from "../../storage/intent_replay.ts";
import { type CommitPlan, MetadataFault, type ThinMetadata } from "../../storage/thin_metadata.ts";
import { rest, type Steps } from "../kernel/task.ts";
import { intentsPerRest } from "../limits.ts";
import type { DeviceStub } from "./device_messages.ts";
import { writeCommit } from "./commit.ts";

/** What a replay needs. */
export interface ReplayParts {
  readonly data: DeviceStub;
  readonly metadata: DeviceStub;
  /** Opens the superblock, for writing; not loaded. */
  openEngine(): ThinMetadata;
  readonly intents: readonly Intent[];
  /** False: the commit is planned and not written. */
  readonly isWriting: boolean;
  /** Metadata blocks written at the same time. */
  readonly writesMax: number;
}

/**
 * How a replay has ended. "replayed": the plan's superblock is durable, or was only planned if that was asked for. "unfit": the
 * metadata is not what the journal was written for, and nothing was done. "stuck": it could not be done; it may be tried again.
 */
export type Replayed =
  | { readonly kind: "replayed"; readonly plan: CommitPlan }
  | { readonly kind: "unfit"; readonly sentence: string }
  | { readonly kind: "stuck"; readonly sentence: string };

/** Does all changes of the journal again. */
export function* replayTask(parts: ReplayParts): Steps<Replayed> {
  const engine = parts.openEngine();
  const loaded = yield* perform(engine, parts.metadata, () => engine.load());
  if (loaded !== undefined) return { kind: "stuck", sentence: loaded };
  let count = 0;
  for (const intent of parts.intents) {
    let misfit: string | undefined;
    const failure = yield* perform(
      engine,
      parts.metadata,
      () => void (misfit = replayIntent(engine, intent)),
    );
    if (failure !== undefined) return { kind: "stuck", sentence: failure };
    if (misfit !== undefined) {
      return {
        kind: "unfit",
        sentence: `change ${count + 1} of ${parts.intents.length} does not fit: ${misfit}`,
      };
    }
    count += 1;
    if (count % intentsPerRest === 0) yield* rest();
  }
  return yield* commit(engine, parts);
}

function* commit(engine: ThinMetadata, parts: ReplayParts): Steps<Replayed> {
  let plan: CommitPlan;
  try {
    plan = engine.beginCommit();
  } catch (error) {
    // The engine has undone it: a result, not a defect.
    if (!(error instanceof MetadataFault)) throw error;
    return { kind: "stuck", sentence: sentenceOf(error) };
  }
  if (!parts.isWriting) return { kind: "replayed", plan };
  const failure = yield* writeCommit(
    parts.data,
    parts.metadata,
    { kind: "frozen", ...plan, isAlone: true },
    parts.writesMax,
  );
  return failure === undefined ? { kind: "replayed", plan } : { kind: "stuck", sentence: failure };
}

/** Runs an operation, reading what it misses. Answers why it failed. */
function* perform(
  engine: ThinMetadata,
  device: DeviceStub,
  operation: () => void,
): Steps<string | undefined> {
  for (;;) {
    let missing: MetadataBlock;
    try {
      operation();
      return undefined;
    } catch (error) {
      // A missing block is the engine's way of asking for it.
      if (!(error instanceof MetadataFault)) throw error;
      if (error.fault.kind !== "missing") return sentenceOf(error);
      missing = error.fault.block;
    }
    const bytes = engine.takeBuffer();
    const result = filled(yield* device.read(into(bytes), missing * metadataBlockSizeBytes));
    if (result.kind !== "ok") return `reading metadata block ${missing}: ${reasonOfIo(result)}`;
    engine.supply(missing, bytes);
  }
}

function sentenceOf({ fault }: MetadataFault): string {
  if (fault.kind === "damaged") return `metadata block ${fault.block} is damaged: ${fault.reason}`;
  return fault.kind === "noMetadataSpace" ? "there is no metadata block left for it" : fault.kind;
}
