/** The way into the kernel from outside: run some steps as a task and promise their answer. */
import type { Kernel } from "../kernel/kernel.ts";
import type { Steps } from "../kernel/task.ts";

/** The answer of the steps. Never settles if the kernel stops first: race it against the pool's failure. */
export function answerOf<T>(kernel: Kernel, name: string, steps: Steps<T>): Promise<T> {
  return new Promise((resolve) => {
    kernel.start(name, reportTo(steps, resolve));
    kernel.run();
  });
}

function* reportTo<T>(steps: Steps<T>, resolve: (answer: T) => void): Steps<void> {
  resolve(yield* steps);
}
