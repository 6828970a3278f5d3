/** A connection that Deno has accepted, as the stream that node:http serves. */
import { Buffer } from "node:buffer";
import { Duplex } from "node:stream";
import { callOutside } from "./outside.ts";

/** What is needed of a `Deno.Conn`. */
export interface StreamConn {
  read(buffer: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  closeWrite(): Promise<void>;
  close(): void;
}

/** Bytes read from the client at once. */
const readBytes = 16 * 1024;

/** See the head of this file. Ended is not closed: the client may still send, which is told until `destroy`. */
export class ConnStream extends Duplex {
  /** Whether anything ever came. */
  hasReceived = false;
  readonly #conn: StreamConn;

  constructor(conn: StreamConn) {
    super({ allowHalfOpen: true });
    this.#conn = conn;
    // A client that goes away is told by "close", which follows.
    this.on("error", () => {});
  }

  override _read(): void {
    const buffer = new Uint8Array(readBytes);
    callOutside(
      () => this.#conn.read(buffer),
      (count) => {
        this.hasReceived ||= count !== null;
        this.push(count === null ? null : Buffer.from(buffer.buffer, 0, count));
      },
      (reason) => this.#broken(reason),
    );
  }

  override _write(chunk: Uint8Array, _encoding: string, done: (error?: Error | null) => void): void {
    callOutside(() => this.#writeAll(chunk), () => done(), (reason) => done(new Error(reason)));
  }

  override _final(done: (error?: Error | null) => void): void {
    // A client that has gone does not wait for the end.
    callOutside(() => this.#conn.closeWrite(), () => done(), () => done());
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    callOutside(() => this.#conn.close(), () => done(error), () => done(error));
  }

  /** node:http calls it after the last answer on a connection. The client closes then, or its time is up. */
  destroySoon(): void {
    this.end();
  }

  async #writeAll(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.length;) at += await this.#conn.write(chunk.subarray(at));
  }

  #broken(reason: string): void {
    if (!this.destroyed) this.destroy(new Error(reason));
  }
}
