/**
 * The clients that arrive: each gets a place, waits for one, or is refused, by the rules of nbd/places.ts. Not an actor but a
 * part of NbdListener's state (nbd/listener.ts).
 *
 * If there is no place for a client, the oldest client that is not attached, has had `crowdedHandshakeMs` or has hung up, and
 * whose leaving would free a fitting place, makes room. Without such a client the new one is closed at once. An attached client
 * never makes room.
 *
 * A hang-up is looked for because the read that tells of it comes later: clients that connect and go faster than their reads are
 * answered would hold all places together, though few of them are there.
 */
import { assert } from "../../storage/base/assert.ts";
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { crowdedHandshakeMs } from "../limits.ts";
import type { NbdConnectionMessage } from "./messages.ts";
import { type Bound, countPlaces, countsWithout, type Places } from "./places.ts";
import type { LogPort, SocketPort } from "./socket_port.ts";

/** What is needed of a client that has a place. */
export interface SeatedClient {
  /** The connection's socket; only its name, its silence and its hang-up are read. */
  readonly socket: Pick<SocketPort, "peer" | "silentMs" | "hasHungUp">;
  /** See nbd/places.ts. */
  identity: string | undefined;
  readonly sinceMs: number;
  /** `makingRoom`: it was told to go, and answers by leaving or, if it was faster, by being attached. */
  state: "handshake" | "makingRoom" | "attached";
  /** The client that waits for its place. */
  roomFor: SocketPort | undefined;
}

/** What arrivals work with. */
export interface ArrivalPeers {
  readonly kernel: Kernel;
  readonly log: LogPort;
  readonly places: Places;
  /** In the order in which they came. */
  readonly clients: ReadonlyMap<Address<NbdConnectionMessage>, SeatedClient>;
  /** Whether the operator has refused this client. */
  isRefused(client: Pick<SocketPort, "peer" | "identity">): boolean;
  /** Gives the client a place. */
  connect(socket: SocketPort): void;
}

/** See the head of this file. */
export class Arrivals {
  readonly #peers: ArrivalPeers;
  /** Clients for which another client is making room. */
  #waiting: SocketPort[] = [];
  /** Each is logged once until there is room again. */
  readonly #refusals = new Set<Bound>();
  #hasMadeRoom = false;

  constructor(peers: ArrivalPeers) {
    this.#peers = peers;
  }

  arrived(socket: SocketPort): void {
    if (this.#peers.isRefused(socket)) return this.#close(socket);
    const bound = this.#boundFor(socket.identity);
    if (bound === undefined) return this.#peers.connect(socket);
    // Nothing is refused, as the client is gone. A place is for one that is there.
    if (socket.hasHungUp) return socket.close();
    if (!this.#waitsForRoom(socket, bound)) this.#refuse(socket, bound);
  }

  #boundFor(identity: string | undefined, except?: SeatedClient): Bound | undefined {
    return this.#peers.places.keepsOut(identity, this.#peers.clients.values(), except);
  }

  /** Whether another client is leaving, or is told to, whose place this one can take. */
  #waitsForRoom(socket: SocketPort, bound: Bound): boolean {
    const { kernel, places, clients } = this.#peers;
    const nowMs = kernel.clock.now();
    const counts = countPlaces(socket.identity, clients.values());
    for (const [connection, client] of clients) {
      if (client.state === "attached" || client.roomFor !== undefined) continue;
      if (places.boundOf(socket.identity, countsWithout(counts, socket.identity, client)) !== undefined) {
        continue;
      }
      if (client.state === "handshake") {
        const { hasHungUp } = client.socket;
        if (nowMs - client.sinceMs < crowdedHandshakeMs && !hasHungUp) continue;
        client.state = "makingRoom";
        kernel.tell(connection, { type: "makeRoom" });
        if (!hasHungUp) this.#logMadeRoom(client, socket, bound);
      }
      client.roomFor = socket;
      this.#waiting.push(socket);
      assert(this.#waiting.length <= clients.size, "more clients wait for a place than others leave one");
      return true;
    }
    return false;
  }

  #logMadeRoom(client: SeatedClient, socket: SocketPort, bound: Bound): void {
    if (this.#hasMadeRoom) return;
    this.#hasMadeRoom = true;
    this.#peers.log(
      `closing the connection from ${client.socket.peer}, which has attached to no export, in favour of ${socket.peer}: ` +
        this.#peers.places.sentence(bound, socket.identity),
    );
  }

