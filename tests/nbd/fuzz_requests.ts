/** The transmission half of the fuzzer's oracle: which requests a client sent, and whether each got its reply. */
import type { ByteReader } from "./fuzz_reader.ts";
import { ByteReader as Reader } from "./fuzz_reader.ts";

/** The form of requests and replies that was agreed on. */
export type TransmissionMode = "simple" | "structured" | "extended";

/** What is known of the session. */
export interface TransmissionSession {
  readonly mode: TransmissionMode;
  /** Ids of the selected contexts. */
  readonly contexts: readonly number[];
  readonly sizeBytes: number;
  readonly readOnly: boolean;
}

const [read, write, disc, flush, trim, cache, writeZeroes, blockStatus] = [0, 1, 2, 3, 4, 5, 6, 7];
const [fua, noHole, dontFragment, reqOne, fastZero, payloadLen] = [1, 2, 4, 8, 16, 32];
const [eperm, einval, enospc, enotsup] = [1, 22, 28, 95] as const;
const payloadMaxBytes = 2 ** 25;

/** A request that was sent whole, and what has come for it. */
class Pending {
  readonly flags: number;
  readonly type: number;
  readonly cookie: string;
  readonly offset: number;
  readonly length: number;
  readonly payload: Uint8Array;
  /** Errors that may answer it; 0 is success. */
  errors: readonly number[] = [];
  /** Of a READ: the parts that came, begin and end. Of a BLOCK_STATUS: ids of contexts. */
  readonly parts: [number, number][] = [];

  constructor(header: Reader, extended: boolean, rest: ByteReader) {
    this.flags = header.u16();
    this.type = header.u16();
    this.cookie = header.take(8).toHex();
    this.offset = header.u64();
    this.length = extended ? header.u64() : header.u32();
    // With extended headers a WRITE must have the flag, too; a server may take it for granted, as ours does for qemu.
    const brings = this.type === write || (extended && (this.flags & payloadLen!) !== 0);
    const max = extended ? payloadMaxBytes : 2 * payloadMaxBytes;
    const payloadBytes = brings && this.type !== disc ? this.length : 0;
    this.payload = payloadBytes <= Math.min(max, rest.restBytes) ? rest.take(payloadBytes) : absent;
  }

  /** True if both say the same, so that it is no matter which of them a reply is for. */
  isLike(other: Pending): boolean {
    return this.type === other.type && this.flags === other.flags && this.offset === other.offset &&
      this.length === other.length && this.payload.length === other.payload.length;
  }
}

const absent = new Uint8Array(0);

/** Judges what follows the handshake on both sides. Throws an error with a sentence. */
export function judgeTransmission(
  sent: ByteReader,
  received: ByteReader,
  session: TransmissionSession,
  isComplete: boolean,
): "transmission" | "ambiguous" {
  const pending = new Map<string, Pending[]>();
  for (let next = nextRequest(sent, session); next !== undefined; next = nextRequest(sent, session)) {
    next.errors = rightErrors(next, session);
    const same = pending.get(next.cookie);
    if (same === undefined) pending.set(next.cookie, [next]);
    else if (same[0]!.isLike(next)) same.push(next);
    else return "ambiguous";
  }
  const begins = session.mode === "extended" ? 32 : 16;
  while (received.restBytes > 0) {
    if (!isComplete && received.restBytes < begins) return "transmission";
    try {
      takeReply(received, session, pending);
    } catch (error) {
      if (!isComplete && received.restBytes < begins + payloadMaxBytes) return "transmission";
      throw error;
    }
  }
  if (isComplete && pending.size > 0) {
    const [{ type, errors, cookie }] = [...pending.values()][0]! as [Pending];
    throw new Error(`command ${type} with cookie ${cookie} got no reply, where ${errors} was to come`);
  }
  return "transmission";
}

/** The next request that came whole and must be answered; undefined where the stream ends or cannot be followed. */
function nextRequest(sent: ByteReader, { mode }: TransmissionSession): Pending | undefined {
  const extended = mode === "extended";
  const headerBytes = extended ? 32 : 28;
  if (sent.restBytes < headerBytes) return undefined;
  const header = new Reader(sent.take(headerBytes));
  if (header.u32() !== (extended ? 0x21e41c71 : 0x25609513)) return undefined;
  const request = new Pending(header, extended, sent);
  return request.type === disc || request.payload === absent ? undefined : request;
}

function rightErrors(request: Pending, session: TransmissionSession): readonly number[] {
  const { type, flags, offset, length } = request;
  const extended = session.mode === "extended";
  const taken = new Map([
    [read, session.mode === "simple" ? 0 : dontFragment!],
    [write, extended ? payloadLen! : 0],
    [flush, 0],
    [trim, 0],
    [cache, 0],
    [writeZeroes, noHole! | fastZero!],
    [blockStatus, reqOne! | (extended ? payloadLen! : 0)],
  ]).get(type);
  if (taken === undefined) return [einval];
  const changes = type === write || type === trim || type === writeZeroes;
  if (changes && session.readOnly) return [eperm];
  if ((flags & ~(taken | fua!)) !== 0) return [einval];
  if (type === flush) return [0];
  if (type === blockStatus) return [statusError(request, session)];
  if ((type === read || type === write) && length > payloadMaxBytes) return [einval];
  if (length > session.sizeBytes - offset) return [type === write || type === writeZeroes ? enospc : einval];
  if (type !== writeZeroes || (flags & fastZero!) === 0) return [0];
  return (flags & noHole!) !== 0 ? [enotsup] : [0, enotsup];
}

function statusError(request: Pending, session: TransmissionSession): number {
  const scope = statusScope(request, session);
  if (scope === undefined || session.contexts.length === 0 || scope.length === 0) return einval;
  return scope.length > session.sizeBytes - request.offset ? einval : 0;
}

