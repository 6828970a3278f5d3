/**
 * The handshake of one connection as a state machine without a socket: received bytes go in, option replies come
 * out into the output queue, and what only the pool knows is asked for.
 *
 * It stops after each option ("answered"), so that the next one is looked at only when the answer has been sent:
 * a client that does not read gets no further. `next` after "ask" needs `answer` first.
 */
import { assert, present, unreachable } from "../storage/assert.ts";
import {
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_NAME,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_STARTTLS,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_TLS_REQD,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
  payloadMaxBytes,
} from "../storage/nbd/constants.ts";
import { HandshakeDecoder, type OptionEvent } from "../storage/nbd/handshake.ts";
import { decodeOption, type Option, quoted } from "../storage/nbd/option.ts";
import { type BlockSizes, OptionReplyWriter } from "../storage/nbd/option_reply.ts";
import type { OutputQueue } from "../storage/nbd/output_queue.ts";
import { exportFlags } from "../storage/nbd/validate.ts";
import type { ExportInfo, PoolNotice } from "./pool_messages.ts";
import type { TlsPolicy } from "./socket_port.ts";

/** What the handshake asks of the pool. */
export type PoolQuestion =
  | { readonly type: "attach" | "describe"; readonly name: string }
  | { readonly type: "listExports" };

/** What the pool answers. */
export type PoolAnswer = Extract<
  PoolNotice,
  { readonly type: "attached" | "described" | "unknownExport" | "exports" }
>;

/** The pool's word that the client is attached. */
export type Attached = Extract<PoolNotice, { readonly type: "attached" }>;

/** How far the handshake has come. */
export type HandshakeStep =
  /** What was received is used up. */
  | { readonly kind: "needBytes" }
  /** An option has been answered into the output queue. */
  | { readonly kind: "answered" }
  | { readonly kind: "ask"; readonly question: PoolQuestion }
  /** Send what is queued, go on in TLS, and say `secured`. */
  | { readonly kind: "startTls" }
  /** The client is attached; requests follow. The last answer is in the output queue. */
  | { readonly kind: "transmission"; readonly attached: Attached }
  /** Send what is queued and close. With a reason if the client was at fault. */
  | { readonly kind: "end"; readonly reason?: string };

const needBytes: HandshakeStep = { kind: "needBytes" };
const answered: HandshakeStep = { kind: "answered" };
const left: HandshakeStep = { kind: "end" };

/** An option that waits for the pool. */
interface OpenOption {
  readonly number: number;
  readonly option: Option;
}

export class NbdHandshake {
  readonly #decoder = new HandshakeDecoder();
  readonly #replies: OptionReplyWriter;
  readonly #tls: TlsPolicy;
  #isSecured = false;
  #noZeroes = false;
  #structured = false;
  #open: OpenOption | undefined;

  constructor(output: OutputQueue, tls: TlsPolicy) {
    this.#tls = tls;
    this.#replies = new OptionReplyWriter(output);
    this.#replies.opening();
  }

