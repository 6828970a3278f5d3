/**
 * Payload buffers of one connection, or those that the listener lends, in sizes of powers of two, kept for the next
 * request of that size. The host first has to page in the memory of a new buffer, which costs more than the I/O.
 */
import { assert } from "../../storage/base/assert.ts";
import { payloadBufferBytesMin, requestBytesMax } from "../limits.ts";

const smallestShift = Math.log2(payloadBufferBytesMin);
const classCount = Math.log2(requestBytesMax) - smallestShift + 1;

/** Bytes of memory that a buffer of `lengthBytes` takes, which a request pays. 0 for no bytes. */
export function bufferBytes(lengthBytes: number): number {
  return lengthBytes === 0 ? 0 : payloadBufferBytesMin << classOf(lengthBytes);
}

export class BufferPool {
  readonly #spare: Uint8Array[][] = Array.from({ length: classCount }, () => []);
  #spareBytes = 0;

  /** Bytes of the buffers that no request uses. */
  get spareBytes(): number {
    return this.#spareBytes;
  }

  /** A buffer of exactly `lengthBytes`, content unspecified. If it must be made, spare ones are dropped until `spareMaxBytes` are left. */
  take(lengthBytes: number, spareMaxBytes: number): Uint8Array {
    assert(
      lengthBytes > 0 && lengthBytes <= requestBytesMax,
      "a payload buffer of a size that is not served",
    );
    const sizeClass = classOf(lengthBytes);
    let buffer = this.#spare[sizeClass]!.pop();
    if (buffer === undefined) {
      this.#dropSpare(spareMaxBytes);
      buffer = new Uint8Array(payloadBufferBytesMin << sizeClass);
    } else {
      this.#spareBytes -= buffer.length;
    }
    return buffer.length === lengthBytes ? buffer : buffer.subarray(0, lengthBytes);
  }

  /** A spare buffer for `lengthBytes`, whole; undefined if none is kept, and then no more than `spareMaxBytes` are left. */
  takeSpare(lengthBytes: number, spareMaxBytes: number): Uint8Array | undefined {
    const buffer = this.#spare[classOf(lengthBytes)]!.pop();
    if (buffer === undefined) this.#dropSpare(spareMaxBytes);
    else this.#spareBytes -= buffer.length;
    return buffer;
  }

  /** Takes back what `take` gave. It is kept if no more than `spareMaxBytes` are then spare. */
  give(buffer: Uint8Array, spareMaxBytes: number): void {
    const sizeBytes = buffer.buffer.byteLength;
    if (this.#spareBytes + sizeBytes > spareMaxBytes) return;
    const whole = buffer.length === sizeBytes ? buffer : new Uint8Array(buffer.buffer);
    this.#spare[classOf(sizeBytes)]!.push(whole);
    this.#spareBytes += sizeBytes;
  }

  /** Drops all spare buffers. */
  clear(): void {
    this.#dropSpare(0);
  }

  #dropSpare(spareMaxBytes: number): void {
    for (let sizeClass = classCount - 1; this.#spareBytes > spareMaxBytes && sizeClass >= 0; sizeClass -= 1) {
      const spare = this.#spare[sizeClass]!;
      while (this.#spareBytes > spareMaxBytes && spare.length > 0) {
        this.#spareBytes -= spare.pop()!.length;
      }
    }
  }
}

function classOf(lengthBytes: number): number {
  return lengthBytes <= payloadBufferBytesMin ? 0 : 32 - Math.clz32(lengthBytes - 1) - smallestShift;
}
