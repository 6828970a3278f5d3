/** Where the private socket of a held volume lies. */
import fs from "node:fs";
import { resolve } from "node:path";
import { nanoid } from "nanoid";
import { UserError } from "../../storage/base/errors.ts";
import { reasonOutside } from "../kernel/boundary.ts";
import { heldVolumesMax, socketPathBytesMax } from "../limits.ts";
import { pathIn } from "./pool_paths.ts";
import { missingForPath, requireNoneMissing } from "./socket_permission.ts";

/** A place for a private socket. */
export interface PrivatePlace {
  /** Absolute. */
  readonly path: string;
  /** Removes what is left when the socket is closed. */
  leave(): void;
}

/**
 * In the pool, under a name that no client of an earlier socket knows. Where the permissions name the sockets one by one: the first
 * of `run-1.sock`, `run-2.sock`, ... that is allowed and not among `taken`. Where the path is too long: in a new directory of
 * mode 0700. Throws {@linkcode UserError}.
 */
export function privatePlace(directory: string, taken: ReadonlySet<string>): PrivatePlace {
  const pathOf = (id: string) => resolve(pathIn(directory, `run-${id}.sock`));
  const path = pathOf(nanoid(8));
  const leave = () => {};
  if (new TextEncoder().encode(path).length > socketPathBytesMax) return placeOfItsOwn();
  if (missingForPath(path).length === 0) return { path, leave };
  const free: string[] = [];
  for (let number = 1; number <= heldVolumesMax; number += 1) {
    const numbered = pathOf(String(number));
    if (taken.has(numbered)) continue;
    if (missingForPath(numbered).length === 0) return { path: numbered, leave };
    free.push(numbered);
  }
  requireNoneMissing("Cannot open a private socket for the volume", missingForPath(free[0] ?? path));
  return { path, leave };
}

function placeOfItsOwn(): PrivatePlace {
  let folder: string;
  try {
    folder = Deno.makeTempDirSync({ prefix: "gossamer-run-" });
  } catch (error) {
    throw new UserError(
      `Cannot make a directory for a private socket, as the pool's path is too long for one: ${
        reasonOutside(error)
      }. Allow Deno to write to the directory for temporary files, or move the pool.`,
    );
  }
  return { path: `${folder}/nbd.sock`, leave: () => removeIfThere(folder) };
}

/** Removes the private sockets that a process left which was killed. For the process that has the pool locked. */
export function removeLeftSockets(directory: string): void {
  let names: string[];
  try {
    names = fs.readdirSync(directory);
  } catch {
    // The opening of its files tells what is wrong.
    return;
  }
  for (const name of names) {
    if (!/^run-[\w-]+\.sock$/.test(name)) continue;
    const path = pathIn(directory, name);
    if (fs.lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true) removeIfThere(path);
  }
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path, { recursive: true });
  } catch (error) {
    // Whatever keeps it there, nothing listens on it.
    reasonOutside(error);
  }
}
