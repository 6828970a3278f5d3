/**
 * Replies of the transmission phase, into an output queue.
 *
 *   simple reply       4 0x67446698   4 error   8 cookie   [data of a READ that succeeded]
 *   structured chunk   4 0x668e33ef   2 flags   2 type   8 cookie   4 payload length   payload
 *
 * With structured replies a READ is answered by chunks, always; anything else gets a simple reply when it
 * succeeded and an error chunk, which carries a text, when it failed. Exactly one chunk of a reply is the last.
 * Extended headers change `#chunk`, the one place where a chunk header is written, and `success`.
 */
import { assert } from "../assert.ts";
import {
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
  type NbdErrno,
  stringMaxBytes,
} from "./constants.ts";
import type { OutputQueue } from "./output_queue.ts";

/** The 8 bytes a client recognises its request by, as two unsigned 32-bit halves. */
export interface Cookie {
  readonly cookieHigh: number;
  readonly cookieLow: number;
}

const simpleHeaderSizeBytes = 16;
const chunkHeaderSizeBytes = 20;
const encoder = new TextEncoder();

export class ReplyWriter {
  readonly #output: OutputQueue;
  readonly #structured: boolean;

  constructor(output: OutputQueue, session: { readonly structured: boolean }) {
    this.#output = output;
    this.#structured = session.structured;
  }

  /** A command without data in its reply succeeded. Not for READ. */
  success(cookie: Cookie): void {
    this.#simple(cookie, 0);
  }

  /** Any command failed. Voids what chunks of the same reply said before. */
  failure(cookie: Cookie, error: NbdErrno, message: string): void {
    if (!this.#structured) {
      this.#simple(cookie, error);
      return;
    }
    const text = encoder.encode(message);
    const textBytes = Math.min(text.length, stringMaxBytes);
    const at = this.#chunk(cookie, NBD_REPLY_TYPE_ERROR, true, 6 + textBytes, 6 + textBytes);
    this.#output.view.setUint32(at, error);
    this.#output.view.setUint16(at + 4, textBytes);
    this.#output.bytes.set(text.subarray(0, textBytes), at + 6);
  }

  /** The whole answer to a READ: all of its data, which begins at `offsetBytes`. See `OutputQueue.append`. */
  readData(cookie: Cookie, offsetBytes: number, data: Uint8Array): void {
    if (!this.#structured) {
      this.#simple(cookie, 0);
      this.#output.append(data);
    } else if (data.length === 0) {
      this.#chunk(cookie, NBD_REPLY_TYPE_NONE, true, 0, 0);
    } else {
      this.dataChunk(cookie, offsetBytes, data, true);
    }
  }

  /** A part of the answer to a READ that is data. Structured replies only; at least one byte. */
  dataChunk(cookie: Cookie, offsetBytes: number, data: Uint8Array, isLast: boolean): void {
    assert(this.#structured && data.length > 0, "a data chunk needs structured replies and data");
    const at = this.#chunk(cookie, NBD_REPLY_TYPE_OFFSET_DATA, isLast, 8 + data.length, 8);
    setUint64(this.#output.view, at, offsetBytes);
    this.#output.append(data);
  }

  /** A part of the answer to a READ that reads as zeroes. Structured replies only; at least one byte. */
  holeChunk(cookie: Cookie, offsetBytes: number, lengthBytes: number, isLast: boolean): void {
    assert(this.#structured && lengthBytes > 0, "a hole chunk needs structured replies and a length");
    const at = this.#chunk(cookie, NBD_REPLY_TYPE_OFFSET_HOLE, isLast, 12, 12);
    setUint64(this.#output.view, at, offsetBytes);
    this.#output.view.setUint32(at + 8, lengthBytes);
  }

  #simple(cookie: Cookie, error: number): void {
    const at = this.#output.claim(simpleHeaderSizeBytes);
    const view = this.#output.view;
    view.setUint32(at, NBD_SIMPLE_REPLY_MAGIC);
    view.setUint32(at + 4, error);
    view.setUint32(at + 8, cookie.cookieHigh);
    view.setUint32(at + 12, cookie.cookieLow);
  }

  /** Writes a chunk header; returns where the first `fieldBytes` of its payload go. The rest is to be appended. */
  #chunk(cookie: Cookie, type: number, isLast: boolean, payloadBytes: number, fieldBytes: number): number {
    const at = this.#output.claim(chunkHeaderSizeBytes + fieldBytes);
    const view = this.#output.view;
    view.setUint32(at, NBD_STRUCTURED_REPLY_MAGIC);
    view.setUint16(at + 4, isLast ? NBD_REPLY_FLAG_DONE : 0);
    view.setUint16(at + 6, type);
    view.setUint32(at + 8, cookie.cookieHigh);
    view.setUint32(at + 12, cookie.cookieLow);
    view.setUint32(at + 16, payloadBytes);
    return at + chunkHeaderSizeBytes;
  }
}

/** Writes a non-negative integer below 2^53 as 64 bits; setUint32 takes the low half by itself. */
export function setUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / 0x1_0000_0000));
  view.setUint32(at + 4, value);
}
