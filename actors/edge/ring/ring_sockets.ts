/** Sockets on the ring: bound by the C library, accepted by the ring. */
import fs from "node:fs";
import { assert } from "../../../storage/base/assert.ts";
import { UserError } from "../../../storage/base/errors.ts";
import { duplicate } from "../descriptors.ts";
import { DirectSocket } from "../direct_socket.ts";
import type { ListenAddress } from "../listen_address.ts";
import { errno } from "../libc.ts";
import { openLibc } from "../libc.ts";
import type { Peer } from "../peer.ts";
import type { SocketGroup } from "../socket_group.ts";
import type { AcceptedClient, BoundListener, NetName, SocketHost } from "../socket_host.ts";
import type { RingLoop } from "./ring_loop.ts";
import { RingSocket } from "./ring_socket.ts";
import {
  closeDescriptor,
  listenOnTcp,
  listenOnUnix,
  listens,
  ownNameOf,
  peerNameOf,
  setTcpOptions,
} from "./socket_calls.ts";
import { operation, type Uring } from "./uring.ts";

const closeOnExec = 0o2000000;

/** See the head of this file. */
export class RingSockets implements SocketHost {
  readonly #loop: RingLoop;

  constructor(loop: RingLoop) {
    this.#loop = loop;
  }

  listenOnUnix(path: string): BoundListener {
    return new RingListener(this.#loop, listenOnUnix(path), { transport: "unix", path });
  }

  listenOnTcp({ hostname, port }: NetName): BoundListener {
    const fd = listenOnTcp(hostname, port);
    return new RingListener(this.#loop, fd, {
      transport: "tcp",
      ...ownNameOf(fd) ?? { hostname, port },
    });
  }

  inherit(fd: number): BoundListener {
    const own = listens(fd) ? duplicate(fd) : undefined;
    if (own === undefined) {
      throw new UserError(
        `Cannot take clients from descriptor ${fd}, which LISTEN_FDS promises: it does not listen. Pass listening TCP or Unix sockets.`,
      );
    }
    const name = ownNameOf(fd);
    const path = name === undefined ? openLibc()?.socketPath(fd) : undefined;
    const address: ListenAddress | undefined = name !== undefined
      ? { transport: "tcp", ...name }
      : path === undefined
      ? undefined
      : { transport: "unix", path };
    return new RingListener(this.#loop, own, address, false);
  }

  atMost(ms: number, promise: Promise<void>): Promise<void> {
    return Promise.race([promise, this.#loop.pause(ms)]);
  }
}

/** A listening socket whose clients the ring accepts, one at a time. */
class RingListener implements BoundListener {
  readonly address: ListenAddress | undefined;
  readonly #loop: RingLoop;
  readonly #fd: number;
  /** Whether the file of a Unix socket is ours. */
  readonly #isOwner: boolean;
  /** The number of the accept that is under way. */
  #underWay: number | undefined;
  #isClosed = false;

  constructor(loop: RingLoop, fd: number, address: ListenAddress | undefined, isOwner = true) {
    this.#isOwner = isOwner;
    this.#loop = loop;
    this.#fd = fd;
    this.address = address;
  }

  accept(): Promise<AcceptedClient> {
    assert(this.#underWay === undefined, "a socket accepts one client at a time");
    return new Promise((resolve, reject) => {
      if (this.#isClosed) return reject(new Deno.errors.BadResource("the socket is closed"));
      const accepting = { operation: operation.accept, fd: this.#fd, flags: closeOnExec };
      this.#underWay = this.#loop.ring.push(accepting, (fd) => {
        this.#underWay = undefined;
        this.#loop.keeps();
        if (fd >= 0) resolve(new RingClient(this.#loop.ring, fd));
        else reject(acceptFailure(-fd));
        if (this.#isClosed) this.#release();
      });
    });
  }

  close(): void {
    assert(!this.#isClosed, "a listening socket is closed once");
    this.#isClosed = true;
    if (this.#underWay === undefined) this.#release();
    else this.#loop.ring.cancel(this.#underWay);
  }

  #release(): void {
    closeDescriptor(this.#fd);
    if (this.#isOwner && this.address?.transport === "unix") fs.rmSync(this.address.path, { force: true });
  }
}

function acceptFailure(failure: number): Error {
  if (failure === errno.tooManyFiles) return new Error("Too many open files (os error 24)");
  return new Error(`accepting failed (os error ${failure})`);
}

class RingClient implements AcceptedClient {
  readonly remote: NetName | undefined;
  readonly #ring: Uring;
  readonly #fd: number;

  constructor(ring: Uring, fd: number) {
    this.#ring = ring;
    this.#fd = fd;
    this.remote = peerNameOf(fd);
  }

  close(): void {
    closeDescriptor(this.#fd);
  }

  socketOf(group: SocketGroup, peer: Peer, _keys: unknown, forget: () => void): RingSocket {
    if (this.remote !== undefined) setTcpOptions(this.#fd);
    const direct = DirectSocket.adopt(this.#fd);
    assert(direct !== undefined, "a ring is used where the C library can be called");
    return new RingSocket({ ring: this.#ring, group, direct, peer, forget });
  }
}
