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
 *
 * If there is no metadata block left for a record, the metadata device may have been made larger since. Then all begins again
 * on an engine that uses all of the device, so that growth and changes are one commit, which the steps above hold for too. A
 * growth with a commit of its own would not do: no segment of the journal builds on its superblock.
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
  /** What the metadata device has; if more than the superblock says, replay may use it. By default, no more. */
  readonly metadataBlocks?: number;
}

/**
 * How a replay has ended. "replayed": the plan's superblock is durable, or was only planned if that was asked for. "unfit": the
 * metadata is not what the journal was written for, and nothing was done. "stuck": it could not be done; it may be tried again.
 */
export type Replayed =
  | { readonly kind: "replayed"; readonly plan: CommitPlan }
  | { readonly kind: "unfit"; readonly sentence: string }
  | Stuck;

/** What would let a replay go on: more metadata space, a repair, or a device or host that does its work again. */
export type ReplayNeed = "metadataSpace" | "repair" | "device";

/** A replay that could not be done. */
export interface Stuck {
  readonly kind: "stuck";
  readonly sentence: string;
  readonly needs: ReplayNeed;
}

/** Does all changes of the journal again. */
export function* replayTask(parts: ReplayParts): Steps<Replayed> {
  const engine = parts.openEngine();
  const replayed = yield* attempt(engine, parts, () => engine.load());
  if (replayed.kind !== "stuck" || replayed.needs !== "metadataSpace") return replayed;
  const { metadataBlocks = 0 } = parts;
  if (metadataBlocks <= engine.geometry.metadataBlocks) return replayed;
  if (parts.isWriting) {
    // All of it is stored by the host, durably, before a superblock counts on it (control/pool_growth.ts).
    const { result } = yield* parts.metadata.grow(metadataBlocks * metadataBlockSizeBytes, true);
    if (result.kind !== "ok") return stuckAt(`storing the larger metadata: ${reasonOfIo(result)}`);
  }
  const larger = parts.openEngine();
  let isLoaded = false;
  return yield* attempt(larger, parts, () => {
    if (!isLoaded) larger.load();
    isLoaded = true;
    larger.growth.growMetadata(metadataBlocks);
  });
}

function* attempt(engine: ThinMetadata, parts: ReplayParts, begin: () => void): Steps<Replayed> {
  const begun = yield* perform(engine, parts.metadata, begin);
  if (begun !== undefined) return begun;
  let count = 0;
  for (const intent of parts.intents) {
    let misfit: string | undefined;
    const failure = yield* perform(
      engine,
      parts.metadata,
      () => void (misfit = replayIntent(engine, intent)),
    );
    if (failure !== undefined) return failure;
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
    return stuckBy(error);
  }
  if (!parts.isWriting) return { kind: "replayed", plan };
  const failure = yield* writeCommit(
    parts.data,
    parts.metadata,
    { kind: "frozen", ...plan, isAlone: true },
    parts.writesMax,
  );
  return failure === undefined ? { kind: "replayed", plan } : stuckAt(failure);
}

/** Runs an operation, reading what it misses. Answers why it failed. */
function* perform(
  engine: ThinMetadata,
  device: DeviceStub,
  operation: () => void,
): Steps<Stuck | undefined> {
  for (;;) {
    let missing: MetadataBlock;
    try {
      operation();
      return undefined;
    } catch (error) {
      // A missing block is the engine's way of asking for it.
      if (!(error instanceof MetadataFault)) throw error;
      if (error.fault.kind !== "missing") return stuckBy(error);
      missing = error.fault.block;
    }
    const bytes = engine.takeBuffer();
    const result = filled(yield* device.read(into(bytes), missing * metadataBlockSizeBytes));
    if (result.kind !== "ok") return stuckAt(`reading metadata block ${missing}: ${reasonOfIo(result)}`);
    engine.supply(missing, bytes);
  }
}

function stuckBy({ fault }: MetadataFault): Stuck {
  switch (fault.kind) {
    case "damaged":
      return {
        kind: "stuck",
        sentence: `metadata block ${fault.block} is damaged: ${fault.reason}`,
        needs: "repair",
      };
    case "noMetadataSpace":
      return { kind: "stuck", sentence: "there is no metadata block left for it", needs: "metadataSpace" };
    default:
      return { kind: "stuck", sentence: fault.kind, needs: "repair" };
  }
}

function stuckAt(sentence: string): Stuck {
  return { kind: "stuck", sentence, needs: "device" };
}
