/**
 * Makes sure, when a pool is opened, that what its files read as is what is on its disks.
 *
 * An earlier process may have got an error from a flush and ended before it could mark the pool. Then the host's page cache
 * holds a superblock, or data, that the disk does not have (page_cache.ts), and the host reports the error only once.
 * So opening a pool has these steps:
 *
 *  1. Flush. Everything in the page cache and in the disk's own cache becomes durable. If we stop after this step, the host
 *     has only done what it would have done later. If the flush fails, the pool is not opened, and the next opening finds
 *     what the disk has.
 *  2. Drop the pages from the page cache. After a flush each page is on the disk or lost, so this loses nothing that a power
 *     cut would have kept.
 *  3. Read. This finds what a power cut would have left. Every superblock whose flush was answered "ok" is found. If the disk
 *     has an older superblock than the page cache had, it is that of the last durable commit: its nodes and data are on the
 *     disk too, and a line of the catalogue that is ahead of it is dropped, as after any crash. What was read from the page
 *     cache is never written again to make it durable, because the nodes it refers to may be lost.
 *
 * The metadata always goes through these steps, because reading it again is quick. The data device does not if it was noted as
 * flushed when it was closed and has not been written since, so that a restart keeps its page cache. After a kill, a start
 * costs one flush of the data and a cold page cache. The decision does not depend on needs_check, because setting that flag
 * may come too late or fail itself.
 */
import { unpackSuperblock } from "../../storage/format/superblock.ts";
import { UserError } from "../../storage/base/errors.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { requireOk } from "./file_errors.ts";
import type { HostCached } from "./open_device.ts";
import { canLetGo } from "./page_cache.ts";
import { readSuperblock } from "./stored_superblock.ts";

/** What this needs of a device; `path` is for sentences. */
export type CachedDevice = Omit<HostCached, "noteFlushed">;

/**
 * Goes through the steps above: flushes, drops pages and reads, the metadata always, the data where its pages are not trusted.
 * Answers sentences for the log, usually none. Throws {@linkcode UserError} where the devices
 * cannot be flushed, or the host shows another superblock than the disk has and does not let go of it. A device that is
 * undefined has no pages in the host's memory, and answers for itself.
 *
 * @param readOnly flushes nothing; what the host has still to write is then read from its memory
 * @param lost called if something that was written may be lost: a flush fails, now or before
 */
export async function seeDisks(
  devices: { readonly metadata: CachedDevice | undefined; readonly data: CachedDevice | undefined },
  readOnly: boolean,
  lost: () => void = () => {},
): Promise<readonly string[]> {
  const { metadata, data } = devices;
  const notes: string[] = [];
  if (metadata === undefined && data === undefined) return notes;
  if (metadata !== undefined) {
    const seenBefore = await readSuperblock(metadata.path, metadata);
    await lostIfThrown(lost, seeDisk(metadata, "metadata", readOnly, notes));
    if (await lostIfThrown(lost, compareSuperblocks(metadata, seenBefore, notes))) lost();
  }
  // A reader writes nothing that could rest on what the disk does not have.
  if (!canLetGo()) return readOnly ? notes : [notVerified];
  // If the page cache had another superblock than the disk, the note may be wrong too.
  if (data !== undefined && (notes.length > 0 || !data.isNotedFlushed)) {
    await lostIfThrown(lost, seeDisk(data, "data", readOnly, notes));
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

async function lostIfThrown<T>(lost: () => void, step: Promise<T>): Promise<T> {
  try {
    return await step;
  } catch (error) {
    // Handled by the caller: this only takes note.
    lost();
    throw error;
  }
}

/** Compares the superblock that the host showed at first with what it shows now, and that with what the disk has. True if the host showed another one. */
async function compareSuperblocks(
  metadata: CachedDevice,
  seenBefore: Uint8Array,
  notes: string[],
): Promise<boolean> {
  const seen = await readSuperblock(metadata.path, metadata);
  const onDisk = metadata.readPastCache(metadataBlockSizeBytes) ?? seen;
  if (!areEqual(onDisk, seen)) {
    throw new UserError(
      `Cannot open the metadata "${metadata.path}": the host's memory shows another superblock than its disk has ` +
        `(${transactionText(seen)}, on the disk ${
          transactionText(onDisk)
        }), as after a flush that failed, and does not let go of it. ` +
        "Stop what else uses the file, or restart the host.",
    );
  }
  if (areEqual(onDisk, seenBefore)) return false;
  notes.push(
    `The host's memory showed another superblock of the metadata than its disk has (${
      transactionText(seenBefore)
    }, on the disk ` +
      `${
        transactionText(onDisk)
      }): a flush had failed. The pool goes on from what the disk has. Check the disk.`,
  );
  return true;
}

function transactionText(superblock: Uint8Array): string {
  const unpacked = unpackSuperblock(superblock);
  return typeof unpacked === "string" ? "a damaged one" : `transaction ${unpacked.transactionId}`;
}

function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}
