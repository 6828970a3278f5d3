/** The requests of one client on their way to its volume: what was parsed in one turn goes as one message. */
import type { VolumeRequest } from "../volume/bio.ts";
import type { ThinVolumeMessage } from "../volume/volume_messages.ts";
import type { Address } from "../kernel/address.ts";
import { queues } from "../queues.ts";
import { assert } from "../../storage/base/assert.ts";
import type { Kernel } from "../kernel/kernel.ts";

/** See the head of this file. */
export class Submissions {
  readonly #kernel: Kernel;
  readonly #volume: Address<ThinVolumeMessage>;
  #requests: VolumeRequest[] = [];

  constructor(kernel: Kernel, volume: Address<ThinVolumeMessage>) {
    this.#kernel = kernel;
    this.#volume = volume;
  }

  /** The request goes with the next {@linkcode send}, in the same turn. */
  add(request: VolumeRequest): void {
    this.#requests.push(request);
    assert(
      this.#requests.length <= queues.requestsOfClient,
      "more requests are submitted than a client may have",
    );
  }

  /** To be called at the end of each turn that may have added one. */
  send(): void {
    if (this.#requests.length === 0) return;
    const requests = this.#requests;
    this.#requests = [];
    this.#kernel.tell(this.#volume, { type: "submit", requests });
  }
}
