import { assert } from "@std/assert";
import { DenoClock } from "./deno_clock.ts";

/** Keeps the event loop as busy as a kernel with long work in the background, until told to stop. */
function keepBusy(clock: DenoClock): () => void {
  let isStopped = false;
  const work = () => {
    const endMs = clock.now() + 2;
    while (clock.now() < endMs);
    if (!isStopped) clock.yield(work);
  };
  clock.yield(work);
  return () => {
    isStopped = true;
  };
}

Deno.test("sockets are heard while the kernel always has more to do", async () => {
  const clock = new DenoClock();
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  using client = await Deno.connect({ hostname: "127.0.0.1", port: (listener.addr as Deno.NetAddr).port });
  using server = await listener.accept();
  const stop = keepBusy(clock);
  const beganMs = clock.now();
  const buffer = new Uint8Array(1);
  for (let round = 0; round < 5; round += 1) {
    const heard = server.read(buffer);
    await client.write(buffer);
    await heard;
  }
  const tookMs = clock.now() - beganMs;
  stop();
  await new Promise<void>((resolve) => clock.yield(resolve));
  clock.close();
  assert(tookMs < 1000, `five bytes took ${Math.round(tookMs)} ms`);
});
