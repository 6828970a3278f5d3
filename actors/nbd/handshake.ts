/**
 * The handshake of one connection as a state machine without a socket: received bytes go in, option replies go to the output
 * queue, and questions to the pool are steps.
 *
 * It stops after each option ("answered"): the next option is parsed only when the answer has been sent, so a client that does
 * not read cannot make the server work. A long list is answered in parts, with a stop after each. After "ask", `answer` must be
 * called before `next`.
 */
import { assert, present, unreachable } from "../../storage/base/assert.ts";
import {
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_NAME,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_REP_ERR_EXT_HEADER_REQD,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_TLS_REQD,
  NBD_REP_ERR_UNKNOWN,
} from "./wire/constants.ts";
import { HandshakeDecoder, type OptionEvent } from "./wire/handshake_codec.ts";
import { decodeOption, type Option, quoted } from "./wire/option.ts";
import { type BlockSizes, OptionReplyWriter } from "./wire/option_reply.ts";
import type { OutputQueue } from "./wire/output_queue.ts";
import { exportFlags } from "./wire/validate.ts";
import { handshakeOptionsMax, optionReplyBytesMax, optionsPerExport, requestBytesMax } from "../limits.ts";
import type { NbdSession } from "./status_reply.ts";
import type { ExportContext, ExportInfo, PoolNotice } from "../control/export_messages.ts";
import type { TlsPolicy } from "./socket_port.ts";

/** What the handshake asks of the pool. */
export type PoolQuestion =
  | { readonly type: "attach" | "describe" | "describeContexts"; readonly name: string }
  | { readonly type: "listExports" };

/** What the pool answers. */
export type PoolAnswer = Extract<
  PoolNotice,
  { readonly type: "attached" | "described" | "unknownExport" | "exports" | "contexts" }
>;

/** The pool's answer that the client is attached. */
export type Attached = Extract<PoolNotice, { readonly type: "attached" }>;

/** What the connection has to do next. */
export type HandshakeStep =
  /** All received bytes are parsed. */
  | { readonly kind: "needBytes" }
  /** An option has been answered into the output queue, or a part of its answer has been put there. */
  | { readonly kind: "answered" }
  | { readonly kind: "ask"; readonly question: PoolQuestion }
  /** Send what is queued, go on in TLS, and say `secured`. */
  | { readonly kind: "startTls" }
  /** The client is attached; requests follow. The last answer is in the output queue. */
  | { readonly kind: "transmission"; readonly attached: Attached; readonly session: NbdSession }
  /** Send what is queued and close. With a reason if the client was at fault. */
  | { readonly kind: "end"; readonly reason?: string };

const needBytes: HandshakeStep = { kind: "needBytes" };
const answered: HandshakeStep = { kind: "answered" };
const left: HandshakeStep = { kind: "end" };

/** An option about metadata contexts. */
type MetaContextOption = Extract<Option, { readonly queries: readonly string[] }>;

/** An option that waits for the pool. */
interface OpenOption {
  readonly number: number;
  readonly option: Option;
}

/** The contexts that the last SET_META_CONTEXT selected, and the export it named. */
interface Selection {
  readonly uid: string;
  readonly contexts: readonly ExportContext[];
}

/** What a client has negotiated so far. */
interface Negotiated {
  /** Structured replies; always with extended headers. */
  structured: boolean;
  extendedHeaders: boolean;
  selection: Selection | undefined;
}

function nothing(): Negotiated {
  return { structured: false, extendedHeaders: false, selection: undefined };
}

/** A long answer, and its next entry. */
interface Listing {
  readonly number: number;
  /** Of exports, which have descriptions, or of contexts. */
  readonly names: readonly string[];
  readonly descriptions: readonly string[] | undefined;
  next: number;
}

export class NbdHandshake {
  readonly #decoder = new HandshakeDecoder();
  readonly #output: OutputQueue;
  readonly #replies: OptionReplyWriter;
  readonly #tls: TlsPolicy;
  #isSecured = false;
  #wasClearTextRefused = false;
  #noZeroes = false;
  #negotiated = nothing();
  #open: OpenOption | undefined;
  #listing: Listing | undefined;
  #options = 0;
  #optionsMax = handshakeOptionsMax;

  constructor(output: OutputQueue, tls: TlsPolicy) {
    this.#tls = tls;
    this.#output = output;
    this.#replies = new OptionReplyWriter(output);
    this.#replies.opening();
  }

  /** Takes received bytes, which must stay untouched until "needBytes". */
  push(bytes: Uint8Array): void {
    this.#decoder.push(bytes);
  }

  /** The bytes behind the handshake, once it has come to "transmission". */
  takeSurplus(): Uint8Array {
    return this.#decoder.takeSurplus();
  }

