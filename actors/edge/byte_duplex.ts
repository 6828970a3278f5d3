/** The write side of a Node stream on top of calls that answer with promises, and its end. */
import { Duplex } from "node:stream";
import { callOutside } from "./outside.ts";

/** What carries the bytes. `write` sends some of them and answers how many. */
export interface ByteCarrier {
  write(bytes: Uint8Array): Promise<number>;
  close(): void | Promise<void>;
}

/** A stream whose half that reads may end before the half that writes. A subclass reads. */
export abstract class ByteDuplex extends Duplex {
  readonly #carrier: ByteCarrier;

  constructor(carrier: ByteCarrier) {
    super({ allowHalfOpen: true });
    this.#carrier = carrier;
  }

  override _write(chunk: Uint8Array, _encoding: string, done: (error?: Error | null) => void): void {
    callOutside(() => this.#writeAll(chunk), () => done(), (reason) => done(new Error(reason)));
  }

  /** The carrier is closed before "close" is emitted. A carrier that cannot be closed changes nothing. */
  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    callOutside(() => this.#carrier.close(), () => done(error), () => done(error));
  }

  async #writeAll(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.length;) at += await this.#carrier.write(chunk.subarray(at));
  }
}
