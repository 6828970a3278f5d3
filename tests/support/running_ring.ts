/** A loop of the ring on the thread of a test. */
import { denoIo, type HostIo } from "../../actors/edge/host_io.ts";
import { RelayedTls } from "../../actors/edge/relayed_tls.ts";
import { ringIo } from "../../actors/edge/ring/ring_io.ts";
import { RingLoop } from "../../actors/edge/ring/ring_loop.ts";
import { Uring } from "../../actors/edge/ring/uring.ts";
import { TlsRelays } from "../../actors/edge/tls_relay.ts";

/** Whether tests of the ring can run here. */
export const ignoreRing = !hasRing();

/** A loop that does not run yet; the test ends it. */
export function newLoop(): RingLoop {
  const ring = Uring.open();
  if (typeof ring === "string") throw new Error(ring);
  return new RingLoop(ring);
}

function hasRing(): boolean {
  const ring = Uring.open();
  if (typeof ring === "string") return false;
  ring.close();
  return true;
}

/** A loop that runs on this thread beside Deno's event loop, which has a turn after each pass, until `end`. */
export function runningLoop(): { readonly loop: RingLoop; readonly end: () => Promise<void> } {
  const loop = newLoop();
  loop.beginTurns();
  const ended = loop.run();
  const end = async () => {
    loop.end();
    await ended;
    if (!loop.ring.finish(5000)) throw new Error("an operation of the ring has not ended");
  };
  return { loop, end };
}

/** What GOSSAMER_TEST_IO names, on this thread; Deno's calls by default. */
export function testIo(): { readonly io: HostIo; readonly end: () => Promise<void> } {
  if (Deno.env.get("GOSSAMER_TEST_IO") !== "io_uring") return { io: denoIo, end: () => Promise.resolve() };
  const { loop, end } = runningLoop();
  // As over the border, but on one thread.
  const tls = new RelayedTls((message) => {
    if (message.type === "tlsWanted") relays.begin(structuredClone(message));
    else relays.end(message.relay);
  });
  const relays = new TlsRelays((news) => tls.heard(structuredClone(news)));
  return { io: ringIo(loop, tls), end };
}
