/**
 * What a server may answer to what a client sent, judged when both are known to the last byte. Written from the
 * specification with its own parser, so that a mistake of the server's decoders is not repeated here.
 */
import { ByteReader } from "./fuzz_reader.ts";
import { judgeTransmission, type TransmissionMode } from "./fuzz_requests.ts";

/** What one client sent and what it got. */
export interface Exchange {
  readonly sent: Uint8Array;
  readonly received: Uint8Array;
  /** True if the client waited until the server closed; else it may have missed the rest. */
  readonly isComplete: boolean;
}

/** An export, as the client should see it. */
export interface FuzzExport {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
}

/** What came of an exchange: "handshake" never got further, "ambiguous" used a cookie for different requests. */
export type Verdict = "handshake" | "transmission" | "ambiguous";

const [exportName, abort, list, startTls, info, go] = [1, 2, 3, 5, 6, 7];
const [structuredReply, listMeta, setMeta, extendedHeaders] = [8, 9, 10, 11];
const [ack, server, infoReply, metaContext] = [1, 2, 3, 4];
const errorBit = 2 ** 31;
const [unsup, policy, invalid, unknown, tooBig, extendedRequired] = [1, 2, 3, 6, 9, 10].map((n) =>
  errorBit + n
);
const optionMaxBytes = 2 ** 20;

/** An option as sent; `data` is a reader of exactly its data. */
interface SentOption {
  readonly number: number;
  readonly data: Uint8Array;
}

/** Throws an error with a sentence if the server did what it must not. */
export function judge(exchange: Exchange, exports: ReadonlyMap<string, FuzzExport>): Verdict {
  return new Judge(exchange, exports).handshake();
}

class Judge {
  readonly #sent: ByteReader;
  readonly #received: ByteReader;
  readonly #isComplete: boolean;
  readonly #exports: ReadonlyMap<string, FuzzExport>;
  #mode: TransmissionMode = "simple";
  #contexts: readonly number[] = [];
  #contextsOf = "";

  constructor({ sent, received, isComplete }: Exchange, exports: ReadonlyMap<string, FuzzExport>) {
    this.#sent = new ByteReader(sent);
    this.#received = new ByteReader(received);
    this.#isComplete = isComplete;
    this.#exports = exports;
  }

