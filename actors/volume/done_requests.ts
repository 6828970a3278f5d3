/**
 * The requests that a volume has served in one turn: each client is told of all of its own with one message. Part of the
 * ThinVolume actor.
 */
import type { Address } from "../kernel/address.ts";
import { queues } from "../queues.ts";
import { assert } from "../../storage/base/assert.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { RequestsDone, VolumeRequest } from "./bio.ts";

/** See the head of this file. */
export class DoneRequests {
  readonly #kernel: Kernel;
  readonly #byClient: { readonly client: Address<RequestsDone>; readonly requests: VolumeRequest[] }[] = [];

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** The request is done, and has its status. */
  add(request: VolumeRequest): void {
    const { client } = request;
    for (const known of this.#byClient) if (known.client === client) return void known.requests.push(request);
    assert(this.#byClient.length < queues.clients, "requests of more clients are done than there can be");
    this.#byClient.push({ client, requests: [request] });
  }

  /** Tells the clients, each of its requests in the order of their ends. */
  tell(): void {
    if (this.#byClient.length === 0) return;
    for (const { client, requests } of this.#byClient.splice(0)) {
      this.#kernel.tell(client, { type: "requestsDone", requests });
    }
  }
}
