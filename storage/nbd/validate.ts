/**
 * What an export offers, and whether a request may be executed on it. The check is complete before anything
 * runs: an executed request can only fail for lack of space or because a device failed.
 */
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
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
  payloadMaxBytes,
} from "./constants.ts";
import type { NbdRequest } from "./request.ts";

/** The facts of an export that clients learn and requests are checked against. */
export interface ExportInfo {
  /** The current size, which may have changed since the client learnt it. */
  readonly sizeBytes: number;
  readonly readOnly: boolean;
}

/** What one connection negotiated. */
export interface Session {
  /** Structured replies. */
  readonly structured: boolean;
  /** How many metadata contexts are selected for this export. */
  readonly metaContextCount: number;
}

/** Why a request is not executed. */
export interface Refusal {
  readonly error: NbdErrno;
  /** A constant sentence for the client (structured replies carry it) and the log. */
  readonly message: string;
}

/**
 * The transmission flags of an export. Flags that promise changes are left out of a read-only one.
 * CAN_MULTI_CONN holds because connections share the volume and a flush commits all of it.
 */
export function exportFlags(exportInfo: ExportInfo, session: { readonly structured: boolean }): number {
  const always = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_CAN_MULTI_CONN |
    NBD_FLAG_SEND_CACHE;
  const access = exportInfo.readOnly
    ? NBD_FLAG_READ_ONLY
    : NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
  return always | access | (session.structured ? NBD_FLAG_SEND_DF : 0);
}

const readOnlyExport: Refusal = { error: NBD_EPERM, message: "the export is read-only" };
const flagNotAllowed: Refusal = { error: NBD_EINVAL, message: "a flag this command does not take here" };
const unknownCommand: Refusal = { error: NBD_EINVAL, message: "unknown command" };
const payloadTooLong: Refusal = { error: NBD_EINVAL, message: "longer than 32 MiB" };
const pastEnd: Refusal = { error: NBD_EINVAL, message: "beyond the end of the export" };
const noSpacePastEnd: Refusal = { error: NBD_ENOSPC, message: "beyond the end of the export" };
const noMetaContext: Refusal = { error: NBD_EINVAL, message: "no metadata context is selected" };
const emptyStatus: Refusal = { error: NBD_EINVAL, message: "block status of nothing" };
const slowZeroes: Refusal = {
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
  exportInfo: ExportInfo,
  session: Session,
): Refusal | undefined {
  switch (request.type) {
    case NBD_CMD_READ:
      if (otherFlags(request, session.structured ? NBD_CMD_FLAG_DF : 0)) return flagNotAllowed;
      if (request.lengthBytes > payloadMaxBytes) return payloadTooLong;
      return isInside(request, exportInfo) ? undefined : pastEnd;
    case NBD_CMD_WRITE:
      if (exportInfo.readOnly) return readOnlyExport;
      if (otherFlags(request, 0)) return flagNotAllowed;
      if (request.lengthBytes > payloadMaxBytes) return payloadTooLong;
      return isInside(request, exportInfo) ? undefined : noSpacePastEnd;
    case NBD_CMD_DISC:
      return undefined;
    case NBD_CMD_FLUSH:
      return otherFlags(request, 0) ? flagNotAllowed : undefined;
    case NBD_CMD_TRIM:
      if (exportInfo.readOnly) return readOnlyExport;
      if (otherFlags(request, 0)) return flagNotAllowed;
      return isInside(request, exportInfo) ? undefined : pastEnd;
    case NBD_CMD_CACHE:
      if (otherFlags(request, 0)) return flagNotAllowed;
      return isInside(request, exportInfo) ? undefined : pastEnd;
    case NBD_CMD_WRITE_ZEROES:
      return validateWriteZeroes(request, exportInfo);
    case NBD_CMD_BLOCK_STATUS:
      return validateBlockStatus(request, exportInfo, session);
    default:
      return unknownCommand;
  }
}

function validateWriteZeroes(request: NbdRequest, exportInfo: ExportInfo): Refusal | undefined {
  if (exportInfo.readOnly) return readOnlyExport;
  if (otherFlags(request, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO)) return flagNotAllowed;
  if (!isInside(request, exportInfo)) return noSpacePastEnd;
  // Dropping mappings is fast; provisioning every block, as NO_HOLE asks, is not (design section 12).
  const both = NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
  return (request.flags & both) === both ? slowZeroes : undefined;
}

function validateBlockStatus(
  request: NbdRequest,
  exportInfo: ExportInfo,
  session: Session,
): Refusal | undefined {
  if (session.metaContextCount === 0) return noMetaContext;
  if (otherFlags(request, NBD_CMD_FLAG_REQ_ONE)) return flagNotAllowed;
  if (request.lengthBytes === 0) return emptyStatus;
  return isInside(request, exportInfo) ? undefined : pastEnd;
}

/** True if a flag besides `allowed` is set. FUA is offered, and then legal on every command. */
function otherFlags(request: NbdRequest, allowed: number): boolean {
  return (request.flags & ~(allowed | NBD_CMD_FLAG_FUA)) !== 0;
}

/** Compared without the sum, which could exceed what a number holds exactly; an offset of Infinity fails. */
function isInside(request: NbdRequest, exportInfo: ExportInfo): boolean {
  return request.lengthBytes <= exportInfo.sizeBytes - request.offsetBytes;
}
