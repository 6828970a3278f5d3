/** The permissions that a socket needs. They are looked up first, so that Deno never prompts and a sentence names the missing ones. */
import { UserError } from "../../storage/base/errors.ts";
import { absolutePath } from "./absolute_path.ts";

/** The options that are missing for listening on a port. */
export function missingForPort(hostname: string, port: number): string[] {
  const host = hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
  const isGranted = Deno.permissions.querySync({ name: "net", host }).state === "granted";
  return isGranted ? [] : [`--allow-net=${host}`];
}

/** The options that are missing for listening on a socket's path, or for asking there. */
export function missingForPath(path: string): string[] {
  const full = absolutePath(path);
  const wanted = [
    { descriptor: { name: "net", host: `unix:${full}` }, option: `--allow-net=unix:${full}` },
    { descriptor: { name: "read", path }, option: `--allow-read=${path}` },
    { descriptor: { name: "write", path }, option: `--allow-write=${path}` },
  ] as const;
  return wanted.filter(({ descriptor }) => Deno.permissions.querySync(descriptor).state !== "granted")
    .map(({ option }) => option);
}

/** Throws {@linkcode UserError}, with `what` before the reason, if options are missing. */
export function requireNoneMissing(what: string, options: readonly string[]): void {
  if (options.length === 0) return;
  throw new UserError(`${what}: Deno was not given the permission. Add ${options.join(" ")}.`);
}

/**
 * True if a server can be asked at this path, as far as permissions go; false if there is no socket to ask at.
 * Never prompts. Throws {@linkcode UserError} if only the permission is missing: the pool is then likely in use.
 */
export function mayAskControl(path: string): boolean {
  const missing = missingForPath(path);
  if (missing.length === 0) return true;
  // Without the permission to read, opening the pool says so.
  if (missing.some((option) => option.startsWith("--allow-read")) || !exists(path)) return false;
  throw new UserError(
    `Cannot ask the server at ${path}: Deno was not given the permission. Add ${
      missing.join(" ")
    }, or stop the server first.`,
  );
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    // Whatever is wrong with it, opening the pool says so.
    return false;
  }
}
