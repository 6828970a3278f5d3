/** What a killed process has left in the intent journal of a pool. */
import { UserError } from "../../storage/base/errors.ts";
import type { IntentBinding } from "../../storage/device/intent_port.ts";
import { findIntents, type IntentsFound } from "../../storage/intent_read.ts";
import type { Intent } from "../../storage/intent_record.ts";
import { readBootId } from "./boot_id.ts";
import { readIntentFile } from "./intent_file.ts";
import type { OpenDevice } from "./open_device.ts";
import type { PoolFiles } from "./pool_files.ts";
import { readSuperblock } from "./stored_superblock.ts";

/** An intent journal, and the metadata that it may belong to. */
export interface IntentsPlace {
  readonly path: string;
  readonly metadata: OpenDevice;
  readonly identities: PoolFiles["identities"];
}

/** The journal of a pool. */
export function intentsOf({ paths, metadata, identities }: PoolFiles): IntentsPlace {
  return { path: paths.intents, metadata, identities };
}

/**
 * What an earlier process has left for this superblock, or why that cannot be read. Sentences go to the log. Throws
 * {@linkcode UserError} for a newer format.
 */
export async function findLeftIntents(
  place: IntentsPlace,
  log: (sentence: string) => void,
): Promise<readonly Intent[] | string> {
  const { path, metadata } = place;
  const bootId = readBootId();
  const left = readIntentFile(path, bootId);
  if (typeof left === "string") return left;
  const binding = bootId === undefined ? undefined : bindingOf(place, bootId, left.identity);
  const superblock = await readSuperblock(metadata.path, metadata);
  return taken(findIntents(left.bytes, binding, superblock), path, log);
}

function taken(found: IntentsFound, path: string, log: (sentence: string) => void): readonly Intent[] {
  switch (found.kind) {
    case "found":
      return found.intents;
    case "newer":
      throw new UserError(
        `Cannot open the pool: its intent journal "${path}" has format ${found.format}, which a newer version has ` +
          "written. Use that one.",
      );
    default:
      if (found.why !== undefined) {
        log(`The intent journal "${path}" is not replayed: ${found.why}. The pool is as of its last commit.`);
      }
      return [];
  }
}

/** What a file of intents of this pool belongs to. Undefined if the bytes of a device are not in this host's memory. */
export function bindingOf(
  { identities }: Pick<IntentsPlace, "identities">,
  bootId: string,
  file: string,
): IntentBinding | undefined {
  return identities === undefined ? undefined : { bootId, ...identities, file };
}
