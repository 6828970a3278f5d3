/** Names of files that hold after a power cut. */
import fs from "node:fs";
import { dirname } from "node:path";
import type { IoResult } from "../../storage/device/port.ts";
import { openWithSpare } from "./descriptors.ts";
import { failureOf } from "./file_errors.ts";
import { openLibc } from "./libc.ts";
import { flushed } from "./sync_later.ts";

/** Replaces a file by one with this text, so that after a crash it is the old or the new one, never a part. */
export function writeDurably(path: string, text: string): void {
  const newPath = `${path}.new`;
  const fd = openWithSpare(() => fs.openSync(newPath, "w", 0o600));
  openLibc()?.overwriteInPlace(fd);
  try {
    fs.writeFileSync(fd, text);
    // Before the rename, or the name could come to stand for an empty file.
    fs.fsyncSync(fd);
  } catch (error) {
    fs.unlinkSync(newPath);
    throw error;
  } finally {
    fs.closeSync(fd);
  }
  fs.renameSync(newPath, path);
  syncDirectoryOf(path);
}

/** Makes the names in the directory of `path` durable. */
export function syncDirectoryOf(path: string): void {
  syncDirectory(dirname(path));
}

/** Makes the names in a directory durable, on this thread. Throws what the system says. */
export function syncDirectory(path: string): void {
  const fd = openWithSpare(() => fs.openSync(path, "r"));
  try {
    fs.fdatasyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** Makes the names in a directory durable, on another thread. */
export async function flushedDirectory(path: string): Promise<IoResult> {
  let fd: number;
  try {
    fd = openWithSpare(() => fs.openSync(path, "r"));
  } catch (error) {
    return failureOf(error, "flush of the catalogue's directory");
  }
  const result = await flushed(fd, "flush of the catalogue");
  try {
    fs.closeSync(fd);
  } catch (error) {
    // The names are durable or not all the same. An exception that is not the host's is a defect.
    failureOf(error, "close of the catalogue's directory");
  }
  return result;
}
