/**
 * What an export offers, and whether a request may be executed on it. The check is complete before anything
 * runs: an executed request can only fail for lack of space or because a device failed.
 */
import { requestBytesMax } from "../../limits.ts";
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_ENOTSUP,
  NBD_EPERM,
  NBD_FLAG_BLOCK_STATUS_PAYLOAD,
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_SEND_CACHE,
  NBD_FLAG_SEND_DF,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
  type NbdErrno,
} from "./constants.ts";
import type { ReplyForm } from "./reply.ts";
import { type NbdRequest, uint64 } from "./request.ts";

/** The facts of an export that clients learn and requests are checked against. */
export interface ExportSize {
  /** The current size, which may have changed since the client learnt it. */
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** At most one client is attached at a time. */
  readonly isSingleWriter?: boolean;
}

/** What one connection negotiated. */
export interface Session extends ReplyForm {
  /** How many metadata contexts are selected for this export. They have the ids from 1 to this. */
  readonly metaContextCount: number;
}

/** Why a request is not executed. */
export interface ErrorReply {
  readonly error: NbdErrno;
  /** A constant sentence for the client (structured replies carry it) and the log. */
  readonly message: string;
}

/**
 * The transmission flags of an export. Flags that promise changes are left out of a read-only one.
 * CAN_MULTI_CONN holds because connections share the volume and a flush commits all of it; an export that takes one client
 * does not offer it. BLOCK_STATUS_PAYLOAD is
 * for clients that have contexts to choose from.
 */
export function exportFlags(exportInfo: ExportSize, session: Session): number {
  const always = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_CACHE |
    (exportInfo.isSingleWriter === true ? 0 : NBD_FLAG_CAN_MULTI_CONN);
  const access = exportInfo.readOnly
    ? NBD_FLAG_READ_ONLY
    : NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
  const choosesContexts = session.extendedHeaders && session.metaContextCount > 0;
  return always | access | (session.structured ? NBD_FLAG_SEND_DF : 0) |
    (choosesContexts ? NBD_FLAG_BLOCK_STATUS_PAYLOAD : 0);
}

const readOnlyExport: ErrorReply = { error: NBD_EPERM, message: "the export is read-only" };
const flagNotAllowed: ErrorReply = { error: NBD_EINVAL, message: "a flag this command does not take here" };
const unknownCommand: ErrorReply = { error: NBD_EINVAL, message: "unknown command" };
const payloadTooLong: ErrorReply = { error: NBD_EINVAL, message: "longer than 32 MiB" };
/** The answer to a request beyond the end, other than a WRITE or WRITE_ZEROES. */
export const pastEnd: ErrorReply = { error: NBD_EINVAL, message: "beyond the end of the export" };
/** The answer to a WRITE or WRITE_ZEROES there (NBD, "Error values"). */
export const noSpacePastEnd: ErrorReply = { error: NBD_ENOSPC, message: "beyond the end of the export" };
const noMetaContext: ErrorReply = { error: NBD_EINVAL, message: "no metadata context is selected" };
const badContextIds: ErrorReply = {
  error: NBD_EINVAL,
  message: "a payload that is not an effect length and ids of selected contexts, each once",
};
const emptyStatus: ErrorReply = { error: NBD_EINVAL, message: "block status of nothing" };
const slowZeroes: ErrorReply = {
  error: NBD_ENOTSUP,
  message: "zeroes without a hole are not faster than writing them",
};

/**
 * Undefined if the request may be executed, else the error to answer. Requests of length 0 are in order
 * wherever their offset is inside the export. NBD_CMD_DISC has no reply, so nothing is wrong with it.
 * FLUSH has reserved fields that some servers ignore; so do we.
 */
export function validateRequest(
  request: NbdRequest,
  exportInfo: ExportSize,
  session: Session,
): ErrorReply | undefined {
  switch (request.type) {
    case NBD_CMD_READ:
      if (otherFlags(request, session.structured ? NBD_CMD_FLAG_DF : 0)) return flagNotAllowed;
      if (request.lengthBytes > requestBytesMax) return payloadTooLong;
      return isInside(request.offsetBytes, request.lengthBytes, exportInfo) ? undefined : pastEnd;
    case NBD_CMD_WRITE:
      return validateWrite(request, exportInfo, session);
    case NBD_CMD_DISC:
      return undefined;
    case NBD_CMD_FLUSH:
      return otherFlags(request, 0) ? flagNotAllowed : undefined;
    case NBD_CMD_TRIM:
      if (exportInfo.readOnly) return readOnlyExport;
      if (otherFlags(request, 0)) return flagNotAllowed;
      return isInside(request.offsetBytes, request.lengthBytes, exportInfo) ? undefined : pastEnd;
    case NBD_CMD_CACHE:
      if (otherFlags(request, 0)) return flagNotAllowed;
      return isInside(request.offsetBytes, request.lengthBytes, exportInfo) ? undefined : pastEnd;
    case NBD_CMD_WRITE_ZEROES:
      return validateWriteZeroes(request, exportInfo);
    case NBD_CMD_BLOCK_STATUS:
      return validateBlockStatus(request, exportInfo, session);
    default:
      return unknownCommand;
  }
}

