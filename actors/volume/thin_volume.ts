/**
 * ThinVolume: one open volume or snapshot.
 *
 * Owns: the requests admitted and not done, their parked bios, the lock regions of its blocks (volume_regions.ts), and whether
 * it is suspended. It turns requests into bios (admission.ts) and starts a task for each, or one for a batch, at most
 * `biosPerVolumeMax` bios at once; the rest of a large request waits here, and clients take turns. A request is done when all its bios are; with FUA, when a
 * flush after them is.
 *
 * Suspending waits for bios in flight, not for requests: bios of a request that have not started wait for the resumption.
 * A snapshot needs the suspension, so if it waited for them, each would wait for the other. The snapshot contains every
 * bio that ended before it and none that started after it.
 * A bio that finds no space is parked (parked_bios.ts): it is not in flight, and nothing waits for it.
 * Questions about block status (status_questions.ts) change nothing, and are answered while the volume is suspended.
 *
 * Failure policy: the request's status is the first failure of its bios. Bios in flight run to their end; the request's
 * other bios are not started.
 */
import { admit, noteHole, takeNextBio } from "./admission.ts";
import { assert, present, unreachable } from "../../storage/base/assert.ts";
import {
  type Admitted,
  type BatchDone,
  type Bio,
  type BioDone,
  type BioKind,
  type BioStatus,
  type BioWithoutSpace,
  flushBio,
  mayBatch,
  type VolumeRequest,
} from "./bio.ts";
import { batchTask, bioTask, taskNames } from "./bio_task.ts";
import { DoneRequests } from "./done_requests.ts";
import type { Actor, Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { queues } from "../queues.ts";
import { ParkedBios } from "./parked_bios.ts";
import type { SpaceSeen } from "../pool/space_messages.ts";
import type { Thin } from "./remap.ts";
import { StartingRequests } from "./starting_requests.ts";
import { StatusQuestions, type StatusVolume } from "./status_questions.ts";
import type { Close, Resume, Suspend, ThinVolumeMessage } from "./volume_messages.ts";
import { VolumeRegions } from "./volume_regions.ts";

export class ThinVolume implements Actor<ThinVolumeMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<ThinVolumeMessage>;
  readonly #taskNames: Readonly<Record<BioKind | "batch", string>>;
  readonly #done: DoneRequests;
  #thin: Thin;
  #sizeBytes: number;
  readonly #regions: VolumeRegions;
  /** Requests admitted and not done. */
  #requests = 0;
  /** Requests with bios that have not started, in order. */
  readonly #starting = new StartingRequests();
  #biosInFlight = 0;
  /** Not among the bios in flight: a flush changes no mapping, so a suspension need not wait for it. */
  #flushesInFlight = 0;
  readonly #status: StatusQuestions;
  readonly #parked: ParkedBios;
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
    this.#done = new DoneRequests(kernel);
    this.#status = new StatusQuestions(kernel, self, volume.name);
    this.#parked = new ParkedBios(kernel, self, volume.thin.space);
    this.#thin = volume.thin;
    this.#sizeBytes = volume.sizeBytes;
    this.#biosMax = kernel.knobs.biosPerVolumeMax;
    this.#regions = new VolumeRegions(kernel, volume.name, this.#blocks());
  }

  receive(message: ThinVolumeMessage): void {
    this.#handle(message);
    this.#done.tell();
  }

  #handle(message: ThinVolumeMessage): void {
    switch (message.type) {
      case "submit":
        for (const request of message.requests) this.#submit(request);
        return this.#startBios();
      case "batchDone":
        return this.#batchDone(message);
      case "bioDone":
        return this.#bioDone(message);
      case "bioWithoutSpace":
        return this.#bioWithoutSpace(message);
      case "retryParked":
        this.#parked.retry(message);
        return this.#startBios();
      case "failParked":
        return this.#endParked();
      case "dropParked":
        return this.#endParked("dropped", ({ request }) => request?.client === message.client);
      case "failParkedRequest":
        return this.#endParked(undefined, ({ request }) => request === message.request);
      case "parkingLeft":
        this.#parked.left();
        return this.#answerIfIdle();
      case "askStatus":
        assert(this.#closing === undefined, "asked a closing volume");
        return this.#status.ask(message.request, this.#state());
      case "statusEnded":
        this.#status.ended(message, this.#state());
        return this.#answerIfIdle();
      case "suspend":
        this.#suspended = true;
        assert(this.#suspends.length < queues.suspends, "more commands suspend a volume than there can be");
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
        if (message.writes !== undefined) this.#endParked(message.writes);
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
    this.#starting.push(admitted);
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
   * blocks beyond it, which a later growth would show.
   */
  #admitAgain(): void {
    assert(this.#biosInFlight === 0, "the size of a busy volume was changed");
    // Requests with parked bios wait outside of the queue, and are dealt with as the others.
    for (const admitted of this.#parked.takeMisfits(this.#sizeBytes)) {
      this.#starting.push({ ...admitted, biosStarted: 0, biosDone: 0, isSetAside: false });
    }
    for (const { request } of this.#starting.admitAgain(this.#thin.blockSizeBytes, this.#sizeBytes)) {
      assert(this.#requests > 0, "more requests are out of range than were admitted");
      this.#requests -= 1;
      this.#finish(request, "outOfRange");
    }
  }

  /** The bios that can start now go together, as far as {@linkcode mayBatch} lets them. */
  #startBios(): void {
    if (this.#parked.size > 0) this.#startParked();
    const batch: Bio[] = [];
    this.#takeBios(batch);
    this.#startBatch(batch);
  }

  #takeBios(batch: Bio[]): void {
    while (!this.#suspended && this.#biosInFlight < this.#biosMax) {
      const admitted = this.#starting.first();
      if (admitted === undefined) return;
      if (admitted.biosTotal === 0) {
        this.#starting.remove(admitted);
        this.#allBiosDone(admitted);
        continue;
      }
      this.#takeBio(admitted, batch);
      this.#starting.rotate();
    }
  }

  #takeBio(admitted: Admitted, batch: Bio[]): void {
    const bio = takeNextBio(admitted, this.#thin.blockSizeBytes);
    const isBatched = mayBatch(bio, this.#kernel.knobs);
    if (isBatched) {
      this.#enter(admitted, bio);
      batch.push(bio);
      if (batch.length < this.#kernel.knobs.batchBiosMax) return;
    }
    // Also before a bio that goes alone: what came earlier begins earlier.
    this.#startBatch(batch.splice(0));
    if (!isBatched) this.#start(admitted, bio);
  }

  #startParked(): void {
    while (!this.#suspended && this.#biosInFlight < this.#biosMax) {
      const due = this.#parked.next();
      if (due === undefined) return;
      this.#start(present(due.bio.admitted, "a parked bio of no request"), due.bio, due.seen);
    }
  }

  #start(admitted: Admitted, bio: Bio, seen?: SpaceSeen): void {
    this.#enter(admitted, bio);
    this.#startAlone(bio, seen);
  }

  #enter(admitted: Admitted, bio: Bio): void {
    bio.admitted = admitted;
    if (bio.kind !== "flush" && bio.kind !== "checkSpace") bio.regions = this.#regions.enter(bio);
    if (bio.kind === "flush") this.#flushesInFlight += 1;
    else this.#biosInFlight += 1;
  }

  #startBatch(bios: readonly Bio[]): void {
    if (bios.length === 0) return;
    // One bio alone costs no more messages, and never a second try.
    if (bios.length === 1) return this.#startAlone(bios[0]!);
    this.#kernel.start(this.#taskNames.batch, batchTask(this.#kernel, this.#self, this.#thin, bios));
  }

  /** What the batch has not served goes on alone. It is in flight still. */
  #batchDone({ bios }: BatchDone): void {
    for (const bio of bios) {
      if (bio.status === undefined) this.#startAlone(bio);
      else this.#bioEnded(bio, bio.status);
    }
    this.#startBios();
    this.#answerIfIdle();
  }

  #startAlone(bio: Bio, seen?: SpaceSeen): void {
    const task = bioTask(this.#kernel, this.#self, this.#thin, bio, seen);
    this.#kernel.start(this.#taskNames[bio.kind], task, bio.vblock);
  }

  #bioDone({ bio, status }: BioDone): void {
    this.#bioEnded(bio, status);
    this.#startBios();
    this.#answerIfIdle();
  }

  #bioEnded(bio: Bio, status: BioStatus): void {
    if (bio.kind === "flush") this.#flushesInFlight -= 1;
    else this.#biosInFlight -= 1;
    assert(this.#biosInFlight >= 0 && this.#flushesInFlight >= 0, "more bios ended than started");
    this.#regions.leave(bio);
    if (this.#parked.size > 0) this.#parked.ended(bio, status === "ok");
    this.#ended(bio, status);
  }

  /**
   * Parks the bio: it is not in flight any more, and holds nothing. Bios of its request that have not started wait for it
   * outside of the queue, so that they delay no other request of the client.
   */
  #bioWithoutSpace(message: BioWithoutSpace): void {
    const { bio } = message;
    assert(bio.kind !== "flush" && this.#biosInFlight > 0, "a bio that was not started is parked");
    this.#biosInFlight -= 1;
    this.#regions.leave(bio);
    this.#parked.park(message);
    const admitted = present(bio.admitted, "a bio of no request is parked");
    admitted.isSetAside = true;
    this.#starting.remove(admitted);
    const { request } = admitted;
    // What became of the request or the pool meanwhile ends the bio too.
    const end = request.status === "ok" ? this.#refuseWrites : request.status;
    if (end !== undefined) this.#endParked(end, (other) => other === bio);
    else this.#tellParked(admitted);
    this.#startBios();
    this.#answerIfIdle();
  }

  /** No bio of the request reads its payload now, so the client may move it. */
  #tellParked({ request, biosStarted, biosDone, biosParked }: Admitted): void {
    if (biosParked === 0 || biosStarted - biosDone > biosParked || request.parked === undefined) return;
    this.#kernel.tell(request.parked(), { type: "requestParked", request });
  }

  /** Ends parked bios: with this status, or because of what they have found none of. Bios that are being tried again go on. */
  #endParked(status?: BioStatus, matches: (bio: Bio) => boolean = () => true): void {
    for (let next = this.#parked.take(matches); next !== undefined; next = this.#parked.take(matches)) {
      this.#ended(next.bio, status ?? next.status);
    }
    this.#parked.tellTaken();
    this.#answerIfIdle();
  }

  /** What follows from the end of a bio for its request. */
  #ended(bio: Bio, status: BioStatus): void {
    const admitted = present(bio.admitted, "a bio of no request has ended");
    const request = admitted.request;
    if (status === "hole") {
      noteHole(bio, admitted);
    } else if (status !== "ok") {
      if (request.status === "ok") request.status = status;
      // The bios of a failed request that have not started are dropped.
      if (admitted.biosStarted < admitted.biosTotal) {
        this.#starting.remove(admitted);
        admitted.biosDone += admitted.biosTotal - admitted.biosStarted;
        admitted.biosStarted = admitted.biosTotal;
      }
      if (admitted.biosParked > 0) admitted.biosDone += this.#parked.takeRequest(admitted);
    }
    admitted.biosDone += 1;
    if (admitted.biosDone >= admitted.biosTotal) this.#allBiosDone(admitted);
    else if (admitted.isSetAside) this.#goOn(admitted);
    assert(admitted.biosStarted <= admitted.biosTotal, "a request started more bios than it has");
    const biosMax = admitted.biosTotal + (admitted.flushStarted ? 1 : 0);
    assert(admitted.biosDone <= biosMax, "more bios of a request ended than it has");
  }

  /** A bio of a request with parked bios has ended. When the last of these has, the others start. */
  #goOn(admitted: Admitted): void {
    if (admitted.biosParked > 0) return this.#tellParked(admitted);
    admitted.isSetAside = false;
    this.#starting.push(admitted);
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
    this.#done.add(request);
  }

  #finish(request: VolumeRequest, status: BioStatus): void {
    request.status = status;
    this.#done.add(request);
  }

  /** What questions about block status are answered from. */
  #state(): StatusVolume {
    return { thin: this.#thin, sizeBytes: this.#sizeBytes, refusal: this.#refuseReads };
  }

  /** Answers suspend requests when no bio is in flight, and ends the volume when it is closing and idle. */
  #answerIfIdle(): void {
    // Before "closed", after which no client is here.
    this.#done.tell();
    if (this.#biosInFlight > 0) return;
    for (const suspend of this.#suspends) this.#kernel.reply(suspend, "suspended");
    this.#suspends = [];
    if (this.#closing === undefined || this.#requests > 0 || this.#flushesInFlight > 0) return;
    if (this.#status.inFlight > 0 || !this.#parked.leave()) return;
    this.#regions.retire();
    this.#kernel.reply(this.#closing, "closed");
    this.#kernel.retire(this.#self);
  }
}
