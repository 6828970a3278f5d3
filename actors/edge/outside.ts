/** The two ways across the boundary (kernel/boundary.ts) that need promises: into the kernel, and out of it. */
import { reasonOutside } from "../kernel/boundary.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Steps } from "../kernel/task.ts";

/** The answer of the steps. Never comes if the kernel stops first: race it against the pool's failure. */
export function answerOf<T>(kernel: Kernel, name: string, steps: Steps<T>): Promise<T> {
  return new Promise((resolve) => {
    kernel.start(name, reportTo(steps, resolve));
    kernel.run();
  });
}

function* reportTo<T>(steps: Steps<T>, resolve: (answer: T) => void): Steps<void> {
  resolve(yield* steps);
}

/**
 * Calls the outside. Exactly one of the two is called, once and later, never from inside the call: `done` with what came of
 * it, or `failed` with the reason if it threw or rejected. What these two throw is a defect, as is a broken invariant of
 * our own in the call: it ends the process as an unhandled rejection.
 */
export function callOutside<T>(
  call: () => T | PromiseLike<T>,
  done: (value: T) => void,
  failed: (reason: string) => void,
): void {
  new Promise<T>((resolve) => resolve(call())).then(done, (error) => failed(reasonOutside(error)));
}