/** Length and contexts that a BLOCK_STATUS asks for; undefined if its payload is none. */
function statusScope(
  { flags, payload, length }: Pending,
  { mode, contexts }: TransmissionSession,
): { readonly length: number; readonly ids: readonly number[] } | undefined {
  if (mode !== "extended" || (flags & payloadLen!) === 0 || payload.length === 0) {
    return { length, ids: contexts };
  }
  if (payload.length < 12 || payload.length % 4 !== 0) return undefined;
  const reader = new Reader(payload);
  const effect = reader.u64();
  const ids = Array.from({ length: reader.restBytes / 4 }, () => reader.u32());
  const isRight = new Set(ids).size === ids.length && ids.every((id) => contexts.includes(id));
  return isRight ? { length: effect, ids } : undefined;
}

function takeReply(received: ByteReader, session: TransmissionSession, all: Map<string, Pending[]>): void {
  const magic = received.u32();
  if (magic === 0x67446698 && session.mode !== "extended") {
    const error = received.u32();
    const request = pendingOf(all, received.take(8).toHex());
    if (request.type === read) {
      require(session.mode === "simple", "a simple reply to a READ with structured replies");
      if (error === 0) received.take(request.length);
    }
    require(request.type !== blockStatus || error !== 0, "a simple reply to a BLOCK_STATUS that succeeded");
    return judgeEnd(all, request, error);
  }
  const extended = session.mode === "extended";
  require(extended || session.mode === "structured", "a chunk that was not agreed on");
  require(magic === (extended ? 0x6e8a278c : 0x668e33ef), `a reply with magic ${magic.toString(16)}`);
  const flags = received.u16();
  require(flags <= 1, "unknown flags of a chunk");
  const type = received.u16();
  const request = pendingOf(all, received.take(8).toHex());
  if (extended) require(received.u64() === request.offset, "a chunk that repeats another offset");
  const lengthBytes = extended ? received.u64() : received.u32();
  const error = takeChunk(new Reader(received.take(lengthBytes)), type, request, session);
  if (error !== 0) require(flags === 1, "an error chunk that is not the last");
  if (flags === 1) judgeEnd(all, request, error);
}

function takeChunk(payload: Reader, type: number, request: Pending, session: TransmissionSession): number {
  if (type >= 0x8000) {
    const error = payload.u32();
    require(error !== 0, "an error chunk without an error");
    const text = payload.take(payload.u16());
    require(
      text.length <= 4096 && payload.restBytes === (type === 0x8002 ? 8 : 0),
      "an ill-formed error chunk",
    );
    return error;
  }
  if (type === 0) require(payload.restBytes === 0, "a NONE chunk with a payload");
  else if (type === 1 || type === 2) {
    require(request.type === read, "content for something else than READ");
    const begin = payload.u64() - request.offset;
    const length = type === 1 ? payload.restBytes : payload.u32();
    require(length > 0 && (type === 1 || payload.restBytes === 0), "a chunk of no content");
    require(begin >= 0 && begin + length <= request.length, "content outside of its request");
    require(
      (request.flags & dontFragment!) === 0 || (type === 1 && length === request.length),
      "DF was not kept",
    );
    request.parts.push([begin, begin + length]);
  } else if (type === (session.mode === "extended" ? 6 : 5)) takeStatus(payload, type, request, session);
  else throw new Error(`a chunk of type ${type}`);
  return 0;
}

function takeStatus(payload: Reader, type: number, request: Pending, session: TransmissionSession): void {
  const scope = statusScope(request, session);
  require(request.type === blockStatus && scope !== undefined, "block status that nobody asked for");
  const id = payload.u32();
  require(
    scope.ids.includes(id) && request.parts.every(([other]) => other !== id),
    "a context not asked for, or twice",
  );
  if (type === 6) require(payload.u32() === payload.restBytes / 16, "a wrong count of extents");
  let sum = 0;
  let extents = 0;
  require(payload.restBytes > 0, "block status without an extent");
  for (; payload.restBytes > 0; extents += 1) {
    require(sum < scope.length, "an extent behind the end of the request");
    const length = type === 6 ? payload.u64() : payload.u32();
    const flags = type === 6 ? payload.u64() : payload.u32();
    require(length > 0 && flags <= 3, "an extent of nothing, or with unknown flags");
    sum += length;
  }
  require(sum <= session.sizeBytes - request.offset, "an extent beyond the end of the export");
  if ((request.flags & reqOne!) !== 0) require(extents === 1 && sum <= scope.length, "REQ_ONE was not kept");
  request.parts.push([id, id]);
}

function judgeEnd(all: Map<string, Pending[]>, request: Pending, error: number): void {
  const { type, errors, offset, length, flags } = request;
  require(
    errors.includes(error),
    `command ${type} at ${offset}, length ${length}, flags ${flags}: error ${error} in place of ${errors}`,
  );
  if (type === read && error === 0 && request.parts.length > 0) {
    request.parts.sort(([a], [b]) => a - b);
    let at = 0;
    for (const [begin, end] of request.parts) {
      require(begin === at, "chunks that overlap, or leave a gap");
      at = end;
    }
    require(at === length, "chunks that do not cover their READ");
  }
  const same = all.get(request.cookie)!;
  same.shift();
  if (same.length === 0) all.delete(request.cookie);
}

function pendingOf(all: Map<string, Pending[]>, cookie: string): Pending {
  const request = all.get(cookie)?.[0];
  require(request !== undefined, `a reply to nobody, cookie ${cookie}`);
  return request;
}

function require(holds: boolean, sentence: string): asserts holds {
  if (!holds) throw new Error(sentence);
}
