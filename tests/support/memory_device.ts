/** Devices in memory, which complete every operation at once. */
import {
  type DevicePort,
  ioOk,
  type IoResult,
  type LocalStorage,
  type ReadTarget,
} from "../../storage/device/port.ts";

/** Has no holes and maps nothing, as a device that is not local. */
export class MemoryDevice implements DevicePort {
  readonly bytes: Uint8Array;

  /** @param bytes the content, or a size in bytes for a zeroed one */
  constructor(bytes: Uint8Array | number) {
    this.bytes = typeof bytes === "number" ? new Uint8Array(bytes) : bytes;
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  get local(): LocalStorage | undefined {
    return undefined;
  }

  read(target: ReadTarget, offsetBytes: number): IoResult {
    const { lengthBytes } = target;
    if (!this.isInside(offsetBytes, lengthBytes)) return pastEnd;
    target.memory().set(this.bytes.subarray(offsetBytes, offsetBytes + lengthBytes));
    return ioOk;
  }

  readAtOnce(target: ReadTarget, offsetBytes: number): IoResult | undefined {
    return this.read(target, offsetBytes);
  }

  writeAtOnce(buffer: Uint8Array, offsetBytes: number): IoResult | undefined {
    return this.write(buffer, offsetBytes);
  }

  write(buffer: Uint8Array, offsetBytes: number): IoResult {
    if (!this.isInside(offsetBytes, buffer.length)) return pastEnd;
    this.bytes.set(buffer, offsetBytes);
    return ioOk;
  }

  zero(offsetBytes: number, lengthBytes: number): IoResult {
    if (!this.isInside(offsetBytes, lengthBytes)) return pastEnd;
    this.bytes.fill(0, offsetBytes, offsetBytes + lengthBytes);
    return ioOk;
  }

  copy(fromBytes: number, toBytes: number, lengthBytes: number): IoResult {
    if (!this.isInside(fromBytes, lengthBytes) || !this.isInside(toBytes, lengthBytes)) return pastEnd;
    this.bytes.copyWithin(toBytes, fromBytes, fromBytes + lengthBytes);
    return ioOk;
  }

  flush(): IoResult {
    return ioOk;
  }

  protected isInside(offsetBytes: number, lengthBytes: number): boolean {
    return offsetBytes >= 0 && offsetBytes + lengthBytes <= this.bytes.length;
  }
}

/** Takes discards, as a file does, and tells of no hole. */
export class DiscardingDevice extends MemoryDevice implements LocalStorage {
  readonly canDiscard = true;

  override get local(): LocalStorage {
    return this;
  }

  discard(offsetBytes: number, lengthBytes: number): IoResult {
    return this.zero(offsetBytes, lengthBytes);
  }

  isHole(): boolean {
    return false;
  }
}

const pastEnd: IoResult = { kind: "ioError", reason: "access past the end of the device" };
