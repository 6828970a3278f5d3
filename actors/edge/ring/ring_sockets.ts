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
import type { RelayedTls } from "../relayed_tls.ts";
import type { SocketGroup } from "../socket_group.ts";
import type { AcceptedClient, BoundListener, NetName, SocketHost } from "../socket_host.ts";
import type { TlsKeys } from "../tls_keys.ts";
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
import { operation } from "./uring.ts";

const closeOnExec = 0o2000000;

/** What sockets are given. */
interface Parts {
  readonly loop: RingLoop;
  /** What does TLS for them, where there is TLS. */
  readonly tls: RelayedTls | undefined;
}

/** See the head of this file. */
export class RingSockets implements SocketHost {
  readonly #parts: Parts;

  /** @param tls what does TLS for the sockets, where there is TLS */
  constructor(loop: RingLoop, tls?: RelayedTls) {
    this.#parts = { loop, tls };
  }

  listenOnUnix(path: string): BoundListener {
    return new RingListener(this.#parts, listenOnUnix(path), { transport: "unix", path });
  }

  listenOnTcp({ hostname, port }: NetName): BoundListener {
    const fd = listenOnTcp(hostname, port);
    return new RingListener(this.#parts, fd, {
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
    return new RingListener(this.#parts, own, address, false);
  }

  atMost(ms: number, promise: Promise<void>): Promise<void> {
    return Promise.race([promise, this.#parts.loop.pause(ms)]);
  }
}

/** A listening socket whose clients the ring accepts, one at a time. */
class RingListener implements BoundListener {
  readonly address: ListenAddress | undefined;
  readonly #parts: Parts;
  readonly #fd: number;
  /** Whether the file of a Unix socket is ours. */
  readonly #isOwner: boolean;
  /** The number of the accept that is under way. */
  #underWay: number | undefined;
  #isClosed = false;

  constructor(parts: Parts, fd: number, address: ListenAddress | undefined, isOwner = true) {
    this.#isOwner = isOwner;
    this.#parts = parts;
    this.#fd = fd;
    this.address = address;
  }

  accept(): Promise<AcceptedClient> {
    assert(this.#underWay === undefined, "a socket accepts one client at a time");
    return new Promise((resolve, reject) => {
      if (this.#isClosed) return reject(new Deno.errors.BadResource("the socket is closed"));
      const accepting = { operation: operation.accept, fd: this.#fd, flags: closeOnExec };
      this.#underWay = this.#parts.loop.ring.push(accepting, (fd) => {
        this.#underWay = undefined;
        this.#parts.loop.keeps();
        if (fd >= 0) resolve(new RingClient(this.#parts, fd));
        else reject(acceptFailure(-fd));
        if (this.#isClosed) this.#release();
      });
    });
  }

  close(): void {
    assert(!this.#isClosed, "a listening socket is closed once");
    this.#isClosed = true;
    if (this.#underWay === undefined) this.#release();
    else this.#parts.loop.ring.cancel(this.#underWay);
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
  readonly #parts: Parts;
  readonly #fd: number;

  constructor(parts: Parts, fd: number) {
    this.#parts = parts;
    this.#fd = fd;
    this.remote = peerNameOf(fd);
  }

  close(): void {
    closeDescriptor(this.#fd);
  }

  socketOf(group: SocketGroup, peer: Peer, keys: TlsKeys | undefined, forget: () => void): RingSocket {
    if (this.remote !== undefined) setTcpOptions(this.#fd);
    const client = DirectSocket.adopt(this.#fd);
    assert(client !== undefined, "a ring is used where the C library can be called");
    const { loop: { ring }, tls } = this.#parts;
    return new RingSocket({ ring, tls, group, client, peer, keys, forget });
  }
}
