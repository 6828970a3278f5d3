/** Accepting for as long as a socket listens, however few descriptors the host has left. */
import { reasonOutside } from "../kernel/boundary.ts";
import { areSparesComplete, hasFreeDescriptors } from "./descriptors.ts";
import { acceptAgainMs, acceptQuietMs } from "../limits.ts";
import { atMost } from "./turns.ts";

/** What is needed of a `Deno.Conn`. */
export interface AcceptedConn {
  close(): void;
}

/** What is needed of a `Deno.Listener`. */
export interface AcceptListener<Conn extends AcceptedConn> {
  accept(): Promise<Conn>;
  close(): void;
}

/**
 * Takes connections until `stop`. A failed accept (usually: the process or the host has no descriptor left) ends nothing:
 * accepting pauses for {@linkcode acceptAgainMs} and goes on. That is said once when it begins, and once when it is over.
 */
export class AcceptLoop<Conn extends AcceptedConn> {
  /** Resolves when nothing is accepted any more and the address is free. */
  readonly ended: Promise<void>;
  readonly #listener: AcceptListener<Conn>;
  readonly #what: string;
  readonly #log: (sentence: string) => void;
  readonly #stopping = Promise.withResolvers<void>();
  readonly #atMost: typeof atMost;
  #isStopped = false;
  #failedMs: number | undefined;

  /** @param what is accepted, for sentences: "control connections" */
  constructor(
    listener: AcceptListener<Conn>,
    what: string,
    log: (sentence: string) => void,
    arrived: (conn: Conn) => void,
    waitAtMost: typeof atMost = atMost,
  ) {
    this.#atMost = waitAtMost;
    this.#listener = listener;
    this.#what = what;
    this.#log = log;
    this.ended = this.#acceptAll(arrived);
  }

  /** May be repeated. */
  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#stopping.resolve();
    closed(this.#listener);
  }

  async #acceptAll(arrived: (conn: Conn) => void): Promise<void> {
    while (!this.#isStopped) {
      let conn: Conn;
      if (!hasFreeDescriptors() || this.#failedMs !== undefined && !areSparesComplete()) {
        // What is free now is for the pool's own files, and for Deno.
        await this.#pause("the last free descriptors are kept for the pool's own files");
        continue;
      }
      try {
        conn = await this.#listener.accept();
      } catch (error) {
        // For all that ails the host, the remedy is to try again. Closing the listener ends here too.
        const reason = reasonOutside(error);
        if (!this.#isStopped) await this.#pause(reason);
        continue;
      }
      // It came while the listener was being closed, and what it would be served by may be gone.
      if (this.#isStopped) return closed(conn);
      this.#accepted();
      try {
        arrived(conn);
      } catch (error) {
        // One that broke while it was looked at: nothing else has it, so nothing else closes it.
        closed(conn);
        this.#log(`Of the ${this.#what}, one was lost: ${reasonOutside(error)}.`);
      }
    }
  }

  async #pause(reason: string): Promise<void> {
    if (this.#failedMs === undefined) {
      this.#log(
        `Cannot accept ${this.#what}: ${reason}. New ones wait until this is over. If it lasts, raise the limit ` +
          "of open files (ulimit -n).",
      );
    }
    this.#failedMs = performance.now();
    await this.#atMost(acceptAgainMs, this.#stopping.promise);
  }

  /** Over is what has been over for a while: at the limit, accepting fails and succeeds in turn. */
  #accepted(): void {
    if (this.#failedMs === undefined || performance.now() < this.#failedMs + acceptQuietMs) return;
    this.#failedMs = undefined;
    this.#log(`Accepting ${this.#what} again.`);
  }
}

/** Closes it, whatever the host says to that. */
function closed(resource: { close(): void }): void {
  try {
    resource.close();
  } catch (error) {
    // Then it is closed, or cannot be.
    reasonOutside(error);
  }
}
