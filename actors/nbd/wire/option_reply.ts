/**
 * The server's half of the handshake, into an output queue.
 *
 *   opening        8 "NBDMAGIC"   8 "IHAVEOPT"   2 handshake flags
 *   option reply   8 0x3e889045565a9   4 option   4 reply type   4 length   n data
 *   EXPORT_NAME    8 size   2 transmission flags   124 zero bytes unless NBD_FLAG_C_NO_ZEROES
 */
import { assert } from "../../../storage/base/assert.ts";
import {
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_EXPORT,
  NBD_INFO_NAME,
  NBD_REP_ACK,
  NBD_REP_INFO,
  NBD_REP_MAGIC_HIGH,
  NBD_REP_MAGIC_LOW,
  NBD_REP_META_CONTEXT,
  NBD_REP_SERVER,
  NBDMAGIC_HIGH,
  NBDMAGIC_LOW,
  stringMaxBytes,
} from "./constants.ts";
import type { OutputQueue } from "./output_queue.ts";
import { setUint64 } from "./reply.ts";

/** What a client may rely on for the alignment and size of requests, in bytes. */
export interface BlockSizes {
  readonly minimum: number;
  readonly preferred: number;
  /** Longest payload of one request. */
  readonly maximum: number;
}

const replyHeaderSizeBytes = 20;
const exportNameSizeBytes = 10;
const exportNameZeroesBytes = 124;
const encoder = new TextEncoder();

export class OptionReplyWriter {
  readonly #output: OutputQueue;

  constructor(output: OutputQueue) {
    this.#output = output;
  }

  /** The first bytes of a connection. */
  opening(): void {
    const at = this.#output.claim(18);
    const view = this.#output.view;
    view.setUint32(at, NBDMAGIC_HIGH);
    view.setUint32(at + 4, NBDMAGIC_LOW);
    view.setUint32(at + 8, IHAVEOPT_HIGH);
    view.setUint32(at + 12, IHAVEOPT_LOW);
    view.setUint16(at + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
  }

  /** The last reply to an option that succeeded. */
  ack(option: number): void {
    this.#header(option, NBD_REP_ACK, 0);
  }

  /** An option failed: `replyType` is an NBD_REP_ERR_*, `message` is for people and cut at 4096 bytes. */
  error(option: number, replyType: number, message: string): void {
    assert(replyType >= 0x8000_0000, "an option error without the error bit");
    this.#text(option, replyType, encoder.encode(message).subarray(0, stringMaxBytes));
  }

  /** One export of a NBD_OPT_LIST; the description is for people. */
  server(option: number, name: string, description: string): void {
    const nameBytes = shortString(name);
    const descriptionBytes = shortString(description);
    const at = this.#header(option, NBD_REP_SERVER, 4 + nameBytes.length + descriptionBytes.length);
    this.#output.view.setUint32(at, nameBytes.length);
    this.#output.bytes.set(nameBytes, at + 4);
    this.#output.bytes.set(descriptionBytes, at + 4 + nameBytes.length);
  }

  /** NBD_INFO_EXPORT, without which no NBD_OPT_INFO or NBD_OPT_GO may succeed. */
  infoExport(option: number, sizeBytes: number, transmissionFlags: number): void {
    const at = this.#header(option, NBD_REP_INFO, 12);
    this.#output.view.setUint16(at, NBD_INFO_EXPORT);
    setUint64(this.#output.view, at + 2, sizeBytes);
    this.#output.view.setUint16(at + 10, transmissionFlags);
  }

  /** NBD_INFO_NAME: the canonical name of the export. */
  infoName(option: number, name: string): void {
    this.#infoText(option, NBD_INFO_NAME, name);
  }

  /** NBD_INFO_DESCRIPTION: a line for people. */
  infoDescription(option: number, description: string): void {
    this.#infoText(option, NBD_INFO_DESCRIPTION, description);
  }

  /** NBD_INFO_BLOCK_SIZE. */
  infoBlockSize(option: number, sizes: BlockSizes): void {
    const at = this.#header(option, NBD_REP_INFO, 14);
    this.#output.view.setUint16(at, NBD_INFO_BLOCK_SIZE);
    this.#output.view.setUint32(at + 2, sizes.minimum);
    this.#output.view.setUint32(at + 6, sizes.preferred);
    this.#output.view.setUint32(at + 10, sizes.maximum);
  }

  /** One metadata context, selected (with its id) or listed (id 0). */
  metaContext(option: number, contextId: number, name: string): void {
    const nameBytes = shortString(name);
    const at = this.#header(option, NBD_REP_META_CONTEXT, 4 + nameBytes.length);
    this.#output.view.setUint32(at, contextId);
    this.#output.bytes.set(nameBytes, at + 4);
  }

  /** The answer to NBD_OPT_EXPORT_NAME, which is no option reply; transmission begins behind it. */
  exportName(sizeBytes: number, transmissionFlags: number, noZeroes: boolean): void {
    const zeroesBytes = noZeroes ? 0 : exportNameZeroesBytes;
    const at = this.#output.claim(exportNameSizeBytes + zeroesBytes);
    setUint64(this.#output.view, at, sizeBytes);
    this.#output.view.setUint16(at + 8, transmissionFlags);
    this.#output.bytes.fill(0, at + exportNameSizeBytes, at + exportNameSizeBytes + zeroesBytes);
  }

  #infoText(option: number, infoType: number, text: string): void {
    const textBytes = shortString(text);
    const at = this.#header(option, NBD_REP_INFO, 2 + textBytes.length);
    this.#output.view.setUint16(at, infoType);
    this.#output.bytes.set(textBytes, at + 2);
  }

  #text(option: number, replyType: number, textBytes: Uint8Array): void {
    const at = this.#header(option, replyType, textBytes.length);
    this.#output.bytes.set(textBytes, at);
  }

  /** Writes an option reply header; returns where its `dataBytes` go. */
  #header(option: number, replyType: number, dataBytes: number): number {
    const at = this.#output.claim(replyHeaderSizeBytes + dataBytes);
    const view = this.#output.view;
    view.setUint32(at, NBD_REP_MAGIC_HIGH);
    view.setUint32(at + 4, NBD_REP_MAGIC_LOW);
    view.setUint32(at + 8, option);
    view.setUint32(at + 12, replyType);
    view.setUint32(at + 16, dataBytes);
    return at + replyHeaderSizeBytes;
  }
}

function shortString(text: string): Uint8Array {
  const bytes = encoder.encode(text);
  assert(bytes.length <= stringMaxBytes, "a string of more than 4096 bytes");
  return bytes;
}
