/**
 * The I/O thread: the pool's side of the border (border.ts) in a Worker. It waits in the ring (ring/ring_loop.ts), not in Deno's
 * event loop; the main side wakes it by an event descriptor after each message.
 */
import type { FromPool, ToPool } from "./border.ts";
import { plainOf } from "./border.ts";
import { PoolService } from "./pool_service.ts";
import { ringIo } from "./ring/ring_io.ts";
import { RingLoop } from "./ring/ring_loop.ts";
import { Uring } from "./ring/uring.ts";
import { WakeUps } from "./ring/wake_ups.ts";

/** From the worker, before all else: how it is woken, or why it cannot work. */
export type WorkerStart = { readonly type: "up"; readonly wakeFd: number } | {
  readonly type: "down";
  readonly reason: string;
};

/** The last message to the worker. Nothing of the pool is under way, or nothing of it matters any more. */
export interface WorkerEnd {
  readonly type: "end";
}

declare const self: {
  postMessage(message: FromPool | WorkerStart): void;
  onmessage: ((event: { readonly data: ToPool | WorkerEnd }) => void) | null;
  close(): void;
};

function begin(): void {
  const ring = Uring.open();
  if (typeof ring === "string") {
    self.postMessage({ type: "down", reason: ring });
    return self.close();
  }
  const loop = new RingLoop(ring);
  const wakeUps = new WakeUps(loop);
  const service = new PoolService((message) => self.postMessage(message), ringIo(loop));
  self.onmessage = ({ data }) => {
    wakeUps.heard();
    if (data.type === "end") loop.end();
    else service.receive(data);
  };
  self.postMessage({ type: "up", wakeFd: wakeUps.fd });
  loop.run().then(
    () => self.close(),
    (error) => self.postMessage({ type: "failed", error: plainOf(error) }),
  );
}

begin();
