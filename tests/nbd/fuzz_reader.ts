/** Reads fields from the begin of some bytes; throws where they end too early. */
export class ByteReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #position = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get restBytes(): number {
    return this.#bytes.length - this.#position;
  }

  u16(): number {
    return this.#view.getUint16(this.#advance(2));
  }

  u32(): number {
    return this.#view.getUint32(this.#advance(4));
  }

  /** As a number; what is 2^53 or more comes out larger than any size. */
  u64(): number {
    const high = this.u32();
    return high * 2 ** 32 + this.u32();
  }

  take(lengthBytes: number): Uint8Array {
    const at = this.#advance(lengthBytes);
    return this.#bytes.subarray(at, at + lengthBytes);
  }

  /** A text behind its length. */
  string(): string {
    return new TextDecoder().decode(this.take(this.u32()));
  }

  #advance(lengthBytes: number): number {
    const at = this.#position;
    if (lengthBytes > this.restBytes) {
      throw new Error(`the bytes end ${lengthBytes - this.restBytes} too early, at ${this.#bytes.length}`);
    }
    this.#position += lengthBytes;
    return at;
  }
}
