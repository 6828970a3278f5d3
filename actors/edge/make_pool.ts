/** Making an empty pool: its files, and the metadata in them. */
import { catalogueFrom } from "../../storage/catalogue_open.ts";
import { geometryOf } from "../../storage/base/geometry.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import type { DevicePort } from "../../storage/device/port.ts";
import { ThinMetadata } from "../../storage/thin_metadata.ts";
import { requireOk } from "./file_errors.ts";
import { openLibc } from "./libc.ts";
import { guardedLog } from "./log_sink.ts";
import { type InitOptions, initPoolFiles } from "./pool_files_init.ts";

/** Makes a pool. Throws {@linkcode UserError}; nothing is left behind then. */
export async function makePool(options: InitOptions): Promise<void> {
  const log = options.log === undefined ? undefined : guardedLog(options.log);
  const pool = initPoolFiles({ ...options, log, libc: openLibc() });
  try {
    await formatMetadata(pool.metadata, pool.dataSizeBytes, options.blockSizeBytes);
    const { settings } = pool;
    pool.finish(catalogueFrom({ transactionId: 0n, settings, nextThinId: 1, volumes: [] }));
  } catch (error) {
    pool.abandon();
    throw error;
  }
}

/** Writes the metadata of an empty pool, the superblock last: if we stop before, there is no metadata at all. */
async function formatMetadata(device: DevicePort, dataBytes: number, blockSizeBytes: number): Promise<void> {
  const blocks = ThinMetadata.format(geometryOf({
    metadataBlocks: Math.floor(device.sizeBytes / metadataBlockSizeBytes),
    dataBlocks: Math.floor(dataBytes / blockSizeBytes),
    blockSizeBytes,
  }));
  const what = "Cannot write the metadata of the new pool";
  for (const { block, bytes } of blocks) {
    if (block === 0) await requireOk(what, (done) => device.flush(done));
    await requireOk(what, (done) => device.write(bytes, block * metadataBlockSizeBytes, done));
  }
  await requireOk(what, (done) => device.flush(done));
}
