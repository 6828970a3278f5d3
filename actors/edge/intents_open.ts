/**
 * The intent journal when a pool is opened: what an earlier process has left is replayed, and a new one begins.
 *
 * The steps, and what the next open finds if we stop after each:
 *
 *  1. Data and metadata are flushed (disk_state.ts). If that fails, or shows that the host's memory was not what the disk has,
 *     bytes may be lost that a record leads to: the file is removed, and the pool opens as of its last commit.
 *  2. The records that the superblock does not have are replayed and committed (pool/intent_replay.ts).
 *  3. The new journal begins when the metadata is loaded (pool/intent_journal.ts). Until then the file is as it was: its
 *     segments build on a superblock that is not the last one any more, so nothing is replayed twice.
 *  4. Clients are let in.
 */
import fs from "node:fs";
import { metadataBlockSizeBytes, type ThinId } from "../../storage/base/ids.ts";
import { metadataBytesMax } from "../../storage/base/sizes.ts";
import { intentFileBytes } from "../../storage/intent_read.ts";
import type { Intent } from "../../storage/intent_record.ts";
import type { CommitPlan } from "../../storage/thin_metadata.ts";
import { Kernel } from "../kernel/kernel.ts";
import { intentSegmentBytes } from "../limits.ts";
import { mailboxes } from "../mailboxes.ts";
import { BlockDevice } from "../pool/block_device.ts";
import { DeviceStub } from "../pool/device_messages.ts";
import { IntentJournal } from "../pool/intent_journal.ts";
import { type Replayed, type ReplayNeed, replayTask } from "../pool/intent_replay.ts";
import { readBootId } from "./boot_id.ts";
import { CommitOverlay } from "./commit_overlay.ts";
import { DenoClock } from "./deno_clock.ts";
import { IntentFile, removeIntentFile } from "./intent_file.ts";
import { bindingOf, findLeftIntents, intentsOf } from "./intents_left.ts";
import { openLibc } from "./libc.ts";
import { type OpenedEngine, openEngine, type OpenEngineOptions, openOn } from "./open_engine.ts";
import type { OpenDevice } from "./open_device.ts";
import { answerOf } from "./outside.ts";
import type { PoolFiles } from "./pool_files.ts";
import { readSuperblock } from "./stored_superblock.ts";

/**
 * Removes the file of the intent journal: a device of the pool has lost what it had accepted, so what the mappings in the
 * file lead to may be lost.
 */
export function dropIntents(files: PoolFiles, log: (sentence: string) => void): void {
  const removed = removeIntentFile(files.paths.intents);
  if (removed.kind !== "ok") {
    log(`Remove the intent journal "${files.paths.intents}": what it leads to may be lost.`);
  }
}

/** The metadata, and what of the intent journal it does not have. */
export interface OpenedReplayed extends OpenedEngine {
  /** Changes that wait in the journal; the pool is open read-only then. */
  readonly waiting: number;
  /** Why the pool is open read-only though it was to be written, as words to follow a colon; null if it is not. */
  readonly trouble: string | null;
  /** It could be replayed with more metadata space. */
  readonly lacksMetadata: boolean;
  /** Whose changes were replayed and committed. */
  readonly writtenThins: ReadonlySet<ThinId>;
}

const allReplayed: Omit<OpenedReplayed, keyof OpenedEngine> = {
  waiting: 0,
  trouble: null,
  lacksMetadata: false,
  writtenThins: new Set(),
};

/**
 * Opens the metadata with all that a killed process has acknowledged: committed, or in memory only if the pool is opened
 * read-only. If that cannot be done, the pool is read-only, and the journal stays. Throws {@linkcode UserError}.
 */
export async function openReplayed(
  files: PoolFiles,
  options: OpenEngineOptions,
  log: (sentence: string) => void,
): Promise<OpenedReplayed> {
  const opened = { ...await openEngine(files, options), ...allReplayed };
  if (opened.writeRefusal !== null) return opened;
  const path = files.paths.intents;
  const superblock = await readSuperblock(files.metadata.path, files.metadata);
  const intents = await findLeftIntents(intentsOf(files), log);
  if (typeof intents === "string") {
    const problem: ReplayProblem = {
      reason: `"${path}" cannot be read: ${intents}`,
      needs: "device",
      waiting: 0,
    };
    return await openStuck(files, options, { superblock, intents: [], problem }, log);
  }
  if (intents.length === 0) return opened;
  const replayed = await runReplay(files, { superblock, intents, isWriting: !files.readOnly }, log);
  const waiting = intents.length;
  switch (replayed.kind) {
    case "replayed":
      if (files.readOnly) {
        return { ...await openOverlaid(files, options, replayed.plan), ...allReplayed, waiting };
      }
      log(`${changes(waiting)} that a killed server had acknowledged: replayed and committed.`);
      return {
        ...await openEngine(files, options),
        ...allReplayed,
        writtenThins: new Set(intents.map(({ thin }) => thin)),
      };
    case "unfit":
      log(
        `The intent journal "${path}" is not replayed: ${replayed.sentence}. Another program has changed the pool since. ` +
          "The pool is as of its last commit.",
      );
      return opened;
    default: {
      const problem: ReplayProblem = { reason: replayed.sentence, needs: replayed.needs, waiting };
      return await openStuck(files, options, { superblock, intents, problem }, log);
    }
  }
}

/** Why the journal was not replayed. */
interface ReplayProblem {
  readonly reason: string;
  readonly needs: ReplayNeed;
  readonly waiting: number;
}

/** What was found, and cannot be committed. */
interface StuckReplay {
  /** The one that the journal builds on. The disk may have the next one already, if only its flush has failed. */
  readonly superblock: Uint8Array;
  readonly intents: readonly Intent[];
  readonly problem: ReplayProblem;
}

