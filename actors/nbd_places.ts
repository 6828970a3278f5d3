/**
 * Who may be connected at once: a rule without state.
 *
 * An origin is the address of a TCP client's host, or the certificate that it has shown; a local client (of a Unix
 * socket, which only the pool's owner reaches) has none. Some of all places are for local clients alone, so that the
 * owner gets in whatever the network does, and one origin gets a part of the rest, so that others do.
 */

/** The client of one place. */
export interface Place {
  readonly origin: string | undefined;
}

/** Which rule one more client would break. */
export type Bound = "all" | "remote" | "origin";

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
    this.remote = clientsMax - Math.floor(clientsMax / 8);
    this.ofOneOrigin = Math.ceil(this.remote * 3 / 4);
  }

  /** What keeps one more client of this origin out; undefined if it has a place. `leaving` counts as gone. */
  keepsOut(origin: string | undefined, there: Iterable<Place>, leaving?: Place): Bound | undefined {
    let all = 0;
    let remote = 0;
    let same = 0;
    for (const place of there) {
      if (place === leaving) continue;
      all += 1;
      if (place.origin === undefined) continue;
      remote += 1;
      if (place.origin === origin) same += 1;
    }
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
      return `${this.remote} clients are connected over TCP, and the other ${
        this.all - this.remote
      } places are for Unix sockets`;
    }
    return `${this.all} clients are connected, and no more are served at once`;
  }
}
