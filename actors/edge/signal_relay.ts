/**
 * Signals that ask a program to end, which runs another one. While that runs they are handed on to it, and its end is ours. Before
 * and after, the first one is noted, and a second one ends us at once.
 */
import { assert } from "../../storage/base/assert.ts";

/** The signals and their numbers (signal(7)). */
const relayed = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGTERM: 15 } as const;

/** A signal of these. */
type Relayed = keyof typeof relayed;

/** See the head of this file. It listens until it is disposed of. */
export class SignalRelay implements Disposable {
  readonly #listeners: [Relayed, () => void][] = [];
  readonly #noted = Promise.withResolvers<number>();
  #status: number | undefined;
  #child: Deno.ChildProcess | undefined;

  constructor() {
    for (const signal of Object.keys(relayed) as Relayed[]) {
      const listener = () => this.#received(signal);
      Deno.addSignalListener(signal, listener);
      this.#listeners.push([signal, listener]);
    }
  }

  /** The exit status for the first signal that was noted, 128 and its number; undefined if none was. */
  get status(): number | undefined {
    return this.#status;
  }

  /** Resolves with {@linkcode status} when a signal is noted. */
  get noted(): Promise<number> {
    return this.#noted.promise;
  }

  /** Hands signals on to the program until it ends, and answers its exit status. */
  async runs(child: Deno.ChildProcess): Promise<number> {
    assert(this.#child === undefined, "one program runs at a time");
    this.#child = child;
    const { code } = await child.status;
    this.#child = undefined;
    return code;
  }

  #received(signal: Relayed): void {
    if (this.#child !== undefined) return handOn(this.#child, signal);
    const status = 128 + relayed[signal];
    if (this.#status !== undefined) Deno.exit(status);
    this.#status = status;
    this.#noted.resolve(status);
  }

  [Symbol.dispose](): void {
    for (const [signal, listener] of this.#listeners) Deno.removeSignalListener(signal, listener);
  }
}

function handOn(child: Deno.ChildProcess, signal: Relayed): void {
  try {
    child.kill(signal);
  } catch {
    // It has ended meanwhile.
  }
}
