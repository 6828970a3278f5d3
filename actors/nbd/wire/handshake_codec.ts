/**
 * The client's half of the handshake, bytes to events: client flags, then options until transmission begins.
 *
 * The decoder takes bytes in pieces of any size and never allocates what a client merely announces: data that
 * is worth reading is collected as it arrives, the rest is counted and dropped, and an option above
 * {@linkcode optionDrainMaxBytes} ends the connection.
 *
 *   client flags   4 flags
 *   option         8 "IHAVEOPT"   4 option   4 data length   n data
 */
import { infoCollectMaxBytes, metaContextCollectMaxBytes, optionDrainMaxBytes } from "./limits.ts";
import { assert } from "../../../storage/base/assert.ts";
import {
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  type ServedOption,
  stringMaxBytes,
} from "./constants.ts";

/** The client's flags: the first event of a connection. */
export interface ClientFlagsEvent {
  readonly kind: "clientFlags";
  /** False for a client of the first newstyle, which may only send NBD_OPT_EXPORT_NAME. */
  readonly fixedNewstyle: boolean;
  /** True if the reply to NBD_OPT_EXPORT_NAME goes without its 124 zero bytes. */
  readonly noZeroes: boolean;
}

/** A whole option has been read; `decodeOption` makes sense of it. */
export interface OptionEvent {
  readonly kind: "option";
  readonly option: number;
  /** What the client announced and sent. */
  readonly lengthBytes: number;
  /** The data, or undefined if it was dropped: too long, or for an option that carries none. */
  readonly data: Uint8Array | undefined;
}

/** The stream cannot be followed, or should not be: close the connection. Repeated by every later `next`. */
export interface ViolationEvent {
  readonly kind: "violation";
  readonly message: string;
}

/** What the client has said, or done wrong. */
export type HandshakeEvent = ClientFlagsEvent | OptionEvent | ViolationEvent;

const clientFlagsSizeBytes = 4;
const optionHeaderSizeBytes = 16;
const noBytes = new Uint8Array(0);

export class HandshakeDecoder {
  #state: "clientFlags" | "header" | "data" | "violated" = "clientFlags";
  #violation: ViolationEvent | undefined;
  #fixedNewstyle = false;

  #chunk: Uint8Array = noBytes;
  #position = 0;

  /** Client flags, then option headers. */
  readonly #header = new DataView(new ArrayBuffer(optionHeaderSizeBytes));
  readonly #headerBytes = new Uint8Array(this.#header.buffer);
  #headerLength = 0;

  #option = 0;
  #lengthBytes = 0;
  /** Bytes of the current option's data already read. */
  #readBytes = 0;
  /** Grows with what arrives; undefined while data is dropped. */
  #data: Uint8Array | undefined;

