/** A device in memory, which completes every operation at once. */
import { type DevicePort, ioOk, type IoResult } from "../../storage/device/port.ts";

/** See the head of this file. */
export class MemoryDevice implements DevicePort {
  readonly canDiscard = true;
  readonly bytes: Uint8Array;

  /** @param bytes the content, or a size in bytes for a zeroed one */
  constructor(bytes: Uint8Array | number) {
    this.bytes = typeof bytes === "number" ? new Uint8Array(bytes) : bytes;
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  read(buffer: Uint8Array, offsetBytes: number): IoResult {
    if (!this.#inside(offsetBytes, buffer.length)) return pastEnd;
    buffer.set(this.bytes.subarray(offsetBytes, offsetBytes + buffer.length));
    return ioOk;
  }

  write(buffer: Uint8Array, offsetBytes: number): IoResult {
    if (!this.#inside(offsetBytes, buffer.length)) return pastEnd;
    this.bytes.set(buffer, offsetBytes);
    return ioOk;
  }

  zero(offsetBytes: number, lengthBytes: number): IoResult {
    if (!this.#inside(offsetBytes, lengthBytes)) return pastEnd;
    this.bytes.fill(0, offsetBytes, offsetBytes + lengthBytes);
    return ioOk;
  }

  copy(fromBytes: number, toBytes: number, lengthBytes: number): IoResult {
    if (!this.#inside(fromBytes, lengthBytes) || !this.#inside(toBytes, lengthBytes)) return pastEnd;
    this.bytes.copyWithin(toBytes, fromBytes, fromBytes + lengthBytes);
    return ioOk;
  }

  discard(offsetBytes: number, lengthBytes: number): IoResult {
    return this.zero(offsetBytes, lengthBytes);
  }

  isHole(_offsetBytes: number, _lengthBytes: number): boolean {
    return false;
  }

  flush(): IoResult {
    return ioOk;
  }

  #inside(offsetBytes: number, lengthBytes: number): boolean {
    return offsetBytes >= 0 && offsetBytes + lengthBytes <= this.bytes.length;
  }
}

const pastEnd: IoResult = { kind: "ioError", reason: "access past the end of the device" };
