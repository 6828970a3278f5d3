/** Waiting outside the kernel: for a time, for the event loop's next turn, and for long work in such turns. */

/**
 * The loop of the I/O thread (ring/ring_loop.ts) waits outside of Deno's event loop. What waits for a promise of Deno's says so
 * before, and when it is over.
 */
export interface EventLoopUse {
  beginTurns(): void;
  endTurns(): void;
}

/** The promise, for which Deno's event loop has turns. */
export async function withTurns<Result>(use: EventLoopUse, wait: () => Promise<Result>): Promise<Result> {
  use.beginTurns();
  try {
    return await wait();
  } finally {
    use.endTurns();
  }
}

/** Resolves after so many milliseconds. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Resolves with the promise, which never rejects, or after so many milliseconds. Leaves no timer behind. */
export async function atMost(ms: number, promise: Promise<void>): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  await Promise.race([promise, late]);
  clearTimeout(timer);
}

/** Lets the event loop have its turn. */
export function aTurn(): Promise<void> {
  return pause(0);
}

/** Gives the event loop a turn after each step. */
export async function inTurns<Result>(steps: Generator<void, Result>): Promise<Result> {
  let step = steps.next();
  while (!step.done) {
    await aTurn();
    step = steps.next();
  }
  return step.value;
}

/** Does all steps now, while nothing else is to be served yet. */
export function inOneGo<Result>(steps: Generator<void, Result>): Result {
  let step = steps.next();
  while (!step.done) step = steps.next();
  return step.value;
}
