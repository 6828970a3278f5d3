/**
 * Volumes that exist as long as they are held (`run`), each with a private socket that serves it alone. They are on the pool's
 * side of the border (border.ts).
 *
 * Order: 1. bind the socket; 2. make the volume, held, and durable; 3. answer. The end of a hold: 1. close the socket; 2. remove
 * the volume under its clients. If we stop after any of these steps, the volume is there without a hold, and the next start of the
 * pool removes it (control/volume_lifetimes.ts), or it is gone; a socket's file that stays is removed by the next process that opens the pool.
 */
import { nanoid } from "nanoid";
import { assert } from "../../storage/base/assert.ts";
import type { AdminResult, HeldContent, HeldVolume } from "../control/admin_command.ts";
import { heldVolumesMax } from "../limits.ts";
import type { NbdServer } from "./nbd_server.ts";
import type { PoolProcess } from "./pool_process.ts";
import { type PrivatePlace, privatePlace } from "./private_place.ts";
import type { ListeningSocket } from "./sockets.ts";

interface Held {
  readonly socket: ListeningSocket;
  readonly place: PrivatePlace;
}

/** See the head of this file. */
export class HeldVolumes {
  readonly #process: PoolProcess;
  /** By uid; undefined while the volume is made. */
  readonly #held = new Map<string, Held | undefined>();
  /** Paths in use. */
  readonly #paths = new Set<string>();

  constructor(process: PoolProcess) {
    this.#process = process;
  }

  /** Makes a volume, and serves it alone. Throws {@linkcode UserError} with nothing made. */
  async hold(server: NbdServer, content: HeldContent): Promise<HeldVolume | AdminResult> {
    if (this.#held.size >= heldVolumesMax) {
      return { kind: "refused", reason: `${heldVolumesMax} volumes are held already. Try again.` };
    }
    const [uid, name] = [nanoid(), `run-${nanoid(12)}`];
    const place = privatePlace(this.#process.files.paths.directory, this.#paths);
    this.#held.set(uid, undefined);
    this.#paths.add(place.path);
    this.#requireCounted();
    let isHeld = false;
    let socket: ListeningSocket | undefined;
    try {
      socket = await server.openPrivate(place.path, uid);
      const step = { verb: "makeHeld", uid, name, content } as const;
      const made = await this.#process.ask(step.verb, this.#process.pool.admin(step));
      if (made.kind === "refused") return made;
      assert(this.#held.has(uid), "a hold ended before its volume was made");
      this.#held.set(uid, { socket, place });
      isHeld = true;
      return { kind: "held", uid, name, socketPath: place.path };
    } finally {
      if (!isHeld) {
        if (socket !== undefined) await server.closePrivate(socket);
        this.#forget(uid, place);
      }
    }
  }

  /** Ends a hold. When it answers, the socket and the name of the volume are gone. */
  async release(server: NbdServer, uid: string): Promise<AdminResult> {
    const held = this.#held.get(uid);
    if (held === undefined) return { kind: "refused", reason: "The volume is not held." };
    await server.closePrivate(held.socket);
    this.#forget(uid, held.place);
    const step = { verb: "endHeld", uid } as const;
    const ended = await this.#process.ask(step.verb, this.#process.pool.admin(step));
    // A command removed it under its hold.
    return ended.kind === "refused" && ended.isGone === true ? { kind: "done" } : ended;
  }

  #forget(uid: string, place: PrivatePlace): void {
    this.#held.delete(uid);
    this.#paths.delete(place.path);
    this.#requireCounted();
    place.leave();
  }

  #requireCounted(): void {
    assert(this.#held.size === this.#paths.size, "each volume that is held has a path of its own");
  }
}
