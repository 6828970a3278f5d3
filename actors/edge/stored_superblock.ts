/** The superblock of a pool's metadata, as it is read now. */
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { type DevicePort, readInto } from "../../storage/device/port.ts";
import { requireOk } from "./file_errors.ts";

/** Reads it from `device`, whose file is at `path`. Throws {@linkcode UserError}. */
export async function readSuperblock(path: string, device: Pick<DevicePort, "read">): Promise<Uint8Array> {
  const superblock = new Uint8Array(metadataBlockSizeBytes);
  await requireOk(`Cannot read the metadata "${path}"`, (done) => readInto(device, superblock, 0, done));
  return superblock;
}
