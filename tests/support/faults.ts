/** An outside that fails at one of its calls, or at all from there on: for each of its calls in turn. */

/** How a call fails. A method that promises nothing throws either way. */
type How = "throws" | "rejects";

/** What is said by everything that fails. */
export const faultReason = "the outside fails";

export class Faults {
  /** Calls so far. */
  calls = 0;
  readonly #failAt: number;
  readonly #how: How;
  readonly #lasts: boolean;

  constructor(failAt: number, how: How, lasts: boolean) {
    this.#failAt = failAt;
    this.#how = how;
    this.#lasts = lasts;
  }

  /** The same, with each of its methods a call of the outside. `names`: only these. */
  of<T extends object>(target: T, names?: readonly (keyof T)[]): T {
    return new Proxy(target, {
      get: (_target, name) => {
        const value = (target as Record<PropertyKey, unknown>)[name];
        if (typeof value !== "function") return value;
        if (names !== undefined && !names.includes(name as keyof T)) return value.bind(target);
        return (...args: unknown[]) => this.call(() => value.apply(target, args));
      },
    });
  }

  /** One call. */
  call<R>(make: () => R): R | Promise<never> {
    this.calls += 1;
    const fails = this.#lasts ? this.calls >= this.#failAt : this.calls === this.#failAt;
    if (!fails) return make();
    const error = new Error(faultReason);
    if (this.#how === "rejects") return Promise.reject(error);
    throw error;
  }
}

/** Runs it with a fault at its first call, at its second and so on until it makes no more; gives the number of runs. */
export async function atEveryCall(
  hows: readonly How[],
  run: (faults: Faults, what: string) => void | Promise<void>,
): Promise<number> {
  let runs = 0;
  for (const how of hows) {
    for (const lasts of [false, true]) {
      for (let failAt = 1;; failAt += 1) {
        const faults = new Faults(failAt, how, lasts);
        await run(faults, `call ${failAt} ${how}${lasts ? ", as do all after it" : ""}`);
        runs += 1;
        if (faults.calls < failAt) break;
      }
    }
  }
  return runs;
}