  handshake(): Verdict {
    if (this.#received.restBytes < 18 && !this.#isComplete) return "handshake";
    require(this.#received.take(16).toHex() === "4e42444d4147494349484156454f5054", "a wrong opening");
    require(this.#received.u16() === 3, "wrong handshake flags");
    if (this.#sent.restBytes < 4) return this.#end();
    const flags = this.#sent.u32();
    if (flags > 3) return this.#end();
    for (;;) {
      const option = this.#nextOption((flags & 1) !== 0);
      if (option === undefined) return this.#end();
      if (!this.#isComplete && this.#received.restBytes === 0) return "handshake";
      if (option.number === exportName) {
        const name = option.data.length <= 4096 ? textOf(option.data) : undefined;
        const found = this.#mode === "extended" ? undefined : this.#exports.get(name ?? "\0");
        if (found === undefined) return this.#end();
        require(this.#received.u64() === found.sizeBytes, "EXPORT_NAME tells another size");
        this.#received.u16();
        if ((flags & 2) === 0) require(!this.#received.take(124).some((byte) => byte !== 0), "no 124 zeroes");
        return this.#transmission(found, name!);
      }
      const entered = this.#answers(option);
      if (entered === "end") return this.#end();
      if (entered !== undefined) return this.#transmission(this.#exports.get(entered)!, entered);
    }
  }

  #nextOption(fixed: boolean): SentOption | undefined {
    if (this.#sent.restBytes < 16) return undefined;
    if (this.#sent.take(8).toHex() !== "49484156454f5054") return undefined;
    const number = this.#sent.u32();
    const lengthBytes = this.#sent.u32();
    if (!fixed && number !== exportName) return undefined;
    if (lengthBytes > optionMaxBytes || (number === exportName && lengthBytes > 4096)) return undefined;
    if (lengthBytes > this.#sent.restBytes) return undefined;
    return { number, data: this.#sent.take(lengthBytes) };
  }

  /** Reads the answers to one option; the name of the export if it attached the client. */
  #answers(option: SentOption): string | "end" | undefined {
    const { number, data } = option;
    const named = number === info || number === go ? readInfo(data) : undefined;
    const contexts: number[] = [];
    for (;;) {
      if (!this.#isComplete && this.#received.restBytes < 20) return "end";
      require(this.#received.take(8).toHex() === "0003e889045565a9", "an option reply with a wrong magic");
      require(this.#received.u32() === number, "an option reply that repeats another number");
      const type = this.#received.u32();
      const lengthBytes = this.#received.u32();
      if (!this.#isComplete && this.#received.restBytes < lengthBytes) return "end";
      const reply = new ByteReader(this.#received.take(lengthBytes));
      if (type === server || type === infoReply || type === metaContext) {
        const owner = new Map([[server, [list]], [infoReply, [info, go]], [metaContext, [
          listMeta,
          setMeta,
        ]]]);
        require(owner.get(type)!.includes(number), "a reply that does not belong to its option");
        if (type === metaContext) contexts.push(contextId(reply));
        else if (type === server) require(reply.string().length > 0, "an export without a name");
        else if (reply.u16() === 0) {
          const size = this.#exports.get(named?.name ?? "")?.sizeBytes;
          require(reply.u64() === size && reply.restBytes === 2, "INFO_EXPORT tells another size");
        }
        continue;
      }
      this.#requireFinal(option, named?.isWhole ? named.name : undefined, type, reply);
      this.#negotiated(option, type, contexts);
      if (number === abort) return "end";
      return number === go && type === ack ? named!.name : undefined;
    }
  }

  /** The last reply is the one, or one of those, that this option has to get. */
  #requireFinal(
    { number, data }: SentOption,
    name: string | undefined,
    type: number,
    reply: ByteReader,
  ): void {
    require(type !== ack || reply.restBytes === 0, "an ACK with data");
    require(reply.restBytes <= 4096, "an error text of more than 4096 bytes");
    const right = ((): readonly number[] => {
      switch (number) {
        case abort:
          return [ack];
        case list:
          return [data.length === 0 ? ack : invalid!];
        case startTls:
          return [data.length === 0 ? policy! : invalid!];
        case structuredReply:
          if (data.length > 0) return [invalid!];
          return [this.#mode === "extended" ? extendedRequired! : ack];
        case extendedHeaders:
          return data.length === 0 ? [ack, unsup!] : [invalid!];
        case info:
        case go:
          if (data.length > 2 ** 16) return [tooBig!];
          return [name === undefined ? invalid! : this.#exports.has(name) ? ack : unknown!];
        case listMeta:
        case setMeta:
          return [ack, invalid!, unknown!, tooBig!, unsup!];
        default:
          return [unsup!];
      }
    })();
    require(
      right.includes(type),
      `option ${number} of ${data.length} bytes was answered with ${type.toString(16)}`,
    );
  }

  #negotiated({ number, data }: SentOption, type: number, contexts: readonly number[]): void {
    if (number === structuredReply && type === ack) this.#mode = "structured";
    if (number === extendedHeaders && type === ack) this.#mode = "extended";
    if (number !== setMeta) return;
    require(new Set(contexts).size === contexts.length, "two contexts with one id");
    require(type !== ack || this.#mode !== "simple", "contexts without structured replies");
    this.#contexts = type === ack ? contexts : [];
    this.#contextsOf = type === ack ? new ByteReader(data).string() : "";
  }

  #transmission(found: FuzzExport, name: string): Verdict {
    const contexts = this.#contextsOf === name ? this.#contexts : [];
    const session = { mode: this.#mode, contexts, ...found };
    return judgeTransmission(this.#sent, this.#received, session, this.#isComplete);
  }

  /** The server says nothing more. */
  #end(): Verdict {
    require(this.#received.restBytes === 0, `${this.#received.restBytes} bytes where nothing is to come`);
    return "handshake";
  }
}

function require(holds: boolean, sentence: string): asserts holds {
  if (!holds) throw new Error(sentence);
}

function textOf(bytes: Uint8Array): string | undefined {
  if (bytes.includes(0)) return undefined;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** The name of an INFO or GO, and whether the option is well-formed. */
function readInfo(data: Uint8Array): { readonly name: string; readonly isWhole: boolean } {
  const bad = { name: "", isWhole: false };
  if (data.length < 6) return bad;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const nameBytes = view.getUint32(0);
  if (nameBytes > data.length - 6 || nameBytes > 4096) return bad;
  const name = textOf(data.subarray(4, 4 + nameBytes));
  if (name === undefined) return bad;
  return { name, isWhole: data.length === 6 + nameBytes + 2 * view.getUint16(4 + nameBytes) };
}

function contextId(reply: ByteReader): number {
  const id = reply.u32();
  require(reply.restBytes > 0, "a context without a name");
  return id;
}
