/** The operator's `kick`: which clients are to go, and which origins are refused. Part of the listener's state. */
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { KickClient, NbdConnectionMessage } from "./messages.ts";
import { RefusedOrigins } from "./refused_origins.ts";
import type { LogPort, SocketPort } from "./socket_port.ts";

/** What is needed of a client. */
export interface KickableClient {
  /** The number that the operator knows it by. */
  readonly id: number;
  readonly origin: string | undefined;
  /** Each is answered when the client has left. */
  readonly kicks: KickClient[];
}

/** See the head of this file. */
export class Kicks {
  readonly #kernel: Kernel;
  readonly #log: LogPort;
  readonly #refused = new RefusedOrigins();

  constructor(kernel: Kernel, log: LogPort) {
    this.#kernel = kernel;
    this.#log = log;
  }

  /** Closes the connection of the client that is meant, or answers at once. Returns the origin that is refused from now on, if any. */
  kick(
    message: KickClient,
    clients: ReadonlyMap<Address<NbdConnectionMessage>, KickableClient>,
  ): string | undefined {
    const { refuseMs } = message;
    for (const [connection, { id, origin, kicks }] of clients) {
      if (id !== message.client) continue;
      if (refuseMs > 0) {
        const nowMs = this.#kernel.clock.now();
        const problem = origin === undefined
          ? "local"
          : this.#refused.hasRoomFor(origin, nowMs)
          ? undefined
          : "full";
        if (problem !== undefined) {
          this.#kernel.reply(message, { kind: problem });
          return undefined;
        }
        this.#refused.refuse(origin!, nowMs + refuseMs);
      }
      kicks.push(message);
      this.#kernel.tell(connection, { type: "kicked" });
      return refuseMs > 0 ? origin : undefined;
    }
    this.#kernel.reply(message, { kind: "noClient" });
    return undefined;
  }

  /** Whether the operator has refused this origin for now, which is logged once. */
  isRefused({ peer, origin }: Pick<SocketPort, "peer" | "origin">): boolean {
    const refuses = this.#refused.refuses(origin, this.#kernel.clock.now());
    if (refuses === "first") this.#log(`refused ${peer}: the operator has refused ${origin} for a time`);
    return refuses !== "no";
  }

  /** The client has left, or the listener has stopped before it did. */
  answer({ kicks }: KickableClient, kind: "left" | "stopping"): void {
    for (const kick of kicks.splice(0)) this.#kernel.reply(kick, { kind });
  }
}