  /** Takes the next received bytes. They must stay untouched until `next` returned undefined. */
  push(chunk: Uint8Array): void {
    assert(this.#position === this.#chunk.length, "handshake bytes pushed before the last were used up");
    this.#chunk = chunk;
    this.#position = 0;
  }

  /** The next event, or undefined if more bytes are needed. */
  next(): HandshakeEvent | undefined {
    if (this.#state === "clientFlags") {
      return this.#fillHeader(clientFlagsSizeBytes) ? this.#takeClientFlags() : undefined;
    }
    if (this.#state === "header") {
      if (!this.#fillHeader(optionHeaderSizeBytes)) return undefined;
      this.#takeOptionHeader();
    }
    if (this.#state === "violated") return this.#violation;
    return this.#fillData() ? this.#takeOption() : undefined;
  }

  /** Bytes received behind the last event. After NBD_OPT_STARTTLS any such byte is an injection attempt. */
  get surplusBytes(): number {
    return this.#chunk.length - this.#position;
  }

  /** Hands over the bytes behind the last event, which belong to the transmission phase. Ends the decoder's use. */
  takeSurplus(): Uint8Array {
    const surplus = this.#chunk.subarray(this.#position);
    this.#position = this.#chunk.length;
    return surplus;
  }

  #takeClientFlags(): HandshakeEvent {
    const flags = this.#header.getUint32(0);
    if ((flags & ~(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES)) !== 0) {
      return this.#violate("client flags that were not offered");
    }
    this.#state = "header";
    this.#fixedNewstyle = (flags & NBD_FLAG_C_FIXED_NEWSTYLE) !== 0;
    return {
      kind: "clientFlags",
      fixedNewstyle: this.#fixedNewstyle,
      noZeroes: (flags & NBD_FLAG_C_NO_ZEROES) !== 0,
    };
  }

  #takeOptionHeader(): void {
    if (this.#header.getUint32(0) !== IHAVEOPT_HIGH || this.#header.getUint32(4) !== IHAVEOPT_LOW) {
      this.#violate("an option that does not begin with IHAVEOPT");
      return;
    }
    this.#option = this.#header.getUint32(8);
    this.#lengthBytes = this.#header.getUint32(12);
    if (this.#option === NBD_OPT_EXPORT_NAME && this.#lengthBytes > stringMaxBytes) {
      // This option has no error reply, so closing is the only answer.
      this.#violate("an export name of more than 4096 bytes");
    } else if (this.#option !== NBD_OPT_EXPORT_NAME && !this.#fixedNewstyle) {
      this.#violate("an option that needs fixed newstyle, from a client that did not ask for it");
    } else if (this.#lengthBytes > optionDrainMaxBytes) {
      this.#violate("an option of more than 1 MiB");
    } else {
      this.#state = "data";
      this.#readBytes = 0;
      this.#data = this.#lengthBytes <= collectMaxBytesOf(this.#option) ? noBytes : undefined;
    }
  }

  #takeOption(): OptionEvent {
    this.#state = "header";
    const event: OptionEvent = {
      kind: "option",
      option: this.#option,
      lengthBytes: this.#lengthBytes,
      data: this.#data?.subarray(0, this.#lengthBytes),
    };
    this.#data = undefined;
    return event;
  }

  #violate(message: string): ViolationEvent {
    this.#state = "violated";
    this.#violation = { kind: "violation", message };
    return this.#violation;
  }

  /** True once `sizeBytes` of header are there. */
  #fillHeader(sizeBytes: number): boolean {
    const end = Math.min(this.#position + sizeBytes - this.#headerLength, this.#chunk.length);
    this.#headerBytes.set(this.#chunk.subarray(this.#position, end), this.#headerLength);
    this.#headerLength += end - this.#position;
    this.#position = end;
    if (this.#headerLength < sizeBytes) return false;
    this.#headerLength = 0;
    return true;
  }

  /** True once the option's data has been read or dropped. */
  #fillData(): boolean {
    const end = Math.min(this.#position + this.#lengthBytes - this.#readBytes, this.#chunk.length);
    const piece = this.#chunk.subarray(this.#position, end);
    if (this.#data !== undefined) {
      this.#data = withRoom(this.#data, this.#readBytes, this.#readBytes + piece.length);
      this.#data.set(piece, this.#readBytes);
    }
    this.#readBytes += piece.length;
    this.#position = end;
    return this.#readBytes === this.#lengthBytes;
  }
}

/** The longest data of each option that is kept until it has come whole. Longer data is dropped, and the option refused. */
const collectMaxBytes: Readonly<Record<ServedOption, number>> = {
  [NBD_OPT_EXPORT_NAME]: stringMaxBytes,
  [NBD_OPT_ABORT]: 0,
  [NBD_OPT_LIST]: 0,
  [NBD_OPT_STARTTLS]: 0,
  [NBD_OPT_INFO]: infoCollectMaxBytes,
  [NBD_OPT_GO]: infoCollectMaxBytes,
  [NBD_OPT_STRUCTURED_REPLY]: 0,
  [NBD_OPT_LIST_META_CONTEXT]: metaContextCollectMaxBytes,
  [NBD_OPT_SET_META_CONTEXT]: metaContextCollectMaxBytes,
  [NBD_OPT_EXTENDED_HEADERS]: 0,
};

/** 0 for an option that is not served. */
function collectMaxBytesOf(option: number): number {
  return collectMaxBytes[option as ServedOption] ?? 0;
}

/** `buffer`, or a longer copy of its first `usedBytes`, with room for `neededBytes`. */
function withRoom(buffer: Uint8Array, usedBytes: number, neededBytes: number): Uint8Array {
  if (neededBytes <= buffer.length) return buffer;
  const grown = new Uint8Array(Math.max(neededBytes, 2 * buffer.length));
  grown.set(buffer.subarray(0, usedBytes));
  return grown;
}
