/**
 * What a pool's disks have, before anything is built on what its files read as.
 *
 * A process before us may have been told that a flush failed, and have ended before it could mark the pool for it: the host
 * then shows from memory a superblock, or data, that the disk does not have (page_cache.ts), and says so to nothing again.
 * So opening a pool goes through these steps:
 *
 *  1. Flush. What the host has still to write becomes durable; so does what the disk has in its own cache. If we stop after
 *     it, the host was only made to do what it does anyway. A failure that was told to no process is told to us: the pool is
 *     not opened, and the next opening finds what the disk has.
 *  2. Have the host let go of its pages. Those that are in memory after a flush are on the disk or lost, so nothing is lost
 *     by it that a power cut would have kept.
 *  3. Read. What is found is what a power cut would have left, made durable by step 1. No flush of a superblock was answered
 *     well that is not in it, and where the disk has an older one than the memory had, it is that of the last durable commit:
 *     its nodes and data are on the disk too, and the line of the catalogue that was ahead of it is dropped, as after any
 *     crash. What was read from memory is never written again to make it durable: its nodes may be lost.
 *
 * The metadata always goes through this: it is read anew in no time. The data does unless it was noted as flushed when it was
 * closed and has not been written since (a page cache is worth keeping over a restart). That costs a start after a kill a
 * flush of the data, which the host has to write anyway, and a cold page cache. An error that marks the pool (needs_check)
 * may come too late or fail itself, so it is not what this decision hangs on.
 */
import { unpackSuperblock } from "../../storage/format/superblock.ts";
import { UserError } from "../../storage/base/errors.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { readInto } from "../../storage/device/port.ts";
import { requireOk } from "./file_errors.ts";
import type { HostCached } from "./open_device.ts";
import { canLetGo } from "./page_cache.ts";

/** What this needs of a device; `path` is for sentences. */
export type CachedDevice = Omit<HostCached, "noteFlushed">;

/**
 * Goes through the steps above. Answers sentences for the log, usually none. Throws {@linkcode UserError} where the devices
 * cannot be flushed, or the host shows another superblock than the disk has and does not let go of it. A device that is
 * undefined has no pages in the host's memory, and answers for itself.
 *
 * @param readOnly flushes nothing; what the host has still to write is then read from its memory
 */
export async function seeDisks(
  devices: { readonly metadata: CachedDevice | undefined; readonly data: CachedDevice | undefined },
  readOnly: boolean,
): Promise<readonly string[]> {
  const { metadata, data } = devices;
  const notes: string[] = [];
  if (metadata === undefined && data === undefined) return notes;
  if (metadata !== undefined) {
    const seenBefore = await superblockOf(metadata);
    await seeDisk(metadata, "metadata", readOnly, notes);
    await compareSuperblocks(metadata, seenBefore, notes);
  }
  if (!canLetGo()) return [notVerified];
  // Where the memory lied about the superblock, the note may too.
  if (data !== undefined && (notes.length > 0 || !data.isNotedFlushed)) {
    await seeDisk(data, "data", readOnly, notes);
  }
  return notes;
}

/** The other sentence of a start without the C library names the permission. */
const notVerified =
  "Without the C library it is not verified that the disk has what the host's memory shows of the pool: after a flush that " +
  "failed, restart the host before the server.";

async function seeDisk(
  device: CachedDevice,
  what: "metadata" | "data",
  readOnly: boolean,
  notes: string[],
): Promise<void> {
  if (!readOnly && (canLetGo() || what === "metadata")) {
    await requireOk(`Cannot flush the ${what} "${device.path}"`, (done) => device.flush(done));
  }
  const stayed = await device.letGo();
  if (readOnly || stayed === undefined || stayed === 0) return;
  notes.push(
    `The host keeps ${stayed} pages of the ${what} "${device.path}" in memory, which another program may have mapped, so it ` +
      "is not verified that the disk has the same. It is always so on tmpfs; elsewhere, after a flush that failed, restart the " +
      "host before the server.",
  );
}

/** Compares the superblock that the host showed at first with what it shows now, and that with what the disk has. */
async function compareSuperblocks(
  metadata: CachedDevice,
  seenBefore: Uint8Array,
  notes: string[],
): Promise<void> {
  const seen = await superblockOf(metadata);
  const onDisk = metadata.readPastCache(metadataBlockSizeBytes) ?? seen;
  if (!areEqual(onDisk, seen)) {
    throw new UserError(
      `Cannot open the metadata "${metadata.path}": the host's memory shows another superblock than its disk has ` +
        `(${describe(seen)}, on the disk ${
          describe(onDisk)
        }), as after a flush that failed, and does not let go of it. ` +
        "Stop what else uses the file, or restart the host.",
    );
  }
  if (areEqual(onDisk, seenBefore)) return;
  notes.push(
    `The host's memory showed another superblock of the metadata than its disk has (${
      describe(seenBefore)
    }, on the disk ` +
      `${describe(onDisk)}): a flush had failed. The pool goes on from what the disk has. Check the disk.`,
  );
}

async function superblockOf(metadata: CachedDevice): Promise<Uint8Array> {
  const superblock = new Uint8Array(metadataBlockSizeBytes);
  const what = `Cannot read the metadata "${metadata.path}"`;
  await requireOk(what, (done) => readInto(metadata, superblock, 0, done));
  return superblock;
}

function describe(superblock: Uint8Array): string {
  const unpacked = unpackSuperblock(superblock);
  return typeof unpacked === "string" ? "a damaged one" : `transaction ${unpacked.transactionId}`;
}

function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}
