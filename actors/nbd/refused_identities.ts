/**
 * Identities (nbd/places.ts) that the operator has refused for a time. Part of the listener's state.
 */
import { assert } from "../../storage/base/assert.ts";
import { refusedIdentitiesMax } from "../limits.ts";

interface RefusedPeer {
  untilMs: number;
  hasLogged: boolean;
}

/** Which identities are refused, and until when. Times are those of the kernel's clock. */
export class RefusedIdentities {
  readonly #identities = new Map<string, RefusedPeer>();

  /** Whether one more may be refused at `nowMs`. */
  hasRoomFor(identity: string, nowMs: number): boolean {
    for (const [each, { untilMs }] of this.#identities) if (untilMs <= nowMs) this.#identities.delete(each);
    return this.#identities.has(identity) || this.#identities.size < refusedIdentitiesMax;
  }

  /** Refuses the identity until then. If it is refused already, the later end holds. */
  refuse(identity: string, untilMs: number): void {
    const before = this.#identities.get(identity)?.untilMs ?? 0;
    this.#identities.set(identity, { untilMs: Math.max(before, untilMs), hasLogged: false });
    assert(
      this.#identities.size <= refusedIdentitiesMax,
      "more identities are refused than there is room for",
    );
  }

  /** Whether this identity is refused at `nowMs`; "first" for the first client that is refused, which is logged. */
  refuses(identity: string | undefined, nowMs: number): "no" | "first" | "again" {
    const refused = identity === undefined ? undefined : this.#identities.get(identity);
    if (refused === undefined || refused.untilMs <= nowMs) return "no";
    const answer = refused.hasLogged ? "again" : "first";
    refused.hasLogged = true;
    return answer;
  }
}
