/** The metadata of a pool's files: the superblock read and checked against the catalogue and the files. */
import { UserError } from "../../storage/base/errors.ts";
import { dataBytesOf, metadataBytesOf } from "../../storage/base/geometry.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { formatSize } from "../../storage/base/sizes.ts";
import { type DevicePort } from "../../storage/device/port.ts";
import { OpenRefused, ThinMetadata } from "../../storage/thin_metadata.ts";
import { metadataCacheBlocks } from "../limits.ts";
import type { PoolFiles } from "./pool_files.ts";
import { readSuperblock } from "./stored_superblock.ts";

/** What the metadata is opened for. */
export interface OpenEngineOptions {
  readonly readOnly?: boolean;
  /** Refuse a pool whose blocks have another size. */
  readonly blockSizeBytes?: number | undefined;
}

/** The engine, and why the pool can only be opened read-only, if so. */
export interface OpenedEngine {
  readonly engine: ThinMetadata;
  /** The metadata device that it was opened on. */
  readonly device: DevicePort;
  readonly writeRefusal: string | null;
}

/** Reads the superblock, and refuses a pool that is not what was asked for. Throws {@linkcode UserError}. */
export async function openEngine(
  files: PoolFiles,
  options: OpenEngineOptions,
  device: DevicePort = files.metadata,
): Promise<OpenedEngine> {
  const readOnly = options.readOnly ?? false;
  const superblock = await readSuperblock(files.metadata.path, device);
  const engine = openOn(superblock, device, readOnly);
  const { blockSizeBytes } = engine.geometry;
  requireSameBlockSize(files, blockSizeBytes);
  const { blockSizeBytes: wantedBytes = blockSizeBytes } = options;
  if (wantedBytes !== blockSizeBytes) {
    throw new UserError(
      `Cannot open the pool "${files.paths.directory}" with blocks of ${
        formatSize(wantedBytes)
      }: it was made with ` +
        `blocks of ${formatSize(blockSizeBytes)}. Leave out --block-size, or name another pool.`,
    );
  }
  files.requireSizes(metadataBytesOf(engine.geometry), dataBytesOf(engine.geometry));
  return { engine, device, writeRefusal: readOnly ? refusalToWrite(superblock, device) : null };
}

/** Refuses a catalogue of other metadata. Throws {@linkcode UserError}. */
export function requireSameBlockSize(files: PoolFiles, blockSizeBytes: number): void {
  if (blockSizeBytes === files.settings.blockSizeBytes) return;
  throw new UserError(
    `Cannot open the pool "${files.paths.directory}": its catalogue says that its blocks have ` +
      `${files.settings.blockSizeBytes} bytes, its metadata ${blockSizeBytes}. Bring back the files that belong together.`,
  );
}

function refusalToWrite(superblock: Uint8Array, device: DevicePort): string | null {
  try {
    openOn(superblock, device, false);
    return null;
  } catch (error) {
    // Its sentence is what was asked for.
    if (error instanceof UserError) return error.message;
    throw error;
  }
}

/** The engine on a superblock. Throws {@linkcode UserError}. */
export function openOn(superblock: Uint8Array, device: DevicePort, readOnly: boolean): ThinMetadata {
  try {
    const deviceBlocks = Math.floor(device.sizeBytes / metadataBlockSizeBytes);
    return ThinMetadata.open(superblock, { cacheBlocks: metadataCacheBlocks, deviceBlocks, readOnly });
  } catch (error) {
    if (error instanceof OpenRefused) throw new UserError(error.message);
    throw error;
  }
}
