/** The operator's `kick`: which clients are to go, and which identities are refused. Part of the listener's state. */
import { assert } from "../../storage/base/assert.ts";
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { queues } from "../queues.ts";
import type { KickClient, NbdConnectionMessage } from "./messages.ts";
import { RefusedIdentities } from "./refused_identities.ts";
import type { LogPort, SocketPort } from "./socket_port.ts";

/** What is needed of a client. */
export interface KickableClient {
  /** The number that the operator knows it by. */
  readonly id: number;
  readonly identity: string | undefined;
  /** Each is answered when the client has left. */
  readonly kicks: KickClient[];
}

/** See the head of this file. */
export class Kicks {
  readonly #kernel: Kernel;
  readonly #log: LogPort;
  readonly #refused = new RefusedIdentities();

  constructor(kernel: Kernel, log: LogPort) {
    this.#kernel = kernel;
    this.#log = log;
  }

  /** Closes the connection of the client that is meant, or answers at once. Returns the identity that is refused from now on, if any. */
  kick(
    message: KickClient,
    clients: ReadonlyMap<Address<NbdConnectionMessage>, KickableClient>,
  ): string | undefined {
    const { refuseMs } = message;
    for (const [connection, { id, identity, kicks }] of clients) {
      if (id !== message.client) continue;
      if (refuseMs > 0) {
        const nowMs = this.#kernel.clock.now();
        const problem = identity === undefined
          ? "local"
          : this.#refused.hasRoomFor(identity, nowMs)
          ? undefined
          : "full";
        if (problem !== undefined) {
          this.#kernel.reply(message, { kind: problem });
          return undefined;
        }
        this.#refused.refuse(identity!, nowMs + refuseMs);
      }
      assert(kicks.length < queues.kicks, "more commands wait for a client to leave than can be given");
      kicks.push(message);
      this.#kernel.tell(connection, { type: "kicked" });
      return refuseMs > 0 ? identity : undefined;
    }
    this.#kernel.reply(message, { kind: "noClient" });
    return undefined;
  }

  /** Whether the operator has refused this identity for now, which is logged once. */
  isRefused({ peer, identity }: Pick<SocketPort, "peer" | "identity">): boolean {
    const refuses = this.#refused.refuses(identity, this.#kernel.clock.now());
    if (refuses === "first") this.#log(`refused ${peer}: the operator has refused ${identity} for a time`);
    return refuses !== "no";
  }

  /** The client has left, or the listener has stopped before it did. */
  answer({ kicks }: KickableClient, kind: "left" | "stopping"): void {
    for (const kick of kicks.splice(0)) this.#kernel.reply(kick, { kind });
  }
}
