/**
 * Taking clients off the volumes of a command: their volumes are to be removed, or get another content or size. Not an actor
 * but a part of PoolActor's state (control/pool.ts).
 */
import { assert } from "../../storage/base/assert.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { VolumeStub } from "../volume/volume_messages.ts";
import { closeTask, type OpenVolume } from "./open_volumes.ts";
import type { Evict } from "./pool_messages.ts";

/** See the head of this file. */
export class Eviction {
  readonly #kernel: Kernel;
  /** The open volumes by their uids: the pool's own map. */
  readonly #open: Map<string, OpenVolume>;
  /** The request that is answered once all clients have left. */
  #request: Evict | undefined;

  constructor(kernel: Kernel, open: Map<string, OpenVolume>) {
    this.#kernel = kernel;
    this.#open = open;
  }

  /** Tells the clients that their export is gone. */
  begin(request: Evict): void {
    assert(this.#request === undefined, "two commands evict clients");
    this.#request = request;
    for (const uid of request.uids) {
      for (const client of this.#open.get(uid)?.clients.keys() ?? []) {
        this.#kernel.tell(client, { type: "exportGone", uid });
      }
    }
    this.goOn();
  }

  /** To be called whenever a client has left. After the last one the volumes are closed; their bios are all done. */
  goOn(): void {
    const request = this.#request;
    if (request === undefined) return;
    const volumes: VolumeStub[] = [];
    for (const uid of request.uids) {
      const volume = this.#open.get(uid);
      if (volume === undefined) continue;
      if (volume.clients.size > 0) return;
      volumes.push(volume.stub);
    }
    this.#request = undefined;
    for (const uid of request.uids) this.#open.delete(uid);
    const closed = () => this.#kernel.reply(request, "evicted");
    this.#kernel.start("close volumes", closeTask(volumes, closed));
  }
}
