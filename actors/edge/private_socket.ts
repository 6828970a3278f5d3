/**
 * Binding a Unix socket that never, not even for a moment, lets another user in.
 *
 * `bind` makes the file with mode 0777 less the umask, and Deno listens in the same call: a mode that is set afterwards
 * comes too late for a client that connected in between. So either the umask is right at that moment, or other users
 * cannot enter the directory.
 */
import fs from "node:fs";
import { dirname } from "node:path";
import { UserError } from "../../storage/base/errors.ts";
import { fromLibc, libraryName } from "./libc_symbols.ts";

/** Leaves reading and writing for the owner, which is what connecting needs. */
const umaskOfOwner = 0o177;
const modeOfOwner = 0o600;
/** The bits with which the group and all others may enter a directory. */
const othersEnter = 0o011;

/** Sets the umask of the process and gives the one before. */
type SetUmask = (mask: number) => number;

let umaskOfLibc: SetUmask | undefined;

/**
 * Binds and listens with mode 0600 from the first moment. Throws {@linkcode UserError} where nothing that Deno is allowed
 * can see to that, and what `Deno.listen` throws. Our files that another thread makes in this moment get that mode too,
 * which is at most too strict.
 */
export function listenPrivately(path: string): Deno.Listener {
  return boundPrivately(path, () => Deno.listen({ transport: "unix", path }));
}

/** The same with another way to bind the path. */
export function boundPrivately<Listener extends { close(): void }>(
  path: string,
  bind: () => Listener,
): Listener {
  const setUmask = umaskSetter();
  if (setUmask === undefined && !isClosedToOthers(dirname(path))) {
    throw new UserError(
      `Cannot listen on the socket ${path}: other users could connect before its mode is set, as they may enter its ` +
        "directory. Add --allow-ffi or --allow-sys, or choose a directory of mode 0700.",
    );
  }
  const umaskBefore = setUmask?.(umaskOfOwner);
  try {
    const listener = bind();
    try {
      Deno.chmodSync(path, modeOfOwner);
    } catch (error) {
      listener.close();
      throw error;
    }
    return listener;
  } finally {
    if (umaskBefore !== undefined) setUmask?.(umaskBefore);
  }
}

/** Deno's own where it is allowed (by --allow-sys as a whole: that option takes no word for it), else the C library's; undefined without either. */
function umaskSetter(): SetUmask | undefined {
  if (Deno.permissions.querySync({ name: "sys", kind: "umask" }).state === "granted") return Deno.umask;
  umaskOfLibc ??= fromLibc(() =>
    Deno.dlopen(libraryName, { umask: { parameters: ["u32"], result: "u32" } }).symbols.umask
  );
  return umaskOfLibc;
}

/** False too where that cannot be seen. */
function isClosedToOthers(directory: string): boolean {
  if (Deno.permissions.querySync({ name: "read", path: directory }).state !== "granted") return false;
  try {
    return (fs.statSync(directory).mode & othersEnter) === 0;
  } catch {
    // Binding will tell what is wrong with it.
    return false;
  }
}
