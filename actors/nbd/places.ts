/**
 * How many clients may be connected at once, and which: a rule without state.
 *
 * The identity of a TCP client is the address of its host, or the name in the certificate that it has shown. A local client (of a
 * Unix socket, which only the pool's owner can reach) has no identity. Some places are kept for local clients, so that the owner
 * can always connect. One identity gets only a part of the other places, so that other hosts can connect.
 */
import { assert } from "../../storage/base/assert.ts";
import { identityPlacesShare, localPlacesShare } from "../limits.ts";

/** A client, for the count of places. */
export interface Place {
  readonly identity: string | undefined;
}

/** The rule that one more client would break. */
export type Bound = "all" | "remote" | "identity";

/** How many clients there are, how many of them are remote, and how many of one identity. */
export interface PlaceCounts {
  readonly all: number;
  readonly remote: number;
  readonly same: number;
}

/** Counts the clients in `there`, for a client of this identity. */
export function countPlaces(identity: string | undefined, there: Iterable<Place>): PlaceCounts {
  let all = 0;
  let remote = 0;
  let same = 0;
  for (const place of there) {
    all += 1;
    if (place.identity === undefined) continue;
    remote += 1;
    if (place.identity === identity) same += 1;
  }
  return { all, remote, same };
}

/** The same without the client that is leaving. */
export function countsWithout(
  counts: PlaceCounts,
  identity: string | undefined,
  leaving: Place,
): PlaceCounts {
  const { all, remote, same } = counts;
  assert(all > 0 && remote <= all && same <= remote, "clients are counted wrongly");
  assert(leaving.identity === undefined || remote > 0, "a client leaves that was not counted");
  if (leaving.identity === undefined) return { all: all - 1, remote, same };
  return { all: all - 1, remote: remote - 1, same: leaving.identity === identity ? same - 1 : same };
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
  /** Of those, clients of one identity. */
  readonly ofOneIdentity: number;

  constructor(clientsMax: number) {
    this.all = clientsMax;
    this.remote = clientsMax - keptForLocal(clientsMax);
    this.ofOneIdentity = Math.ceil(this.remote * identityPlacesShare);
  }

  /** The rule that keeps one more client of this identity out; undefined if there is a place. `leaving` counts as gone. */
  keepsOut(identity: string | undefined, there: Iterable<Place>, leaving?: Place): Bound | undefined {
    const counts = countPlaces(identity, there);
    return this.boundOf(identity, leaving === undefined ? counts : countsWithout(counts, identity, leaving));
  }

  /** The same, from counts. */
  boundOf(identity: string | undefined, { all, remote, same }: PlaceCounts): Bound | undefined {
    if (identity !== undefined && same >= this.ofOneIdentity) return "identity";
    if (identity !== undefined && remote >= this.remote) return "remote";
    return all >= this.all ? "all" : undefined;
  }

  /** The same for an operator, as a sentence that begins in lower case. */
  sentence(bound: Bound, identity: string | undefined): string {
    if (bound === "identity") {
      return `${this.ofOneIdentity} clients of ${identity} are connected, and no more of one host or certificate are served at once`;
    }
    if (bound === "remote") {
      const kept = this.all - this.remote;
      const places = kept === 1 ? "the other place is" : `the other ${kept} places are`;
      return `${this.remote} clients are connected over TCP, and ${places} for Unix sockets`;
    }
    return `${this.all} clients are connected, and no more are served at once`;
  }
}
