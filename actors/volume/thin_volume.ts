/**
 * ThinVolume: one open volume or snapshot.
 *
 * Owns: the requests admitted and not done, the lock regions of its blocks, and whether it is suspended. It turns
 * requests into bios and starts a task for each, at most `biosPerVolumeMax` at once; the rest of a large request
 * waits here, and clients take turns. A request is done when all its bios are; with FUA, when a flush after them is.
 *
 * Suspending waits for bios, not for requests: a half-admitted request waits for the resumption, and cannot keep
 * the snapshot waiting that it waits for. A snapshot cuts between the last bio before and the first after it.
 * Questions about block status change nothing, and are answered while it is suspended.
 *
 * Failure policy: the first failure of a request's bios is the request's; the others run to their end.
 */
import type { MappedSegment } from "../../storage/device/port.ts";
import { assert, present, unreachable } from "../../storage/base/assert.ts";
import { type AskStatus, type StatusEnded, type StatusRequest, statusTask } from "./block_status.ts";
import { type ThinId, vblock } from "../../storage/base/ids.ts";
import {
  type Admitted,
  type Bio,
  type BioDone,
  type BioKind,
  type BioStatus,
  blockBio,
  blocksTouched,
  flushBio,
  rangeBio,
  rangeBios,
  type RequestDone,
  type VolumeRequest,
} from "./bio.ts";
import { bioTask } from "./bio_task.ts";
import { ClientTurns } from "./client_turns.ts";
import type { Actor, Address, Message, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { ask, type Steps } from "../kernel/task.ts";
import {
  biosPerVolumeMax,
  idleRegionsMax,
  mailboxMax,
  regionBlocksMin,
  regionsPerVolumeMax,
  statusPerVolumeMax,
} from "../limits.ts";
import { LockRegion, RegionLocks } from "../pool/lock_region.ts";
import type { Thin } from "./remap.ts";

/** From a client: serve this request and tell `request.client` when it is done. It lies inside the volume. */
export interface Submit extends Message {
  readonly type: "submit";
  readonly request: VolumeRequest;
}

/** Start no bio any more and answer when none is in flight. */
export interface Suspend extends Request<"suspended"> {
  readonly type: "suspend";
}

/** Go on; with another thin id or size if they have changed. */
export interface Resume extends Message {
  readonly type: "resume";
  readonly thinId: ThinId;
  readonly sizeBytes: number;
}

/** End, once nothing is in flight; nobody will submit any more. Answered before it is gone. */
export interface Close extends Request<"closed"> {
  readonly type: "close";
}

/** From the pool: refuse every request with this status from now on; undefined takes that back. */
export interface Refuse extends Message {
  readonly type: "refuse";
  readonly writes: BioStatus | undefined;
  readonly reads: BioStatus | undefined;
}

export type ThinVolumeMessage =
  | Submit
  | BioDone
  | AskStatus
  | StatusEnded
  | Suspend
  | Resume
  | Close
  | Refuse;

/** The stubs of one volume. */
export class VolumeStub {
  constructor(readonly kernel: Kernel, readonly address: Address<ThinVolumeMessage>) {}

  submit(request: VolumeRequest): void {
    this.kernel.tell(this.address, { type: "submit", request });
  }

  suspend(): Steps<"suspended"> {
    const request: Suspend = { type: "suspend", replyTo: unasked };
    return ask(this.address, request);
  }

  resume(thinId: ThinId, sizeBytes: number): void {
    this.kernel.tell(this.address, { type: "resume", thinId, sizeBytes });
  }

  close(): Steps<"closed"> {
    const request: Close = { type: "close", replyTo: unasked };
    return ask(this.address, request);
  }

  refuse(writes: BioStatus | undefined, reads: BioStatus | undefined): void {
    this.kernel.tell(this.address, { type: "refuse", writes, reads });
  }
}

/** A lock region, and how many bios in flight may ask it. */
interface Region {
  readonly locks: RegionLocks;
  /** For bios that lie in this region alone. */
  readonly alone: readonly RegionLocks[];
  bios: number;
}

export class ThinVolume implements Actor<ThinVolumeMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<ThinVolumeMessage>;
  readonly #name: string;
  readonly #taskNames: Readonly<Record<BioKind, string>>;
  #thin: Thin;
  #sizeBytes: number;
  readonly #regions = new Map<number, Region>();
  /** Vblocks in one of them. */
  #regionBlocks: number;
  /** Requests admitted and not done. */
  #requests = 0;
  /** Requests with bios that have not started, in order. */
  readonly #starting = new ClientTurns<Admitted>();
  #biosInFlight = 0;
  /** Flushes change nothing that a snapshot could tear, so it does not wait for them. */
  #flushesInFlight = 0;
  /** Questions about block status: those that wait, and how many have a task. */
  readonly #asked = new ClientTurns<StatusRequest>();
  #statusInFlight = 0;
  #suspended = false;
  #suspends: Suspend[] = [];
  #closing: Close | undefined;
  #refuseWrites: BioStatus | undefined;
  #refuseReads: BioStatus | undefined;

  constructor(
    kernel: Kernel,
    self: Address<ThinVolumeMessage>,
    volume: { readonly name: string; readonly thin: Thin; readonly sizeBytes: number },
  ) {
    this.#kernel = kernel;
    this.#self = self;
    this.#name = volume.name;
    this.#taskNames = taskNames(volume.name);
    this.#thin = volume.thin;
    this.#sizeBytes = volume.sizeBytes;
    this.#regionBlocks = regionBlocksOf(volume.sizeBytes, volume.thin.blockSizeBytes);
  }

  receive(message: ThinVolumeMessage): void {
    switch (message.type) {
      case "submit":
        return this.#submit(message.request);
      case "bioDone":
        return this.#bioDone(message);
      case "askStatus":
        return this.#askStatus(message.request);
      case "statusEnded":
        return this.#statusEnded(message);
      case "suspend":
        this.#suspended = true;
        this.#suspends.push(message);
        return this.#settle();
      case "resume":
        return this.#resume(message);
      case "close":
        this.#closing = message;
        return this.#settle();
      case "refuse":
        this.#refuseWrites = message.writes;
        this.#refuseReads = message.reads;
        return;
      default:
        return unreachable(message);
    }
  }

  #submit(request: VolumeRequest): void {
    assert(this.#closing === undefined, "submitted to a closing volume");
    const refusal = request.kind === "read" ? this.#refuseReads : this.#refuseWrites;
    if (refusal !== undefined) {
      // A pool opened read-only has taken no write that a flush could lose, and the export offers flushes.
      const isDone = refusal === "readOnly" && request.kind === "flush";
      return this.#finish(request, isDone ? "ok" : refusal);
    }
    // The size may have changed since the client checked.
    const end = request.offsetBytes + request.lengthBytes;
    if (end > this.#sizeBytes) return this.#finish(request, "outOfRange");
    const admitted = this.#admit(request);
    if (admitted.biosTotal === 0 && !request.fua) return this.#finish(request, "ok");
    this.#requests += 1;
    this.#starting.push(request.client, admitted);
    this.#startBios();
  }

  #resume(message: Resume): void {
    this.#suspended = false;
    this.#thin = { ...this.#thin, id: message.thinId };
    if (message.sizeBytes !== this.#sizeBytes) {
      this.#sizeBytes = message.sizeBytes;
      // Nobody holds a lock, as no bio is in flight.
      this.#retireRegions();
      this.#regionBlocks = regionBlocksOf(message.sizeBytes, this.#thin.blockSizeBytes);
      this.#admitAgain();
    }
    this.#startBios();
  }

  /**
   * The volume has another size, and no bio is in flight. What has not started of earlier requests must not pass the
   * new end: it would map blocks that nobody removes any more, and a later growth would show them. Ranges are planned
   * anew, since what counts as the whole last block has changed; doing a part of them twice is doing it once.
   */
  #admitAgain(): void {
    assert(this.#biosInFlight === 0, "the size of a busy volume was changed");
    for (const admitted of this.#starting.takeAll()) {
      const { request, biosStarted, biosTotal, planned } = admitted;
      // It stands here though all of it has been done.
      if (biosStarted === biosTotal && biosTotal > 0) continue;
      if (request.offsetBytes + request.lengthBytes > this.#sizeBytes) {
        this.#requests -= 1;
        this.#finish(request, "outOfRange");
        continue;
      }
      const again = planned === undefined ? admitted : this.#admit(request);
      this.#starting.push(request.client, again);
    }
  }

  #admit(request: VolumeRequest): Admitted {
    const blockSizeBytes = this.#thin.blockSizeBytes;
    let planned: Bio[] | undefined;
    if (request.kind === "flush") planned = [flushBio(request)];
    else if (request.kind === "discard" || (request.kind === "writeZeroes" && !request.noHole)) {
      planned = rangeBios(request, blockSizeBytes, this.#sizeBytes);
    }
    // NO_HOLE over several blocks: all of them or no space, before anything is written.
    const blocks = planned?.length ?? blocksTouched(request, blockSizeBytes);
    const ensuresSpace = request.kind === "writeZeroes" && request.noHole && blocks > 1;
    const biosTotal = blocks + (ensuresSpace ? 1 : 0);
    return { request, planned, biosTotal, ensuresSpace, biosStarted: 0, biosDone: 0, flushStarted: false };
  }

  #startBios(): void {
    /** Clients in a row whose next bio must wait. */
    let waiting = 0;
    while (!this.#suspended && this.#biosInFlight < biosPerVolumeMax) {
      const admitted = this.#starting.first;
      if (admitted === undefined || waiting === this.#starting.clients) return;
      if (admitted.biosStarted === admitted.biosTotal) {
        this.#starting.shift();
        if (admitted.biosTotal === 0) this.#allBiosDone(admitted);
        waiting = 0;
        continue;
      }
      if (mustWait(admitted)) waiting += 1;
      else {
        waiting = 0;
        this.#start(admitted, this.#nextBio(admitted));
      }
      this.#starting.rotate();
    }
  }

  #nextBio(admitted: Admitted): Bio {
    const ordinal = admitted.biosStarted;
    admitted.biosStarted += 1;
    const { planned, request } = admitted;
    if (planned !== undefined) return planned[ordinal]!;
    const blockSizeBytes = this.#thin.blockSizeBytes;
    if (!admitted.ensuresSpace) return blockBio(request, blockSizeBytes, ordinal);
    if (ordinal > 0) return blockBio(request, blockSizeBytes, ordinal - 1);
    const begin = Math.floor(request.offsetBytes / blockSizeBytes);
    return rangeBio("ensureSpace", request, vblock(begin), vblock(begin + admitted.biosTotal - 1));
  }

  #start(admitted: Admitted, bio: Bio): void {
    bio.admitted = admitted;
    bio.regions = this.#enterRegions(bio);
    if (bio.kind === "flush") this.#flushesInFlight += 1;
    else this.#biosInFlight += 1;
    const task = bioTask(this.#kernel, this.#self, this.#thin, bio);
    this.#kernel.start(this.#taskNames[bio.kind], task, bio.vblock);
  }

  #bioDone(message: BioDone): void {
    const { bio, status } = message;
    if (bio.kind === "flush") this.#flushesInFlight -= 1;
    else this.#biosInFlight -= 1;
    this.#leaveRegions(bio);
    const admitted = present(bio.admitted, "a bio of no request has ended");
    const request = admitted.request;
    if (status === "hole") {
      this.#noteHole(bio, admitted);
    } else if (bio.segment !== undefined) {
      this.#noteSegment(bio, bio.segment, admitted);
    } else if (status !== "ok") {
      if (request.status === "ok") request.status = status;
      // What has not started of a request that failed is left alone.
      if (admitted.biosStarted < admitted.biosTotal) {
        this.#starting.remove(admitted);
        admitted.biosDone += admitted.biosTotal - admitted.biosStarted;
        admitted.biosStarted = admitted.biosTotal;
      }
    }
    admitted.biosDone += 1;
    if (admitted.biosDone >= admitted.biosTotal) this.#allBiosDone(admitted);
    this.#startBios();
    this.#settle();
  }

  #noteHole(bio: Bio, { request, biosTotal }: Admitted): void {
    if (request.holes.length === 0) request.holes = new Uint8Array(biosTotal);
    request.holes[this.#ordinal(bio, request)] = 1;
  }

  #noteSegment(bio: Bio, segment: MappedSegment, { request, biosTotal }: Admitted): void {
    if (biosTotal === 1) {
      request.segments = [segment];
      return;
    }
    if (request.segments === undefined || request.segments.length === 0) {
      request.segments = new Array(biosTotal);
    }
    request.segments[this.#ordinal(bio, request)] = segment;
  }

  #ordinal(bio: Bio, request: VolumeRequest): number {
    return bio.vblock - Math.floor(request.offsetBytes / this.#thin.blockSizeBytes);
  }

  /** FUA: what this request changed is durable before it is answered, its mappings too, so it is a flush. */
  #allBiosDone(admitted: Admitted): void {
    const request = admitted.request;
    if (request.fua && request.status === "ok" && !admitted.flushStarted) {
      admitted.flushStarted = true;
      return this.#start(admitted, flushBio(request));
    }
    this.#requests -= 1;
    this.#tellDone(request);
  }

  #finish(request: VolumeRequest, status: BioStatus): void {
    request.status = status;
    this.#tellDone(request);
  }

  #tellDone(request: VolumeRequest): void {
    const message: RequestDone = { type: "requestDone", request };
    this.#kernel.tell(request.client, message);
  }

  #askStatus(request: StatusRequest): void {
    assert(this.#closing === undefined, "asked a closing volume");
    assert(request.lengthBytes > 0 && request.extentsMax > 0, "something is asked");
    this.#asked.push(request.client, request);
    this.#startStatus();
  }

  #startStatus(): void {
    while (this.#statusInFlight < statusPerVolumeMax) {
      const request = this.#asked.take();
      if (request === undefined) return;
      const isInside = request.offsetBytes + request.lengthBytes <= this.#sizeBytes;
      const refusal = this.#refuseReads ?? (isInside ? undefined : "outOfRange");
      if (refusal !== undefined) {
        this.#tellStatus(request, refusal, []);
        continue;
      }
      this.#statusInFlight += 1;
      const task = statusTask(this.#kernel, this.#self, this.#thin, request);
      this.#kernel.start(`${this.#name} status`, task);
    }
  }

  #statusEnded(message: StatusEnded): void {
    this.#statusInFlight -= 1;
    // A rollback gave the volume another device meanwhile, and the one that was looked at is being deleted.
    if (message.thinId !== this.#thin.id) this.#asked.push(message.request.client, message.request);
    else this.#tellStatus(message.request, message.status, message.extents);
    this.#startStatus();
    this.#settle();
  }

  #tellStatus(request: StatusRequest, status: BioStatus, extents: StatusRequest["extents"]): void {
    request.status = status;
    request.extents = extents;
    this.#kernel.tell(request.client, { type: "statusDone", request });
  }

  /** Answers who waits for quiet, and ends the volume if it is to close. */
  #settle(): void {
    if (this.#biosInFlight > 0) return;
    for (const suspend of this.#suspends) this.#kernel.reply(suspend, "suspended");
    this.#suspends = [];
    if (this.#closing === undefined || this.#requests > 0 || this.#flushesInFlight > 0) return;
    if (this.#statusInFlight > 0) return;
    this.#retireRegions();
    this.#kernel.reply(this.#closing, "closed");
    this.#kernel.retire(this.#self);
  }

  #retireRegions(): void {
    for (const region of this.#regions.values()) region.locks.retire();
    this.#regions.clear();
  }

  /** The regions of the bio's blocks, which stay until it has ended. */
  #enterRegions(bio: Bio): readonly RegionLocks[] {
    if (bio.kind === "flush" || bio.kind === "ensureSpace") return [];
    const first = Math.floor(bio.vblock / this.#regionBlocks);
    const last = Math.floor((bio.vblockEnd - 1) / this.#regionBlocks);
    if (first === last) return this.#enter(first).alone;
    const entered: RegionLocks[] = [];
    for (let index = first; index <= last; index += 1) entered.push(this.#enter(index).locks);
    return entered;
  }

  #enter(index: number): Region {
    const region = this.#region(index);
    region.bios += 1;
    return region;
  }

  /**
   * Too many regions: those that no bio in flight may ask go, one by one, or a volume that is never idle would keep all
   * that it ever touched. Their last unlocks were sent before the bio's end was told, so they come before the retirement.
   */
  #leaveRegions(bio: Bio): void {
    for (const locks of bio.regions) {
      const index = locks.blockBegin / this.#regionBlocks;
      const region = present(this.#regions.get(index), "a bio was in a region that is gone");
      region.bios -= 1;
      if (region.bios > 0 || this.#regions.size <= idleRegionsMax) continue;
      this.#regions.delete(index);
      locks.retire();
    }
  }

  #region(index: number): Region {
    let region = this.#regions.get(index);
    if (region === undefined) {
      const begin = index * this.#regionBlocks;
      const name = `region ${this.#name} ${begin}`;
      const address = this.#kernel.spawn(name, mailboxMax, (self) => new LockRegion(this.#kernel, self));
      const locks = new RegionLocks(this.#kernel, address, begin, begin + this.#regionBlocks);
      region = { locks, alone: [locks], bios: 0 };
      this.#regions.set(index, region);
    }
    return region;
  }
}

/**
 * A fast zero may find that it is not fast, and space may be missing: what could still be refused whole goes first and
 * alone, so that a refusal has changed nothing.
 */
function mustWait(admitted: Admitted): boolean {
  if (admitted.biosDone === admitted.biosStarted) return false;
  return admitted.request.fastZero || (admitted.ensuresSpace && admitted.biosStarted === 1);
}

/** Vblocks in one lock region of a volume. */
export function regionBlocksOf(sizeBytes: number, blockSizeBytes: number): number {
  const blocks = Math.ceil(sizeBytes / blockSizeBytes);
  return Math.max(regionBlocksMin, Math.ceil(blocks / regionsPerVolumeMax));
}

function taskNames(volume: string): Readonly<Record<BioKind, string>> {
  return {
    read: `${volume} read`,
    write: `${volume} write`,
    writeZeroes: `${volume} writeZeroes`,
    discard: `${volume} discard`,
    flush: `${volume} flush`,
    ensureSpace: `${volume} ensureSpace`,
  };
}
