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

  /** Called before bytes are sent: what they tell a client is then where the death of this process does not lose it. */
  readonly beforeSend: () => void;

  /** @param kernel has the connections of the sockets */
  constructor(kernel: Kernel, beforeSend: () => void = () => {}) {
    this.kernel = kernel;
    this.beforeSend = beforeSend;
    this.poll = new SocketPoll(kernel);
  }
}
