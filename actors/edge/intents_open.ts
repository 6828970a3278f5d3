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
import { UserError } from "../../storage/base/errors.ts";
import { intentFileBytes } from "../../storage/intent_read.ts";
import type { Intent } from "../../storage/intent_record.ts";
import { Kernel } from "../kernel/kernel.ts";
import { intentSegmentBytes } from "../limits.ts";
import { mailboxes } from "../mailboxes.ts";
import { BlockDevice } from "../pool/block_device.ts";
import { DeviceStub } from "../pool/device_messages.ts";
import { IntentJournal } from "../pool/intent_journal.ts";
import { type Replayed, replayTask } from "../pool/intent_replay.ts";
import { readBootId } from "./boot_id.ts";
import { CommitOverlay } from "./commit_overlay.ts";
import { DenoClock } from "./deno_clock.ts";
import { IntentFile, removeIntentFile } from "./intent_file.ts";
import { bindingOf, findLeftIntents } from "./intents_left.ts";
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

/**
 * Opens the metadata with all that a killed process has acknowledged: committed, or in memory only if the pool is opened
 * read-only. Throws {@linkcode UserError}.
 */
export async function openReplayed(
  files: PoolFiles,
  options: OpenEngineOptions,
  log: (sentence: string) => void,
): Promise<OpenedEngine> {
  const opened = await openEngine(files, options);
  const intents = await findLeftIntents(files, log);
  if (intents.length === 0 || opened.writeRefusal !== null) return opened;
  const path = files.paths.intents;
  const replayed = await runReplay(files, intents, log);
  switch (replayed.kind) {
    case "replayed":
      if (files.readOnly) return openEngine(files, options, new CommitOverlay(files.metadata, replayed.plan));
      log(`${changes(intents.length)} that a killed server had acknowledged: replayed and committed.`);
      return openEngine(files, options);
    case "unfit":
      log(
        `The intent journal "${path}" is not replayed: ${replayed.sentence}. Another program has changed the pool since. ` +
          "The pool is as of its last commit.",
      );
      return opened;
    default:
      return stuck(files, opened, replayed.sentence, log);
  }
}

/** The journal stays as it is, so the pool must not be changed: its superblock is the one that the journal builds on. */
function stuck(
  files: PoolFiles,
  opened: OpenedEngine,
  sentence: string,
  log: (sentence: string) => void,
): OpenedEngine {
  const what = `Cannot replay the intent journal "${files.paths.intents}": ${sentence}.`;
  if (!files.readOnly) {
    throw new UserError(
      `${what} It stays, and nothing was changed. Mend that, or read the pool as of its last commit with --read-only.`,
    );
  }
  log(`${what} The pool is as of its last commit.`);
  return opened;
}

/** In a kernel of its own: the pool's actors are made when it is known what they begin with. */
async function runReplay(
  files: PoolFiles,
  intents: readonly Intent[],
  log: (sentence: string) => void,
): Promise<Replayed> {
  const superblock = await readSuperblock(files.metadata.path, files.metadata);
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
    isWriting: !files.readOnly,
    writesMax: kernel.knobs.commitWritesMax,
  });
  return await Promise.race([answerOf(kernel, "replay", task), promise]);
}

/** The journal of this process. `held` closes its file. */
export function newIntentJournal(
  held: DisposableStack,
  files: PoolFiles,
  log: (sentence: string) => void,
): IntentJournal {
  if (files.readOnly) return new IntentJournal(null);
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
