/**
 * Block status: the question of a client about a range of a volume, and the task that finds the answer.
 *
 * It takes no lock and makes no bio, because it reads mappings only: metadata changes each in one turn, and every write
 * that was answered has its mapping. A long answer takes several turns, and the volume may change between them; every part
 * of the answer is right for the turn in which it was found.
 */
import { unreachable } from "../../storage/base/assert.ts";
import { type ThinId, vblock } from "../../storage/base/ids.ts";
import type { BioStatus } from "./bio.ts";
import type { Address, Message } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Steps } from "../kernel/task.ts";
import type { Knobs } from "../knobs.ts";
import { bioStatusOf } from "./bio_status.ts";
import type { Thin } from "./remap.ts";

/** Consecutive bytes with the same status, as in an NBD block status reply. */
export interface Extent {
  readonly lengthBytes: number;
  readonly flags: number;
}

/** What a metadata context reports: which blocks are provisioned, or which differ from a snapshot. */
export type StatusSource =
  | { readonly kind: "allocation" }
  | { readonly kind: "dirty"; readonly thinId: ThinId };

/** A client's question about a range of a volume. */
export interface StatusRequest {
  readonly sources: readonly StatusSource[];
  readonly offsetBytes: number;
  /** Not 0. */
  readonly lengthBytes: number;
  /** The most extents for each source; at least 1. */
  readonly extentsMax: number;
  /** The actor that the volume tells when the question is answered. */
  readonly client: Address<StatusDone>;
  /** "ok", or why there is no answer. Set by the volume. */
  status: BioStatus;
  /**
   * For each source a list of at least one extent: without gaps from `offsetBytes` on, neighbours different, never beyond
   * the range. It may end before the range does. Set by the volume.
   */
  extents: readonly (readonly Extent[])[];
}

/** From a client to a volume: answer this and tell `request.client`. */
export interface AskStatus extends Message {
  readonly type: "askStatus";
  readonly request: StatusRequest;
}

/** From the volume to the client of a question: it is answered. */
export interface StatusDone {
  readonly type: "statusDone";
  readonly request: StatusRequest;
}

/** From the status task to the volume: how the question ended. */
export interface StatusEnded extends Message {
  readonly type: "statusEnded";
  readonly request: StatusRequest;
  /** The thin device that was read. */
  readonly thinId: ThinId;
  readonly status: BioStatus;
  readonly extents: readonly (readonly Extent[])[];
}

/** `base:allocation`: a hole, which reads as zeroes (NBD specification, "Metadata querying"). */
const flagsUnmapped = 3;
/** `qemu:dirty-bitmap`: dirty. */
const flagsDifferent = 1;

/** Answers a question and tells the volume. */
export function* statusTask(
  kernel: Kernel,
  volume: Address<StatusEnded>,
  thin: Thin,
  request: StatusRequest,
): Steps<void> {
  let status: BioStatus = "ok";
  const extents: (readonly Extent[])[] = [];
  for (const source of request.sources) {
    const found = yield* extentsOf(thin, source, request, kernel.knobs);
    if (typeof found === "string") {
      status = found;
      break;
    }
    extents.push(found);
  }
  const told = status === "ok" ? extents : [];
  kernel.tell(volume, { type: "statusEnded", request, thinId: thin.id, status, extents: told });
}

/**
 * Sends one metadata request after the other, until there are enough extents or the range is done. After `statusTurnsMax`
 * requests the answer is what was found so far. The client continues from there with another question, and other clients
 * are served between the two.
 */
function* extentsOf(
  thin: Thin,
  source: StatusSource,
  request: StatusRequest,
  { statusRunsMax, statusTurnsMax }: Knobs,
): Steps<readonly Extent[] | BioStatus> {
  const { blockSizeBytes } = thin;
  const endBytes = request.offsetBytes + request.lengthBytes;
  const end = vblock(Math.ceil(endBytes / blockSizeBytes));
  const extents: { lengthBytes: number; flags: number }[] = [];
  let next = vblock(Math.floor(request.offsetBytes / blockSizeBytes));
  let atBytes = request.offsetBytes;
  for (let turns = 0; next < end && turns < statusTurnsMax; turns += 1) {
    // One more: the first run may extend the last extent.
    const runsMax = Math.min(request.extentsMax - extents.length + 1, statusRunsMax);
    const other = source.kind === "dirty" ? source.thinId : undefined;
    const found = yield* thin.metadata.runs({ thin: thin.id, other, begin: next, end, runsMax });
    // The snapshot is being removed and has lost mappings already, so what differs from it is no longer known.
    if (found.kind === "noDevice") return "ioError";
    if (found.kind !== "runs") return bioStatusOf(found);
    for (const run of found.runs) {
      next = vblock(next + run.length);
      const lengthBytes = Math.min(next * blockSizeBytes, endBytes) - atBytes;
      const flags = flagsOf(source, run.isMarked);
      const last = extents.at(-1);
      if (last?.flags === flags) last.lengthBytes += lengthBytes;
      else if (extents.length === request.extentsMax) return extents;
      else extents.push({ lengthBytes, flags });
      atBytes += lengthBytes;
    }
  }
  return extents;
}

function flagsOf(source: StatusSource, isMarked: boolean): number {
  switch (source.kind) {
    case "allocation":
      return isMarked ? 0 : flagsUnmapped;
    case "dirty":
      return isMarked ? flagsDifferent : 0;
    default:
      return unreachable(source);
  }
}
