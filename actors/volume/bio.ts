/**
 * The bio: one block I/O for one volume, and the request it is part of.
 *
 * A read, write or partial write-zeroes bio lies in one block; a discard bio is a range of whole blocks. A checkSpace bio
 * goes before the others of a large write-zeroes with NO_HOLE.
 */
import type { Address, Message } from "../kernel/address.ts";
import { assert, present } from "../../storage/base/assert.ts";
import type { Knobs } from "../knobs.ts";
import type { MappedSegment, ReadResult, ReadTarget } from "../../storage/device/port.ts";
import type { Mapping } from "../../storage/thin_metadata.ts";
import type { Transfer } from "../pool/device_messages.ts";
import type { WantedMapping } from "../pool/metadata_messages.ts";
import { type VBlock, vblock } from "../../storage/base/ids.ts";
import type { SpaceNeed, SpaceSeen } from "../pool/space_messages.ts";
import type { RegionLocks, WantedLock } from "../pool/region_locks.ts";

/** What a bio does. `checkSpace` changes nothing; it fails if the range that follows is larger than what is free. */
export type BioKind = "read" | "write" | "writeZeroes" | "discard" | "flush" | "checkSpace";

/**
 * How a bio ended. `hole`: a read of an unprovisioned block, which is all zeroes. `noDataSpace`, `noMetadataSpace`,
 * `noHostSpace`: no lock is held and no mapping was changed. `quotaExceeded`: the volume maps all that its quota allows. `dropped`: it waited for space, and its client is gone or
 * going. `notSupported`: a fast zero that would not be fast. `poolFailed`, `readOnly`: the pool takes no such request.
 * `outOfRange`: beyond the end of the volume.
 */
export type BioStatus =
  | "ok"
  | "hole"
  | "noDataSpace"
  | "noMetadataSpace"
  | "noHostSpace"
  | "quotaExceeded"
  | "dropped"
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
  /** The buffer to read into or to write from; empty for the other kinds. */
  readonly data: Uint8Array;
  /** Answers `data`, and makes it if it is made only when it is needed: a read of mapped segments needs none. */
  takeData?(): Uint8Array;
  /** A read that takes mapped segments where the device has them, instead of bytes in `data`. Then holes are not filled in either. */
  readonly takesSegments?: boolean;
  /** Takes the mapped segment of one of the blocks touched, counted from the first. Only called if `takesSegments`. */
  takeSegment?(ordinal: number, segment: MappedSegment): void;
  /** The request must be durable before it is answered. */
  readonly fua: boolean;
  /** Write-zeroes must leave the range provisioned. */
  readonly noHole: boolean;
  /** Write-zeroes must not write bytes. */
  readonly fastZero: boolean;
  /** The actor that the volume tells when the request is done. */
  readonly client: Address<RequestsDone>;
  /** How it ended; the first failure of its bios. Set by the volume. */
  status: BioStatus;
  /** For a read: one entry for each block touched, 1 where it is a hole; empty if none is. Set by the volume. */
  holes: Uint8Array;
  /**
   * The request waits for space and no bio of it is in flight: its payload may move to memory of its own, which `data` then
   * is. Returns the client, which gets {@linkcode RequestParked} after each call. It may be called more than once.
   */
  parked?(): Address<RequestParked>;
}

/** From the volume to the client of a request: it waits for space. `requestsDone` comes all the same. */
export interface RequestParked {
  readonly type: "requestParked";
  readonly request: VolumeRequest;
}

/** From the volume to the client of requests: they are done. */
export interface RequestsDone {
  readonly type: "requestsDone";
  readonly requests: readonly VolumeRequest[];
}

const noRegions: readonly RegionLocks[] = [];

/**
 * One bio. A buffer belongs to one bio at a time. A read bio is itself the target of the device's read. In a batch it is also
 * what locks, metadata and the device are asked for: it has the place for each answer, so that no object is made for it.
 */
export class Bio implements ReadTarget, WantedLock, WantedMapping, Transfer {
  readonly noHole: boolean;
  readonly fastZero: boolean;
  /** The state of its request; set by the volume that admits it. */
  admitted: Admitted | undefined = undefined;
  /** The lock regions of its blocks, ascending; set by the volume that starts the bio. */
  regions: readonly RegionLocks[] = noRegions;
  /** Set by a batch that has served it. */
  status: BioStatus | undefined = undefined;
  isLocked = false;
  mapping: Mapping | undefined = undefined;
  atBytes = 0;
  result: ReadResult | undefined = undefined;

  /**
   * @param vblock the first block
   * @param vblockEnd one past the last block
   * @param offsetBytes of its first byte in the first block
   * @param dataBegin offset of its first byte in the data of its request
   * @param ordinal the place of its block among those that its request touches
   */
  constructor(
    readonly kind: BioKind,
    readonly request: VolumeRequest | undefined,
    readonly vblock: VBlock,
    readonly vblockEnd: VBlock,
    readonly offsetBytes = 0,
    readonly lengthBytes = 0,
    readonly dataBegin = 0,
    readonly ordinal = 0,
  ) {
    this.noHole = request?.noHole ?? false;
    this.fastZero = request?.fastZero ?? false;
  }

  /** The lock region of a bio of one block. */
  get region(): RegionLocks {
    return present(this.regions[0], "a bio of a block has its region");
  }