  /** True once structured replies are negotiated. */
  get structured(): boolean {
    return this.#structured;
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

  next(): HandshakeStep {
    assert(this.#open === undefined, "the handshake went on with a question open");
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
        for (const name of answer.names) this.#replies.server(number, name);
        this.#replies.ack(number);
        return answered;
      case "unknownExport":
        if (option.type === "exportName") return { kind: "end", reason: unknownName(option.name) };
        this.#replies.error(number, NBD_REP_ERR_UNKNOWN, answer.reason);
        return answered;
      case "described":
        this.#writeInfo(number, option, answer.info, answer.blockSizeBytes);
        return answered;
      case "attached":
        if (option.type === "exportName") {
          const flags = exportFlags(answer.info, { structured: this.#structured });
          this.#replies.exportName(answer.info.sizeBytes, flags, this.#noZeroes);
        } else {
          this.#writeInfo(number, option, answer.info, answer.blockSizeBytes);
        }
        return { kind: "transmission", attached: answer };
      default:
        return unreachable(answer);
    }
  }

  #option(event: OptionEvent): HandshakeStep {
    const number = event.option;
    if (this.#tls === "require" && !this.#isSecured) {
      if (number === NBD_OPT_EXPORT_NAME) return { kind: "end", reason: "it did not ask for TLS" };
      if (number !== NBD_OPT_STARTTLS && number !== NBD_OPT_ABORT) {
        this.#replies.error(number, NBD_REP_ERR_TLS_REQD, "this server requires TLS");
        return answered;
      }
    }
    const option = decodeOption(event);
    switch (option.type) {
      case "exportName":
      case "go":
        return this.#ask(number, option, { type: "attach", name: option.name });
      case "info":
        return this.#ask(number, option, { type: "describe", name: option.name });
      case "list":
        return this.#ask(number, option, { type: "listExports" });
      case "structuredReply":
        this.#structured = true;
        this.#replies.ack(number);
        return answered;
      case "abort":
        this.#replies.ack(number);
        return left;
      case "close":
        return { kind: "end", reason: option.message };
      case "startTls":
        return this.#startTls(number);
      // Metadata contexts will be answered here, from the export that the option names.
      case "listMetaContext":
      case "setMetaContext":
      case "extendedHeaders":
        this.#replies.error(number, NBD_REP_ERR_UNSUP, "not supported by this server");
        return answered;
      case "refuse":
        this.#replies.error(number, option.reply, option.message);
        return answered;
      default:
        return unreachable(option);
    }
  }

  /**
   * Forgets what was negotiated in clear text, and lets no byte of it in behind the encryption: whoever sits between
   * client and server could have put it there.
   */
  #startTls(number: number): HandshakeStep {
    if (this.#tls === "off" || this.#isSecured) {
      const reply = this.#isSecured ? NBD_REP_ERR_INVALID : NBD_REP_ERR_POLICY;
      this.#replies.error(number, reply, this.#isSecured ? "TLS is on already" : "this server has no TLS");
      return answered;
    }
    if (this.#decoder.surplusBytes > 0) {
      return { kind: "end", reason: "it sent more in clear text behind STARTTLS" };
    }
    this.#structured = false;
    this.#replies.ack(number);
    return { kind: "startTls" };
  }

  #ask(number: number, option: Option, question: PoolQuestion): HandshakeStep {
    this.#open = { number, option };
    return { kind: "ask", question };
  }

  /** The answer to INFO and GO: the export always, and what the client asked for, once. */
  #writeInfo(number: number, option: Option, info: ExportInfo, volumeBlockSizeBytes: number): void {
    assert(option.type === "info" || option.type === "go", "the pool described what was not asked for");
    const wanted = option.infoTypes;
    this.#replies.infoExport(number, info.sizeBytes, exportFlags(info, { structured: this.#structured }));
    if (wanted.includes(NBD_INFO_NAME)) this.#replies.infoName(number, info.name);
    if (wanted.includes(NBD_INFO_DESCRIPTION)) this.#replies.infoDescription(number, info.description);
    if (wanted.includes(NBD_INFO_BLOCK_SIZE)) {
      this.#replies.infoBlockSize(number, blockSizesOf(volumeBlockSizeBytes));
    }
    this.#replies.ack(number);
  }
}

/** The block sizes of design section 9 for a pool of this block size. */
export function blockSizesOf(volumeBlockSizeBytes: number): BlockSizes {
  const largestPowerOfTwo = volumeBlockSizeBytes & -volumeBlockSizeBytes;
  return { minimum: 1, preferred: Math.min(largestPowerOfTwo, payloadMaxBytes), maximum: payloadMaxBytes };
}

function unknownName(name: string): string {
  return `it asked for the export ${quoted(name)}, which does not exist`;
}