  #refuse(socket: SocketPort, bound: Bound): void {
    this.#logRefusal(socket.peer, socket.identity, bound);
    this.#close(socket);
  }

  #close(socket: SocketPort): void {
    this.#peers.kernel.count("connectionsRefused");
    socket.close();
  }

  /** Once for each rule until there is room again. */
  #logRefusal(peer: string, identity: string | undefined, bound: Bound): void {
    if (!this.#refusals.has(bound)) {
      this.#peers.log(`refused ${peer}: ${this.#peers.places.sentence(bound, identity)}`);
    }
    this.#refusals.add(bound);
  }

  /** The client is attached and makes no room. Another client has to, or the client that waited for its place is refused. */
  attached(client: SeatedClient): void {
    client.state = "attached";
    const socket = client.roomFor;
    client.roomFor = undefined;
    if (socket !== undefined) this.#lostRoom(socket);
  }

  /** The client has left. Refusals are logged again unless other clients waited for its place. */
  left(client: SeatedClient): void {
    const hadNoneWaiting = this.#waiting.length === 0;
    this.#seatWaiting();
    // A client that has waited for longer may have taken the place.
    if (client.roomFor !== undefined) this.#lostRoom(client.roomFor);
    if (!hadNoneWaiting) return;
    this.#refusals.clear();
    this.#hasMadeRoom = false;
  }

  /** The place that it waited for was not freed, or was taken. Does nothing if it has a place already. */
  #lostRoom(socket: SocketPort): void {
    const at = this.#waiting.indexOf(socket);
    if (at < 0) return;
    this.#waiting.splice(at, 1);
    this.arrived(socket);
  }

  /** The client has shown a certificate: it is counted by that from now on, and goes if its identity has no place left. */
  identified(connection: Address<NbdConnectionMessage>, client: SeatedClient, identity: string): void {
    const { peer } = client.socket;
    const bound = this.#boundFor(identity, client);
    const isRefused = this.#peers.isRefused({ peer, identity });
    if (!isRefused && bound === "identity") this.#logRefusal(peer, identity, bound);
    if (isRefused || bound === "identity") {
      this.#peers.kernel.count("connectionsRefused");
      // Not `makeRoom`, which a client ignores that has attached meanwhile: this one has no place.
      this.#peers.kernel.tell(connection, { type: "abort" });
    }
    client.identity = identity;
    this.#seatWaiting();
  }

  /** Connects the waiting clients for which there is a place now. */
  #seatWaiting(): void {
    for (const socket of [...this.#waiting]) {
      if (this.#boundFor(socket.identity) !== undefined) continue;
      this.#waiting = this.#waiting.filter((waiting) => waiting !== socket);
      this.#forgetRoomFor(socket);
      this.#peers.connect(socket);
    }
  }

  #forgetRoomFor(socket: SocketPort): void {
    for (const client of this.#peers.clients.values()) {
      if (client.roomFor === socket) client.roomFor = undefined;
    }
  }

  /** Clients of this identity that wait for a place get none. */
  dropIdentity(identity: string): void {
    for (const socket of this.#waiting.filter((waiting) => waiting.identity === identity)) {
      this.#forgetRoomFor(socket);
      this.#close(socket);
    }
    this.#waiting = this.#waiting.filter((waiting) => waiting.identity !== identity);
  }

  /** No client gets a place any more. */
  stop(): void {
    for (const socket of this.#waiting.splice(0)) socket.close();
  }
}
