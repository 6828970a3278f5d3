/** A client's NBD request on its way through a volume, and how the outcome is told in NBD's words. */
import { unreachable } from "../../storage/base/assert.ts";
import {
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EIO,
  NBD_ENOSPC,
  NBD_ENOTSUP,
  NBD_EPERM,
  NBD_ESHUTDOWN,
} from "./wire/constants.ts";
import type { MappedSegment } from "../../storage/device/port.ts";
import type { Piece } from "./wire/pieces.ts";
import type { Payload, ReplyWriter } from "./wire/reply.ts";
import type { NbdRequest } from "./wire/request.ts";
import { type ErrorReply, noSpacePastEnd, pastEnd, type Session } from "./wire/validate.ts";
import type { BioKind, BioStatus, RequestParked, RequestsDone, VolumeRequest } from "../volume/bio.ts";
import type { Address } from "../kernel/address.ts";
import type { Purse } from "./credits.ts";
import type { ParkedRequests } from "./parked_requests.ts";
import type { ReceiveBuffer } from "./receive.ts";
import { zeroPieceBytes } from "../limits.ts";

const noBytes = new Uint8Array(0);
/** Shared by all requests, and never added to. */
const noSegments: (MappedSegment | undefined)[] = [];
/** The bytes of holes, for a client that gets them as data. */
const zeroes = new Uint8Array(zeroPieceBytes);

/** The request as the volume sees it, with what its connection needs to answer and to free what it holds. */
export class ClientRequest implements VolumeRequest {
  readonly kind: BioKind;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly fua: boolean;
  readonly noHole: boolean;
  readonly fastZero: boolean;
  readonly client: Address<RequestsDone | RequestParked>;
  /** A READ, if what it finds can be sent from where it lies. */
  takesSegments = false;
  status: BioStatus = "ok";
  holes: Uint8Array = noBytes;
  /** By block touched: its mapped segment, if it was not read into `data`. May end before the last block. */
  segments: (MappedSegment | undefined)[] = noSegments;

  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offsetHigh: number;
  readonly offsetLow: number;
  readonly dontFragment: boolean;
  readonly purse: Purse;
  readonly paidBytes: number;
  /** Where `data` is a view of what was received; else `data` is a buffer of the connection's, or empty. */
  readonly receivedIn: ReceiveBuffer | undefined;
  readonly #memory: RequestMemory | undefined;
  readonly #parking: ParkedRequests;
  /** What `data` was before the payload has moved. */
  #original: Uint8Array | undefined;
  /** The payload lies in memory of its own, because the request waits for space. */
  hasMoved = false;
  /** What the payload was in before it has moved, and all that it had paid with, is free. */
  isFreed = false;
  /** The listener knows that borrowed bytes wait for space with this request. */
  isLoanWaiting = false;
  /** Too many do, so it is to fail. */
  mayNotWait = false;
  /** A WRITE's payload, or what a READ is read into: empty until `takeData`. */
  data: Uint8Array;

  constructor(request: NbdRequest, payload: ClientPayload, client: Address<RequestsDone | RequestParked>) {
    const { flags } = request;
    this.kind = bioKindOf(request.type);
    // The range of a FLUSH is reserved and means nothing.
    const isFlush = request.type === NBD_CMD_FLUSH;
    this.offsetBytes = isFlush ? 0 : request.offsetBytes;
    this.lengthBytes = isFlush ? 0 : request.lengthBytes;
    this.fua = (flags & NBD_CMD_FLAG_FUA) !== 0 && request.type !== NBD_CMD_READ && !isFlush;
    this.noHole = (flags & NBD_CMD_FLAG_NO_HOLE) !== 0;
    this.fastZero = (flags & NBD_CMD_FLAG_FAST_ZERO) !== 0;
    this.dontFragment = (flags & NBD_CMD_FLAG_DF) !== 0;
    this.cookieHigh = request.cookieHigh;
    this.cookieLow = request.cookieLow;
    this.offsetHigh = request.offsetHigh;
    this.offsetLow = request.offsetLow;
    this.client = client;
    this.data = payload.data ?? noBytes;
    this.#memory = payload.memory;
    this.#parking = payload.parking;
    this.purse = payload.purse;
    this.paidBytes = payload.paidBytes;
    this.receivedIn = payload.receivedIn;
  }

