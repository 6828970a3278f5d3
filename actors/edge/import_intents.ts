/**
 * The intent journal for `import`: if the server of a pool of ours was killed, it lies beside the metadata with what was
 * acknowledged since the last commit. It is bound to its own inode too, so the new directory gets a link to it, and the first
 * opening for writing replays it.
 */
import fs from "node:fs";
import { dirname } from "node:path";
import { UserError } from "../../storage/base/errors.ts";
import type { Intent } from "../../storage/intent_record.ts";
import { codeOf } from "./file_errors.ts";
import { findLeftIntents, type IntentsPlace } from "./intents_left.ts";
import { poolPaths } from "./pool_paths.ts";
import { requirePermission } from "./permissions.ts";

/** The journal beside metadata that is imported, and what waits in it. */
export interface IntentsBeside {
  readonly path: string;
  readonly intents: readonly Intent[];
}

/** What waits beside the metadata. Throws {@linkcode UserError} if that cannot be read, or has a newer format. */
export async function intentsBeside(place: Omit<IntentsPlace, "path">): Promise<IntentsBeside> {
  const directory = dirname(place.metadata.path);
  const { intents: path } = poolPaths(directory);
  // The permission for the metadata alone is enough to import it.
  const { state } = Deno.permissions.querySync({ name: "read", path: directory });
  if (state !== "granted") return { path, intents: [] };
  // What is not replayed belongs to another state, or to other files: it is not this metadata's.
  const intents = await findLeftIntents({ ...place, path }, () => {});
  if (typeof intents !== "string") return { path, intents };
  throw new UserError(
    `Cannot import "${place.metadata.path}": the intent journal "${path}" beside it cannot be read (${intents}). ` +
      "Make it readable, or move it away: what a killed server had acknowledged is then lost.",
  );
}

/** Gives the journal a second name. Throws {@linkcode UserError}: without it, what was acknowledged would be lost. */
export function linkIntents({ path, intents }: IntentsBeside, to: string): void {
  requirePermission("write", path);
  try {
    // An import that was interrupted may have left one.
    fs.rmSync(to, { force: true });
    fs.linkSync(path, to);
  } catch (error) {
    throw new UserError(
      `Cannot import the pool: ${intents.length} changes that a killed server had acknowledged wait in "${path}", which ` +
        `could not be linked to "${to}" (${
          codeOf(error) ?? String(error)
        }). Name a directory in the same file system ` +
        "with --pool, or let a command change the pool where it is: that commits them.",
    );
  }
}