/**
 * Nothing more is written, so the superblock that the journal builds on stays, and a later opening replays it. The changes are
 * shown all the same where they can be replayed in memory, as `--read-only` does: what a client was told is there. Otherwise
 * the pool is as of its last commit.
 */
async function openStuck(
  files: PoolFiles,
  options: OpenEngineOptions,
  { superblock, intents, problem }: StuckReplay,
  log: (sentence: string) => void,
): Promise<OpenedReplayed> {
  // A data flush that failed has removed the journal: what its records lead to may be lost.
  const isKept = fs.existsSync(files.paths.intents);
  const shown = files.readOnly || !isKept || intents.length === 0
    ? undefined
    : await runReplay(files, { superblock, intents, isWriting: false }, log);
  const isShown = shown?.kind === "replayed";
  const plan = isShown ? shown.plan : { blocks: [], superblock };
  const trouble = troubleOf(files.paths.intents, problem, { isKept, isShown });
  const writeRefusal = `The pool opens read-only: ${trouble}.`;
  if (files.readOnly) log(writeRefusal);
  return {
    ...await openOverlaid(files, options, plan),
    ...allReplayed,
    writeRefusal,
    waiting: isKept ? problem.waiting : 0,
    trouble,
    lacksMetadata: problem.needs === "metadataSpace",
  };
}

/** The words to follow a colon: what was tried, what is wrong, what is served, what to do. */
function troubleOf(
  path: string,
  { reason, needs, waiting }: ReplayProblem,
  { isKept, isShown }: { readonly isKept: boolean; readonly isShown: boolean },
): string {
  const what = waiting === 0 ? "the changes" : changes(waiting);
  const wait = isKept ? "They wait there" : "That journal was removed, as bytes that it leads to may be lost";
  const served = isShown ? "what is read has them" : "what is read is the last commit";
  return `${what} of the intent journal "${path}" could not be committed (${reason}). ${wait}; ${served}. ${
    nextSteps[needs]
  }`;
}

const nextSteps: Readonly<Record<ReplayNeed, string>> = {
  metadataSpace: "Stop the server and give the pool more metadata: `grow --metadata +SIZE`",
  repair: "Run `check`, which names all damage",
  device: "Mend that, or make room if the host is full, and open the pool again",
};

/** The metadata as a commit would leave it that is not written. */
function openOverlaid(
  files: PoolFiles,
  options: OpenEngineOptions,
  plan: CommitPlan,
): Promise<OpenedEngine> {
  return openEngine(files, { ...options, readOnly: true }, new CommitOverlay(files.metadata, plan));
}

/** What to replay, and whether to commit it. */
interface ReplayWish {
  readonly superblock: Uint8Array;
  readonly intents: readonly Intent[];
  readonly isWriting: boolean;
}

/** In a kernel of its own: the pool's actors are made when it is known what they begin with. */
async function runReplay(
  files: PoolFiles,
  { superblock, intents, isWriting }: ReplayWish,
  log: (sentence: string) => void,
): Promise<Replayed> {
  using opened = new DisposableStack();
  const clock = opened.adopt(new DenoClock(), (clock) => clock.close());
  const { promise, reject } = Promise.withResolvers<never>();
  const kernel = opened.adopt(new Kernel({ clock, onDefect: reject }), (kernel) => kernel.stop());
  const stubOf = (
    name: "metadataDevice" | "dataDevice",
    device: OpenDevice,
    failed?: Pick<IntentJournal, "fail">,
  ) => {
    const address = kernel.spawn(
      name,
      mailboxes[name],
      (self) => new BlockDevice(kernel, self, device, undefined, failed),
    );
    return new DeviceStub(address, false, kernel.knobs);
  };
  const task = replayTask({
    // A flush of the data that fails may have lost what a record leads to. Metadata that is lost is written again.
    data: stubOf("dataDevice", files.data, { fail: () => dropIntents(files, log) }),
    metadata: stubOf("metadataDevice", files.metadata),
    openEngine: () => openOn(superblock.slice(), files.metadata, false),
    intents,
    isWriting,
    writesMax: kernel.knobs.commitWritesMax,
    metadataBlocks: Math.floor(Math.min(files.metadata.sizeBytes, metadataBytesMax) / metadataBlockSizeBytes),
  });
  return await Promise.race([answerOf(kernel, "replay", task), promise]);
}

/** The journal of this process. `held` closes its file. */
export function newIntentJournal(
  held: DisposableStack,
  files: PoolFiles,
  { waiting, trouble }: Pick<OpenedReplayed, "waiting" | "trouble">,
  log: (sentence: string) => void,
): IntentJournal {
  if (files.readOnly || trouble !== null) return new IntentJournal(null, waiting);
  const libc = openLibc();
  if (libc === undefined) return new IntentJournal("Deno has no --allow-ffi, or no C library to call");
  const bootId = readBootId();
  if (bootId === undefined) return new IntentJournal("the host tells no boot id");
  const isHere = bindingOf(files, bootId, "") !== undefined;
  if (!isHere) return new IntentJournal("a device of the pool is not in this host's memory");
  const file = IntentFile.open(files.paths.intents, intentFileBytes(intentSegmentBytes), libc);
  if (typeof file === "string") return new IntentJournal(file);
  held.adopt(file, (file) => file.close());
  const binding = bindingOf(files, bootId, file.identity)!;
  return new IntentJournal({ port: file, binding, segmentBytes: intentSegmentBytes, log });
}

/** "1 change", "2 changes". */
function changes(count: number): string {
  return count === 1 ? "1 change" : `${count} changes`;
}
