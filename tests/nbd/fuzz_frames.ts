/**
 * What the fuzzer's clients send: sessions of options and requests that are right, or wrong at the places where
 * programs go wrong (lengths around limits, offsets around ends and powers of two, every number and flag there is),
 * and then damaged in transit, or not.
 */
import {
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_WRITE,
  NBD_EXTENDED_REQUEST_MAGIC,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REQUEST_MAGIC,
} from "../../actors/nbd/wire/constants.ts";

/** Numbers in [0, 1). */
export type Random = () => number;

/** A 64-bit number as two halves. */
type Halves = readonly [high: number, low: number];

const maxU32 = 2 ** 32 - 1;
const lengths = [0, 1, 2, 3, 4, 5, 8, 10, 12, 16, 27, 28, 29, 32, 511, 512, 513, 4095, 4096, 4097].concat(
  [16, 18, 20, 25, 26, 31].flatMap((bits) => [2 ** bits - 1, 2 ** bits, 2 ** bits + 1]),
  [maxU32 - 1, maxU32],
);
const shortLengths = lengths.filter((length) => length <= 4097);
const highHalves = [0, 0, 0, 1, 2 ** 21 - 1, 2 ** 21, 2 ** 31 - 1, 2 ** 31, maxU32];
const names = [
  "disk",
  "disk",
  "disk",
  "small@monday",
  "",
  "nothing",
  "disk\0",
  "a".repeat(4096),
  "a".repeat(4097),
]
  .map((name) => new TextEncoder().encode(name))
  .concat([Uint8Array.of(0xff), Uint8Array.of(0xed, 0xa0, 0x80), new Uint8Array(5000)]);
const queries = [
  "base:allocation",
  "base:",
  "qemu:",
  "qemu:dirty-bitmap:",
  "qemu:dirty-bitmap:monday",
  "x",
  ":",
  "",
]
  .map((query) => new TextEncoder().encode(query));

/** What is written. */
const payload = Uint8Array.from({ length: 2 ** 18 + 1 }, (_, i) => (i * 2654435761) >>> 13);

/** A session of one client. */
export interface FuzzSession {
  readonly bytes: Uint8Array;
  /** Options and requests in it, before it was damaged. */
  readonly frames: number;
}

export class FrameMaker {
  readonly #random: Random;
  readonly #blockBytes: number;
  #target = "";
  #sizeBytes = 0;
  #bytes = new Uint8Array(2 ** 16);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;
  #extended = false;
  #cookie = 0;

  constructor(random: Random, blockBytes: number) {
    this.#random = random;
    this.#blockBytes = blockBytes;
  }

  /** An integer below `bound`. */
  below(bound: number): number {
    return Math.floor(this.#random() * bound);
  }

  /** True so often. */
  chance(probability: number): boolean {
    return this.#random() < probability;
  }

  #one<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  /** The bytes of one client that attaches, if it does, mostly to the export `target`; its size is below 2^32. */
  session(target: string, sizeBytes: number): FuzzSession {
    this.#target = target;
    this.#sizeBytes = sizeBytes;
    this.#length = 0;
    this.#extended = false;
    const flags = this.chance(0.9) ? 3 : this.#one([0, 1, 2, 4, 0xff, 2 ** 31 + 3]);
    this.#u32(flags);
    let frames = 0;
    const options = this.below(5);
    for (; frames < options; frames += 1) this.#option(this.#optionNumber());
    if (this.chance(0.9)) {
      this.#enter();
      frames += 1;
      // Rarely more than may be in flight at once.
      const most = this.chance(0.02) ? 600 : 40;
      for (let count = this.below(most); count > 0; count -= 1, frames += 1) this.#request();
    }
    const bytes = this.chance(0.5) ? this.#bytes.slice(0, this.#length) : this.#damaged();
    return { bytes, frames };
  }

  // Options.

  #optionNumber(): number {
    const dice = this.#random();
    if (dice < 0.2) return NBD_OPT_STRUCTURED_REPLY;
    if (dice < 0.3) return NBD_OPT_EXTENDED_HEADERS;
    if (dice < 0.4) return NBD_OPT_SET_META_CONTEXT;
    return dice < 0.97 ? this.below(16) : this.#one([255, 256, 2 ** 16 + 3, 2 ** 31, 2 ** 31 + 7, maxU32]);
  }

