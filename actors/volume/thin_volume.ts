/**
 * ThinVolume: one open volume or snapshot.
 *
 * Owns: the requests admitted and not done, the lock regions of its blocks (volume_regions.ts), and whether it is
 * suspended. It turns requests into bios (admission.ts) and starts a task for each, at most `biosPerVolumeMax` at once; the
 * rest of a large request waits here, and clients take turns. A request is done when all its bios are; with FUA, when a
 * flush after them is.
 *
 * Suspending waits for bios in flight, not for requests: bios of a request that have not started wait for the resumption.
 * A snapshot needs the suspension, so if it waited for them, each would wait for the other. The snapshot contains every
 * bio that ended before it and none that started after it.
 * Questions about block status (status_questions.ts) change nothing, and are answered while the volume is suspended.
 *
 * Failure policy: the request's status is the first failure of its bios. Bios in flight run to their end; the request's
 * other bios are not started.
 */
import { admit, mustWait, takeNextBio } from "./admission.ts";
import { assert, present, unreachable } from "../../storage/base/assert.ts";
import type { AskStatus, StatusEnded } from "./block_status.ts";
import type { ThinId } from "../../storage/base/ids.ts";
import {
  type Admitted,
  type Bio,
  type BioDone,
  type BioKind,
  type BioStatus,
  flushBio,
  type RequestDone,
  type VolumeRequest,
} from "./bio.ts";
import { bioTask } from "./bio_task.ts";
import { ClientTurns } from "./client_turns.ts";
import type { Actor, Address, Message, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { ask, type Steps } from "../kernel/task.ts";
import type { Thin } from "./remap.ts";
import { StatusQuestions, type StatusVolume } from "./status_questions.ts";
import { VolumeRegions } from "./volume_regions.ts";

/** From a client: serve this request and tell `request.client` when it is done. It lies inside the volume. */
export interface Submit extends Message {
  readonly type: "submit";
  readonly request: VolumeRequest;
}

/** Start no more bios, and answer when none is in flight. */
export interface Suspend extends Request<"suspended"> {
  readonly type: "suspend";
}

/** Start bios again, with this thin id and size. */
export interface Resume extends Message {
  readonly type: "resume";
  readonly thinId: ThinId;
  readonly sizeBytes: number;
}

/** End once nothing is in flight. No request may be submitted after it. Answered just before the actor ends. */
export interface Close extends Request<"closed"> {
  readonly type: "close";
}

/** From the pool: refuse all writes or reads with this status from now on. undefined: serve them. */
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

export class ThinVolume implements Actor<ThinVolumeMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<ThinVolumeMessage>;
  readonly #taskNames: Readonly<Record<BioKind, string>>;
  #thin: Thin;
  #sizeBytes: number;
  readonly #regions: VolumeRegions;
  /** Requests admitted and not done. */
  #requests = 0;
  /** Requests with bios that have not started, in order. */
  readonly #starting = new ClientTurns<Admitted>();
  #biosInFlight = 0;
  /** Not among the bios in flight: a flush changes no mapping, so a suspension need not wait for it. */
  #flushesInFlight = 0;
  readonly #status: StatusQuestions;
  readonly #biosMax: number;
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
    this.#taskNames = taskNames(volume.name);
    this.#status = new StatusQuestions(kernel, self, volume.name);
    this.#thin = volume.thin;
    this.#sizeBytes = volume.sizeBytes;
    this.#biosMax = kernel.knobs.biosPerVolumeMax;
    this.#regions = new VolumeRegions(kernel, volume.name, this.#blocks());
  }

  receive(message: ThinVolumeMessage): void {
    switch (message.type) {
      case "submit":
        return this.#submit(message.request);
      case "bioDone":
        return this.#bioDone(message);
      case "askStatus":
        assert(this.#closing === undefined, "asked a closing volume");
        return this.#status.ask(message.request, this.#state());
      case "statusEnded":
        this.#status.ended(message, this.#state());
        return this.#answerIfIdle();
      case "suspend":
        this.#suspended = true;
        this.#suspends.push(message);
        return this.#answerIfIdle();
      case "resume":
        return this.#resume(message);
      case "close":
        this.#closing = message;
        return this.#answerIfIdle();
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
      // A read-only pool has accepted no write, so there is nothing to flush. Clients may send a flush all the same.
      const isDone = refusal === "readOnly" && request.kind === "flush";
      return this.#finish(request, isDone ? "ok" : refusal);
    }
    // The connection checked the size when the request arrived; it may have changed since.
    const end = request.offsetBytes + request.lengthBytes;
    if (end > this.#sizeBytes) return this.#finish(request, "outOfRange");
    const admitted = admit(request, this.#thin.blockSizeBytes, this.#sizeBytes);
    if (admitted.biosTotal === 0 && !request.fua) return this.#finish(request, "ok");
    this.#requests += 1;
    this.#starting.push(request.client, admitted);
    this.#startBios();
  }

  #resume(message: Resume): void {
    const isSame = message.thinId === this.#thin.id;
    assert(isSame || this.#biosInFlight === 0, "the thin device of a busy volume was changed");
    this.#suspended = false;
    this.#thin = { ...this.#thin, id: message.thinId };
    if (message.sizeBytes !== this.#sizeBytes) {
      this.#sizeBytes = message.sizeBytes;
      // No lock is held, as no bio is in flight.
      this.#regions.resize(this.#blocks());
      this.#admitAgain();
    }
    this.#startBios();
  }

  /**
   * After a change of size, with no bio in flight. Bios of earlier requests must not pass the new end: they would map
   * blocks beyond it, which a later growth would show. Ranges are planned again, because the last block may be partial now
   * where it was whole, or the reverse; unmapping or zeroing a part of a range twice does no harm.
   */
  #admitAgain(): void {
    assert(this.#biosInFlight === 0, "the size of a busy volume was changed");
    for (const admitted of this.#starting.takeAll()) {
      const { request, biosStarted, biosTotal, planned } = admitted;
      // All its bios are done; it leaves the queue when its turn comes.
      if (biosStarted === biosTotal && biosTotal > 0) continue;
      if (request.offsetBytes + request.lengthBytes > this.#sizeBytes) {
        this.#requests -= 1;
        this.#finish(request, "outOfRange");
        continue;
      }
      const again = planned === undefined
        ? admitted
        : admit(request, this.#thin.blockSizeBytes, this.#sizeBytes);
      this.#starting.push(request.client, again);
    }
  }

  #startBios(): void {
    // Clients in a row whose next bio must wait.
    let waiting = 0;
    while (!this.#suspended && this.#biosInFlight < this.#biosMax) {
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
        this.#start(admitted, takeNextBio(admitted, this.#thin.blockSizeBytes));
      }
      this.#starting.rotate();
    }
  }

  #start(admitted: Admitted, bio: Bio): void {
    bio.admitted = admitted;
    if (bio.kind !== "flush" && bio.kind !== "checkSpace") bio.regions = this.#regions.enter(bio);
    if (bio.kind === "flush") this.#flushesInFlight += 1;
    else this.#biosInFlight += 1;
    const task = bioTask(this.#kernel, this.#self, this.#thin, bio);
    this.#kernel.start(this.#taskNames[bio.kind], task, bio.vblock);
  }

  #bioDone(message: BioDone): void {
    const { bio, status } = message;
    if (bio.kind === "flush") this.#flushesInFlight -= 1;
    else this.#biosInFlight -= 1;
    assert(this.#biosInFlight >= 0 && this.#flushesInFlight >= 0, "more bios ended than started");
    this.#regions.leave(bio);
    const admitted = present(bio.admitted, "a bio of no request has ended");
    const request = admitted.request;
    if (status === "hole") {
      this.#noteHole(bio, admitted);
    } else if (status !== "ok") {
      if (request.status === "ok") request.status = status;
      // The bios of a failed request that have not started are dropped.
      if (admitted.biosStarted < admitted.biosTotal) {
        this.#starting.remove(admitted);
        admitted.biosDone += admitted.biosTotal - admitted.biosStarted;
        admitted.biosStarted = admitted.biosTotal;
      }
    }
    admitted.biosDone += 1;
    if (admitted.biosDone >= admitted.biosTotal) this.#allBiosDone(admitted);
    assert(admitted.biosStarted <= admitted.biosTotal, "a request started more bios than it has");
    this.#startBios();
    this.#answerIfIdle();
  }

  #noteHole({ ordinal }: Bio, { request, biosTotal }: Admitted): void {
    if (request.holes.length === 0) request.holes = new Uint8Array(biosTotal);
    request.holes[ordinal] = 1;
  }

  /** The virtual blocks of the volume; the last may be partial. */
  #blocks(): number {
    return Math.ceil(this.#sizeBytes / this.#thin.blockSizeBytes);
  }

  /**
   * FUA: all that the request wrote must be durable before it is answered, with the mappings that its bios changed. So one
   * flush bio follows when the last of them has ended. It is a commit, or only a flush of the data where no mapping changed.
   */
  #allBiosDone(admitted: Admitted): void {
    const request = admitted.request;
    if (request.fua && request.status === "ok" && !admitted.flushStarted) {
      admitted.flushStarted = true;
      return this.#start(admitted, flushBio(request));
    }
    assert(this.#requests > 0, "more requests ended than were admitted");
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

  /** What questions about block status are answered from. */
  #state(): StatusVolume {
    return { thin: this.#thin, sizeBytes: this.#sizeBytes, refusal: this.#refuseReads };
  }

  /** Answers suspend requests when no bio is in flight, and ends the volume when it is closing and idle. */
  #answerIfIdle(): void {
    if (this.#biosInFlight > 0) return;
    for (const suspend of this.#suspends) this.#kernel.reply(suspend, "suspended");
    this.#suspends = [];
    if (this.#closing === undefined || this.#requests > 0 || this.#flushesInFlight > 0) return;
    if (this.#status.inFlight > 0) return;
    this.#regions.retire();
    this.#kernel.reply(this.#closing, "closed");
    this.#kernel.retire(this.#self);
  }
}

function taskNames(volume: string): Readonly<Record<BioKind, string>> {
  return {
    read: `${volume} read`,
    write: `${volume} write`,
    writeZeroes: `${volume} writeZeroes`,
    discard: `${volume} discard`,
    flush: `${volume} flush`,
    checkSpace: `${volume} checkSpace`,
  };
}
