/** For tests: a listener in front of a volume in memory, whose clients are simulated_client.ts. */
import { present } from "../../storage/base/assert.ts";
import { NBD_OPT_EXTENDED_HEADERS, NBD_OPT_STRUCTURED_REPLY } from "../../actors/nbd/wire/constants.ts";
import { option, u32 } from "./wire_bytes.ts";
import type { Address } from "../../actors/kernel/address.ts";
import { Kernel } from "../../actors/kernel/kernel.ts";
import type { CounterPort, SchedulerPolicy } from "../../actors/kernel/ports.ts";
import type { Steps } from "../../actors/kernel/task.ts";
import { mailboxes } from "../../actors/mailboxes.ts";
import { NbdListener, NbdListenerStub } from "../../actors/nbd/listener.ts";
import type { NbdListenerMessage } from "../../actors/nbd/messages.ts";
import { ManualClock } from "../support/world.ts";
import { type MemoryExport, MemoryPool } from "./memory_pool.ts";
import type { PoolMessage } from "../../actors/control/pool_messages.ts";
import { type ClientOptions, go, setContexts, SimulatedClient } from "./simulated_client.ts";

export const testBlockBytes = 64 * 1024;
export const testSizeBytes = 2 ** 30;

/** A listener in front of one volume, `disk`, of 1 GiB; tests may add others. */
export class TestServer {
  readonly clock = new ManualClock();
  readonly kernel: Kernel;
  readonly pool: MemoryPool;
  readonly poolAddress: Address<PoolMessage>;
  readonly disk: MemoryExport;
  readonly listener: Address<NbdListenerMessage>;
  /** The same as an object, for what it owns just now. */
  actor: NbdListener | undefined;
  readonly log: string[] = [];
  acceptsStopped = false;
  stopped = false;

  constructor(policy?: SchedulerPolicy, clientsMax?: number, counters?: CounterPort) {
    this.kernel = new Kernel({
      clock: this.clock,
      ...(policy === undefined ? {} : { policy }),
      ...(counters === undefined ? {} : { counters }),
    });
    this.pool = new MemoryPool(this.kernel, testBlockBytes);
    this.disk = this.pool.add("disk", testSizeBytes);
    this.poolAddress = this.kernel.spawn("pool", mailboxes.pool, () => this.pool);
    const peers = {
      pool: this.poolAddress,
      accepts: [{ stop: () => this.acceptsStopped = true }],
      log: (sentence: string) => this.log.push(sentence),
      clientsMax,
    };
    this.listener = this.kernel.spawn(
      "listener",
      mailboxes.listener,
      (self) => this.actor = new NbdListener(this.kernel, self, peers),
    );
  }

  /** A client that has only connected. */
  connect(options: ClientOptions = {}): SimulatedClient {
    const client = new SimulatedClient(this, options);
    this.kernel.post(this.listener, { type: "connected", socket: client });
    this.clock.runAllYields();
    return client;
  }

  /** A client in transmission. */
  attach(options: ClientOptions & AttachOptions = {}): SimulatedClient {
    const client = this.connect(options);
    const { structured = true, extended = false, contexts, name = "disk" } = options;
    const negotiation: Uint8Array[] = [];
    if (extended) negotiation.push(option(NBD_OPT_EXTENDED_HEADERS));
    else if (structured) negotiation.push(option(NBD_OPT_STRUCTURED_REPLY));
    if (contexts !== undefined) negotiation.push(setContexts(name, ...contexts));
    client.say(u32(3), ...negotiation, go(name));
    client.skipHandshake();
    return client;
  }

  /** Asks the listener to stop; `stopped` is set when it has. */
  stop(): void {
    this.kernel.start("stop", stopping(new NbdListenerStub(this.listener), () => this.stopped = true));
    this.kernel.run();
  }

  /** Finishes the oldest request that the disk holds. */
  finishOne(): void {
    const { volume } = this.disk;
    const status = volume.waiting.length === 0 ? volume.waitingStatus.shift() : undefined;
    if (status !== undefined) volume.finishStatus(status);
    else volume.finish(present(volume.waiting.shift(), "the volume holds no request"));
    this.kernel.run();
    this.clock.runAllYields();
  }

  finishAll(): void {
    const { volume } = this.disk;
    while (volume.waiting.length > 0 || volume.waitingStatus.length > 0) this.finishOne();
  }
}

function* stopping(listener: NbdListenerStub, stopped: () => void): Steps<void> {
  yield* listener.stop();
  stopped();
}

/** How a client attaches: with structured replies, to the disk, unless it is said here. */
export interface AttachOptions {
  readonly structured?: boolean;
  readonly extended?: boolean;
  /** Queries of NBD_OPT_SET_META_CONTEXT. */
  readonly contexts?: readonly string[];
  readonly name?: string;
}
