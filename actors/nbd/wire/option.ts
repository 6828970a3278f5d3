/**
 * What an option asks for, from its number and data. Pure: each option is judged on its own; whether it fits
 * the state of the connection (TLS, a second NBD_OPT_STRUCTURED_REPLY, unknown exports) is the connection's concern.
 *
 *   INFO, GO                4 name length, name, 2 count, count x 2 info type
 *   *_META_CONTEXT          4 name length, name, 4 count, count x (4 length, query)
 */
import { metaContextQueriesMax } from "../../limits.ts";
import {
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
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_TOO_BIG,
  NBD_REP_ERR_UNSUP,
  type ServedOption,
  stringMaxBytes,
} from "./constants.ts";
import type { OptionEvent } from "./handshake_codec.ts";

/** An option to be refused with an option reply of this error type; haggling goes on. */
export interface OptionRefusal {
  readonly type: "refuse";
  readonly reply: typeof NBD_REP_ERR_UNSUP | typeof NBD_REP_ERR_INVALID | typeof NBD_REP_ERR_TOO_BIG;
  /** For the client and the log. */
  readonly message: string;
}

/** An option, understood. Names are legal UTF-8 without NUL, of at most 4096 bytes. */
export type Option =
  | { readonly type: "exportName"; readonly name: string }
  | { readonly type: "abort" | "list" | "startTls" | "structuredReply" | "extendedHeaders" }
  | { readonly type: "info" | "go"; readonly name: string; readonly infoTypes: readonly number[] }
  | {
    readonly type: "listMetaContext" | "setMetaContext";
    readonly name: string;
    /** Without repetitions, so that one context is not answered many times. */
    readonly queries: readonly string[];
  }
  | OptionRefusal
  /** NBD_OPT_EXPORT_NAME with a name that cannot be: it has no error reply, so the connection ends. */
  | { readonly type: "close"; readonly message: string };

const unknownOption = refusal(NBD_REP_ERR_UNSUP, "unknown option");
const unexpectedData = refusal(NBD_REP_ERR_INVALID, "this option carries no data");
const tooLong = refusal(NBD_REP_ERR_TOO_BIG, "option data too long");
const tooManyQueries = refusal(NBD_REP_ERR_TOO_BIG, `more than ${metaContextQueriesMax} queries`);
const truncated = refusal(NBD_REP_ERR_INVALID, "option data ends too early");
const trailingData = refusal(NBD_REP_ERR_INVALID, "option data goes on behind its last field");
const badString = refusal(NBD_REP_ERR_INVALID, "a string is not UTF-8, has a NUL, or exceeds 4096 bytes");

/** How the data of each option is understood. */
const decoders: Readonly<Record<ServedOption, (event: OptionEvent) => Option>> = {
  [NBD_OPT_EXPORT_NAME]: decodeExportName,
  // Data after ABORT is to be ignored: the client is leaving anyway.
  [NBD_OPT_ABORT]: () => ({ type: "abort" }),
  [NBD_OPT_LIST]: withoutData("list"),
  [NBD_OPT_STARTTLS]: withoutData("startTls"),
  [NBD_OPT_INFO]: (event) => decodeInfo("info", event),
  [NBD_OPT_GO]: (event) => decodeInfo("go", event),
  [NBD_OPT_STRUCTURED_REPLY]: withoutData("structuredReply"),
  [NBD_OPT_LIST_META_CONTEXT]: (event) => decodeMetaContext("listMetaContext", event),
  [NBD_OPT_SET_META_CONTEXT]: (event) => decodeMetaContext("setMetaContext", event),
  [NBD_OPT_EXTENDED_HEADERS]: withoutData("extendedHeaders"),
};

/** Understands one option. */
export function decodeOption(event: OptionEvent): Option {
  if (!Object.hasOwn(decoders, event.option)) return unknownOption;
  return decoders[event.option as ServedOption](event);
}

function withoutData(
  type: "list" | "startTls" | "structuredReply" | "extendedHeaders",
): (event: OptionEvent) => Option {
  return ({ lengthBytes }) => lengthBytes === 0 ? { type } : unexpectedData;
}

