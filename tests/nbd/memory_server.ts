/**
 * The NBD side of the server in front of volumes in memory, to try clients on it:
 * `deno run -A tests/nbd/memory_server.ts ADDRESS NAME=SIZE...`. SIGTERM and SIGINT drain and end it.
 */
import { present } from "../../storage/base/assert.ts";
import { type ListenAddress, nbdUrl, parseListenAddress } from "../../actors/edge/listen_address.ts";
import { ListeningSocket } from "../../actors/edge/sockets.ts";
import { Kernel } from "../../actors/kernel/kernel.ts";
import type { Steps } from "../../actors/kernel/task.ts";
import { mailboxes } from "../../actors/mailboxes.ts";
import { NbdListener, NbdListenerStub } from "../../actors/nbd/listener.ts";
import { MemoryPool, type MemoryVolume } from "./memory_pool.ts";
import type { TlsKeys } from "../../actors/edge/tls_keys.ts";
import type { LogPort } from "../../actors/nbd/socket_port.ts";
import { parseSize } from "../../storage/base/sizes.ts";
import { SocketGroup } from "../../actors/edge/socket_group.ts";
import type { HostClock, HostIo } from "../../actors/edge/host_io.ts";
import { testIo } from "../support/running_ring.ts";

const blockSizeBytes = 64 * 1024;

/** A running server. */
export class MemoryServer {
  readonly address: ListenAddress;
  readonly pool: MemoryPool;
  readonly #kernel: Kernel;
  readonly #clock: HostClock;
  readonly #end: () => Promise<void>;
  readonly #listener: NbdListenerStub;
  #actor: NbdListener | undefined;

  private constructor(socket: ListeningSocket, log: LogPort, io: HostIo, end: () => Promise<void>) {
    this.#clock = io.newClock();
    this.#end = end;
    const kernel = new Kernel({ clock: this.#clock });
    io.serve(kernel);
    this.#kernel = kernel;
    this.pool = new MemoryPool(kernel, blockSizeBytes);
    const pool = kernel.spawn("pool", mailboxes.pool, () => this.pool);
    const peers = { pool, accepts: [socket], log };
    const address = kernel.spawn(
      "nbd listener",
      mailboxes.listener,
      (self) => this.#actor = new NbdListener(kernel, self, peers),
    );
    this.#listener = new NbdListenerStub(address);
    this.address = present(socket.address, "it was bound by name");
    socket.start(new SocketGroup(kernel), address);
  }

  static async start(address: ListenAddress, log: LogPort = () => {}, keys?: TlsKeys): Promise<MemoryServer> {
    const { io, end } = testIo();
    return new MemoryServer(await ListeningSocket.open(address, keys, io.sockets), log, io, end);
  }

  /** The listener itself, for what it owns just now. */
  get listener(): NbdListener {
    return present(this.#actor, "the listener was spawned");
  }

  /** Has a volume finish what it holds, and hold nothing more. */
  release(volume: MemoryVolume): void {
    volume.holdRequests = false;
    for (const request of volume.waiting.splice(0)) volume.finish(request);
    this.#kernel.run();
  }

  /** Lets clients finish what is in flight, and closes. */
  stop(): Promise<void> {
    return new Promise((resolve) => {
      this.#kernel.start("stop", stopping(this.#listener, resolve));
      this.#kernel.run();
    }).then(() => {
      this.#clock.close();
      return this.#end();
    });
  }
}

function* stopping(listener: NbdListenerStub, stopped: (value: unknown) => void): Steps<void> {
  stopped(yield* listener.stop());
}

if (import.meta.main) {
  const [address = "tcp:127.0.0.1:10809", ...volumes] = Deno.args;
  const server = await MemoryServer.start(parseListenAddress(address), console.error);
  for (const volume of volumes) {
    const [name = "", size = "1G"] = volume.split("=");
    server.pool.add(name, parseSize(size)).volume.keepKinds = false;
  }
  console.log(`listening ${nbdUrl(server.address)}`);
  const stop = () => {
    for (const signal of signals) Deno.removeSignalListener(signal, stop);
    server.stop();
  };
  const signals = ["SIGTERM", "SIGINT"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, stop);
}