  /** `data`, with a buffer for it from now on: a READ whose bytes are all sent from mapped segments needs none. */
  takeData(): Uint8Array {
    if (this.data.length === 0 && this.#memory !== undefined) this.data = this.#memory.take(this.lengthBytes);
    return this.data;
  }

  /** Moves the payload, if there is room for it. The connection frees what it was in, and what paid for it. */
  parked(): Address<RequestParked> {
    if (!this.hasMoved && this.#parking.takeRoom(this.data.length)) {
      this.hasMoved = true;
      this.#original = this.data;
      this.data = this.data.slice();
    }
    return this.client;
  }

  /** The buffer that it holds, in use or not; after a move, the one that is to be freed. */
  get buffer(): Uint8Array | undefined {
    if (this.#original !== undefined && this.#original.length > 0) return this.#original;
    return this.data.length > 0 ? this.data : this.#memory?.untaken;
  }

  takeSegment(ordinal: number, segment: MappedSegment): void {
    // Most requests touch one block.
    if (this.segments === noSegments) this.segments = ordinal === 0 ? [segment] : [];
    this.segments[ordinal] = segment;
  }

  /** Asks for everything again, into memory of its own. */
  forgoSegments(): void {
    this.takesSegments = false;
    this.segments = noSegments;
    this.holes = noBytes;
  }
}

/** What gives the buffer of a READ when it is needed. */
export interface RequestMemory {
  /** A buffer that is held for the request though it has not taken it. */
  readonly untaken: Uint8Array | undefined;
  take(lengthBytes: number): Uint8Array;
}

/** The memory of one request, and from which purse it is paid. */
export interface ClientPayload {
  readonly data: Uint8Array | undefined;
  /** For a READ, in place of `data`. */
  readonly memory: RequestMemory | undefined;
  /** Where the payload may move while the request waits for space. */
  readonly parking: ParkedRequests;
  readonly purse: Purse;
  readonly paidBytes: number;
  readonly receivedIn: ReceiveBuffer | undefined;
}

/** What a command is to a volume. */
function bioKindOf(command: number): BioKind {
  if (command === NBD_CMD_READ) return "read";
  if (command === NBD_CMD_WRITE) return "write";
  if (command === NBD_CMD_TRIM) return "discard";
  if (command === NBD_CMD_WRITE_ZEROES) return "writeZeroes";
  return "flush";
}

/** What a client is told whose export is going away. */
export const goingAway: ErrorReply = { error: NBD_ESHUTDOWN, message: "the export is going away" };
const noSpace: ErrorReply = { error: NBD_ENOSPC, message: "the pool is full" };
const noMetadataSpace: ErrorReply = { error: NBD_ENOSPC, message: "the pool's metadata is full" };
const noHostSpace: ErrorReply = { error: NBD_ENOSPC, message: "the host of the pool is full" };
const overQuota: ErrorReply = { error: NBD_ENOSPC, message: "the volume has all that its quota allows" };
const ioError: ErrorReply = { error: NBD_EIO, message: "input/output error of the pool's devices" };
const notFast: ErrorReply = { error: NBD_ENOTSUP, message: "zeroing this range means writing bytes" };
const readOnlyPool: ErrorReply = { error: NBD_EPERM, message: "the pool is read-only" };
const failedPool: ErrorReply = { error: NBD_EIO, message: "the pool has failed and must be restarted" };

/** How the end of a request is told to the client; undefined if it succeeded. `kind` is that of a block status, or of a bio. */
export function errorReplyOf(status: BioStatus, kind: BioKind | "blockStatus"): ErrorReply | undefined {
  switch (status) {
    case "ok":
    case "hole":
      return undefined;
    case "noDataSpace":
      return noSpace;
    case "noMetadataSpace":
      return noMetadataSpace;
    case "noHostSpace":
      return noHostSpace;
    case "quotaExceeded":
      return overQuota;
    case "dropped":
      return goingAway;
    case "ioError":
      return ioError;
    case "notSupported":
      return notFast;
    case "outOfRange":
      return kind === "write" || kind === "writeZeroes" ? noSpacePastEnd : pastEnd;
    case "readOnly":
      return readOnlyPool;
    case "poolFailed":
      return failedPool;
    default:
      return unreachable(status);
  }
}

/**
 * Answers a READ that succeeded. With structured replies, runs of holes go as OFFSET_HOLE and the runs between
 * them as OFFSET_DATA, one chunk a run; DF asks for a single chunk.
 */
export function writeReadReply(
  replies: ReplyWriter,
  session: Session,
  request: ClientRequest,
  volumeBlockSizeBytes: number,
): void {
  const { holes, offsetBytes, lengthBytes, segments } = request;
  // Most READs are of one block, and found in one piece.
  if (holes.length === 0 && segments[0]?.lengthBytes === lengthBytes) {
    return replies.readData(request, offsetBytes, segments[0]);
  }
  if (!session.structured || request.dontFragment || !holes.includes(1)) {
    return replies.readData(request, offsetBytes, dataOfBlocks(request, volumeBlockSizeBytes, 0, Infinity));
  }
  const firstBlock = Math.floor(offsetBytes / volumeBlockSizeBytes);
  const end = offsetBytes + lengthBytes;
  let begin = offsetBytes;
  for (let block = 0; block < holes.length;) {
    const hole = holes[block];
    const runBegin = block;
    do block += 1; while (block < holes.length && holes[block] === hole);
    const runEnd = Math.min(end, (firstBlock + block) * volumeBlockSizeBytes);
    const isLast = runEnd === end;
    if (hole === 1) replies.holeChunk(request, begin, runEnd - begin, isLast);
    else {replies.dataChunk(
        request,
        begin,
        dataOfBlocks(request, volumeBlockSizeBytes, runBegin, block),
        isLast,
      );}
    begin = runEnd;
  }
}

/** What a READ found in some of its blocks, counted from its first: in its buffer, a mapped segment, or zeroes. */
function dataOfBlocks(
  request: ClientRequest,
  volumeBlockSizeBytes: number,
  blockBegin: number,
  blockEnd: number,
): Payload {
  const { offsetBytes, lengthBytes, takesSegments, holes, segments } = request;
  const head = offsetBytes % volumeBlockSizeBytes;
  const at = (block: number) => Math.min(lengthBytes, Math.max(0, block * volumeBlockSizeBytes - head));
  // Without a segment, all of it is in the buffer; if the request takes none, holes too.
  if (!takesSegments || (segments.length === 0 && holes.length === 0)) {
    return whole(request.takeData(), at(blockBegin), at(blockEnd));
  }
  const pieces: Piece[] = [];
  for (let block = blockBegin; at(block) < lengthBytes && block < blockEnd; block += 1) {
    const segment = segments[block];
    if (segment !== undefined) pieces.push(segment);
    else if (holes[block] === 1) addZeroes(pieces, at(block + 1) - at(block));
    else pieces.push(request.takeData().subarray(at(block), at(block + 1)));
  }
  return pieces;
}

function whole(data: Uint8Array, begin: number, end: number): Uint8Array {
  return begin === 0 && end === data.length ? data : data.subarray(begin, end);
}

function addZeroes(pieces: Piece[], lengthBytes: number): void {
  for (let restBytes = lengthBytes; restBytes > 0; restBytes -= zeroes.length) {
    pieces.push(zeroes.subarray(0, Math.min(restBytes, zeroes.length)));
  }
}

/** Whether all segments are of this drain of the kernel: a large request, or one that waited for a lock, may have older ones. */
export function areSegmentsGood({ segments }: ClientRequest, drains: number): boolean {
  return segments.every((segment) => segment === undefined || segment.drain === drains);
}

/** Copies the mapped segments into memory of the request's own. False if that failed. */
export function copySegments(request: ClientRequest, volumeBlockSizeBytes: number): boolean {
  const head = request.offsetBytes % volumeBlockSizeBytes;
  for (const [block, segment] of request.segments.entries()) {
    if (segment === undefined) continue;
    const begin = Math.max(0, block * volumeBlockSizeBytes - head);
    const copied = segment.copyTo(request.takeData().subarray(begin, begin + segment.lengthBytes), 0);
    if (copied.kind !== "ok") return false;
  }
  request.segments = noSegments;
  return true;
}
