/** A simulated NBD client: real bytes of the protocol, and exactly one answer for each request, checked as it comes. */
import {
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_OPT_GO,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
} from "../../actors/nbd/wire/constants.ts";
import { go } from "../nbd/simulated_client.ts";
import { join, option, request, u32 } from "../nbd/wire_bytes.ts";
import { SimSocket, type SocketWorld } from "./socket.ts";
import { Violation } from "./violation.ts";

/** What a client asks. */
export interface Asked {
  readonly kind: "read" | "write" | "discard" | "writeZeroes" | "flush";
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly data: Uint8Array;
  readonly fua: boolean;
  readonly noHole: boolean;
  readonly fastZero: boolean;
}

/** Hears what becomes of a client's requests. */
export interface ClientEars {
  /** `error` is 0 or an NBD error number; `data` are the bytes of a READ that succeeded. */
  answered(asked: Asked, error: number, data: Uint8Array): void;
  /** The connection is gone; what was not answered never will be. */
  lost(unanswered: readonly Asked[]): void;
}

interface Open {
  readonly asked: Asked;
  readonly data: Uint8Array;
  /** Bytes of a READ that have come, each once. */
  filledBytes: number;
  error: number;
}

const commands = {
  read: NBD_CMD_READ,
  write: NBD_CMD_WRITE,
  discard: NBD_CMD_TRIM,
  writeZeroes: NBD_CMD_WRITE_ZEROES,
  flush: NBD_CMD_FLUSH,
};

/** See the head of this file. */
export class SimClient {
  readonly socket: SimSocket;
  /** It may send requests. */
  isAttached = false;
  isLost = false;
  readonly #ears: ClientEars;
  readonly #open = new Map<number, Open>();
  #unread: Uint8Array = new Uint8Array(0);
  #isGreeted = false;
  #cookieLast = 0;

  constructor(world: SocketWorld, ears: ClientEars, name: string, isStructured: boolean) {
    this.#ears = ears;
    this.socket = new SimSocket(world, (bytes) => this.#take(bytes), () => this.#lose());
    const negotiation = isStructured ? [option(NBD_OPT_STRUCTURED_REPLY)] : [];
    this.socket.say(join(u32(3), ...negotiation, go(name)));
  }

  get unanswered(): number {
    return this.#open.size;
  }

  ask(asked: Asked): void {
    this.#cookieLast += 1;
    const cookie = this.#cookieLast;
    const isRead = asked.kind === "read";
    const data = isRead ? new Uint8Array(asked.lengthBytes) : asked.data;
    this.#open.set(cookie, { asked, data, filledBytes: 0, error: 0 });
    const flags = (asked.fua ? NBD_CMD_FLAG_FUA : 0) | (asked.noHole ? NBD_CMD_FLAG_NO_HOLE : 0) |
      (asked.fastZero ? NBD_CMD_FLAG_FAST_ZERO : 0);
    const header = request({
      type: commands[asked.kind],
      flags,
      cookie: [0xabcd, cookie],
      offset: [0, asked.offsetBytes],
      length: asked.lengthBytes,
    });
    this.socket.say(asked.kind === "write" ? join(header, asked.data) : header);
  }

  #lose(): void {
    if (this.isLost) return;
    this.isLost = true;
    this.isAttached = false;
    this.#ears.lost([...this.#open.values()].map((open) => open.asked));
    this.#open.clear();
  }

  #take(bytes: Uint8Array): void {
    if (this.isLost) return;
    this.#unread = this.#unread.length === 0 ? bytes : join(this.#unread, bytes);
    while (this.#unread.length > 0 && (this.isAttached ? this.#takeReply() : this.#takeHandshake()));
  }

  /** False if more bytes are needed. */
  #takeHandshake(): boolean {
    if (!this.#isGreeted) {
      if (this.#unread.length < 18) return false;
      this.#drop(18);
      this.#isGreeted = true;
      return true;
    }
    if (this.#unread.length < 20) return false;
    const header = viewOf(this.#unread);
    const length = header.getUint32(16);
    if (this.#unread.length < 20 + length) return false;
    const [answered, type] = [header.getUint32(8), header.getUint32(12)];
    this.#drop(20 + length);
    if (answered !== NBD_OPT_GO) return true;
    // The volume may be gone, or going.
    if (type >= 0x8000_0000) this.socket.reset();
    this.isAttached = type === NBD_REP_ACK;
    return true;
  }

  #takeReply(): boolean {
    const header = viewOf(this.#unread);
    if (this.#unread.length < 16) return false;
    const magic = header.getUint32(0);
    if (magic === NBD_SIMPLE_REPLY_MAGIC) return this.#takeSimple(header);
    if (magic !== NBD_STRUCTURED_REPLY_MAGIC) throw new Violation("a reply has a wrong magic number");
    if (this.#unread.length < 20) return false;
    const length = header.getUint32(16);
    if (this.#unread.length < 20 + length) return false;
    this.#takeChunk(header, this.#unread.subarray(20, 20 + length));
    this.#drop(20 + length);
    return true;
  }

  #takeSimple(header: DataView): boolean {
    const cookie = header.getUint32(12);
    const error = header.getUint32(4);
    const open = this.#openOf(cookie);
    const length = error === 0 && open.asked.kind === "read" ? open.asked.lengthBytes : 0;
    if (this.#unread.length < 16 + length) return false;
    if (length > 0) this.#fill(open, 0, this.#unread.subarray(16, 16 + length));
    open.error = error;
    this.#drop(16 + length);
    this.#answer(cookie, open);
    return true;
  }

  #takeChunk(header: DataView, payload: Uint8Array): void {
    const cookie = header.getUint32(12);
    const open = this.#openOf(cookie);
    const type = header.getUint16(6);
    const view = viewOf(payload);
    if (type >= 0x8000) open.error = view.getUint32(0);
    else if (type === NBD_REPLY_TYPE_OFFSET_DATA) {
      this.#fill(open, view.getUint32(4) - open.asked.offsetBytes, payload.subarray(8));
    } else if (type === NBD_REPLY_TYPE_OFFSET_HOLE) {
      this.#fill(open, view.getUint32(4) - open.asked.offsetBytes, new Uint8Array(view.getUint32(8)));
    } else if (type !== NBD_REPLY_TYPE_NONE) throw new Violation(`a chunk has the unknown type ${type}`);
    if ((header.getUint16(4) & NBD_REPLY_FLAG_DONE) !== 0) this.#answer(cookie, open);
  }

  #fill(open: Open, at: number, bytes: Uint8Array): void {
    if (at < 0 || at + bytes.length > open.data.length) {
      throw new Violation("a chunk lies outside of its READ");
    }
    open.data.set(bytes, at);
    open.filledBytes += bytes.length;
  }

  #openOf(cookie: number): Open {
    const open = this.#open.get(cookie);
    if (open === undefined) throw new Violation(`a request was answered twice, or never asked: ${cookie}`);
    return open;
  }

  #answer(cookie: number, open: Open): void {
    this.#open.delete(cookie);
    if (open.asked.kind === "read" && open.error === 0 && open.filledBytes !== open.data.length) {
      throw new Violation(`a READ of ${open.data.length} bytes was answered with ${open.filledBytes}`);
    }
    this.#ears.answered(open.asked, open.error, open.data);
  }

  #drop(bytes: number): void {
    this.#unread = this.#unread.subarray(bytes);
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
