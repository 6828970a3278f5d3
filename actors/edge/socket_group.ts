/**
 * What all sockets that one kernel serves share: it is made with the kernel and passed to each, so that nothing of a pool
 * lies in a module.
 */
import type { Kernel } from "../kernel/kernel.ts";
import { KnownSockets } from "./direct_socket.ts";
import { HeardLately } from "./heard_lately.ts";
import { SendShare } from "./send_share.ts";
import { SocketPoll } from "./socket_poll.ts";

/** See the head of this file. */
export class SocketGroup {
  readonly kernel: Kernel;
  readonly poll: SocketPoll;
  readonly share: SendShare = new SendShare();
  readonly heard: HeardLately = new HeardLately();
  readonly known: KnownSockets = new KnownSockets();

  /** @param kernel has the connections of the sockets */
  constructor(kernel: Kernel) {
    this.kernel = kernel;
    this.poll = new SocketPoll(kernel);
  }
}
