/** Long work outside the kernel, in turns of the event loop. */

/** Lets the event loop have its turn. */
export function aTurn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
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
