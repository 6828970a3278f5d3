/**
 * The details record of a thin device, 24 bytes, the value of the details tree (`struct disk_device_details`,
 * drivers/md/dm-thin-metadata.c).
 */
import { readOpaqueU64, readU32, readU64, writeOpaqueU64, writeU32, writeU64 } from "./fields.ts";

/** Bytes of a packed {@linkcode DeviceDetails}. */
export const deviceDetailsSizeBytes = 24;

/** What the metadata has about a thin device besides its mappings. */
export interface DeviceDetails {
  /** Number of mappings in the device's tree. */
  readonly mappedBlocks: number;
  /** The pool's transaction id when the device was made. */
  readonly transactionId: bigint;
  /** The snapshot clock when the device was made. */
  readonly creationTime: number;
  /** The snapshot clock at the latest snapshot of the device, or its creation time. */
  readonly snapshottedTime: number;
}

/** Reads a record. */
export function unpackDeviceDetails(view: DataView, offset: number): DeviceDetails {
  return {
    mappedBlocks: readU64(view, offset),
    transactionId: readOpaqueU64(view, offset + 8),
    creationTime: readU32(view, offset + 16),
    snapshottedTime: readU32(view, offset + 20),
  };
}

/** Writes a record. */
export function packDeviceDetails(view: DataView, offset: number, details: DeviceDetails): void {
  writeU64(view, offset, details.mappedBlocks);
  writeOpaqueU64(view, offset + 8, details.transactionId);
  writeU32(view, offset + 16, details.creationTime);
  writeU32(view, offset + 20, details.snapshottedTime);
}
