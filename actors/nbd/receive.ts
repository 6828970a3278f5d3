/**
 * The buffers that one connection reads its socket into, at most `receiveBuffersMax`.
 *
 * A WRITE whose payload was received whole with one read is served from that buffer, and holds it until it is done. One buffer
 * is always left to read into: when all others are held, payloads are copied.
 */
import { assert } from "../../storage/base/assert.ts";
import { receiveBuffersMax, receiveBytesMax } from "../limits.ts";

/** One buffer that a socket is read into. */
export interface ReceiveBuffer {
  readonly bytes: Uint8Array;
  /** Requests whose payload lies in it. */
  holders: number;
}

export class ReceiveBuffers {
  /** The buffer that is read into, or is being parsed. */
  #current: ReceiveBuffer = newBuffer();
  readonly #spare: ReceiveBuffer[] = [];
  #count = 1;
  /** Buffers with holders. */
  #held = 0;

  /** Everything received has been parsed: the buffer to read into next. */
  next(): Uint8Array {
    if (this.#current.holders > 0) {
      const spare = this.#spare.pop();
      if (spare === undefined) this.#count += 1;
      assert(this.#count <= receiveBuffersMax, "no buffer is left to read into");
      this.#current = spare ?? newBuffer();
    }
    return this.#current.bytes;
  }

  /** Holds the buffer that is being parsed for one more request; undefined if no buffer would be left to read into. */
  hold(): ReceiveBuffer | undefined {
    const buffer = this.#current;
    if (buffer.holders === 0) {
      if (this.#held === receiveBuffersMax - 1) return undefined;
      this.#held += 1;
    }
    buffer.holders += 1;
    assert(this.#held > 0 && this.#held < receiveBuffersMax, "buffers with holders are counted wrongly");
    return buffer;
  }

  /** A request that held the buffer is done. */
  release(buffer: ReceiveBuffer): void {
    assert(buffer.holders > 0, "released a buffer that is not held");
    buffer.holders -= 1;
    if (buffer.holders > 0) return;
    this.#held -= 1;
    assert(this.#held >= 0, "more buffers were released than held");
    if (buffer !== this.#current) this.#spare.push(buffer);
  }
}

function newBuffer(): ReceiveBuffer {
  return { bytes: new Uint8Array(receiveBytesMax), holders: 0 };
}
