/** Whose a file is, for sentences. */
import { dirname, resolve } from "node:path";

/** A path and the user to whom it belongs. */
export interface OwnedPath {
  readonly path: string;
  /** The user's name, or `user 1000` where there is none to be found. */
  readonly name: string;
}

/** The owner of a path, or of the first directory above it that we may look at; undefined where nothing can be told. */
export function ownerOf(path: string): OwnedPath | undefined {
  for (let at = resolve(path);; at = dirname(at)) {
    const uid = uidOf(at);
    if (uid !== undefined) return { path: at, name: nameOf(uid) };
    if (dirname(at) === at) return undefined;
  }
}

function uidOf(path: string): number | undefined {
  if (Deno.permissions.querySync({ name: "read", path }).state !== "granted") return undefined;
  try {
    return Deno.statSync(path).uid ?? undefined;
  } catch {
    // We may not look there either: its directory is asked next.
    return undefined;
  }
}

/** As passwd(5) has it, where we may read that. */
function nameOf(uid: number): string {
  const unnamed = `user ${uid}`;
  if (Deno.permissions.querySync({ name: "read", path: "/etc/passwd" }).state !== "granted") return unnamed;
  try {
    const fields = Deno.readTextFileSync("/etc/passwd").split("\n").map((line) => line.split(":"));
    return fields.find((field) => field[2] === String(uid))?.[0] ?? unnamed;
  } catch {
    // The number says as much.
    return unnamed;
  }
}
