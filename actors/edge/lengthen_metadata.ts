/** Makes the metadata device larger, of a pool that cannot be opened for writing until it has more metadata. */
import { UserError } from "../../storage/base/errors.ts";
import { metadataBytesOf } from "../../storage/base/geometry.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import {
  formatSize,
  metadataBytesMax,
  roundDown,
  roundUp,
  type SizeChange,
} from "../../storage/base/sizes.ts";
import { ioOk, type IoResult } from "../../storage/device/port.ts";
import { requireOk } from "./file_errors.ts";
import { readSuperblock } from "./stored_superblock.ts";
import { openLibc } from "./libc.ts";
import { openOn } from "./open_engine.ts";
import { PoolFiles } from "./pool_files.ts";

/** Bytes of the metadata that the pool uses, and that the device has now. */
export interface MetadataLengthened {
  readonly beforeBytes: number;
  readonly afterBytes: number;
}

/** Makes the metadata device larger, durably; no byte of it changes. Throws {@linkcode UserError} if that was not done. */
export async function lengthenMetadata(
  directory: string,
  { bytes, added }: SizeChange,
): Promise<MetadataLengthened> {
  using opened = new DisposableStack();
  const files = opened.adopt(PoolFiles.open(directory, { libc: openLibc() }), (files) => files.close());
  const { metadata } = files;
  const beforeBytes = metadataBytesOf(
    openOn(await readSuperblock(files.metadata.path, files.metadata), metadata, true).geometry,
  );
  const wantedBytes = roundUp(added ? beforeBytes + bytes : bytes, metadataBlockSizeBytes);
  if (!Number.isSafeInteger(wantedBytes) || wantedBytes <= beforeBytes || wantedBytes > metadataBytesMax) {
    throw new UserError(
      `The pool was not grown: its metadata has ${formatSize(beforeBytes)} and can have ` +
        `${formatSize(metadataBytesMax)}. Give a size between, or what to add, as in --metadata +64M.`,
    );
  }
  const what = "The pool was not grown: the metadata could not be made larger";
  await requireOk(what, (done) => {
    if (metadata.grow !== undefined) return metadata.grow(wantedBytes, true, done);
    return metadata.sizeBytes >= wantedBytes ? ioOk : notLargeEnough;
  });
  await files.idle();
  const deviceBytes = roundDown(Math.min(metadata.sizeBytes, metadataBytesMax), metadataBlockSizeBytes);
  return { beforeBytes, afterBytes: Math.max(wantedBytes, deviceBytes) };
}

const notLargeEnough: IoResult = {
  kind: "ioError",
  reason: "it is not so large, and cannot be made larger here",
};
