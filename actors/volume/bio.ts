/**
 * The bio: one block I/O for one volume, and the request it is part of.
 *
 * A read, write or partial write-zeroes bio lies in one block; a discard bio is a range of whole blocks. An
 * ensureSpace bio goes before a range that must be provisioned whole or not at all.
 */
import type { Address, Message } from "../kernel/address.ts";
import { assert, present } from "../../storage/base/assert.ts";
import type { MappedSegment } from "../../storage/device/port.ts";
import { type VBlock, vblock } from "../../storage/base/ids.ts";
import type { RegionLocks } from "../pool/lock_region.ts";

/** What a bio does. `ensureSpace` changes nothing and finds out whether a write that follows would have space. */
export type BioKind = "read" | "write" | "writeZeroes" | "discard" | "flush" | "ensureSpace";

/**
 * How a bio ended. `hole`: a read of an unprovisioned block, filled with zeroes. `noDataSpace`: nothing is held,
 * nothing was changed. `notSupported`: a fast zero that would not be fast. `poolFailed`, `readOnly`: the pool
 * refuses. `outOfRange`: beyond the end of the volume.
 */
export type BioStatus =
  | "ok"
  | "hole"
  | "noDataSpace"
  | "noMetadataSpace"
  | "ioError"
  | "notSupported"
  | "outOfRange"
  | "readOnly"
  | "poolFailed";

/** A client's request to a volume, which becomes one or more bios. Owned by the volume until it is done. */
export interface VolumeRequest {
  readonly kind: BioKind;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** Read into, or written from; empty for the other kinds. */
  readonly data: Uint8Array;
  /** A read that takes views of its blocks in place of having them read into `data`; holes are not filled in either, then. */
  readonly takesSegments?: boolean;
  /** Durable before it is answered. */
  readonly fua: boolean;
  /** Write-zeroes must leave the range provisioned. */
  readonly noHole: boolean;
  /** Write-zeroes must not write bytes. */
  readonly fastZero: boolean;
  /** Whom the volume tells when it is done. */
  readonly client: Address<RequestDone>;
  /** How it ended; the first failure of its bios. Set by the volume. */
  status: BioStatus;
  /** For a read: one entry for each block touched, 1 where it is a hole; empty if none is. Set by the volume. */
  holes: Uint8Array;
  /** What was not read but can be seen, in the same order. Set by the volume. */
  segments?: (MappedSegment | undefined)[];
}

/** Told to the client of a request. */
export interface RequestDone {
  readonly type: "requestDone";
  readonly request: VolumeRequest;
}

/** One bio. A buffer belongs to one bio at a time. */
export interface Bio {
  readonly kind: BioKind;
  readonly request: VolumeRequest | undefined;
  /** The first block. */
  readonly vblock: VBlock;
  /** One past the last block. */
  readonly vblockEnd: VBlock;
  /** Where in the first block it begins, bytes. */
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** Where its bytes begin in the data of its request. */
  readonly dataBegin: number;
  readonly noHole: boolean;
  readonly fastZero: boolean;
  /** For a read: its bytes, if they were not read into `data`. Set by its task. */
  segment: MappedSegment | undefined;
  /** The request as the volume that admitted it sees it. */
  admitted: Admitted | undefined;
  /** The lock regions of its blocks, ascending. The volume that admits the bio fills them in. */
  regions: readonly RegionLocks[];
}

/** A request on its way, and how far it has come; the volume's own. */
export interface Admitted {
  readonly request: VolumeRequest;
  /** Its bios, where there are few; else they are made one by one from the request. */
  readonly planned: readonly Bio[] | undefined;
  readonly biosTotal: number;
  /** Its first bio only looks whether there is space for the others. */
  readonly ensuresSpace: boolean;
  biosStarted: number;
  biosDone: number;
  flushStarted: boolean;
}

/** Told to the volume by a bio's task: it has ended. */
export interface BioDone extends Message {
  readonly type: "bioDone";
  readonly bio: Bio;
  readonly status: BioStatus;
}

