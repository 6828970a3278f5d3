/**
 * TLS of the I/O thread's clients, which the main side does (tls_relay.ts): the pool's side of that part of the border
 * (border.ts). A socket asks for it, and hears what became of it.
 */
import { assert, present } from "../../storage/base/assert.ts";
import type { PoolNotification, TlsEnd, TlsWanted } from "./border.ts";
import type { TlsKeys } from "./tls_keys.ts";
import { queues } from "../queues.ts";

/** What the main side tells of a relay. */
export type RelayNews = Extract<PoolNotification, { readonly type: "tlsSecured" | "tlsBroken" | "tlsOver" }>;

/** What a relay works between, as in {@linkcode TlsWanted}. */
export type RelayEnds = Pick<TlsWanted, "clientFd" | "clearFd">;

/** See the head of this file. */
export class RelayedTls {
  readonly #tell: (message: TlsWanted | TlsEnd) => void;
  /** Those that hear of the relays that are not over, by their numbers. */
  readonly #sockets = new Map<number, (news: RelayNews) => void>();
  #numberLast = 0;

  /** @param tell sends to the main side */
  constructor(tell: (message: TlsWanted | TlsEnd) => void) {
    this.#tell = tell;
  }

  /** Begins TLS between the two; answers a number. The last that `hear` is called with is `tlsOver`. */
  begin({ clientFd, clearFd }: RelayEnds, keys: TlsKeys, hear: (news: RelayNews) => void): number {
    assert(this.#sockets.size < queues.relays, "more clients have TLS than there are");
    this.#numberLast += 1;
    const relay = this.#numberLast;
    this.#sockets.set(relay, hear);
    // The keys of this moment, as data: the others are replaced when certificates are read again.
    const { policy, verifyPeer, authority, certificate, key } = keys;
    const plain = { policy, verifyPeer, authority, certificate, key };
    this.#tell({ type: "tlsWanted", relay, clientFd, clearFd, keys: plain });
    return relay;
  }

  /** To be told after this side has closed its end. */
  end(relay: number): void {
    assert(this.#sockets.has(relay), "a relay is ended that is over");
    this.#tell({ type: "tlsEnd", relay });
  }

  /** From the main side. */
  heard(news: RelayNews): void {
    const hear = present(this.#sockets.get(news.relay), "news of a relay that is over");
    if (news.type === "tlsOver") this.#sockets.delete(news.relay);
    hear(news);
  }
}
