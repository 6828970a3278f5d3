/** Standard output of a command whose output is its result. */
import { UserError } from "../../storage/base/errors.ts";
import { logAgainMs } from "../limits.ts";
import { isWorthWaiting, type LogWriter } from "./log_sink.ts";
import { pause } from "./turns.ts";

/** The reader of the result has closed it, as in `dump | head`: it has what it wanted, so this is no failure. */
export class ReaderGone extends Error {
  /** Tells the class apart where `instanceof` cannot. */
  override readonly name = "ReaderGone";
}

/**
 * Writes all of a text, as fast as it is read. Throws {@linkcode ReaderGone}, or {@linkcode UserError} where it cannot be
 * written, such as on a full disk.
 */
export async function writeResult(text: string, output: LogWriter = Deno.stdout): Promise<void> {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) {
    try {
      at += await output.write(bytes.subarray(at));
    } catch (error) {
      if (error instanceof Deno.errors.BrokenPipe) throw new ReaderGone();
      // Its reader takes more in a while.
      if (isWorthWaiting(error)) {
        await pause(logAgainMs);
        continue;
      }
      const reason = error instanceof Error ? error.message : String(error);
      throw new UserError(
        `Cannot write the result to standard output: ${reason}. Give it a place with room, and run the command again.`,
      );
    }
  }
}
