/** The descriptors of a device in a file or on a block device, and what the host says that can be done with it. */
import { fileEndAlignBytes } from "../limits.ts";
import fs from "node:fs";
import { UserError } from "../../storage/base/errors.ts";
import { defaultKnobs } from "../knobs.ts";
import { openFailure } from "./file_errors.ts";
import { errno, type Libc } from "./libc.ts";

/** Open descriptors of one file or block device. */
export interface Handles {
  readonly fd: number;
  readonly flushFds: number[];
  readonly sizeBytes: number;
  readonly isBlockDevice: boolean;
}

/** Opens one for reading and writing, and one for each flush at once. Throws {@linkcode UserError}. */
export function openHandles(path: string, readOnly: boolean): Handles {
  const access = readOnly ? fs.constants.O_RDONLY : fs.constants.O_RDWR;
  let fd: number | undefined;
  const flushFds: number[] = [];
  try {
    const { sizeBytes, isBlockDevice } = measure(path);
    fd = fs.openSync(path, access);
    while (flushFds.length < defaultKnobs.flushesMax) flushFds.push(fs.openSync(path, access));
    return { fd, flushFds, sizeBytes, isBlockDevice };
  } catch (error) {
    if (fd !== undefined) fs.closeSync(fd);
    for (const flushFd of flushFds) fs.closeSync(flushFd);
    throw openFailure(path, error);
  }
}

/** Makes sure that Linux has a block device neither mounted nor mapped, and keeps it so. Needs libc. */
export function claim(path: string, handles: Handles, libc: Libc | undefined): number | undefined {
  const claimed = libc?.claim(path);
  if (claimed === undefined || claimed >= 0) return claimed;
  fs.closeSync(handles.fd);
  for (const fd of handles.flushFds) fs.closeSync(fd);
  const reason = claimed === -errno.busy ? "it is mounted, or mapped by another device" : `errno ${-claimed}`;
  throw new UserError(`Cannot open "${path}" for writing: ${reason}. Unmount or deactivate it first.`);
}

/** Seeking to the end tells the size of a block device too, which stat does not. */
export function measure(path: string): { sizeBytes: number; isBlockDevice: boolean } {
  using file = Deno.openSync(path);
  const info = file.statSync();
  const isBlockDevice = info.isBlockDevice ?? false;
  if (!info.isFile && !isBlockDevice) {
    throw new UserError(
      `Cannot open "${path}" as a device: it is neither a file nor a block device. Name one that is.`,
    );
  }
  return { sizeBytes: file.seekSync(0, Deno.SeekMode.End), isBlockDevice };
}

/**
 * Whether holes can be punched. A file system is asked by trying past the end of the file, where there is nothing to lose;
 * a block device is not, so what Linux publishes about it counts: it can discard, and zero without writing.
 */
export function canPunch(libc: Libc, handles: Handles): boolean {
  if (handles.isBlockDevice) {
    return queueLimitOf(handles, "discard_max_bytes") > 0 &&
      queueLimitOf(handles, "write_zeroes_max_bytes") > 0;
  }
  const pastEndBytes = Math.ceil(handles.sizeBytes / fileEndAlignBytes) * fileEndAlignBytes;
  return libc.punchHole(handles.fd, pastEndBytes, 4096) === 0;
}

/** A limit of a block device's queue; 0 if it is not known, or Deno may not read it. */
function queueLimitOf(handles: Handles, limit: string): number {
  if (Deno.permissions.querySync({ name: "read", path: "/sys" }).state !== "granted") return 0;
  // The layout of dev_t in glibc, as far as 32 bits go.
  const { rdev } = fs.fstatSync(handles.fd);
  const device = `/sys/dev/block/${(rdev >>> 8) & 0xfff}:${(rdev & 0xff) | ((rdev >>> 12) & 0xfff00)}`;
  // A partition has no queue of its own, its disk has.
  for (const path of [`${device}/queue/${limit}`, `${device}/../queue/${limit}`]) {
    if (fs.existsSync(path)) return Number(fs.readFileSync(path, "utf8"));
  }
  return 0;
}
