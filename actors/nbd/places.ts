/**
 * How many clients may be connected at once, and which: a rule without state.
 *
 * The origin of a TCP client is the address of its host, or the name in the certificate that it has shown. A local client (of a
 * Unix socket, which only the pool's owner can reach) has no origin. Some places are kept for local clients, so that the owner
 * can always connect. One origin gets only a part of the other places, so that other hosts can connect.
 */
import { assert } from "../../storage/base/assert.ts";
import { localPlacesShare, originPlacesShare } from "../limits.ts";

/** A client, for the count of places. */
export interface Place {
  readonly origin: string | undefined;
}

/** The rule that one more client would break. */
export type Bound = "all" | "remote" | "origin";

/** How many clients there are, how many of them are remote, and how many of one origin. */
export interface PlaceCounts {
  readonly all: number;
  readonly remote: number;
  readonly same: number;
}

/** Counts the clients in `there`, for a client of this origin. */
export function countPlaces(origin: string | undefined, there: Iterable<Place>): PlaceCounts {
  let all = 0;
  let remote = 0;
  let same = 0;
  for (const place of there) {
    all += 1;
    if (place.origin === undefined) continue;
    remote += 1;
    if (place.origin === origin) same += 1;
  }
  return { all, remote, same };
}

/** The same without the client that is leaving. */
export function countsWithout(counts: PlaceCounts, origin: string | undefined, leaving: Place): PlaceCounts {
  const { all, remote, same } = counts;
  assert(all > 0 && remote <= all && same <= remote, "clients are counted wrongly");
  assert(leaving.origin === undefined || remote > 0, "a client leaves that was not counted");
  if (leaving.origin === undefined) return { all: all - 1, remote, same };
  return { all: all - 1, remote: remote - 1, same: leaving.origin === origin ? same - 1 : same };
}

/** An eighth of the places, and one at least, unless there is only one for all. */
function keptForLocal(clientsMax: number): number {
  return clientsMax === 1 ? 0 : Math.max(1, Math.floor(clientsMax * localPlacesShare));
}

/** How many clients there may be, and of which kind. */
export class Places {
  /** Clients at once. */
  readonly all: number;
  /** Of them, clients that are not local. */
  readonly remote: number;
  /** Of those, clients of one origin. */
  readonly ofOneOrigin: number;

  constructor(clientsMax: number) {
    this.all = clientsMax;
    this.remote = clientsMax - keptForLocal(clientsMax);
    this.ofOneOrigin = Math.ceil(this.remote * originPlacesShare);
  }

  /** The rule that keeps one more client of this origin out; undefined if there is a place. `leaving` counts as gone. */
  keepsOut(origin: string | undefined, there: Iterable<Place>, leaving?: Place): Bound | undefined {
    const counts = countPlaces(origin, there);
    return this.boundOf(origin, leaving === undefined ? counts : countsWithout(counts, origin, leaving));
  }

  /** The same, from counts. */
  boundOf(origin: string | undefined, { all, remote, same }: PlaceCounts): Bound | undefined {
    if (origin !== undefined && same >= this.ofOneOrigin) return "origin";
    if (origin !== undefined && remote >= this.remote) return "remote";
    return all >= this.all ? "all" : undefined;
  }

  /** The same for an operator, as a sentence that begins in lower case. */
  sentence(bound: Bound, origin: string | undefined): string {
    if (bound === "origin") {
      return `${this.ofOneOrigin} clients of ${origin} are connected, and no more of one origin are served at once`;
    }
    if (bound === "remote") {
      const kept = this.all - this.remote;
      const places = kept === 1 ? "the other place is" : `the other ${kept} places are`;
      return `${this.remote} clients are connected over TCP, and ${places} for Unix sockets`;
    }
    return `${this.all} clients are connected, and no more are served at once`;
  }
}
