/**
 * The NBD side of the server in front of volumes in memory, to try clients on it:
 * `deno run -A tests/nbd/memory_server.ts ADDRESS NAME=SIZE...`. SIGTERM and SIGINT drain and exit 0.
 */
import { DenoClock } from "../../actors/edge/deno_clock.ts";
import { listeningLine, ListeningSocket, parseListenAddress } from "../../actors/edge/sockets.ts";
import { Kernel } from "../../actors/kernel/kernel.ts";
import type { Steps } from "../../actors/kernel/task.ts";
import { mailboxMax } from "../../actors/limits.ts";
import { NbdListener, NbdListenerStub } from "../../actors/nbd_listener.ts";
import { MemoryPool } from "../../actors/nbd_testing.ts";
import { parseSize } from "../../storage/sizes.ts";

const blockSizeBytes = 64 * 1024;

if (import.meta.main) await serve(Deno.args[0] ?? "tcp:127.0.0.1:10809", Deno.args.slice(1));

async function serve(address: string, volumes: readonly string[]): Promise<void> {
  const clock = new DenoClock();
  const kernel = new Kernel({ clock });
  const pool = new MemoryPool(kernel, blockSizeBytes);
  for (const volume of volumes) {
    const [name = "", size = "1G"] = volume.split("=");
    pool.add(name, parseSize(size)).volume.keepKinds = false;
  }
  const poolAddress = kernel.spawn("pool", mailboxMax, () => pool);
  const socket = await ListeningSocket.open(parseListenAddress(address));
  const peers = { pool: poolAddress, accepts: [socket], log: console.error };
  const listener = kernel.spawn("nbd listener", mailboxMax, (self) => new NbdListener(kernel, self, peers));
  socket.start(kernel, listener);
  console.log(listeningLine(socket.address));
  const stop = () => {
    kernel.start("stop", stopping(new NbdListenerStub(listener), () => clock.close()));
    kernel.run();
    Deno.removeSignalListener("SIGTERM", stop);
    Deno.removeSignalListener("SIGINT", stop);
  };
  Deno.addSignalListener("SIGTERM", stop);
  Deno.addSignalListener("SIGINT", stop);
}

function* stopping(listener: NbdListenerStub, stopped: () => void): Steps<void> {
  yield* listener.stop();
  stopped();
}
