/**
 * NbdListener: all clients of all addresses.
 *
 * Owns: the list of connections, their maximum number, and the payload bytes that connections may borrow above their own, by
 * the rules of nbd/places.ts and nbd/loans.ts. Small requests need no loan: a connection's own bytes pay for them.
 *
 * Failure policy: if there is no place for a client, nbd/arrivals.ts decides whether another one makes room. When the server
 * stops, clients have `drainMs` to take their replies; then their sockets are closed.
 */
import { assert, present, unreachable } from "../../storage/base/assert.ts";
import type { Actor, Address } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { ask, type Steps } from "../kernel/task.ts";
import type { Timer } from "../kernel/timers.ts";
import { connectionsMax, drainMs, linkCheckMs, silentPeerMs, spareMs } from "../limits.ts";
import { mailboxes } from "../mailboxes.ts";
import { queues } from "../queues.ts";
import { Arrivals, type SeatedClient } from "./arrivals.ts";
import { NbdConnection } from "./connection.ts";
import { type KickableClient, Kicks } from "./kicks.ts";
import { Loans } from "./loans.ts";
import type {
  ClientFacts,
  KickClient,
  KickResult,
  ListClients,
  NbdConnectionMessage,
  NbdListenerMessage,
  StopListening,
} from "./messages.ts";
import { Places } from "./places.ts";
import type { PoolMessage } from "../control/pool_messages.ts";
import type { AcceptPort, LogPort, SocketPort } from "./socket_port.ts";

/** The stubs of the listener. */
export class NbdListenerStub {
  constructor(readonly address: Address<NbdListenerMessage>) {}

  stop(): Steps<"stopped"> {
    const request: StopListening = { type: "stop", replyTo: unasked };
    return ask(this.address, request);
  }

  listClients(): Steps<readonly ClientFacts[]> {
    const request: ListClients = { type: "listClients", replyTo: unasked };
    return ask(this.address, request);
  }

  kick(client: number, refuseMs: number): Steps<KickResult> {
    const request: KickClient = { type: "kick", replyTo: unasked, client, refuseMs };
    return ask(this.address, request);
  }
}

/** What a listener works with. */
export interface ListenerPeers {
  readonly pool: Address<PoolMessage>;
  /** Where clients arrive. The edge sends `connected` for each of them. */
  readonly accepts: readonly AcceptPort[];
  readonly log: LogPort;
  /** Clients at once; `connectionsMax` by default. */
  readonly clientsMax?: number | undefined;
}

interface Client extends KickableClient, SeatedClient {
  /** See nbd/places.ts. */
  identity: string | undefined;
  readonly since: string;
  /** Of the volume that it is attached to. */
  uid: string | undefined;
  lentBytes: number;
  waitingBytes: number;
  isWanted: boolean;
}

