/** The pace of loans, where the client that holds one has left. */
import { assertEquals } from "@std/assert";
import { read } from "../../tests/nbd/simulated_client.ts";
import { TestServer } from "../../tests/nbd/simulated_server.ts";
import { borrowedBytesMax, loanCheckMs, requestBytesMax } from "../limits.ts";

Deno.test("a client that left while its READ is in flight may end after another has begun to wait for its loan", () => {
  const server = new TestServer();
  server.disk.volume.holdRequests = true;
  const holders = Array.from({ length: borrowedBytesMax / requestBytesMax }, () => server.attach());
  for (const holder of holders) holder.say(read(1, 0, requestBytesMax));
  holders[0]!.reset();
  const waiter = server.attach();
  waiter.say(read(1, 0, requestBytesMax));
  server.finishAll();
  server.clock.pass(2 * loanCheckMs);
  assertEquals(server.kernel.stopped, false);
});
