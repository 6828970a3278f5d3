/** What the system says of a file that it cannot open, read or write, as sentences and results. */
import { UserError } from "../../storage/base/errors.ts";
import { type IoResult, reasonOfIo } from "../../storage/device/port.ts";
import { reasonOutside } from "../kernel/boundary.ts";
import { errno } from "./libc.ts";

/** A sentence for a file that cannot be opened. */
export function openFailure(path: string, error: unknown): UserError {
  if (error instanceof UserError) return error;
  if (error instanceof Deno.errors.NotCapable) {
    return new UserError(
      `Cannot open "${path}": Deno was not given the permission. Run it with --allow-read and --allow-write for it.`,
    );
  }
  switch (codeOf(error)) {
    case "ENOENT":
      return new UserError(`Cannot open "${path}": it does not exist. Check the path.`);
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new UserError(
        `Cannot open "${path}": it is not permitted. Check its owner and mode, or try read-only.`,
      );
    case "EBUSY":
    case "ETXTBSY":
      return new UserError(`Cannot open "${path}": it is in use. Unmount or deactivate what uses it.`);
    default:
      return new UserError(`Cannot open "${path}": ${reasonOf(error)}. Check the path and the host's log.`);
  }
}

/** The name of the system's error, such as "ENOSPC"; undefined for any exception that is not one. */
export function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const code = (error as { code?: unknown }).code;
  if (typeof code === "string") return code;
  // Deno 2.9 names only the common ones; a file that is too large for the host comes with its number in the message.
  const number = /\(os error (\d+)\)/.exec(error.message)?.[1];
  return number === undefined ? undefined : unnamedCodes.get(Number(number)) ?? `errno ${number}`;
}

const unnamedCodes: ReadonlyMap<number, string> = new Map([[errno.tooLarge, "EFBIG"], [
  errno.overQuota,
  "EDQUOT",
]]);

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What a failed call of the host means to a client. Throws a broken invariant of our own, which is none. */
export function failureOf(error: unknown, doing: string): IoResult {
  const reason = reasonOutside(error);
  const code = codeOf(error);
  if (code === "ENOSPC" || code === "EDQUOT") return { kind: "noSpace" };
  return { kind: "ioError", reason: `${doing}: ${reason}` };
}

/** The same of an errno, which is not 0. */
export function failureOfErrno(failure: number, doing: string): IoResult {
  if (failure === errno.noSpace || failure === errno.overQuota) return { kind: "noSpace" };
  const reason = failure === errno.io ? "Input/output error (os error 5)" : `errno ${failure}`;
  return { kind: "ioError", reason: `${doing}: ${reason}` };
}

/** Runs one device operation outside any pool. Throws {@linkcode UserError} with `what` before the reason. */
export async function requireOk(
  what: string,
  operation: (done: (result: IoResult) => void) => IoResult | "pending",
): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<IoResult>();
  const result = operation(resolve);
  const ended = result === "pending" ? await promise : result;
  if (ended.kind === "ok") return;
  throw new UserError(`${what}: ${reasonOfIo(ended)}.`);
}