const noRegions: readonly RegionLocks[] = [];

/** The bio at `ordinal` of a read, a write, or a write-zeroes that provisions: one block or a part of one. */
export function blockBio(request: VolumeRequest, blockSizeBytes: number, ordinal: number): Bio {
  const first = Math.floor(request.offsetBytes / blockSizeBytes);
  const block = first + ordinal;
  const begin = Math.max(request.offsetBytes, block * blockSizeBytes);
  const end = Math.min(request.offsetBytes + request.lengthBytes, (block + 1) * blockSizeBytes);
  assert(begin < end, "a bio is not empty");
  return {
    kind: request.kind,
    request,
    vblock: vblock(block),
    vblockEnd: vblock(block + 1),
    offsetBytes: begin - block * blockSizeBytes,
    lengthBytes: end - begin,
    dataBegin: begin - request.offsetBytes,
    noHole: request.noHole,
    fastZero: request.fastZero,
    segment: undefined,
    admitted: undefined,
    regions: noRegions,
  };
}

/** The bytes of a read or write, in the data of its request. */
export function dataOf({ request, dataBegin, lengthBytes }: Bio): Uint8Array {
  const { data } = present(request, "a bio of no request has data");
  // Views are dear: most requests are one bio.
  return data.length === lengthBytes ? data : data.subarray(dataBegin, dataBegin + lengthBytes);
}

/** Blocks that a request touches. */
export function blocksTouched(request: VolumeRequest, blockSizeBytes: number): number {
  if (request.lengthBytes === 0) return 0;
  const first = Math.floor(request.offsetBytes / blockSizeBytes);
  const last = Math.floor((request.offsetBytes + request.lengthBytes - 1) / blockSizeBytes);
  return last - first + 1;
}

/** A bio that concerns no block: a flush. */
export function flushBio(request: VolumeRequest): Bio {
  return rangeBio("flush", request, vblock(0), vblock(0));
}

/** A discard of whole blocks. */
export function rangeBio(kind: BioKind, request: VolumeRequest, begin: VBlock, end: VBlock): Bio {
  return {
    kind,
    request,
    vblock: begin,
    vblockEnd: end,
    offsetBytes: 0,
    lengthBytes: 0,
    dataBegin: 0,
    noHole: request.noHole,
    fastZero: request.fastZero,
    segment: undefined,
    admitted: undefined,
    regions: noRegions,
  };
}

/**
 * The bios of a discard or of a write-zeroes without NO_HOLE.
 *
 * Whole blocks are unmapped at once. The partial blocks at the ends keep their bytes in a discard, as in
 * dm-thin, and are zeroed by a write-zeroes; a range that reaches the end of the volume covers the last block
 * though the volume may end inside it. The ends come first, so that a fast zero fails before it changes anything.
 */
export function rangeBios(request: VolumeRequest, blockSizeBytes: number, volumeSizeBytes: number): Bio[] {
  // A client may ask for nothing, anywhere.
  if (request.lengthBytes === 0) return [];
  const begin = request.offsetBytes;
  const end = begin + request.lengthBytes;
  const wholeBegin = Math.ceil(begin / blockSizeBytes);
  const wholeEnd = end === volumeSizeBytes
    ? Math.ceil(end / blockSizeBytes)
    : Math.floor(end / blockSizeBytes);
  const bios: Bio[] = [];
  if (request.kind === "writeZeroes") {
    const blocks = blocksTouched(request, blockSizeBytes);
    const first = Math.floor(begin / blockSizeBytes);
    for (const ordinal of blocks === 1 ? [0] : [0, blocks - 1]) {
      const block = first + ordinal;
      if (block < wholeBegin || block >= wholeEnd) bios.push(blockBio(request, blockSizeBytes, ordinal));
    }
  }
  if (wholeBegin < wholeEnd) bios.push(rangeBio("discard", request, vblock(wholeBegin), vblock(wholeEnd)));
  return bios;
}