function refusal(reply: OptionRefusal["reply"], message: string): OptionRefusal {
  return { type: "refuse", reply, message };
}

function decodeExportName(event: OptionEvent): Option {
  const name = event.data === undefined ? undefined : decodeString(event.data);
  if (name === undefined) return { type: "close", message: "an export name that is not UTF-8 or has a NUL" };
  return { type: "exportName", name };
}

function decodeInfo(type: "info" | "go", event: OptionEvent): Option {
  if (event.data === undefined) return tooLong;
  const fields = new FieldReader(event.data);
  const name = fields.string();
  const infoTypes: number[] = [];
  const count = fields.u16();
  for (let i = 0; i < count && fields.failure === undefined; i++) infoTypes.push(fields.u16());
  return fields.end() ?? { type, name, infoTypes };
}

function decodeMetaContext(type: "listMetaContext" | "setMetaContext", event: OptionEvent): Option {
  if (event.data === undefined) return tooLong;
  const fields = new FieldReader(event.data);
  const name = fields.string();
  const count = fields.u32();
  // Each query takes at least its length field, so a count that cannot be true fails here, unread.
  if (4 * count > fields.restBytes) return fields.failure ?? truncated;
  if (count > metaContextQueriesMax) return tooManyQueries;
  const queries = new Set<string>();
  for (let i = 0; i < count && fields.failure === undefined; i++) queries.add(fields.string());
  return fields.end() ?? { type, name, queries: [...queries] };
}

/** Reads fields in order. The first one that does not fit is kept as `failure`; later reads give zeroes. */
class FieldReader {
  failure: OptionRefusal | undefined;
  readonly #data: Uint8Array;
  readonly #view: DataView;
  #position = 0;

  constructor(data: Uint8Array) {
    this.#data = data;
    this.#view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  }

  get restBytes(): number {
    return this.#data.length - this.#position;
  }

  u16(): number {
    const at = this.#advance(2);
    return at < 0 ? 0 : this.#view.getUint16(at);
  }

  u32(): number {
    const at = this.#advance(4);
    return at < 0 ? 0 : this.#view.getUint32(at);
  }

  /** A string behind its 4-byte length. */
  string(): string {
    const lengthBytes = this.u32();
    const at = this.#advance(lengthBytes);
    if (at < 0) return "";
    const text = decodeString(this.#data.subarray(at, at + lengthBytes));
    if (text === undefined) this.failure ??= badString;
    return text ?? "";
  }

  /** What was wrong with the option, if anything, bytes behind the last field included. */
  end(): OptionRefusal | undefined {
    return this.failure ?? (this.restBytes === 0 ? undefined : trailingData);
  }

  /** The position of the next `sizeBytes`, or -1 if they are not there. Compared without a sum that could wrap. */
  #advance(sizeBytes: number): number {
    if (this.failure === undefined && sizeBytes > this.restBytes) this.failure = truncated;
    if (this.failure !== undefined) return -1;
    const at = this.#position;
    this.#position += sizeBytes;
    return at;
  }
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const encoder = new TextEncoder();

/** The text of a string on the wire, or undefined if it is too long, has a NUL or is not UTF-8. */
function decodeString(bytes: Uint8Array): string | undefined {
  if (bytes.length > stringMaxBytes || bytes.includes(0)) return undefined;
  const text = decoder.decode(bytes);
  // A byte sequence that is not UTF-8 was replaced, so it does not come back as it was.
  return sameBytes(encoder.encode(text), bytes) ? text : undefined;
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** A client's string made fit for a log or an error text: quoted, control characters escaped, at most 80 characters. */
export function quoted(text: string): string {
  const shown = text.length > 80 ? text.slice(0, 77) + "..." : text;
  return JSON.stringify(shown).replace(/[\u007f-\u009f\u2028-\u202e\ud800-\udfff]/g, escapeCharacter);
}

function escapeCharacter(character: string): string {
  return "\\u" + character.charCodeAt(0).toString(16).padStart(4, "0");
}
