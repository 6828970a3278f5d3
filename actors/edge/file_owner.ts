/** The owner of a file, for sentences. */
import { absolutePath } from "./absolute_path.ts";

/** A path and the user that owns it. */
export interface OwnedPath {
  readonly path: string;
  /** The user's name, or `user 1000` if no name is known. */
  readonly name: string;
}

/** The owner of a path, or of the first directory above it that may be read; undefined if none may be. */
export function ownerOf(path: string): OwnedPath | undefined {
  for (let at = absolutePath(path);; at = absolutePath(`${at}/..`)) {
    const uid = uidOf(at);
    if (uid !== undefined) return { path: at, name: nameOf(uid) };
    if (at === "/") return undefined;
  }
}

function uidOf(path: string): number | undefined {
  if (Deno.permissions.querySync({ name: "read", path }).state !== "granted") return undefined;
  try {
    return Deno.statSync(path).uid ?? undefined;
  } catch {
    // No permission, or no such file: the directory above is tried next.
    return undefined;
  }
}

/** As /etc/passwd has it, if that may be read. */
function nameOf(uid: number): string {
  const unnamed = `user ${uid}`;
  if (Deno.permissions.querySync({ name: "read", path: "/etc/passwd" }).state !== "granted") return unnamed;
  try {
    const fields = Deno.readTextFileSync("/etc/passwd").split("\n").map((line) => line.split(":"));
    return fields.find((field) => field[2] === String(uid))?.[0] ?? unnamed;
  } catch {
    // The number names the user as well.
    return unnamed;
  }
}