  /** The stream is encrypted from here on. */
  secured(): void {
    assert(this.#tls !== "off" && !this.#isSecured, "TLS where there is none, or twice");
    this.#isSecured = true;
  }

  get isSecured(): boolean {
    return this.#isSecured;
  }

  /** The client has asked for something outside TLS, which is required here, and never for TLS. */
  get wasClearTextRefused(): boolean {
    return this.#wasClearTextRefused;
  }

  next(): HandshakeStep {
    assert(this.#open === undefined, "the handshake went on with a question open");
    if (this.#listing !== undefined) return this.#list(this.#listing);
    const event = this.#decoder.next();
    if (event === undefined) return needBytes;
    switch (event.kind) {
      case "violation":
        return { kind: "end", reason: event.message };
      case "clientFlags":
        this.#noZeroes = event.noZeroes;
        return this.next();
      case "option":
        return this.#option(event);
      default:
        return unreachable(event);
    }
  }

  /** The pool's answer to the question of the last step. */
  answer(answer: PoolAnswer): HandshakeStep {
    const { number, option } = present(this.#open, "an answer to a question that was not asked");
    this.#open = undefined;
    switch (answer.type) {
      case "exports":
        this.#allowOptionsFor(answer.names.length);
        return this.#list({ number, names: answer.names, descriptions: answer.descriptions, next: 0 });
      case "contexts":
        return this.#answerContexts(number, option, answer.info.uid, answer.contexts);
      case "unknownExport":
        if (option.type === "exportName") return { kind: "end", reason: unavailable(option.name, answer) };
        return this.#refuse(
          number,
          answer.isInUse === true ? NBD_REP_ERR_POLICY : NBD_REP_ERR_UNKNOWN,
          answer.reason,
        );
      case "described":
        this.#writeInfo(number, option, answer.info, answer.blockSizeBytes);
        return answered;
      case "attached":
        if (option.type === "exportName") {
          const flags = exportFlags(answer.info, this.#sessionFor(answer.info));
          this.#replies.exportName(answer.info.sizeBytes, flags, this.#noZeroes);
        } else {
          this.#writeInfo(number, option, answer.info, answer.blockSizeBytes);
        }
        return { kind: "transmission", attached: answer, session: this.#sessionFor(answer.info) };
      default:
        return unreachable(answer);
    }
  }

  #option(event: OptionEvent): HandshakeStep {
    const number = event.option;
    this.#options += 1;
    if (this.#options > this.#optionsMax) {
      return {
        kind: "end",
        reason: `it sent more than ${this.#optionsMax} options and attached to no export`,
      };
    }
    if (this.#tls === "require" && !this.#isSecured) {
      if (number === NBD_OPT_EXPORT_NAME) {
        this.#wasClearTextRefused = true;
        return left;
      }
      if (number !== NBD_OPT_STARTTLS && number !== NBD_OPT_ABORT) {
        this.#wasClearTextRefused = true;
        return this.#refuse(number, NBD_REP_ERR_TLS_REQD, "this server requires TLS");
      }
    }
    // One that fails replaces what was selected before, too.
    if (number === NBD_OPT_SET_META_CONTEXT) this.#negotiated.selection = undefined;
    const option = decodeOption(event);
    switch (option.type) {
      case "exportName":
        if (this.#negotiated.extendedHeaders) {
          return { kind: "end", reason: "it sent NBD_OPT_EXPORT_NAME after extended headers were agreed on" };
        }
        return this.#ask(number, option, { type: "attach", name: option.name });
      case "go":
        return this.#ask(number, option, { type: "attach", name: option.name });
      case "info":
        return this.#ask(number, option, { type: "describe", name: option.name });
      case "list":
        return this.#ask(number, option, { type: "listExports" });
      case "listMetaContext":
      case "setMetaContext":
        return this.#metaContext(number, option);
      case "structuredReply":
      case "extendedHeaders":
        return this.#replyForm(number, option.type);
      case "abort":
        this.#replies.ack(number);
        return left;
      case "close":
        return { kind: "end", reason: option.message };
      case "startTls":
        return this.#startTls(number);
      case "refuse":
        return this.#refuse(number, option.reply, option.message);
      default:
        return unreachable(option);
    }
  }

  /**
   * Forgets what was negotiated in clear text, and refuses clear text behind STARTTLS: an attacker between client and server
   * could have inserted it.
   */
  #startTls(number: number): HandshakeStep {
    if (this.#tls === "off" || this.#isSecured) {
      const reply = this.#isSecured ? NBD_REP_ERR_INVALID : NBD_REP_ERR_POLICY;
      return this.#refuse(number, reply, this.#isSecured ? "TLS is on already" : "this server has no TLS");
    }
    if (this.#decoder.surplusBytes > 0) {
      return { kind: "end", reason: "it sent more in clear text behind STARTTLS" };
    }
    this.#wasClearTextRefused = false;
    this.#negotiated = nothing();
    this.#replies.ack(number);
    return { kind: "startTls" };
  }

  #refuse(number: number, replyType: number, message: string): HandshakeStep {
    this.#replies.error(number, replyType, message);
    return answered;
  }

  #ask(number: number, option: Option, question: PoolQuestion): HandshakeStep {
    this.#open = { number, option };
    return { kind: "ask", question };
  }

  /** Extended headers take precedence over structured replies, which they contain. */
  #replyForm(number: number, form: "structuredReply" | "extendedHeaders"): HandshakeStep {
    const negotiated = this.#negotiated;
    if (form === "extendedHeaders") negotiated.extendedHeaders = true;
    else if (negotiated.extendedHeaders) {
      return this.#refuse(number, NBD_REP_ERR_EXT_HEADER_REQD, "extended headers are agreed on already");
    }
    negotiated.structured = true;
    this.#replies.ack(number);
    return answered;
  }

