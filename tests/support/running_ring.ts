/** A loop of the ring on the thread of a test. */
import { RingLoop } from "../../actors/edge/ring/ring_loop.ts";
import { Uring } from "../../actors/edge/ring/uring.ts";

/** Whether tests of the ring can run here. */
export const ignoreRing = !hasRing();

/** A loop that does not run yet; the test ends it. */
export function newLoop(): RingLoop {
  const ring = Uring.open();
  if (typeof ring === "string") throw new Error(ring);
  return new RingLoop(ring);
}

export function hasRing(): boolean {
  const ring = Uring.open();
  if (typeof ring === "string") return false;
  ring.close();
  return true;
}
