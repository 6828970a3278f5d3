/**
 * The command line: arguments in, results on stdout, everything else on stderr.
 * Exit status 0: done, 1: failed, 2: wrong usage.
 */
import { reportOf } from "./actors/control/result_text.ts";
import { listFormOf } from "./actors/control/list_text.ts";
import type { LocalVerb } from "./actors/control/verb_table.ts";
import {
  commandOf,
  helpOf,
  type Invocation,
  millisecondsOf,
  parseInvocation,
} from "./actors/edge/invocation.ts";
import { LogSink } from "./actors/edge/log_sink.ts";
import { ReaderGone, writeResult } from "./actors/edge/result_output.ts";
import { runCommand } from "./actors/edge/run_command.ts";
import { refuseInspector } from "./actors/edge/signals.ts";
import { lockWaitMs, logDrainMs } from "./actors/limits.ts";
import type { Pool, PoolServer, VolumeToCreate } from "./mod.ts";
import { UsageError, UserError } from "./storage/base/errors.ts";

async function main(args: readonly string[]): Promise<number> {
  const invocation = parseInvocation(args);
  const command = commandOf(invocation);
  if (command !== undefined) {
    const form = listFormOf(invocation.options);
    const result = await runCommand(invocation.pool, command, writeText, {
      silenceMs: millisecondsOf(invocation.options, "timeout"),
      lockWaitMs: millisecondsOf(invocation.options, "lock-wait"),
      log: complain,
    });
    const report = reportOf(result, { json: invocation.options.json === true, command, form });
    for (const sentence of report.complaints) complain(sentence);
    for (const line of report.lines) await print(line);
    return report.exitStatus;
  }
  return await local[invocation.verb as LocalVerb](invocation) ?? 0;
}

/**
 * Most of the program. Only the verbs that need it load it: asking a running server needs little, and loading the rest takes
 * three times as long as that (tests/bench/README.md).
 */
function library(): Promise<typeof import("./mod.ts")> {
  return import("./mod.ts");
}

/** What carries out the verbs that have no command, and the exit status where that is not always 0. */
const local: Readonly<Record<LocalVerb, (invocation: Invocation) => Promise<number | void>>> = {
  init,
  import: importInto,
  run,
  serve,
  help: (invocation) => print(helpOf(invocation)),
  version: async () => print((await library()).versionText()),
};

async function init({ pool, options }: Invocation): Promise<void> {
  const { initOptionsOf, initPool } = await library();
  await initPool({ directory: pool, ...initOptionsOf(options), log: complain });
}

async function importInto({ pool, options: { metadata, data } }: Invocation): Promise<void> {
  if (typeof metadata !== "string" || typeof data !== "string") {
    throw new UsageError("import needs --metadata PATH and --data PATH.");
  }
  const { formatSize, importPool } = await library();
  const imported = await importPool({
    directory: pool,
    metadataPath: metadata,
    dataPath: data,
    log: complain,
  });
  for (const volume of imported) await print(`${volume.name}  ${formatSize(volume.sizeBytes)}`);
  if (imported.some(({ isKnown }) => isKnown)) {
    complain("Names and sizes are those of the catalogue beside the metadata.");
  }
  if (imported.every(({ isKnown }) => isKnown)) return;
  complain(
    "The metadata knows no sizes: each volume ends at its highest mapping. `resize` gives it its real size; " +
      "`check` tells whether the metadata is sound.",
  );
}

/** Runs a program with a throw-away volume. */
async function run({ pool, words, options }: Invocation): Promise<number> {
  const { fork, size } = options;
  const { parseSize, runProgram } = await library();
  return await runProgram({
    directory: pool,
    words,
    source: typeof fork === "string" ? fork : undefined,
    sizeBytes: typeof size === "string" ? parseSize(size) : undefined,
    silenceMs: millisecondsOf(options, "timeout"),
    lockWaitMs: millisecondsOf(options, "lock-wait"),
    log: complain,
  });
}

/** Serves until a signal or a failure of the program. */
async function serve(invocation: Invocation): Promise<number> {
  const { options, pool: directory } = invocation;
  const { isPool, listenToSignals, noteUnused, openPool, parseServing, requireServable } = await library();
  const serving = parseServing(options, complain);
  const { readOnly, volumes, serve, lockWaitMs: waitMs = lockWaitMs } = serving;
  if (!readOnly && !isPool(directory)) {
    await requireServable(serve);
    await init(invocation);
  } else noteUnused(options, complain);
  // The program that started the server reads the addresses. The server goes on if they cannot be written.
  const addresses = new LogSink(Deno.stdout, { saysDropped: false });
  let server: PoolServer | undefined;
  const { promise: stopped, resolve } = Promise.withResolvers<"stop">();
  listenToSignals({
    stop: () => resolve("stop"),
    stopAtOnce: () => Deno.exit(1),
    reload: serve.tls === undefined ? undefined : () => server?.reloadCertificates(),
  });
  const pool = await openPool(directory, { ...serving, lockWaitMs: waitMs, log: complain });
  try {
    // Bound first: where that fails, no volume is left behind.
    server = await pool.serve(serve);
    try {
      await createMissing(pool, volumes);
      // Log lines about the addresses come first, unless writing them takes long.
      await log.drained(logDrainMs);
      for (const address of server.addresses) addresses.line(`listening ${address}`);
      const failure = await Promise.race([stopped, pool.defect]);
      if (failure !== "stop") throw failure;
      complain("stopping; a second signal ends the server at once");
    } finally {
      await server.stop();
    }
  } finally {
    await pool.close();
  }
  return 0;
}

async function createMissing(pool: Pool, volumes: readonly VolumeToCreate[]): Promise<void> {
  if (volumes.length === 0) return;
  const { formatSize, roundingNote } = await library();
  const sizes = new Map((await pool.list()).map((there) => [there.name, there.size_bytes]));
  for (const { name, sizeBytes } of volumes) {
    const thereBytes = sizes.get(name);
    const wantedBytes = Math.ceil(sizeBytes / 512) * 512;
    if (thereBytes === undefined) {
      await pool.create(name, sizeBytes);
      sizes.set(name, wantedBytes);
      const note = roundingNote(sizeBytes);
      if (note !== undefined) complain(`"${name}": ${note}`);
    } else if (thereBytes !== wantedBytes) {
      complain(`"${name}" is there already, with ${formatSize(thereBytes)}; it stays as it is.`);
    }
  }
}

/** Everything that is not a result goes here, at once and without a wait. */
const log = new LogSink(Deno.stderr);

function complain(sentence: string): void {
  log.line(sentence);
}

function print(line: string): Promise<void> {
  return writeResult(`${line}\n`);
}

async function writeText(text: string): Promise<"taken"> {
  await writeResult(text);
  return "taken";
}

/** Prints the sentence of an error and returns the exit status. */
function statusOf(error: unknown): number {
  // A reader that closed the pipe (`dump | head`) is no failure.
  if (error instanceof ReaderGone) return 0;
  if (error instanceof UserError) {
    complain(error.message);
    return error.exitStatus;
  }
  complain(error instanceof Error ? error.stack ?? error.message : String(error));
  return 1;
}

if (import.meta.main) {
  refuseInspector();
  // Any other error ends the command and is printed.
  const status = await main(Deno.args).catch(statusOf);
  await log.drained(logDrainMs);
  Deno.exit(status);
}