  get access(): "read" | "write" {
    return this.kind === "read" ? "read" : "write";
  }

  get target(): ReadTarget | undefined {
    return this.kind === "read" ? this : undefined;
  }

  get takesMapped(): boolean {
    return this.request?.takesSegments === true;
  }

  /** The bytes of a read or write, in the data of its request. */
  memory(): Uint8Array {
    const { request, dataBegin, lengthBytes } = this;
    const owner = present(request, "a bio of no request has data");
    const data = owner.takeData?.() ?? owner.data;
    // A subarray is expensive to make, and most requests are one bio.
    return data.length === lengthBytes ? data : data.subarray(dataBegin, dataBegin + lengthBytes);
  }

  /** The device's answer to a read that put nothing into memory: the request is answered from the segment. */
  takeMapped(segment: MappedSegment): void {
    assert(segment.lengthBytes === this.lengthBytes, "a segment is as long as its bio");
    const request = present(this.request, "a bio of no request takes no segments");
    assert(request.takeSegment !== undefined, "a request that takes no segments was given one");
    request.takeSegment(this.ordinal, segment);
  }

  /** A read found a hole. A request that takes segments has no buffer that would have to be filled. */
  readZeroes(): void {
    if (!this.takesMapped) this.memory().fill(0);
  }
}

/** A request with bios that are not done, and how far it has come. Only the volume uses it. */
export interface Admitted {
  readonly request: VolumeRequest;
  /** Its bios, of a flush, a discard or a write-zeroes that may leave holes. Those of any other request are made one by one. */
  readonly planned: readonly Bio[] | undefined;
  readonly biosTotal: number;
  /** Its first bio compares what the others need with what is free. */
  readonly checksSpace: boolean;
  biosStarted: number;
  biosDone: number;
  /** Of those started and not done: bios that are parked. */
  biosParked: number;
  /** It has or had parked bios, and is outside of the volume's queue until they are served. */
  isSetAside: boolean;
  flushStarted: boolean;
}

/** From a bio's task to the volume: the bio has ended. */
export interface BioDone extends Message {
  readonly type: "bioDone";
  readonly bio: Bio;
  readonly status: BioStatus;
}

/** From the task of a batch to the volume: what it did, and what goes on alone. */
export interface BatchDone extends Message {
  readonly type: "batchDone";
  readonly bios: readonly Bio[];
}

/** From a bio's task to the volume: the bio found no space and is to be parked. */
export interface BioWithoutSpace extends Message {
  readonly type: "bioWithoutSpace";
  readonly bio: Bio;
  readonly status: StatusWithoutSpace;
  /** What was known of space before it was tried the last time. */
  readonly seen: SpaceSeen;
}

/** The ends of a bio that more space may make succeed. */
export type StatusWithoutSpace = "noDataSpace" | "noMetadataSpace" | "noHostSpace";

const needs: Readonly<Record<StatusWithoutSpace, SpaceNeed>> = {
  noDataSpace: "data",
  noMetadataSpace: "metadata",
  noHostSpace: "host",
};

/** What a bio needs that ended so. */
export function needOf(status: StatusWithoutSpace): SpaceNeed {
  return needs[status];
}

/** True if more space may make such a bio succeed. */
export function isWithoutSpace(status: BioStatus): status is StatusWithoutSpace {
  return status === "noDataSpace" || status === "noMetadataSpace" || status === "noHostSpace";
}

/** Whether the bio may go in a batch: {@linkcode remapBatch} serves no other kind, and a larger one delays the others. */
export function mayBatch({ kind, lengthBytes }: Bio, { batchedBytesMax }: Knobs): boolean {
  return (kind === "read" || kind === "write") && lengthBytes <= batchedBytesMax;
}

/** The bio at `ordinal` of a read, a write, or a write-zeroes that provisions: one block or a part of one. */
export function blockBio(request: VolumeRequest, blockSizeBytes: number, ordinal: number): Bio {
  const first = Math.floor(request.offsetBytes / blockSizeBytes);
  const block = first + ordinal;
  const begin = Math.max(request.offsetBytes, block * blockSizeBytes);
  const end = Math.min(request.offsetBytes + request.lengthBytes, (block + 1) * blockSizeBytes);
  assert(begin < end, "a bio is not empty");
  return new Bio(
    request.kind,
    request,
    vblock(block),
    vblock(block + 1),
    begin - block * blockSizeBytes,
    end - begin,
    begin - request.offsetBytes,
    ordinal,
  );
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
  return new Bio("flush", request, vblock(0), vblock(0));
}

/** A bio for a range of whole blocks: a discard, or a check for space. */
export function rangeBio(kind: BioKind, request: VolumeRequest, begin: VBlock, end: VBlock): Bio {
  return new Bio(kind, request, begin, end);
}

/**
 * The bios of a discard or of a write-zeroes without NO_HOLE.
 *
 * Whole blocks are unmapped by one discard bio. The partial blocks at the ends keep their bytes in a discard, as in dm-thin,
 * and are zeroed in a write-zeroes. A range that reaches the end of the volume covers the last block, even if the volume
 * ends inside it. The ends come first, so that a fast zero that is refused has changed nothing.
 */
export function rangeBios(request: VolumeRequest, blockSizeBytes: number, volumeSizeBytes: number): Bio[] {
  // A length of 0 is valid at any offset, also in the middle of a block.
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
