/** How much room the host's file system has for the data file. */
import fs from "node:fs";

/**
 * A function that answers the bytes which the file system of a data file has free for this user; undefined for a block device,
 * without `--allow-sys=statfs`, or if the system does not tell. Never prompts.
 *
 * With a quota there may be more free than the user gets: then writes without space are tried again each second.
 */
export function hostFreeBytesOf(dataPath: string): () => number | undefined {
  return () => {
    if (Deno.permissions.querySync({ name: "sys", kind: "statfs" }).state !== "granted") return undefined;
    try {
      if (fs.statSync(dataPath).isBlockDevice()) return undefined;
      const { bavail, bsize } = fs.statfsSync(dataPath);
      return bavail * bsize;
    } catch {
      // The file may have lost its name. What is not known is tried.
      return undefined;
    }
  };
}
