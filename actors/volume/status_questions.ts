/**
 * The questions about block status that a volume has been asked: clients take turns, and at most `statusPerVolumeMax` have
 * a task. Not an actor but a part of ThinVolume's state (thin_volume.ts).
 */
import { assert } from "../../storage/base/assert.ts";
import { type StatusEnded, type StatusRequest, statusTask } from "./block_status.ts";
import type { BioStatus } from "./bio.ts";
import { ClientTurns } from "./client_turns.ts";
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { queues } from "../queues.ts";
import type { Thin } from "./remap.ts";

/** The volume at the time of a question. */
export interface StatusVolume {
  readonly thin: Thin;
  readonly sizeBytes: number;
  /** The pool refuses all reads with this status. */
  readonly refusal: BioStatus | undefined;
}

/** See the head of this file. */
export class StatusQuestions {
  readonly #kernel: Kernel;
  readonly #volume: Address<StatusEnded>;
  readonly #taskName: string;
  /** Those that wait. */
  readonly #asked = new ClientTurns<StatusRequest>(queues.volumeRequests);
  #inFlight = 0;
  readonly #inFlightMax: number;

  /** Tells the volume `statusEnded`, which goes to {@linkcode ended}. */
  constructor(kernel: Kernel, volume: Address<StatusEnded>, name: string) {
    this.#kernel = kernel;
    this.#volume = volume;
    this.#inFlightMax = kernel.knobs.statusPerVolumeMax;
    this.#taskName = `${name} status`;
  }

  /** Questions that have a task. The volume must not end while there are any. */
  get inFlight(): number {
    return this.#inFlight;
  }

  ask(request: StatusRequest, volume: StatusVolume): void {
    assert(request.lengthBytes > 0 && request.extentsMax > 0, "a status request is not empty");
    this.#asked.push(request.client, request);
    this.#start(volume);
  }

  ended(message: StatusEnded, volume: StatusVolume): void {
    assert(this.#inFlight > 0, "more questions ended than started");
    this.#inFlight -= 1;
    // A rollback has given the volume another thin device since, and the one that was looked at is being deleted.
    if (message.thinId !== volume.thin.id) this.#asked.push(message.request.client, message.request);
    else this.#answer(message.request, message.status, message.extents);
    this.#start(volume);
  }

  #start({ thin, sizeBytes, refusal }: StatusVolume): void {
    while (this.#inFlight < this.#inFlightMax) {
      const request = this.#asked.take();
      if (request === undefined) return;
      const isInside = request.offsetBytes + request.lengthBytes <= sizeBytes;
      const status = refusal ?? (isInside ? undefined : "outOfRange");
      if (status !== undefined) {
        this.#answer(request, status, []);
        continue;
      }
      this.#inFlight += 1;
      this.#kernel.start(this.#taskName, statusTask(this.#kernel, this.#volume, thin, request));
    }
  }

  #answer(request: StatusRequest, status: BioStatus, extents: StatusRequest["extents"]): void {
    request.status = status;
    request.extents = extents;
    this.#kernel.tell(request.client, { type: "statusDone", request });
  }
}
