/** Something that is done again and again beside the test, until it is stopped. */

/** Waits; less where `stopped` is aborted before. */
export function sleep(ms: number, stopped?: AbortSignal): Promise<void> {
  if (stopped?.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      stopped?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    stopped?.addEventListener("abort", end);
  });
}

/** Stop it at the end; what a round threw is thrown there. */
export class Repeated {
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  #failure: unknown;

  /** Begins at once. A round that fails is the last one. */
  constructor(round: (stopped: AbortSignal) => Promise<void>) {
    this.#done = this.#run(round).catch((error) => this.#failure = error);
  }

  /** Resolves when the round under way has ended. Any number of calls. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#done;
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure;
  }

  async #run(round: (stopped: AbortSignal) => Promise<void>): Promise<void> {
    while (!this.#stop.signal.aborted) await round(this.#stop.signal);
  }
}
