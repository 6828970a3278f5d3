/**
 * Who may be connected at once: a rule without state.
 *
 * An origin is the address of a TCP client's host, or the certificate that it has shown; a local client (of a Unix
 * socket, which only the pool's owner reaches) has none. Some of all places are for local clients alone, so that the
 * owner gets in whatever the network does, and one origin gets a part of the rest, so that others do.
 */
import { localPlacesShare, originPlacesShare } from "../limits.ts";

/** The client of one place. */
export interface Place {
  readonly origin: string | undefined;
}

/** Which rule one more client would break. */
export type Bound = "all" | "remote" | "origin";

/** How many clients there are, how many of them are remote, and how many of one origin. */
export interface Counts {
  readonly all: number;
  readonly remote: number;
  readonly same: number;
}

/** Counts the clients that are there, as they matter to one of this origin. */
export function countPlaces(origin: string | undefined, there: Iterable<Place>): Counts {
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

/** The same once this one has left. */
export function countsWithout(counts: Counts, origin: string | undefined, leaving: Place): Counts {
  const { all, remote, same } = counts;
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

  /** What keeps one more client of this origin out; undefined if it has a place. `leaving` counts as gone. */
  keepsOut(origin: string | undefined, there: Iterable<Place>, leaving?: Place): Bound | undefined {
    const counts = countPlaces(origin, there);
    return this.boundOf(origin, leaving === undefined ? counts : countsWithout(counts, origin, leaving));
  }

  /** The same where so many are there. */
  boundOf(origin: string | undefined, { all, remote, same }: Counts): Bound | undefined {
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
