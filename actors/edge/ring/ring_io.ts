/** Time, sockets and files on the ring of this thread. */
import type { HostIo } from "../host_io.ts";
import type { RelayedTls } from "../relayed_tls.ts";
import { RingFiles } from "./ring_files.ts";
import type { RingLoop } from "./ring_loop.ts";
import { RingSockets } from "./ring_sockets.ts";

/**
 * What the pool's side has of the host on the thread of this loop.
 * @param tls what has the main side do TLS, where there is TLS
 */
export function ringIo(loop: RingLoop, tls?: RelayedTls): HostIo {
  return {
    name: "io_uring",
    sockets: new RingSockets(loop, tls),
    tls,
    files: new RingFiles(loop),
    eventLoop: loop,
    holdLocks: (fds) => loop.ring.holdFiles(fds),
    newClock: () => loop,
    serve: (kernel) => loop.serve(kernel),
  };
}
