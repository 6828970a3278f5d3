/** How much room the host's file system has for the data file. */
import fs from "node:fs";
import type { HostSpace } from "../pool/gauge_messages.ts";

/**
 * A function that answers how much room the file system of a data file has for this user; undefined for a block device,
 * without `--allow-sys=statfs`, or if the system does not tell. Never prompts.
 *
 * With a quota there may be more free than the user gets: then writes without space are tried again each second.
 */
export function hostSpaceOf(dataPath: string): () => HostSpace | undefined {
  return () => {
    if (Deno.permissions.querySync({ name: "sys", kind: "statfs" }).state !== "granted") return undefined;
    try {
      if (fs.statSync(dataPath).isBlockDevice()) return undefined;
      const { bavail, bfree, blocks, bsize } = fs.statfsSync(dataPath);
      // What is free for the superuser alone is neither used nor free.
      return { freeBytes: bavail * bsize, totalBytes: (blocks - bfree + bavail) * bsize };
    } catch {
      // The file may have lost its name. What is not known is tried.
      return undefined;
    }
  };
}
