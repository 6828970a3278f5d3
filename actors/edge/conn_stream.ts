/** A connection that Deno has accepted, as the stream that node:http serves. */
import { Buffer } from "node:buffer";
import { ByteDuplex } from "./byte_duplex.ts";
import { callOutside } from "./outside.ts";
import { controlReadBytes } from "../limits.ts";

/** What is needed of a `Deno.Conn`. */
export interface StreamConn {
  read(buffer: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  closeWrite(): Promise<void>;
  close(): void;
}

/** See the head of this file. After `end` the client may still send, and "data" is emitted until `destroy`. */
export class ConnStream extends ByteDuplex {
  /** Whether at least one byte has been received. */
  hasReceived = false;
  readonly #conn: StreamConn;

  constructor(conn: StreamConn) {
    super(conn);
    this.#conn = conn;
    // "close" follows, and says the same.
    this.on("error", () => {});
  }

  override _read(): void {
    const buffer = new Uint8Array(controlReadBytes);
    callOutside(
      () => this.#conn.read(buffer),
      (count) => {
        this.hasReceived ||= count !== null;
        this.push(count === null ? null : Buffer.from(buffer.buffer, 0, count));
      },
      (reason) => this.#broken(reason),
    );
  }

  override _final(done: (error?: Error | null) => void): void {
    // If the client has closed the connection, there is no end to send.
    callOutside(() => this.#conn.closeWrite(), () => done(), () => done());
  }

  /** node:http calls it after the last answer on a connection. Then the client closes, or its timer ends. */
  destroySoon(): void {
    this.end();
  }

  #broken(reason: string): void {
    if (!this.destroyed) this.destroy(new Error(reason));
  }
}