  /** Mostly what leads to requests that are looked at. */
  #enter(): void {
    const dice = this.#random();
    if (dice < 0.3) this.#option(NBD_OPT_STRUCTURED_REPLY, 0);
    else if (dice < 0.5) {
      this.#option(NBD_OPT_EXTENDED_HEADERS, 0);
    }
    if (dice < 0.5 && this.chance(0.5)) this.#metaContext(NBD_OPT_SET_META_CONTEXT, this.#target);
    if (dice < 0.5 && this.chance(0.1)) this.#metaContext(NBD_OPT_SET_META_CONTEXT);
    if (!this.#extended && this.chance(0.1)) return this.#exportName(this.#target);
    this.#info(NBD_OPT_GO, new TextEncoder().encode(this.chance(0.9) ? this.#target : "small@monday"), true);
  }

  #option(number: number, lengthBytes?: number): void {
    switch (number) {
      case NBD_OPT_EXPORT_NAME:
        return this.#exportName();
      case NBD_OPT_INFO:
      case NBD_OPT_GO:
        return this.#info(number, this.#one(names), false);
      case NBD_OPT_LIST_META_CONTEXT:
      case NBD_OPT_SET_META_CONTEXT:
        return this.#metaContext(number);
      default: {
        const dataBytes = lengthBytes ?? (this.chance(0.6) ? 0 : this.#one(shortLengths));
        this.#optionHeader(number, dataBytes);
        this.#zeroes(dataBytes);
        if (number === NBD_OPT_EXTENDED_HEADERS && dataBytes === 0) this.#extended = true;
      }
    }
  }