  #metaContext(number: number, option: MetaContextOption): HandshakeStep {
    if (option.type === "setMetaContext" && !this.#negotiated.structured) {
      const message = "contexts need structured replies or extended headers first";
      return this.#refuse(number, NBD_REP_ERR_INVALID, message);
    }
    return this.#ask(number, option, { type: "describeContexts", name: option.name });
  }

  #answerContexts(
    number: number,
    option: Option,
    uid: string,
    contexts: readonly ExportContext[],
  ): HandshakeStep {
    assert("queries" in option, "the pool named contexts that were not asked for");
    const { queries } = option;
    if (option.type === "listMetaContext") {
      const names = contexts.map(({ name }) => name);
      const listed = queries.length === 0 ? names : names.filter((name) => isListedBy(queries, name));
      return this.#list({ number, names: listed, descriptions: undefined, next: 0 });
    }
    const selected = contexts.filter(({ name }) => queries.includes(name));
    this.#negotiated.selection = { uid, contexts: selected };
    selected.forEach(({ name }, i) => this.#replies.metaContext(number, i + 1, name));
    this.#replies.ack(number);
    return answered;
  }

  /** A selection holds only for the export that it named. */
  #sessionFor(info: ExportInfo): NbdSession {
    const { structured, extendedHeaders, selection } = this.#negotiated;
    const contexts = selection?.uid === info.uid ? selection.contexts : [];
    return { structured, extendedHeaders, contexts, metaContextCount: contexts.length };
  }

  /** The next part of a long answer. */
  #list(listing: Listing): HandshakeStep {
    const { number, names, descriptions } = listing;
    this.#listing = listing;
    while (listing.next < names.length) {
      if (this.#output.pendingBytes >= optionReplyBytesMax) return answered;
      const name = names[listing.next]!;
      if (descriptions !== undefined) this.#replies.server(number, name, descriptions[listing.next]!);
      // The id is reserved in a list (NBD specification, NBD_OPT_LIST_META_CONTEXT).
      else this.#replies.metaContext(number, 0, name);
      listing.next += 1;
    }
    this.#listing = undefined;
    this.#replies.ack(number);
    return answered;
  }

  /** A client that was told of so many exports may ask about each of them. */
  #allowOptionsFor(exports: number): void {
    this.#optionsMax = Math.max(this.#optionsMax, handshakeOptionsMax + optionsPerExport * exports);
  }

  /** The answer to INFO and GO: the export always, and what the client asked for, once. */
  #writeInfo(number: number, option: Option, info: ExportInfo, volumeBlockSizeBytes: number): void {
    assert(option.type === "info" || option.type === "go", "the pool described what was not asked for");
    const wanted = option.infoTypes;
    this.#replies.infoExport(number, info.sizeBytes, exportFlags(info, this.#sessionFor(info)));
    if (wanted.includes(NBD_INFO_NAME)) this.#replies.infoName(number, info.name);
    if (wanted.includes(NBD_INFO_DESCRIPTION)) this.#replies.infoDescription(number, info.description);
    if (wanted.includes(NBD_INFO_BLOCK_SIZE)) {
      this.#replies.infoBlockSize(number, blockSizesOf(volumeBlockSizeBytes));
    }
    this.#replies.ack(number);
  }
}

/** Block sizes told to clients, for a pool of this block size: any byte range works, whole blocks cost least. */
export function blockSizesOf(volumeBlockSizeBytes: number): BlockSizes {
  const largestPowerOfTwo = volumeBlockSizeBytes & -volumeBlockSizeBytes;
  return { minimum: 1, preferred: Math.min(largestPowerOfTwo, requestBytesMax), maximum: requestBytesMax };
}

/** In a list, a query that ends in a colon selects every name that begins with it. An unknown name selects nothing. */
function isListedBy(queries: readonly string[], name: string): boolean {
  return queries.some((query) => query === name || (query.endsWith(":") && name.startsWith(query)));
}

function unavailable(name: string, { reason, isInUse }: PoolAnswer & { type: "unknownExport" }): string {
  return `it asked for the export ${quoted(name)}${
    isInUse === true ? `: ${reason}` : ", which does not exist"
  }`;
}
