/**
 * Requests of the transmission phase, bytes in, requests out, nothing allocated per request.
 *
 *   compact request    4 0x25609513   2 command flags   2 type   8 cookie   8 offset   4 length   [payload of WRITE]
 *   extended request   4 0x21e41c71   2 command flags   2 type   8 cookie   8 offset   8 length   [payload: below]
 *
 * The decoder stops in front of each request ("header"): its fields are known, its payload is not yet taken in.
 * The connection then accepts it, discards it, or leaves it there until it has credit, which is how pressure
 * reaches the socket. A payload that lies wholly in the received chunk can be accepted as a view of it; one
 * that spans chunks is assembled in the one buffer the connection gives.
 *
 * A payload follows every WRITE, and with extended headers whatever else has the flag PAYLOAD_LEN.
 *
 * The two differ in `#decodeLength` and in what the constructor sets.
 */
import { requestBytesMax } from "../../limits.ts";
import { inPlaceMinBytes, payloadDrainMaxBytes } from "./limits.ts";
import { assert } from "../../../storage/base/assert.ts";
import {
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_WRITE,
  NBD_EXTENDED_REQUEST_MAGIC,
  NBD_REQUEST_MAGIC,
} from "./constants.ts";

/** A request as it came: not validated. The decoder reuses one object, so copy what must outlast the next step. */
export interface NbdRequest {
  /** The command, NBD_CMD_*. */
  readonly type: number;
  /** NBD_CMD_FLAG_*, 16 bits. */
  readonly flags: number;
  /** The client's 8 bytes as two unsigned 32-bit halves, to be echoed unchanged. */
  readonly cookieHigh: number;
  readonly cookieLow: number;
  /** Infinity if 2^53 or more: no volume reaches there, so every bounds check refuses it. */
  readonly offsetBytes: number;
  /** The offset's 8 bytes as they came, for extended replies repeat them. */
  readonly offsetHigh: number;
  readonly offsetLow: number;
  /** Length of the effect, or with a payload of that, which is the same for WRITE. Infinity if 2^53 or more. */
  readonly lengthBytes: number;
  /** Bytes that follow the header on the wire. */
  readonly payloadBytes: number;
  /** The payload, once the step is "request" and it was accepted; else undefined. */
  readonly payload: Uint8Array | undefined;
}

/**
 * What {@linkcode RequestDecoder.next} found:
 * - "needBytes": the chunk is used up; read the socket and `push`.
 * - "header": `request` is known up to its payload; call `accept` or `discard`, or come back later for the same.
 * - "request": `request` is complete.
 * - "violation": the stream cannot be followed; close. `violation` says why.
 */
export type RequestStep = "needBytes" | "header" | "request" | "violation";

class MutableRequest implements NbdRequest {
  type = 0;
  flags = 0;
  cookieHigh = 0;
  cookieLow = 0;
  offsetBytes = 0;
  offsetHigh = 0;
  offsetLow = 0;
  lengthBytes = 0;
  payloadBytes = 0;
  payload: Uint8Array | undefined = undefined;
}

type State = "header" | "offered" | "payload" | "discarding" | "violated";

const compactHeaderSizeBytes = 28;
const extendedHeaderSizeBytes = 32;
/** 2^53 / 2^32: the first high half of 64 bits that a number cannot hold exactly. */
const highBeyond = 2 ** 21;
const noBytes = new Uint8Array(0);

export class RequestDecoder {
  readonly #request = new MutableRequest();
  #state: State = "header";
  #violation = "";

  #chunk: Uint8Array = noBytes;
  #chunkView: DataView = new DataView(noBytes.buffer);
  #position = 0;

  readonly #extended: boolean;
  readonly #magic: number;
  readonly #headerSizeBytes: number;

  /** A header that spans chunks is assembled here. */
  readonly #header = new DataView(new ArrayBuffer(extendedHeaderSizeBytes));
  readonly #headerBytes = new Uint8Array(this.#header.buffer);
  #headerLength = 0;

