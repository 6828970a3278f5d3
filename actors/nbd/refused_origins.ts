/**
 * Origins (nbd/places.ts) that the operator has refused for a time. Part of the listener's state.
 */
import { assert } from "../../storage/base/assert.ts";
import { refusedOriginsMax } from "../limits.ts";

interface RefusedPeer {
  untilMs: number;
  hasLogged: boolean;
}

/** Which origins are refused, and until when. Times are those of the kernel's clock. */
export class RefusedOrigins {
  readonly #origins = new Map<string, RefusedPeer>();

  /** Whether one more may be refused at `nowMs`. */
  hasRoomFor(origin: string, nowMs: number): boolean {
    for (const [each, { untilMs }] of this.#origins) if (untilMs <= nowMs) this.#origins.delete(each);
    return this.#origins.has(origin) || this.#origins.size < refusedOriginsMax;
  }

  /** Refuses the origin until then. If it is refused already, the later end holds. */
  refuse(origin: string, untilMs: number): void {
    const before = this.#origins.get(origin)?.untilMs ?? 0;
    this.#origins.set(origin, { untilMs: Math.max(before, untilMs), hasLogged: false });
    assert(this.#origins.size <= refusedOriginsMax, "more origins are refused than there is room for");
  }

  /** Whether this origin is refused at `nowMs`; "first" for the first client that is refused, which is logged. */
  refuses(origin: string | undefined, nowMs: number): "no" | "first" | "again" {
    const refused = origin === undefined ? undefined : this.#origins.get(origin);
    if (refused === undefined || refused.untilMs <= nowMs) return "no";
    const answer = refused.hasLogged ? "again" : "first";
    refused.hasLogged = true;
    return answer;
  }
}