export class NbdListener implements Actor<NbdListenerMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<NbdListenerMessage>;
  readonly #peers: ListenerPeers;
  /** In the order in which they came. */
  readonly #clients = new Map<Address<NbdConnectionMessage>, Client>();
  readonly #arrivals: Arrivals;
  #connectionsMade = 0;
  readonly #kicks: Kicks;
  readonly #loans = new Loans(this.#clients);
  /** Some connections were told that others wait for their loans. */
  #isAnyWanted = false;
  /** Memory that was given back is dropped after `spareMs` without a loan. */
  #spareTimer: Timer | undefined;
  #hasLent = false;
  #stopping: StopListening | undefined;
  #stopped = false;
  #drainTimer: Timer | undefined;
  #linkTimer: Timer | undefined;

  constructor(kernel: Kernel, self: Address<NbdListenerMessage>, peers: ListenerPeers) {
    this.#kernel = kernel;
    this.#self = self;
    this.#peers = peers;
    this.#kicks = new Kicks(kernel, peers.log);
    this.#arrivals = new Arrivals({
      kernel,
      log: peers.log,
      places: new Places(peers.clientsMax ?? connectionsMax),
      clients: this.#clients,
      isRefused: (client) => this.#kicks.isRefused(client),
      connect: (socket) => this.#connect(socket),
    });
  }

  /** Number of connections, attached or not. */
  get clients(): number {
    return this.#clients.size;
  }

  /** Payload bytes that connections have borrowed. */
  get lentBytes(): number {
    return this.#loans.lentBytes;
  }

  /** Bytes of memory kept for the next loan. */
  get spareBytes(): number {
    return this.#loans.spareBytes;
  }

  receive(message: NbdListenerMessage): void {
    switch (message.type) {
      case "connected":
        if (this.#stopping !== undefined) return message.socket.close();
        return this.#arrivals.arrived(message.socket);
      case "attached":
        return this.#attached(this.#client(message.connection), message.uid);
      case "identified":
        return this.#arrivals.identified(
          message.connection,
          this.#client(message.connection),
          message.identity,
        );
      case "borrow":
        this.#loans.ask(message);
        return this.#lend();
      case "giveBack":
        this.#loans.giveBack(this.#client(message.connection), message.bytes, message.buffers);
        if (this.#loans.spareBytes > 0 && this.#spareTimer === undefined) this.#watchSpare();
        return this.#lend();
      case "loanWaits": {
        const { connection, request } = message;
        if (this.#loans.mayWait(this.#client(connection), request.paidBytes)) return;
        return this.#kernel.tell(connection, { type: "mayNotWait", request });
      }
      case "loanWaitEnded":
        return this.#loans.waitEnded(this.#client(message.connection), message.bytes);
      case "leave":
        return this.#leave(message.connection);
      case "listClients":
        return this.#kernel.reply(message, [...this.#clients.values()].map(clientFactsOf));
      case "kick":
        return this.#kick(message);
      case "stop":
        return this.#stop(message);
      case "spareCheck":
        if (this.#hasLent) return this.#watchSpare();
        this.#spareTimer = undefined;
        return this.#loans.clearSpare();
      case "linkCheck":
        return this.#checkLinks();
      case "drainDeadline":
        this.#drainTimer = undefined;
        for (const connection of this.#clients.keys()) this.#kernel.tell(connection, { type: "abort" });
        return this.#answerStop();
      default:
        return unreachable(message);
    }
  }

  #attached(client: Client, uid: string): void {
    client.uid = uid;
    this.#arrivals.attached(client);
  }

  #connect(socket: SocketPort): void {
    this.#connectionsMade += 1;
    const name = `nbd connection ${this.#connectionsMade}`;
    const { pool, log } = this.#peers;
    const connection = this.#kernel.spawn<NbdConnectionMessage>(
      name,
      mailboxes.connection,
      (self) => new NbdConnection(this.#kernel, self, { socket, pool, listener: this.#self, log }),
    );
    this.#clients.set(connection, {
      id: this.#connectionsMade,
      since: this.#kernel.clock.wallTime(),
      uid: undefined,
      kicks: [],
      socket,
      identity: socket.identity,
      sinceMs: this.#kernel.clock.now(),
      state: "handshake",
      roomFor: undefined,
      lentBytes: 0,
      waitingBytes: 0,
      isWanted: false,
    });
    assert(this.#clients.size <= queues.clients, "more clients have a place than there can be");
    this.#kernel.tell(connection, { type: "begin" });
    if (socket.identity !== undefined && this.#linkTimer === undefined) this.#watchLinks();
  }

  #leave(connection: Address<NbdConnectionMessage>): void {
    const client = this.#client(connection);
    this.#loans.forget(connection);
    this.#loans.waitEnded(client, client.waitingBytes);
    this.#loans.giveBack(client, client.lentBytes, []);
    assert(client.lentBytes === 0, "a client left with a loan");
    this.#clients.delete(connection);
    this.#kernel.tell(connection, { type: "left" });
    this.#kicks.answer(client, "left");
    this.#arrivals.left(client);
    this.#lend();
    if (this.#clients.size === 0) this.#answerStop();
  }

  #kick(message: KickClient): void {
    if (this.#stopped) return this.#kernel.reply(message, { kind: "stopping" });
    const refused = this.#kicks.kick(message, this.#clients);
    if (refused !== undefined) this.#arrivals.dropIdentity(refused);
  }

  #lend(): void {
    for (let loan = this.#loans.next(); loan !== undefined; loan = this.#loans.next()) {
      this.#hasLent = true;
      const { borrow: { connection, bytes }, buffer } = loan;
      this.#kernel.tell(connection, { type: "lent", bytes, buffer });
    }
    if (this.#loans.isAnyWaiting || this.#isAnyWanted) this.#tellWanted();
  }

  /** Tells connections when others begin or cease to wait for their loans. */
  #tellWanted(): void {
    const wanted = this.#loans.wanted();
    this.#isAnyWanted = wanted.size > 0;
    for (const [connection, client] of this.#clients) {
      const isWanted = wanted.has(connection);
      if (isWanted !== client.isWanted) this.#kernel.tell(connection, { type: "wanted", isWanted });
      client.isWanted = isWanted;
    }
  }

  #watchLinks(): void {
    this.#linkTimer = this.#kernel.tellLater(linkCheckMs, this.#self, { type: "linkCheck" });
  }

  /** A client whose host is gone loses its place and its volume, in any state. */
  #checkLinks(): void {
    this.#linkTimer = undefined;
    let isAnyRemote = false;
    for (const [connection, { identity, socket }] of this.#clients) {
      if (identity === undefined) continue;
      isAnyRemote = true;
      if (socket.silentMs >= silentPeerMs) this.#kernel.tell(connection, { type: "silent" });
    }
    if (isAnyRemote && !this.#stopped) this.#watchLinks();
  }

  #watchSpare(): void {
    this.#hasLent = false;
    this.#spareTimer = this.#kernel.tellLater(spareMs, this.#self, { type: "spareCheck" });
  }

  #stop(message: StopListening): void {
    assert(this.#stopping === undefined, "the listener was stopped twice");
    this.#stopping = message;
    for (const accept of this.#peers.accepts) accept.stop();
    this.#arrivals.stop();
    if (this.#clients.size === 0) return this.#answerStop();
    for (const connection of this.#clients.keys()) this.#kernel.tell(connection, { type: "drain" });
    this.#drainTimer = this.#kernel.tellLater(drainMs, this.#self, { type: "drainDeadline" });
  }

  /** The last client has left, or their time is up. */
  #answerStop(): void {
    if (this.#stopping === undefined || this.#stopped) return;
    this.#stopped = true;
    for (const client of this.#clients.values()) this.#kicks.answer(client, "stopping");
    if (this.#spareTimer !== undefined) this.#kernel.cancelTimer(this.#spareTimer);
    this.#spareTimer = undefined;
    if (this.#drainTimer !== undefined) this.#kernel.cancelTimer(this.#drainTimer);
    this.#drainTimer = undefined;
    if (this.#linkTimer !== undefined) this.#kernel.cancelTimer(this.#linkTimer);
    this.#linkTimer = undefined;
    this.#kernel.reply(this.#stopping, "stopped");
  }

  #client(connection: Address<NbdConnectionMessage>): Client {
    return present(this.#clients.get(connection), "a message of a connection that has left");
  }
}

function clientFactsOf({ id, socket, identity, uid, since }: Client): ClientFacts {
  return { id, peer: socket.peer, identity, uid, since };
}