  /** Bytes of the payload not yet received. */
  #missingBytes = 0;

  constructor({ extendedHeaders }: { readonly extendedHeaders: boolean } = { extendedHeaders: false }) {
    this.#extended = extendedHeaders;
    this.#magic = extendedHeaders ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC;
    this.#headerSizeBytes = extendedHeaders ? extendedHeaderSizeBytes : compactHeaderSizeBytes;
  }

  /** The request of the last "header" or "request" step. */
  get request(): NbdRequest {
    return this.#request;
  }

  /** Why the last step was "violation"; a constant sentence. */
  get violation(): string {
    return this.#violation;
  }

  /**
   * Takes the next received bytes. They must stay untouched until `next` says "needBytes", and for as long
   * as a payload accepted as a view of them is in use.
   */
  push(chunk: Uint8Array): void {
    assert(this.#position === this.#chunk.length, "request bytes pushed before the last were used up");
    if (this.#isInPlace(chunk)) {
      this.#missingBytes -= chunk.length;
      return;
    }
    if (chunk.buffer !== this.#chunkView.buffer) this.#chunkView = new DataView(chunk.buffer);
    this.#chunk = chunk;
    this.#position = 0;
  }

  /**
   * Where the rest of a payload is to go, if it is worth receiving it there: what is pushed from its beginning is not
   * copied. To be asked after "needBytes".
   */
  get payloadRest(): Uint8Array | undefined {
    if (this.#state !== "payload" || this.#missingBytes < inPlaceMinBytes) return undefined;
    return this.#request.payload?.subarray(-this.#missingBytes);
  }

  #isInPlace(chunk: Uint8Array): boolean {
    const { payload } = this.#request;
    if (this.#state !== "payload" || payload === undefined || chunk.buffer !== payload.buffer) return false;
    return chunk.byteOffset === payload.byteOffset + payload.length - this.#missingBytes;
  }

  /** Goes on to the next event. */
  next(): RequestStep {
    switch (this.#state) {
      case "header":
        return this.#takeHeader();
      case "offered":
        return "header";
      case "payload":
        this.#fillPayload();
        return this.#finishPayload();
      case "discarding":
        this.#skipPayload();
        return this.#finishPayload();
      case "violated":
        return "violation";
    }
  }

  /** True if the whole payload of the offered request has arrived, so that `accept` needs no buffer. */
  get payloadInChunk(): boolean {
    return this.#chunk.length - this.#position >= this.#request.payloadBytes;
  }

  /**
   * Takes the offered request in. Its payload goes to `buffer`, which must be exactly as long; without one,
   * it becomes a view of the chunk, which is only possible if `payloadInChunk`.
   */
  accept(buffer?: Uint8Array): void {
    assert(this.#state === "offered", "no request is offered");
    const request = this.#request;
    this.#state = "payload";
    this.#missingBytes = 0;
    if (request.payloadBytes === 0) {
      if (request.type === NBD_CMD_WRITE) request.payload = noBytes;
    } else if (buffer !== undefined) {
      assert(buffer.length === request.payloadBytes, "payload buffer of another length");
      request.payload = buffer;
      this.#missingBytes = request.payloadBytes;
    } else {
      assert(this.payloadInChunk, "payload accepted as a view before it arrived");
      const end = this.#position + request.payloadBytes;
      request.payload = this.#chunk.subarray(this.#position, end);
      this.#position = end;
    }
  }

  /**
   * Refuses the offered request: its payload is read and dropped, to stay in step. It still ends in "request",
   * and only then may the error be sent: libnbd takes a reply that overtakes its payload for a server's mistake.
   */
  discard(): void {
    assert(this.#state === "offered", "no request is offered");
    this.#state = "discarding";
    this.#missingBytes = this.#request.payloadBytes;
  }

  #takeHeader(): RequestStep {
    const headerSizeBytes = this.#headerSizeBytes;
    const availableBytes = this.#chunk.length - this.#position;
    if (this.#headerLength === 0 && availableBytes >= headerSizeBytes) {
      const at = this.#chunk.byteOffset + this.#position;
      this.#position += headerSizeBytes;
      return this.#decodeHeader(this.#chunkView, at);
    }
    const pieceBytes = Math.min(availableBytes, headerSizeBytes - this.#headerLength);
    if (pieceBytes === 0) return "needBytes";
    const end = this.#position + pieceBytes;
    this.#headerBytes.set(this.#chunk.subarray(this.#position, end), this.#headerLength);
    this.#headerLength += pieceBytes;
    this.#position = end;
    if (this.#headerLength < headerSizeBytes) return "needBytes";
    this.#headerLength = 0;
    return this.#decodeHeader(this.#header, 0);
  }

  #decodeHeader(view: DataView, at: number): RequestStep {
    if (view.getUint32(at) !== this.#magic) return this.#violate("a request with a wrong magic");
    const request = this.#request;
    request.flags = view.getUint16(at + 4);
    request.type = view.getUint16(at + 6);
    request.cookieHigh = view.getUint32(at + 8);
    request.cookieLow = view.getUint32(at + 12);
    request.offsetHigh = view.getUint32(at + 16);
    request.offsetLow = view.getUint32(at + 20);
    request.offsetBytes = uint64(request.offsetHigh, request.offsetLow);
    request.payload = undefined;
    return this.#decodeLength(view, at + 24);
  }

  /** The end of the header, and what follows it. */
  #decodeLength(view: DataView, at: number): RequestStep {
    const request = this.#request;
    if (this.#extended) {
      request.lengthBytes = uint64(view.getUint32(at), view.getUint32(at + 4));
      // WRITE must have the flag, but qemu (10.0 and before) leaves it out and sends the payload all the same.
      const hasPayload = request.type === NBD_CMD_WRITE || (request.flags & NBD_CMD_FLAG_PAYLOAD_LEN) !== 0;
      request.payloadBytes = hasPayload ? request.lengthBytes : 0;
      // With extended headers the specification tells clients this limit, so a longer payload is not read and dropped: it ends
      // the connection.
      if (request.payloadBytes > requestBytesMax) return this.#violate("a payload of more than 32 MiB");
    } else {
      request.lengthBytes = view.getUint32(at);
      // Only WRITE brings a payload: an unknown command is taken to have none, whatever its length says.
      request.payloadBytes = request.type === NBD_CMD_WRITE ? request.lengthBytes : 0;
      if (request.payloadBytes > payloadDrainMaxBytes) return this.#violate("a WRITE of more than 64 MiB");
    }
    this.#state = "offered";
    return "header";
  }

  #fillPayload(): void {
    const pieceBytes = Math.min(this.#missingBytes, this.#chunk.length - this.#position);
    if (pieceBytes === 0) return;
    const payload = this.#request.payload;
    assert(payload !== undefined, "a payload without a buffer");
    const end = this.#position + pieceBytes;
    payload.set(this.#chunk.subarray(this.#position, end), payload.length - this.#missingBytes);
    this.#position = end;
    this.#missingBytes -= pieceBytes;
  }

  #skipPayload(): void {
    const pieceBytes = Math.min(this.#missingBytes, this.#chunk.length - this.#position);
    this.#position += pieceBytes;
    this.#missingBytes -= pieceBytes;
  }

  #finishPayload(): RequestStep {
    if (this.#missingBytes > 0) return "needBytes";
    this.#state = "header";
    return "request";
  }

  #violate(message: string): RequestStep {
    this.#state = "violated";
    this.#violation = message;
    return "violation";
  }
}

/** The number in two unsigned halves, Infinity if it is not exact. */
export function uint64(high: number, low: number): number {
  return high < highBeyond ? high * 0x1_0000_0000 + low : Infinity;
}