function validateWrite(
  request: NbdRequest,
  exportInfo: ExportSize,
  session: Session,
): ErrorReply | undefined {
  if (exportInfo.readOnly) return readOnlyExport;
  const payloadFlag = session.extendedHeaders ? NBD_CMD_FLAG_PAYLOAD_LEN : 0;
  if (otherFlags(request, payloadFlag)) return flagNotAllowed;
  if (request.lengthBytes > requestBytesMax) return payloadTooLong;
  return isInside(request.offsetBytes, request.lengthBytes, exportInfo) ? undefined : noSpacePastEnd;
}

function validateWriteZeroes(request: NbdRequest, exportInfo: ExportSize): ErrorReply | undefined {
  if (exportInfo.readOnly) return readOnlyExport;
  if (otherFlags(request, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO)) return flagNotAllowed;
  if (!isInside(request.offsetBytes, request.lengthBytes, exportInfo)) return noSpacePastEnd;
  // Dropping mappings is fast; provisioning every block, as NO_HOLE asks, is not.
  const both = NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
  return (request.flags & both) === both ? slowZeroes : undefined;
}

function validateBlockStatus(
  request: NbdRequest,
  exportInfo: ExportSize,
  session: Session,
): ErrorReply | undefined {
  if (session.metaContextCount === 0) return noMetaContext;
  const payloadFlag = session.extendedHeaders ? NBD_CMD_FLAG_PAYLOAD_LEN : 0;
  if (otherFlags(request, NBD_CMD_FLAG_REQ_ONE | payloadFlag)) return flagNotAllowed;
  if (request.payloadBytes === 0) {
    return validateStatusRange(request.offsetBytes, request.lengthBytes, exportInfo);
  }
  // The range is in the payload, which has not come yet. It is checked then, if the payload has a possible length.
  const ids = (request.payloadBytes - statusLengthBytes) / contextIdBytes;
  return Number.isInteger(ids) && ids >= 1 && ids <= session.metaContextCount ? undefined : badContextIds;
}

function validateStatusRange(
  offsetBytes: number,
  lengthBytes: number,
  exportInfo: ExportSize,
): ErrorReply | undefined {
  if (lengthBytes === 0) return emptyStatus;
  return isInside(offsetBytes, lengthBytes, exportInfo) ? undefined : pastEnd;
}

/** What a BLOCK_STATUS is about. */
export interface StatusScope {
  readonly lengthBytes: number;
  /** Ids of selected contexts, each once, at least one. */
  readonly contextIds: readonly number[];
}

/**
 * What a BLOCK_STATUS that passed `validateRequest` is about, once it is here whole: its header says it, or its payload,
 * in 8 bytes of effect length and 4 for each context.
 */
export function statusScope(
  request: NbdRequest,
  exportInfo: ExportSize,
  session: Session,
): StatusScope | ErrorReply {
  const { payload } = request;
  if (payload === undefined) {
    const all = Array.from({ length: session.metaContextCount }, (_, i) => i + 1);
    return { lengthBytes: request.lengthBytes, contextIds: all };
  }
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const lengthBytes = uint64(view.getUint32(0), view.getUint32(4));
  const contextIds = new Set<number>();
  for (let at = statusLengthBytes; at < payload.length; at += contextIdBytes) {
    const id = view.getUint32(at);
    if (id < 1 || id > session.metaContextCount || contextIds.has(id)) return badContextIds;
    contextIds.add(id);
  }
  const refusal = validateStatusRange(request.offsetBytes, lengthBytes, exportInfo);
  return refusal ?? { lengthBytes, contextIds: [...contextIds] };
}

const statusLengthBytes = 8;
const contextIdBytes = 4;

/** True if a flag besides `allowed` is set. FUA is offered, and then legal on every command. */
function otherFlags(request: NbdRequest, allowed: number): boolean {
  return (request.flags & ~(allowed | NBD_CMD_FLAG_FUA)) !== 0;
}

/** Compared without the sum, which could exceed what a number holds exactly; an offset of Infinity fails. */
function isInside(offsetBytes: number, lengthBytes: number, exportInfo: ExportSize): boolean {
  return lengthBytes <= exportInfo.sizeBytes - offsetBytes;
}
