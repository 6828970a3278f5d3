/**
 * Replies of the transmission phase, into an output queue.
 *
 *   simple reply       4 0x67446698   4 error   8 cookie   [data of a READ that succeeded]
 *   structured chunk   4 0x668e33ef   2 flags   2 type   8 cookie   4 payload length   payload
 *   extended chunk     4 0x6e8a278c   2 flags   2 type   8 cookie   8 offset of the request   8 payload length   payload
 *
 * With structured replies a READ is answered by chunks, always; anything else gets a simple reply when it
 * succeeded and an error chunk, which carries a text, when it failed. Exactly one chunk of a reply is the last.
 * With extended headers all of them are extended chunks, and there are no simple replies.
 */
import { assert } from "../../../storage/base/assert.ts";
import {
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
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
import { lengthOf, type Piece } from "./pieces.ts";

/**
 * What a reply repeats of its request: the 8 bytes a client recognises it by, and with extended headers the offset, both
 * exactly as they came, as unsigned 32-bit halves.
 */
export interface Echo {
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offsetHigh: number;
  readonly offsetLow: number;
}

/** One run of a block status: so many bytes have these flags. */
export interface Descriptor {
  readonly lengthBytes: number;
  readonly flags: number;
}

/** What decides the form of replies. */
export interface ReplyForm {
  /** True with extended headers, too. */
  readonly structured: boolean;
  readonly extendedHeaders: boolean;
}

/** The data of a reply, in one piece or in several. */
export type Payload = Piece | readonly Piece[];

const simpleHeaderSizeBytes = 16;
const chunkHeaderSizeBytes = 20;
const extendedHeaderSizeBytes = 32;
const encoder = new TextEncoder();

export class ReplyWriter {
  readonly #output: OutputQueue;
  readonly #structured: boolean;
  readonly #extended: boolean;

  constructor(output: OutputQueue, form: ReplyForm) {
    assert(form.structured || !form.extendedHeaders, "extended headers without structured replies");
    this.#output = output;
    this.#structured = form.structured;
    this.#extended = form.extendedHeaders;
  }

  /** A command without data in its reply succeeded. Not for READ. */
  success(echo: Echo): void {
    if (this.#extended) this.#chunk(echo, NBD_REPLY_TYPE_NONE, true, 0, 0);
    else this.#simple(echo, 0);
  }

  /** Any command failed. Voids what chunks of the same reply said before. */
  failure(echo: Echo, error: NbdErrno, message: string): void {
    if (!this.#structured) {
      this.#simple(echo, error);
      return;
    }
    const text = encoder.encode(message);
    const textBytes = Math.min(text.length, stringMaxBytes);
    const at = this.#chunk(echo, NBD_REPLY_TYPE_ERROR, true, 6 + textBytes, 6 + textBytes);
    this.#output.view.setUint32(at, error);
    this.#output.view.setUint16(at + 4, textBytes);
    this.#output.bytes.set(text.subarray(0, textBytes), at + 6);
  }

  /** The whole answer to a READ: all of its data, which begins at `offsetBytes`. See `OutputQueue.append`. */
  readData(echo: Echo, offsetBytes: number, data: Payload): void {
    if (!this.#structured) {
      this.#simple(echo, 0);
      this.#append(data);
    } else if (payloadBytesOf(data) === 0) {
      this.#chunk(echo, NBD_REPLY_TYPE_NONE, true, 0, 0);
    } else {
      this.dataChunk(echo, offsetBytes, data, true);
    }
  }

  /** A part of the answer to a READ that is data. Structured replies only; at least one byte. */
  dataChunk(echo: Echo, offsetBytes: number, data: Payload, isLast: boolean): void {
    const dataBytes = payloadBytesOf(data);
    assert(this.#structured && dataBytes > 0, "a data chunk needs structured replies and data");
    const at = this.#chunk(echo, NBD_REPLY_TYPE_OFFSET_DATA, isLast, 8 + dataBytes, 8);
    setUint64(this.#output.view, at, offsetBytes);
    this.#append(data);
  }

  /** A part of the answer to a READ that reads as zeroes. Structured replies only; at least one byte. */
  holeChunk(echo: Echo, offsetBytes: number, lengthBytes: number, isLast: boolean): void {
    assert(this.#structured && lengthBytes > 0, "a hole chunk needs structured replies and a length");
    const at = this.#chunk(echo, NBD_REPLY_TYPE_OFFSET_HOLE, isLast, 12, 12);
    setUint64(this.#output.view, at, offsetBytes);
    this.#output.view.setUint32(at + 8, lengthBytes);
  }

  /** What one metadata context says, from the request's offset on. Structured replies only. */
  blockStatus(echo: Echo, contextId: number, descriptors: readonly Descriptor[], isLast: boolean): void {
    assert(
      this.#structured && descriptors.length > 0,
      "a block status needs structured replies and an extent",
    );
    if (this.#extended) this.#extendedStatus(echo, contextId, descriptors, isLast);
    else this.#compactStatus(echo, contextId, descriptors, isLast);
  }

  #compactStatus(echo: Echo, contextId: number, descriptors: readonly Descriptor[], isLast: boolean): void {
    const payloadBytes = 4 + 8 * descriptors.length;
    let at = this.#chunk(echo, NBD_REPLY_TYPE_BLOCK_STATUS, isLast, payloadBytes, payloadBytes);
    const view = this.#output.view;
    view.setUint32(at, contextId);
    at += 4;
    for (const { lengthBytes, flags } of descriptors) {
      // The caller keeps extents below 4 GiB. In CVE-2025-47711 a longer one overflowed these 32 bits.
      assert(lengthBytes > 0 && lengthBytes <= 0xffff_ffff, "an extent that has no length in 32 bits");
      view.setUint32(at, lengthBytes);
      view.setUint32(at + 4, flags);
      at += 8;
    }
  }

  #extendedStatus(echo: Echo, contextId: number, descriptors: readonly Descriptor[], isLast: boolean): void {
    const payloadBytes = 8 + 16 * descriptors.length;
    let at = this.#chunk(echo, NBD_REPLY_TYPE_BLOCK_STATUS_EXT, isLast, payloadBytes, payloadBytes);
    const view = this.#output.view;
    view.setUint32(at, contextId);
    view.setUint32(at + 4, descriptors.length);
    at += 8;
    for (const { lengthBytes, flags } of descriptors) {
      assert(lengthBytes > 0, "an empty extent");
      setUint64(view, at, lengthBytes);
      setUint64(view, at + 8, flags);
      at += 16;
    }
  }

  #append(data: Payload): void {
    if (isOnePiece(data)) this.#output.append(data);
    else for (const piece of data) this.#output.append(piece);
  }

  #simple(echo: Echo, error: number): void {
    const at = this.#output.claim(simpleHeaderSizeBytes);
    const view = this.#output.view;
    view.setUint32(at, NBD_SIMPLE_REPLY_MAGIC);
    view.setUint32(at + 4, error);
    view.setUint32(at + 8, echo.cookieHigh);
    view.setUint32(at + 12, echo.cookieLow);
  }

  /** Writes a chunk header; returns where the first `fieldBytes` of its payload go. The rest is to be appended. */
  #chunk(echo: Echo, type: number, isLast: boolean, payloadBytes: number, fieldBytes: number): number {
    const headerBytes = this.#extended ? extendedHeaderSizeBytes : chunkHeaderSizeBytes;
    const at = this.#output.claim(headerBytes + fieldBytes);
    const view = this.#output.view;
    view.setUint32(at, this.#extended ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC);
    view.setUint16(at + 4, isLast ? NBD_REPLY_FLAG_DONE : 0);
    view.setUint16(at + 6, type);
    view.setUint32(at + 8, echo.cookieHigh);
    view.setUint32(at + 12, echo.cookieLow);
    if (this.#extended) {
      view.setUint32(at + 16, echo.offsetHigh);
      view.setUint32(at + 20, echo.offsetLow);
      setUint64(view, at + 24, payloadBytes);
    } else {
      view.setUint32(at + 16, payloadBytes);
    }
    return at + headerBytes;
  }
}

function isOnePiece(data: Payload): data is Piece {
  return !Array.isArray(data);
}

function payloadBytesOf(data: Payload): number {
  if (isOnePiece(data)) return lengthOf(data);
  let bytes = 0;
  for (const piece of data) bytes += lengthOf(piece);
  return bytes;
}

/** Writes a non-negative integer below 2^53 as 64 bits; setUint32 takes the low half by itself. */
export function setUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / 0x1_0000_0000));
  view.setUint32(at + 4, value);
}
