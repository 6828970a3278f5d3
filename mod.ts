/**
 * gossamer: thin volumes, snapshots and clones in one pool, served over NBD.
 *
 * ```ts
 * import { initPool, openPool } from "./mod.ts";
 *
 * const directory = await Deno.makeTempDir();
 * await initPool({ directory, dataSizeBytes: 1 << 30 });
 * const pool = await openPool(directory);
 * await pool.create("disk0", 10 * 2 ** 30);
 * const server = await pool.serve({ listen: [`unix:${directory}/nbd.sock`] });
 * console.log(server.addresses); // ["nbd+unix:///?socket=..."]
 * await pool.snapshot("disk0@before");
 * await pool.clone("disk0@before", "fork");
 * console.log((await pool.list()).map((volume) => volume.name)); // ["disk0", "disk0@before", "fork"]
 * await server.stop();
 * await pool.close();
 * ```
 *
 * An error that the user can act on is thrown as a {@linkcode UserError} whose message is a full sentence.
 *
 * @module
 */
import { catalogueFormat } from "./storage/catalogue_journal.ts";

export type {
  AdminCommand,
  AdminResult,
  ChangeCommand,
  ClientListing,
  CloneCommand,
  Command,
  CreateCommand,
  ForkCommand,
  ForkListing,
  GrowthCommand,
  LifetimeOptions,
  LookCommand,
  PoolSizes,
  PoolSpace,
  PoolStatus,
  ResizeCommand,
  RollbackCommand,
  ServerCommand,
  SpaceBytes,
  SpaceWord,
  TextTaken,
  TreeListing,
  VolumeListing,
} from "./actors/control/admin_command.ts";
export type { AutoGrowRule } from "./actors/control/auto_grow.ts";
export type { ListColumn } from "./actors/control/list_columns.ts";
export { type ListForm, listFormOf } from "./actors/control/list_text.ts";
export { type Report, reportOf, type ReportOptions, roundingNote } from "./actors/control/result_text.ts";
export type { CommandVerb, LocalVerb, Verb } from "./actors/control/verb_table.ts";
export { commandOf, helpOf, type Invocation, parseInvocation } from "./actors/edge/invocation.ts";
export { type ForkOptions, initPool, type InitPoolOptions, openPool, Pool } from "./actors/edge/library.ts";
export { LogSink, type LogWriter } from "./actors/edge/log_sink.ts";
export { isPool } from "./actors/edge/pool_files.ts";
export type { OpenOptions } from "./actors/edge/pool_link.ts";
export {
  type DumpWriter,
  type ImportedVolume,
  type ImportOptions,
  importPool,
} from "./actors/edge/pool_offline.ts";
export type { IoName } from "./actors/edge/host_io.ts";
export { ReaderGone, writeResult } from "./actors/edge/result_output.ts";
export { runCommand, type WaitOptions } from "./actors/edge/run_command.ts";
export { type RunOptions, runProgram } from "./actors/edge/run_program.ts";
export { type PoolServer, requireServable, type ServeOptions } from "./actors/edge/serve.ts";
export {
  initOptionsOf,
  type NewPoolOptions,
  noteUnused,
  type Options,
  parseServing,
  type Serving,
  type VolumeToCreate,
} from "./actors/edge/serve_options.ts";
export { listenToSignals, refuseInspector, type SignalHandlers } from "./actors/edge/signals.ts";
export type { TlsOptions } from "./actors/edge/tls_keys.ts";
export { lockWaitMs, logDrainMs } from "./actors/limits.ts";
export { UsageError, UserError } from "./storage/base/errors.ts";
export {
  type ParsedName,
  parseName,
  parsePattern,
  parseSnapshotName,
  parseVolumeName,
} from "./storage/base/names.ts";
export { defaultBlockSizeBytes, formatSize, parseSize, type SizeChange } from "./storage/base/sizes.ts";

/** The version of this package: that of deno.json. */
export const version = "0.1.0";

/** What `--version` prints: our version, Deno's, and the number of the catalogue's format. */
export function versionText(): string {
  return `gossamer ${version} (deno ${Deno.version.deno}, format ${catalogueFormat})`;
}
