/**
 * The I/O thread: the pool's side of the border (border.ts) in a Worker. It waits in the ring (ring/ring_loop.ts), not in Deno's
 * event loop; the main side wakes it by an event descriptor after each message.
 */
import {
  type FromPool,
  type PlainError,
  plainOf,
  type TlsEnd,
  type TlsWanted,
  type ToPool,
} from "./border.ts";
import { ringEndMs } from "../knobs.ts";
import { PoolService } from "./pool_service.ts";
import { RelayedTls } from "./relayed_tls.ts";
import { ringIo } from "./ring/ring_io.ts";
import { RingLoop } from "./ring/ring_loop.ts";
import { Uring } from "./ring/uring.ts";
import { WakeUps } from "./ring/wake_ups.ts";

/** From the worker about itself. */
export type WorkerNews =
  /** Before all else: how it is woken. */
  | { readonly type: "up"; readonly wakeFd: number }
  /** In place of it: why it cannot work. */
  | { readonly type: "down"; readonly reason: string }
  /** The program has failed: nothing is answered any more. */
  | { readonly type: "died"; readonly error: PlainError }
  /** The last message: it is not to be woken any more. */
  | { readonly type: "gone"; readonly wakeFd: number };

/** The last message to the worker. Nothing of the pool is under way, or nothing of it matters any more. */
export interface WorkerEnd {
  readonly type: "end";
}

declare const self: {
  postMessage(message: FromPool | TlsWanted | TlsEnd | WorkerNews): void;
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
  const tell = (message: FromPool | TlsWanted | TlsEnd) => self.postMessage(message);
  const service = new PoolService(tell, ringIo(loop, new RelayedTls(tell)));
  const died = (error: unknown) => {
    self.postMessage({ type: "died", error: plainOf(error) });
    loop.end();
  };
  self.onmessage = ({ data }) => {
    wakeUps.heard();
    if (data.type === "end") return loop.end();
    try {
      service.receive(data);
    } catch (error) {
      // A message that makes no sense here is a defect.
      died(error);
    }
  };
  self.postMessage({ type: "up", wakeFd: wakeUps.fd });
  loop.run().catch(died).then(() => {
    // The memory of this thread goes with it, so the host must not write there any more. Else the thread stays.
    if (!ring.finish(ringEndMs)) return;
    self.postMessage({ type: "gone", wakeFd: wakeUps.fd });
    self.close();
  });
}

begin();
