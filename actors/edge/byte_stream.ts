/**
 * A client's bytes each way, whatever carries them. A socket of Deno's is one as it is; for streams of Node's, which are
 * the only way to TLS on an accepted socket and to inherited ones, an adapter is here.
 */
import type { Duplex } from "node:stream";
import { assert } from "../../storage/base/assert.ts";
import { streamFarewellMs, streamWriteBytesMax } from "../limits.ts";

/** At most one read and one write are under way at a time. */
export interface ByteStream {
  /** Bytes into the buffer, at least one; null at the end. Rejects when the stream breaks or is closed. */
  read(buffer: Uint8Array): Promise<number | null>;
  /** Sends some of the bytes and tells how many. Rejects when the stream breaks or is closed. */
  write(bytes: Uint8Array): Promise<number>;
  /** Ends both directions; with a promise where that takes time. Called once. */
  close(): void | Promise<void>;
}

/** A stream that several close. */
export class ClosedOnce implements ByteStream {
  readonly #stream: ByteStream;
  #closed: Promise<void> | undefined;

  constructor(stream: ByteStream) {
    this.#stream = stream;
  }

  read(buffer: Uint8Array): Promise<number | null> {
    return this.#stream.read(buffer);
  }

  write(bytes: Uint8Array): Promise<number> {
    return this.#stream.write(bytes);
  }

  close(): Promise<void> {
    this.#closed ??= Promise.resolve(this.#stream.close());
    return this.#closed;
  }
}

/** A stream of Node's: a plain socket, or TLS. */
export class NodeStream implements ByteStream {
  readonly #stream: Duplex;
  #isClosing = false;
  #isWriting = false;
  #isGone = false;
  #failure: Error | undefined;
  /** Resolves the read that waits. */
  #wake: (() => void) | undefined;

  readonly #taken: () => void;

  /** @param taken called whenever something was taken out of the stream */
  constructor(stream: Duplex, taken: () => void = () => {}) {
    this.#stream = stream;
    this.#taken = taken;
    stream.on("error", (error) => this.#failure ??= error);
    stream.on("close", () => {
      this.#isGone = true;
      this.#wakeUp();
    });
    for (const event of ["readable", "end"]) stream.on(event, () => this.#wakeUp());
  }

  async read(buffer: Uint8Array): Promise<number | null> {
    for (;;) {
      if (this.#isClosing) throw new Deno.errors.Interrupted("closed");
      const chunk = this.#take(buffer.length);
      if (chunk !== null) {
        buffer.set(chunk);
        this.#taken();
        return chunk.length;
      }
      // A client that has nothing more to say ends its half; what breaks the stream comes before that.
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#stream.readableEnded) return null;
      if (this.#isGone) throw new Deno.errors.ConnectionReset("the connection was lost");
      assert(this.#wake === undefined, "a stream is read once at a time");
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  async write(bytes: Uint8Array): Promise<number> {
    assert(!this.#isWriting, "a stream is written once at a time");
    const piece = bytes.subarray(0, streamWriteBytesMax);
    this.#isWriting = true;
    try {
      await new Promise<void>((resolve, reject) => {
        // A stream that is destroyed forgets the callbacks of what it had not written.
        const lost = () =>
          reject(this.#failure ?? new Deno.errors.ConnectionReset("the connection was lost"));
        if (this.#isGone) return lost();
        this.#stream.once("close", lost);
        this.#stream.write(piece, (error) => {
          this.#stream.off("close", lost);
          if (error) reject(error);
          else resolve();
        });
      });
    } finally {
      this.#isWriting = false;
    }
    return piece.length;
  }

  /** Says goodbye unless the client takes nothing, and resolves when the stream is gone. */
  async close(): Promise<void> {
    assert(!this.#isClosing, "a stream is closed once");
    this.#isClosing = true;
    this.#wakeUp();
    if (this.#isGone) return;
    const gone = new Promise((resolve) => this.#stream.once("close", resolve));
    if (this.#isWriting) this.#stream.destroy();
    else this.#stream.end(() => this.#stream.destroy());
    const cutOff = setTimeout(() => this.#stream.destroy(), streamFarewellMs);
    await gone;
    clearTimeout(cutOff);
  }

  #take(lengthBytes: number): Uint8Array | null {
    const { readableLength } = this.#stream;
    // Asking for what is there gives it; asking for nothing has the stream fetch more.
    return this.#stream.read(Math.min(lengthBytes, readableLength));
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}
