/** Permissions of Deno for files. */
import { assert } from "../../storage/base/assert.ts";
import { UserError } from "../../storage/base/errors.ts";

/**
 * Refuses with a sentence what Deno would ask the user about at the terminal.
 * Throws {@linkcode UserError}.
 */
export function requirePermission(name: "read" | "write", path: string): void {
  assert(path.length > 0, "a path is not empty");
  if (Deno.permissions.querySync({ name, path }).state === "granted") return;
  throw new UserError(
    `Cannot use "${path}": Deno was not given the permission to ${name} it. Add --allow-${name}=${path}.`,
  );
}
