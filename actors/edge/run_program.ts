/**
 * `run`: a program with a throw-away volume, which it finds by `$uri` and `$unixsocket`.
 *
 * The volume is held (control/volume_lifetimes.ts). Where a server has the pool, a connection to its control socket holds it
 * (control_hold.ts): however this process ends, the system closes the connection, and the server removes volume and socket. Where
 * none has it, this process serves the pool: if it is killed, the next that opens the pool removes both.
 */
import { UsageError, UserError } from "../../storage/base/errors.ts";
import type { HeldContent } from "../control/admin_command.ts";
import { reasonOutside } from "../kernel/boundary.ts";
import { controlSilenceMs, lockWaitMs } from "../limits.ts";
import { AskedHold, type HeldAt } from "./asked_hold.ts";
import { uriOfHeld } from "./control_hold.ts";
import { codeOf } from "./file_errors.ts";
import { whenUnlocked } from "./file_lock.ts";
import { poolPaths } from "./pool_paths.ts";
import { PoolLink } from "./pool_link.ts";
import { servePool } from "./serve.ts";
import { SignalRelay } from "./signal_relay.ts";
import { shortSocketPath } from "./socket_path.ts";
import { mayAskControl } from "./socket_permission.ts";

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
  /** Milliseconds to wait for a pool that another process has open and does not serve; by default 10 s. */
  readonly lockWaitMs?: number | undefined;
  /** Milliseconds for which a server may say nothing; 0: any time. By default 30 s. */
  readonly silenceMs?: number | undefined;
  /** Says a sentence to the operator. */
  readonly log: (sentence: string) => void;
}

/** A volume for the program. */
interface RunPlace {
  readonly at: HeldAt;
  /** Resolves with a sentence if the volume is gone before its time. */
  readonly lost: Promise<string | undefined>;
  /** The volume is gone when it resolves. */
  release(): Promise<void>;
}

/** The exit statuses of a shell for a program that it cannot run (POSIX, Shell Command Language, 2.8.2). */
const [notExecutable, notFound] = [126, 127];

/**
 * Runs the program, and answers its exit status: 128 and the signal's number if a signal ended it, 127 if there is no such program,
 * 126 if it cannot be executed. Throws {@linkcode UserError}.
 */
export async function runProgram(options: RunOptions): Promise<number> {
  const { words, log } = options;
  if (words.length === 0) throw new UsageError("run needs a program: run --size 1G -- COMMAND.");
  const content = contentOf(options);
  using relay = new SignalRelay();
  const place = await whenUnlocked(options.lockWaitMs ?? lockWaitMs, async () => {
    if (relay.status !== undefined) return undefined;
    return await askServer(options, content) ?? await openHere(options, content, relay.noted);
  });
  if (place === undefined) return relay.status ?? 1;
  try {
    // A signal came before the program could begin.
    if (relay.status !== undefined) return relay.status;
    void sayIfLost(place, log);
    const child = start(words, place.at);
    if ("status" in child) return await relay.runs(child);
    log(child.reason);
    return child.exitStatus;
  } finally {
    // The program has run, and its status counts.
    await place.release().catch((error) => log(reasonOutside(error)));
  }
}

async function sayIfLost({ lost }: RunPlace, log: RunOptions["log"]): Promise<void> {
  const reason = await lost;
  if (reason !== undefined) log(`${reason} The volume is gone, and the program goes on without it.`);
}

function contentOf({ source, sizeBytes }: RunOptions): HeldContent {
  if (source !== undefined && sizeBytes === undefined) return { source };
  if (source === undefined && sizeBytes !== undefined) return { sizeBytes };
  throw new UsageError("run needs --fork VOL[@SNAP] or --size S, and not both.");
}

/** A volume that the server of the pool holds; undefined if there is no server. Throws {@linkcode UserError}. */
async function askServer(options: RunOptions, content: HeldContent): Promise<RunPlace | undefined> {
  const socket = shortSocketPath(poolPaths(options.directory).controlSocket);
  if (socket === undefined || !mayAskControl(socket)) return undefined;
  const hold = await AskedHold.begin(socket, content, options.silenceMs ?? controlSilenceMs);
  if (hold === undefined || hold instanceof AskedHold) {
    return hold === undefined ? undefined : { at: hold.at, lost: hold.lost(), release: () => hold.release() };
  }
  throw new UserError(hold.kind === "refused" ? hold.reason : "The server holds no volume.");
}

/** Opens the pool, and serves it. Throws {@linkcode UserError}: also if another process has it. */
async function openHere(
  { directory, log }: RunOptions,
  content: HeldContent,
  interrupted: Promise<unknown>,
): Promise<RunPlace> {
  await using opened = new AsyncDisposableStack();
  const link = opened.adopt(
    await PoolLink.open(directory, { log, warnAtPercents: [] }),
    (link) => link.close(),
  );
  const server = opened.adopt(await servePool(link, { listen: [] }), (server) => server.stop());
  const held = await server.hold(content);
  if (held.kind !== "held") throw new UserError(held.kind === "refused" ? held.reason : "No volume is held.");
  const ends = opened.move();
  return {
    at: { uri: uriOfHeld(held), unixsocket: held.socketPath },
    lost: defectOf(link),
    release: async () => {
      await using _ends = ends;
      const released = await server.release(held.uid);
      if (released.kind === "refused") {
        log(`${released.reason} The volume goes when the pool is opened again.`);
      }
      // Other runs may use the pool that this process serves.
      if (server.holds === 0) return;
      log("The program has ended. Others run with volumes that this process serves, and it waits for them.");
      await Promise.race([server.holdsEnded(), interrupted]);
    },
  };
}

/** Resolves when the program itself fails, and never rejects. */
async function defectOf(link: PoolLink): Promise<string> {
  const error = await link.defect;
  return `The pool has failed: ${error instanceof Error ? error.message : String(error)}.`;
}

/** Starts the program; or why that cannot be done, and the exit status for it. Throws {@linkcode UserError}. */
function start(
  words: readonly string[],
  { uri, unixsocket }: HeldAt,
): Deno.ChildProcess | { readonly reason: string; readonly exitStatus: number } {
  const [program = "", ...args] = words.length === 1
    ? ["/bin/sh", "-c", ...words]
    : words.map((word) => word.replaceAll("$unixsocket", unixsocket).replaceAll("$uri", uri));
  try {
    const io = { stdin: "inherit", stdout: "inherit", stderr: "inherit" } as const;
    return new Deno.Command(program, { args, env: { uri, unixsocket }, ...io }).spawn();
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) {
      throw new UserError(`Cannot run "${program}": Deno was not given the permission. Add --allow-run.`);
    }
    if (error instanceof Deno.errors.NotFound) {
      return { reason: `Cannot run "${program}": there is no such program.`, exitStatus: notFound };
    }
    const reason = `Cannot run "${program}": ${codeOf(error) ?? reasonOutside(error)}.`;
    return { reason, exitStatus: notExecutable };
  }
}
