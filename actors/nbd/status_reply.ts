/** A client's block status request on its way through a volume, what it pays, and how it is answered. */
import { assert } from "../../storage/base/assert.ts";
import { NBD_CMD_FLAG_REQ_ONE } from "./wire/constants.ts";
import type { Echo, ReplyWriter } from "./wire/reply.ts";
import type { NbdRequest } from "./wire/request.ts";
import type { Session, StatusScope } from "./wire/validate.ts";
import type { BioStatus } from "../volume/bio.ts";
import type { Extent, StatusDone, StatusRequest, StatusSource } from "../volume/block_status.ts";
import type { Address } from "../kernel/address.ts";
import { extentBytes, statusExtentsMax } from "../limits.ts";
import type { Purse } from "./credits.ts";
import type { ExportContext } from "../control/export_messages.ts";

/** What one connection negotiated, and the contexts it selected: the one with id N is `contexts[N - 1]`. */
export interface NbdSession extends Session {
  readonly contexts: readonly ExportContext[];
}

/** The client that asks, and what pays for the answer. */
export interface StatusAsker {
  readonly session: NbdSession;
  readonly client: Address<StatusDone>;
  readonly volumeBlockSizeBytes: number;
  readonly purse: Purse;
  readonly paidBytes: number;
}

/** The request as the volume sees it, with what its connection needs to answer it. */
export class ClientStatus implements StatusRequest, Echo {
  readonly sources: readonly StatusSource[];
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly extentsMax: number;
  readonly client: Address<StatusDone>;
  status: BioStatus = "ok";
  extents: readonly (readonly Extent[])[] = [];

  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offsetHigh: number;
  readonly offsetLow: number;
  readonly contextIds: readonly number[];
  readonly purse: Purse;
  readonly paidBytes: number;

  constructor(request: NbdRequest, scope: StatusScope, asker: StatusAsker) {
    const { contexts, extendedHeaders } = asker.session;
    this.sources = scope.contextIds.map((id) => contexts[id - 1]!.source);
    this.contextIds = scope.contextIds;
    this.offsetBytes = request.offsetBytes;
    this.lengthBytes = extendedHeaders
      ? scope.lengthBytes
      : below4GiB(request.offsetBytes, scope.lengthBytes, asker.volumeBlockSizeBytes);
    this.extentsMax = extentsMaxOf(request, scope.contextIds.length);
    this.client = asker.client;
    this.cookieHigh = request.cookieHigh;
    this.cookieLow = request.cookieLow;
    this.offsetHigh = request.offsetHigh;
    this.offsetLow = request.offsetLow;
    this.purse = asker.purse;
    this.paidBytes = asker.paidBytes;
  }
}

/** Bytes that a block status about so many contexts pays: the extents of its answer. */
export function statusBytes(request: NbdRequest, contextCount: number): number {
  return extentsMaxOf(request, contextCount) * contextCount * extentBytes;
}

function extentsMaxOf(request: NbdRequest, contextCount: number): number {
  return (request.flags & NBD_CMD_FLAG_REQ_ONE) !== 0 ? 1 : Math.floor(statusExtentsMax / contextCount);
}

/**
 * A compact reply has 32 bits for the length of an extent. A longer range is cut at a block boundary, so that the client goes on
 * at one, and no extent ends within a block (CVE-2025-47711).
 */
function below4GiB(offsetBytes: number, lengthBytes: number, blockSizeBytes: number): number {
  if (lengthBytes <= 2 ** 32 - blockSizeBytes) return lengthBytes;
  const end = offsetBytes + lengthBytes;
  return end - end % blockSizeBytes - offsetBytes;
}

/** Answers a block status that succeeded: one chunk for each context. */
export function writeStatusReply(replies: ReplyWriter, request: ClientStatus): void {
  const { contextIds, extents } = request;
  assert(extents.length === contextIds.length, "a block status without an answer for each context");
  contextIds.forEach((id, i) => {
    replies.blockStatus(request, id, extents[i]!, i === contextIds.length - 1);
  });
}
