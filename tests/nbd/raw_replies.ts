/** Replies of a server as the client of raw_client.ts reads them. */
import {
  NBD_CMD_READ,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_EXPORT,
  NBD_REP_INFO,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_ERROR_OFFSET,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
} from "../../actors/nbd/wire/constants.ts";

/** One option reply. */
export interface OptionReply {
  readonly option: number;
  readonly replyType: number;
  readonly data: Uint8Array;
}

/** What a successful GO or EXPORT_NAME told. */
export interface ExportFacts {
  readonly sizeBytes: number;
  /** Transmission flags. */
  readonly flags: number;
  /** Minimum, preferred and maximum, if the server sent them. */
  readonly blockSizes: readonly [number, number, number] | undefined;
}

/** One chunk of a structured reply. */
export interface Chunk {
  readonly type: number;
  readonly isLast: boolean;
  readonly payload: Uint8Array;
}

/** A whole reply. */
export interface Reply {
  readonly cookie: readonly [number, number];
  /** 0, or an errno. */
  readonly error: number;
  /** The text of an error chunk. */
  readonly message: string;
  /** What a READ returned, holes filled with zeroes. */
  readonly data: Uint8Array;
  /** The chunks in the order they came; empty for a simple reply. */
  readonly chunks: readonly Chunk[];
}

export interface Pending {
  readonly cookie: readonly [number, number];
  readonly type: number;
  readonly offsetBytes: number;
  readonly data: Uint8Array;
  /** 1 for each byte of `data` a chunk covered. */
  readonly covered: Uint8Array;
  readonly chunks: Chunk[];
  error: number;
  message: string;
}

export function exportFacts(replies: readonly OptionReply[]): ExportFacts {
  const infos = replies.filter((reply) => reply.replyType === NBD_REP_INFO).map((reply) =>
    viewOf(reply.data)
  );
  const facts = infos.find((info) => info.getUint16(0) === NBD_INFO_EXPORT);
  if (facts === undefined || facts.byteLength !== 12) throw new Error("no NBD_INFO_EXPORT before the ACK");
  const sizes = infos.find((info) => info.getUint16(0) === NBD_INFO_BLOCK_SIZE);
  return {
    sizeBytes: facts.getUint32(2) * 2 ** 32 + facts.getUint32(6),
    flags: facts.getUint16(10),
    blockSizes: sizes && [sizes.getUint32(2), sizes.getUint32(6), sizes.getUint32(10)],
  };
}

export function takeChunk(pending: Pending, type: number, isLast: boolean, payload: Uint8Array): void {
  const view = viewOf(payload);
  switch (type) {
    case NBD_REPLY_TYPE_NONE:
      if (!isLast || payload.length !== 0) throw new Error("a NONE chunk that is not last, or not empty");
      return;
    case NBD_REPLY_TYPE_OFFSET_DATA:
      if (payload.length < 9) throw new Error("a data chunk without data");
      fill(pending, view, payload.subarray(8));
      return;
    case NBD_REPLY_TYPE_OFFSET_HOLE:
      if (payload.length !== 12 || view.getUint32(8) === 0) throw new Error("a hole chunk of a wrong size");
      fill(pending, view, new Uint8Array(view.getUint32(8)));
      return;
    case NBD_REPLY_TYPE_ERROR:
    case NBD_REPLY_TYPE_ERROR_OFFSET: {
      const textBytes = view.getUint16(4);
      const wholeBytes = 6 + textBytes + (type === NBD_REPLY_TYPE_ERROR_OFFSET ? 8 : 0);
      pending.error = view.getUint32(0);
      if (pending.error === 0 || payload.length !== wholeBytes) throw new Error("an ill-formed error chunk");
      pending.message = new TextDecoder().decode(payload.subarray(6, 6 + textBytes));
      return;
    }
  }
}

function fill(pending: Pending, view: DataView, bytes: Uint8Array): void {
  if (pending.type !== NBD_CMD_READ) throw new Error("content in a reply to something else than READ");
  const begin = view.getUint32(0) * 2 ** 32 + view.getUint32(4) - pending.offsetBytes;
  const end = begin + bytes.length;
  if (begin < 0 || end > pending.data.length) throw new Error("a chunk outside of its request");
  if (pending.covered.subarray(begin, end).includes(1)) throw new Error("chunks that overlap");
  pending.covered.fill(1, begin, end);
  pending.data.set(bytes, begin);
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