  #exportName(name?: string): void {
    const encoded = name === undefined ? this.#one(names) : new TextEncoder().encode(name);
    this.#optionHeader(NBD_OPT_EXPORT_NAME, encoded.length);
    this.#put(encoded);
  }

  #info(number: number, name: Uint8Array, isRight: boolean): void {
    const header = this.#optionHeader(number, 0);
    this.#string(name, isRight);
    const count = this.below(6);
    this.#u16(isRight || this.chance(0.8) ? count : this.#one([0, 1, 5, 255, 256, 65535]));
    for (let i = 0; i < count; i += 1) this.#u16(this.below(6));
    this.#endOption(header, isRight);
  }

  #metaContext(number: number, right?: string): void {
    const header = this.#optionHeader(number, 0);
    this.#string(
      right === undefined ? this.#one(names) : new TextEncoder().encode(right),
      right !== undefined,
    );
    const count = this.chance(0.95) ? this.below(5) : this.#one([64, 65, 1100]);
    const isRight = right !== undefined || this.chance(0.8);
    this.#u32(isRight ? count : this.#one(lengths));
    for (let i = 0; i < count; i += 1) this.#string(this.#one(queries), isRight);
    this.#endOption(header, isRight);
  }

  /** Writes the option's length: what it has, or another. */
  #endOption(header: number, isRight: boolean): void {
    const has = this.#length - header - 16;
    const says = isRight || this.chance(0.7) ? has : this.#one([has - 1, has + 1, has - 2, 0, 3, 5, has + 4]);
    this.#view.setUint32(header + 12, says);
    // In step again, so that what follows is looked at too.
    if (says > has) this.#zeroes(says - has);
    else this.#length = header + 16 + Math.max(0, says);
  }

  #optionHeader(number: number, lengthBytes: number): number {
    const at = this.#length;
    this.#u32(IHAVEOPT_HIGH);
    this.#u32(IHAVEOPT_LOW);
    this.#u32(number);
    this.#u32(lengthBytes);
    return at;
  }

  #string(text: Uint8Array, isRight: boolean): void {
    this.#u32(isRight || this.chance(0.85) ? text.length : this.#one(lengths));
    this.#put(text);
  }

  // Requests.

  #request(): void {
    const type = this.chance(0.97) ? this.below(9) : this.#one([9, 10, 99, 255, 256, 257, 65535]);
    if (type === NBD_CMD_DISC && this.chance(0.8)) return this.#request();
    const flags = this.chance(0.6) ? 0 : this.chance(0.8) ? 1 << this.below(16) : this.below(2 ** 16);
    if (type === NBD_CMD_WRITE || (this.#extended && (flags & NBD_CMD_FLAG_PAYLOAD_LEN) !== 0)) {
      return this.#requestWithPayload(type, flags);
    }
    const isInside = this.chance(0.6);
    const lengthBytes = isInside ? this.below(3 * this.#blockBytes) : this.#one(lengths);
    this.#requestHeader(type, flags, this.#offset(isInside), [
      this.#extended ? this.#lengthHigh() : 0,
      lengthBytes,
    ]);
  }

  #lengthHigh(): number {
    return this.chance(0.9) ? 0 : this.#one(highHalves);
  }

  #requestWithPayload(type: number, flags: number): void {
    const dice = this.#random();
    const payloadBytes = dice < 0.9
      ? this.#one(shortLengths)
      : dice < 0.995
      ? this.#one([65535, 65536, 65537])
      : 2 ** 18 + this.below(2);
    const withFlag = this.#extended && this.chance(0.9) ? flags | NBD_CMD_FLAG_PAYLOAD_LEN : flags;
    const brings = type === NBD_CMD_WRITE || (withFlag & NBD_CMD_FLAG_PAYLOAD_LEN) !== 0;
    // Rarely far more than will come: what follows is then taken for payload.
    const says = this.chance(0.99) ? payloadBytes : this.#one(lengths);
    this.#requestHeader(type, withFlag, this.#offset(this.chance(0.7)), [0, says]);
    if (!brings) return;
    if (type === NBD_CMD_BLOCK_STATUS && payloadBytes >= 12) {
      this.#u32(0);
      this.#u32(this.below(2 ** 20));
      this.#u32(1 + this.below(2));
      this.#put(payload.subarray(0, payloadBytes - 12));
    } else this.#put(payload.subarray(0, payloadBytes));
  }

  #requestHeader(type: number, flags: number, offset: Halves, length: Halves): void {
    this.#u32(this.#extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);
    this.#u16(flags);
    this.#u16(type);
    // Two requests with one cookie are legal as far as we are concerned.
    if (this.chance(0.995)) this.#cookie += 1;
    this.#u32(7);
    this.#u32(this.#cookie);
    this.#u32(offset[0]);
    this.#u32(offset[1]);
    if (this.#extended) this.#u32(length[0]);
    this.#u32(length[1]);
  }

  #offset(isInside: boolean): Halves {
    if (isInside) return [0, this.below(this.#sizeBytes)];
    const dice = this.#random();
    if (dice < 0.3) return [0, Math.max(0, this.#sizeBytes + this.#one([-65536, -512, -1, 0, 1, 512]))];
    if (dice < 0.6) return [0, this.below(8) * this.#blockBytes + this.below(3)];
    return [this.#one(highHalves), this.#one(lengths)];
  }

  // Damage and bytes.

  #damaged(): Uint8Array {
    const bytes = this.#bytes.slice(0, this.#length);
    const dice = this.#random();
    const at = this.below(bytes.length);
    if (dice < 0.4) {
      for (let i = 1 + this.below(4); i > 0; i -= 1) bytes[this.below(bytes.length)]! ^= 1 << this.below(8);
      return bytes;
    }
    if (dice < 0.7) return bytes.subarray(0, at);
    // Some bytes are left out, or come twice.
    const count = 1 + this.below(40);
    const damaged = new Uint8Array(bytes.length + count);
    damaged.set(bytes.subarray(0, at));
    const goesOnAt = dice < 0.85 ? Math.min(bytes.length, at + count) : Math.max(0, at - count);
    damaged.set(bytes.subarray(goesOnAt), at);
    return damaged.subarray(0, at + bytes.length - goesOnAt);
  }

  #room(lengthBytes: number): void {
    if (this.#length + lengthBytes <= this.#bytes.length) return;
    const grown = new Uint8Array(2 * (this.#length + lengthBytes));
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
    this.#view = new DataView(grown.buffer);
  }

  #u16(value: number): void {
    this.#room(2);
    this.#view.setUint16(this.#length, value);
    this.#length += 2;
  }

  #u32(value: number): void {
    this.#room(4);
    this.#view.setUint32(this.#length, value);
    this.#length += 4;
  }

  #put(bytes: Uint8Array): void {
    this.#room(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  #zeroes(lengthBytes: number): void {
    this.#room(lengthBytes);
    this.#bytes.fill(0, this.#length, this.#length + lengthBytes);
    this.#length += lengthBytes;
  }
}
