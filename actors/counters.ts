/**
 * The counters of the pool: what each counts, in which unit. An actor adds to one with `kernel.count(name)`; a counter only
 * grows. Where the numbers go is the port in the options of the kernel (kernel/ports.ts). Without one, counting is one branch.
 */

/** The name of a counter. */
export type CounterName =
  | "provisions"
  | "sharingBroken"
  | "zeroesDetected"
  | "copiedBytes"
  | "commits"
  | "deviceFlushes"
  | "lookupMisses"
  | "journalBytes"
  | "connectionsRefused"
  | "postsDropped";

/** What a counter counts. */
export interface CounterKind {
  /** `count`: one for each time that it happened. */
  readonly unit: "count" | "bytes";
  /** For a human reader: words that complete "the number of", or "the bytes that". */
  readonly help: string;
}

/** Every counter. A name without an entry here does not compile. */
export const counters: Readonly<Record<CounterName, CounterKind>> = {
  provisions: { unit: "count", help: "data blocks mapped where nothing was mapped" },
  sharingBroken: { unit: "count", help: "data blocks mapped in place of one that a snapshot maps too" },
  zeroesDetected: { unit: "count", help: "writes of zeroes to unmapped blocks, which stayed unmapped" },
  copiedBytes: {
    unit: "bytes",
    help: "were copied on the data device because a shared block was written in part",
  },
  commits: { unit: "count", help: "transactions made durable" },
  deviceFlushes: { unit: "count", help: "flushes asked of the data device and the metadata device" },
  lookupMisses: {
    unit: "count",
    help: "times that a look-up of a mapping waited for a metadata block to be read",
  },
  journalBytes: { unit: "bytes", help: "were written durably to the catalogue's journal, rewrites included" },
  connectionsRefused: {
    unit: "count",
    help: "connections that got no place, or lost it for the certificate that they showed",
  },
  postsDropped: { unit: "count", help: "messages from outside and of timers, for actors that had ended" },
};

/** The sums since it was made, in memory: a port that the kernel can be given. */
export class CounterSums {
  readonly #sums: Record<CounterName, number>;

  constructor() {
    const zeroes = Object.keys(counters).map((name) => [name, 0]);
    this.#sums = Object.fromEntries(zeroes) as Record<CounterName, number>;
  }

  add(name: CounterName, amount: number): void {
    this.#sums[name] += amount;
  }

  /** The sum of one counter. */
  of(name: CounterName): number {
    return this.#sums[name];
  }
}
