/** One command on a pool, wherever that is: by the server that has it open, else with its files, in this process. */
import type { AdminResult, Command } from "../control/admin_command.ts";
import { askControl } from "./control.ts";
import type { DumpWriter } from "./pool_offline.ts";
import { poolPaths } from "./pool_paths.ts";
import { mayAskControl } from "./socket_permission.ts";
import { shortSocketPath } from "./socket_path.ts";

/** How long {@linkcode runCommand} waits for others. */
export interface WaitOptions {
  /** Milliseconds for which a server may say nothing; 0: any time. By default 30 s. */
  readonly silenceMs?: number | undefined;
  /** Milliseconds to wait for a pool that another process has open and does not serve; by default 10 s. */
  readonly lockWaitMs?: number | undefined;
  /** Hears what an operator should know of a pool that is opened here. */
  readonly log?: ((sentence: string) => unknown) | undefined;
}

/**
 * Carries out one command on a pool, wherever it is: by the server that has it open, else by opening it here for that
 * long. The text of `dump` goes to `write`. Throws {@linkcode UserError}.
 */
export async function runCommand(
  directory: string,
  command: Command,
  write: DumpWriter,
  options: WaitOptions = {},
): Promise<AdminResult> {
  const asked = () => askServer(directory, command, write, options.silenceMs);
  const answered = await asked();
  if (answered !== undefined) return answered;
  // Loaded here alone: it brings most of the program, which takes twice as long as all that a server's answer needs.
  const { runUnserved } = await import("./run_unserved.ts");
  return await runUnserved(directory, command, write, options, asked);
}

/** Asks the server that has the pool open; undefined if there is none. */
async function askServer(
  directory: string,
  command: Command,
  write: DumpWriter,
  silenceMs: number | undefined,
): Promise<AdminResult | undefined> {
  const socket = shortSocketPath(poolPaths(directory).controlSocket);
  if (socket === undefined || !mayAskControl(socket)) return undefined;
  return await askControl(socket, command, write, silenceMs);
}
