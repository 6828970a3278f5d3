/** One command on a pool that no server has open: with its files, in this process. */
import type { SizeChange } from "../../storage/base/sizes.ts";
import type { AdminCommand, AdminResult, Command, PoolStatus } from "../control/admin_command.ts";
import { filesVerbOf, isLook, isServerCommand, needsOwnCounted } from "../control/verbs.ts";
import type { FilesVerb } from "../control/verb_table.ts";
import { lockWaitMs } from "../limits.ts";
import { whenUnlocked } from "./file_lock.ts";
import { checkAndClear, checkOffline, dumpOffline, type DumpWriter } from "./pool_offline.ts";
import { lengthenMetadata } from "./lengthen_metadata.ts";
import { PoolLink } from "./pool_link.ts";

/** See `WaitOptions` (run_command.ts). */
interface UnservedOptions {
  readonly lockWaitMs?: number | undefined;
  readonly log?: ((sentence: string) => unknown) | undefined;
}

/**
 * Carries out a command by opening the pool for that long. While another process has it open, `askServer` is called again
 * too: that process may be a server that begins. Throws {@linkcode UserError}.
 */
export function runUnserved(
  directory: string,
  command: Command,
  write: DumpWriter,
  { lockWaitMs: waitMs = lockWaitMs, log }: UnservedOptions,
  askServer: () => Promise<AdminResult | undefined>,
): Promise<AdminResult> {
  return whenUnlocked(
    waitMs,
    async () => await askServer() ?? await runHere(directory, command, write, log),
  );
}

/** For a command about clients. */
function noServer(directory: string, verb: string): AdminResult {
  return {
    kind: "refused",
    reason:
      `Cannot carry out ${verb}: no server with a control socket serves the pool "${directory}", so it has no ` +
      "clients that could be asked for. Name the pool of a running `serve` with --pool.",
  };
}

/** What reads the files of a pool that is not opened. */
const onFiles: Readonly<
  Record<
    FilesVerb,
    (directory: string, write: DumpWriter, log: UnservedOptions["log"]) => Promise<AdminResult>
  >
> = {
  check: (directory) => checkOffline(directory),
  dump: dumpOffline,
};

/** Throws {@linkcode UserError} with nothing done if another process has the pool. */
async function runHere(
  directory: string,
  command: Command,
  write: DumpWriter,
  log: UnservedOptions["log"],
): Promise<AdminResult> {
  if (isServerCommand(command)) return noServer(directory, command.verb);
  if (command.verb === "check" && command.clearNeedsCheck === true) return await checkAndClear(directory);
  const filesVerb = filesVerbOf(command);
  if (filesVerb !== undefined) return await onFiles[filesVerb](directory, write, log);
  const pool = await PoolLink.open(directory, {
    readOnly: isLook(command),
    log,
    warnAtPercents: [],
    countsByWalk: needsOwnCounted(command),
  });
  try {
    if (command.verb === "grow" && command.metadata !== null && pool.lacksMetadata) {
      await pool.close();
      return await growStuck(directory, command, command.metadata, log);
    }
    const result = await pool.command(asAlone(command));
    return result.kind === "status" ? { kind: "status", status: asServed(result.status, pool) } : result;
  } finally {
    await pool.close();
  }
}

/**
 * `grow` of a pool that is stuck: the changes in its intent journal need more metadata than it has. The steps: 1. the metadata
 * device becomes larger, durably; 2. the pool is opened, and the replay uses all of the device (pool/intent_replay.ts); 3. the
 * rest of the command, for which the metadata then has its size already. If we stop after any step, the journal is there or
 * committed, and the command may be given again.
 */
async function growStuck(
  directory: string,
  command: AdminCommand & { readonly verb: "grow" },
  change: SizeChange,
  log: UnservedOptions["log"],
): Promise<AdminResult> {
  const { beforeBytes, afterBytes } = await lengthenMetadata(directory, change);
  const pool = await PoolLink.open(directory, { log, warnAtPercents: [], countsByWalk: false });
  try {
    const result = await pool.command({ ...command, metadata: { bytes: afterBytes, added: false } });
    if (result.kind !== "grown") return result;
    return { ...result, before: { ...result.before, metadata_total_bytes: beforeBytes } };
  } finally {
    await pool.close();
  }
}

/**
 * A pool that was opened for one command has no figures from before, and no client that could be delayed. And no process would
 * give the space of what was removed back behind it.
 */
function asAlone(command: AdminCommand): AdminCommand {
  const { verb } = command;
  if (verb === "rm") return { ...command, wait: true };
  return verb === "list" || verb === "tree" || verb === "df" ? { ...command, exact: true } : command;
}

/** No process writes this pool just now; its mode is the one that it would be served in. */
function asServed(status: PoolStatus, { writeRefusal }: PoolLink): PoolStatus {
  const mode = writeRefusal === null ? "write" : "read-only";
  return { ...status, mode, trouble: writeRefusal, reason: writeRefusal };
}
