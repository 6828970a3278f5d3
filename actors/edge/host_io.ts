/** What the pool's side has of the host for time, sockets and files: Deno's own calls, or the ring (ring/ring_io.ts). */
import type { Kernel } from "../kernel/kernel.ts";
import type { ClockPort } from "../kernel/ports.ts";
import { DenoClock } from "./deno_clock.ts";
import { denoSockets } from "./deno_sockets.ts";
import type { FileCalls } from "./file_calls.ts";
import type { SocketHost } from "./socket_host.ts";
import type { RelayedTls } from "./relayed_tls.ts";
import type { EventLoopUse } from "./turns.ts";

/** The two there are. */
export type IoName = "io_uring" | "deno";

/** See the head of this file. */
export interface HostIo {
  readonly name: IoName;
  readonly sockets: SocketHost;
  /** What makes the calls on files that wait for the disk; undefined: threads. */
  readonly files: FileCalls | undefined;
  /** TLS that the main side does; undefined: the sockets do it. */
  readonly tls: RelayedTls | undefined;
  /** Deno's event loop, for what waits for promises. */
  readonly eventLoop: EventLoopUse;
  /**
   * Has the host keep these open files, which have the pool's locks, until the last operation under way is over, should this
   * process be killed: what opens the pool next must not see the files change. Until it is disposed of.
   */
  holdLocks(fds: readonly number[]): Disposable;
  /** The clock of the next kernel. */
  newClock(): HostClock;
  /** The kernel of that clock. */
  serve(kernel: Kernel): void;
}

/** A clock that is closed in the end. */
export interface HostClock extends ClockPort {
  /** Lets the process end. */
  close(): void;
}

/** By Deno's own calls, on the thread of Deno's event loop. */
export const denoIo: HostIo = {
  name: "deno",
  sockets: denoSockets,
  files: undefined,
  tls: undefined,
  eventLoop: { beginTurns: () => {}, endTurns: () => {} },
  // The threads that make the calls share the descriptors with the process, so these are closed after the last call.
  holdLocks: () => ({ [Symbol.dispose]: () => {} }),
  newClock: () => new DenoClock(),
  serve: () => {},
};
