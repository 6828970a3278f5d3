/** The border (border.ts) where the pool's side is a thread of its own (pool_worker.ts). */
import { UserError } from "../../storage/base/errors.ts";
import { type Border, type FromPool, plainOf, type ToPool } from "./border.ts";
import type { WorkerStart } from "./pool_worker.ts";
import { wake } from "./ring/wake_ups.ts";

/** The way to a pool on a thread of its own. */
export function openWorkerBorder(heard: (message: FromPool) => void): Border {
  const worker = new Worker(import.meta.resolve("./pool_worker.ts"), { type: "module" });
  let wakeFd: number | undefined;
  /** Sent before the thread was up. */
  const early: ToPool[] = [];
  worker.addEventListener("message", ({ data }: MessageEvent<FromPool | WorkerStart>) => {
    if (data.type === "down") return refuse(early, data.reason, heard);
    if (data.type !== "up") return heard(data);
    wakeFd = data.wakeFd;
    for (const _ of early.splice(0)) wake(wakeFd);
  });
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    heard({
      type: "failed",
      error: { name: "Error", message: event.message, stack: undefined, code: undefined },
    });
  });
  return {
    send: (message: ToPool) => {
      worker.postMessage(message);
      if (wakeFd === undefined) early.push(message);
      else wake(wakeFd);
    },
    close: () => {
      // A thread that waits in the ring cannot be terminated from outside: it is asked to end.
      worker.postMessage({ type: "end" });
      if (wakeFd !== undefined) wake(wakeFd);
    },
  };
}

/** The thread cannot work, so what it was asked is refused. */
function refuse(messages: readonly ToPool[], reason: string, heard: (message: FromPool) => void): void {
  const error = plainOf(new UserError(`Cannot use io_uring: ${reason}. Leave out --io io_uring.`));
  for (const message of messages) {
    if ("number" in message) heard({ type: "threw", number: message.number, error });
  }
}
