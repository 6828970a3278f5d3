/** The sizes of a pool that is about to be made. */
import fs from "node:fs";
import type { PoolSettings } from "../../storage/catalogue.ts";
import { UserError } from "../../storage/base/errors.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import {
  defaultMetadataBytes,
  formatSize,
  metadataBytesMax,
  metadataBytesMin,
  roundDown,
  roundUp,
} from "../../storage/base/sizes.ts";
import { metadataAskedBytesMax } from "../limits.ts";
import { openFailure } from "./file_errors.ts";
import { requirePermission } from "./permissions.ts";
import { pathIn } from "./pool_paths.ts";

/** Sizes in bytes, as far as they were given. */
export interface SizesAsked {
  readonly directory: string;
  readonly blockSizeBytes: number;
  readonly dataSizeBytes?: number | undefined;
  readonly metadataSizeBytes?: number | undefined;
}

/** Block sizes of dm-thin: any multiple of 64 KiB up to 1 GiB (Linux's `DATA_DEV_BLOCK_SIZE_*`, drivers/md/dm-thin.c). */
export function requireBlockSize(blockSizeBytes: number): void {
  const unit = 64 << 10;
  if (blockSizeBytes % unit === 0 && blockSizeBytes >= unit && blockSizeBytes <= 1 << 30) return;
  throw new UserError(
    `Cannot make a pool with a block size of ${blockSizeBytes} bytes: it must be a multiple of 64 KiB, at most 1 GiB. ` +
      "Give another --block-size.",
  );
}

/** Sizes of a new pool's files, in bytes. */
export interface Sizes {
  readonly metadataBytes: number;
  readonly dataBytes: number;
}

/** The sizes that were asked for, or that follow from what is there. Throws {@linkcode UserError} for sizes out of bounds. */
export function sizesFor(options: SizesAsked, settings: PoolSettings): Sizes {
  const existingData = existingBytes(pathIn(options.directory, settings.dataPath));
  const existingMetadata = existingBytes(pathIn(options.directory, settings.metadataPath));
  const dataBytes = roundDown(
    options.dataSizeBytes ?? existingData ?? freeBytes(options),
    options.blockSizeBytes,
  );
  if (dataBytes === 0) {
    throw new UserError(
      `Cannot make a pool whose data is smaller than one block of ${
        formatSize(options.blockSizeBytes)
      }. Give a larger --data-size or a smaller --block-size.`,
    );
  }
  const metadataBytes = options.metadataSizeBytes ?? existingMetadata ??
    defaultMetadataBytes(dataBytes / options.blockSizeBytes);
  if (metadataBytes < metadataBytesMin) {
    throw new UserError(
      `Cannot make a pool with ${
        formatSize(metadataBytes)
      } of metadata: it needs at least 2 MiB. Give a larger --metadata-size.`,
    );
  }
  // dm-thin uses 15.875 GiB and ignores the rest. 16 GiB is accepted as a round number for all of that.
  if ((options.metadataSizeBytes ?? 0) > metadataAskedBytesMax) {
    throw new UserError(
      `Cannot make a pool with ${
        formatSize(metadataBytes)
      } of metadata: dm-thin's format ends at 15.875 GiB. ` +
        "Give a smaller --metadata-size.",
    );
  }
  const usedBytes = Math.min(metadataBytes, metadataBytesMax);
  return { metadataBytes: roundUp(usedBytes, metadataBlockSizeBytes), dataBytes };
}

/** The size of a file or block device; undefined if it does not exist or is empty. */
export function existingBytes(path: string): number | undefined {
  requirePermission("read", path);
  if (!fs.existsSync(path)) return undefined;
  try {
    using file = Deno.openSync(path);
    const sizeBytes = file.seekSync(0, Deno.SeekMode.End);
    return sizeBytes === 0 ? undefined : sizeBytes;
  } catch (error) {
    throw openFailure(path, error);
  }
}

/** Free bytes of the host's file system, less the metadata, which it will store too. */
function freeBytes(options: SizesAsked): number {
  if (Deno.permissions.querySync({ name: "sys", kind: "statfs" }).state !== "granted") {
    throw new UserError(
      "Cannot tell how much space the host has: Deno was not given the permission. Give --data-size, or add " +
        "--allow-sys=statfs.",
    );
  }
  const { bavail, bsize } = fs.statfsSync(options.directory);
  const hostBytes = bavail * bsize;
  const metadataBytes = options.metadataSizeBytes ??
    defaultMetadataBytes(Math.floor(hostBytes / options.blockSizeBytes));
  return Math.max(0, hostBytes - metadataBytes);
}
