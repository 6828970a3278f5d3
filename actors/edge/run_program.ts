/**
 * `run`: a program with a throw-away volume, which it finds by `$uri` and `$unixsocket`.
 *
 * The volume is ephemeral, and held by a connection of this process (export_hold.ts). If we are killed, the connection ends: a
 * server that goes on removes the volume, and if the pool was open here, the next start does. If we stop between the making of
 * the volume and the first byte on that connection, the volume stays, empty or as its source: `list` shows it as `run-...`.
 */
import { resolve } from "node:path";
import { nanoid } from "nanoid";
import { UsageError, UserError } from "../../storage/base/errors.ts";
import type { AdminResult, Command } from "../control/admin_command.ts";
import { ExportHold } from "./export_hold.ts";
import { codeOf } from "./file_errors.ts";
import { poolPaths } from "./pool_files.ts";
import { PoolLink } from "./pool_link.ts";
import { runCommand } from "./run_command.ts";
import { servePool } from "./serve.ts";

/** What to run, and with what. */
export interface RunOptions {
  /** Of the pool. */
  readonly directory: string;
  /** The program and its arguments; a single word is a line for the shell. */
  readonly words: readonly string[];
  /** The volume or snapshot whose clone the program gets; else it gets an empty volume of `sizeBytes`. */
  readonly source: string | undefined;
  /** Of an empty volume; undefined with a source. */
  readonly sizeBytes: number | undefined;
  /** Says a sentence to the operator. */
  readonly log: (sentence: string) => void;
}

/** Where commands go, and where the volume is served. */
interface RunPlace extends AsyncDisposable {
  readonly socketPath: string;
  command(command: Command): Promise<AdminResult>;
}

/** Runs the program, and answers its exit status: 128 and the signal's number if a signal ended it. Throws {@linkcode UserError}. */
export async function runProgram(options: RunOptions): Promise<number> {
  const { directory, words, source, sizeBytes } = options;
  if (words.length === 0) throw new UsageError("run needs a program: run --size 1G -- COMMAND.");
  if ((source === undefined) === (sizeBytes === undefined)) {
    throw new UsageError("run needs --fork VOL[@SNAP] or --size S, and not both.");
  }
  await using place = await openHere(directory, options.log) ?? servedPlace(directory);
  const name = `run-${nanoid(12)}`;
  const life = { ephemeral: true, lingerMs: 0, ttlMs: null };
  requireDone(
    await place.command(
      source === undefined
        ? { verb: "create", name, sizeBytes: sizeBytes ?? 0, ...life }
        : { verb: "clone", source, name, ...life },
    ),
  );
  try {
    const hold = await ExportHold.attach(place.socketPath, name);
    try {
      return await statusOf(words, {
        uri: `nbd+unix:///${name}?socket=${place.socketPath}`,
        unixsocket: place.socketPath,
      });
    } finally {
      await hold.release();
    }
  } finally {
    // Its last client may have removed it already: then this is refused, and all is well.
    await place.command({ verb: "rm", names: [name], dryRun: false, force: true });
  }
}

/** Opens the pool here, and serves it on a socket of its own; undefined if another process has it. */
async function openHere(directory: string, log: RunOptions["log"]): Promise<RunPlace | undefined> {
  let link: PoolLink;
  try {
    link = await PoolLink.open(directory, { log, warnAtPercents: [] });
  } catch (error) {
    // The command to the server tells what is wrong if it is anything else.
    if (error instanceof UserError) return undefined;
    throw error;
  }
  await using opened = new AsyncDisposableStack();
  opened.adopt(link, (link) => link.close());
  const folder = Deno.makeTempDirSync({ prefix: "gossamer-run-" });
  opened.defer(() => Deno.removeSync(folder, { recursive: true }));
  const socketPath = `${folder}/nbd.sock`;
  const server = await servePool(link, { listen: [`unix:${socketPath}`] });
  opened.adopt(server, (server) => server.stop());
  const ends = opened.move();
  return {
    socketPath,
    command: (command) => link.command(command as Parameters<PoolLink["command"]>[0]),
    [Symbol.asyncDispose]: () => ends.disposeAsync(),
  };
}

/** The server that has the pool. */
function servedPlace(directory: string): RunPlace {
  return {
    socketPath: resolve(poolPaths(directory).nbdSocket),
    command: (command) => runCommand(directory, command, () => Promise.resolve("taken")),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

function requireDone(result: AdminResult): void {
  if (result.kind === "refused") throw new UserError(result.reason);
}

/** Runs the program to its end. Signals that ask us to end are handed on to it. */
async function statusOf(words: readonly string[], env: Readonly<Record<string, string>>): Promise<number> {
  const [program = "", ...args] = words.length === 1 ? ["/bin/sh", "-c", ...words] : words.map((word) => {
    return word.replaceAll("$unixsocket", env.unixsocket ?? "").replaceAll("$uri", env.uri ?? "");
  });
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(program, {
      args,
      env: { ...env },
      stdin: "inherit",
      stdout: "inherit",
      stderr: "inherit",
    })
      .spawn();
  } catch (error) {
    const reason = codeOf(error) ?? (error instanceof Error ? error.message : "");
    throw new UserError(`Cannot run "${program}": ${reason}. Check its name, and that Deno has --allow-run.`);
  }
  const handOn = (["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const).map((signal) => {
    const listener = () => {
      try {
        child.kill(signal);
      } catch {
        // It has ended meanwhile.
      }
    };
    Deno.addSignalListener(signal, listener);
    return () => Deno.removeSignalListener(signal, listener);
  });
  try {
    return (await child.status).code;
  } finally {
    for (const end of handOn) end();
  }
}
