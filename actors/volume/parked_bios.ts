/**
 * The parked bios of one volume: bios that found no space. Part of the ThinVolume actor.
 *
 * Owns: the parked bios, in the order in which they were parked first, and which of them are being tried again.
 *
 * A parked bio holds no lock, is not in flight and has no place in the volume's queue, so nothing waits for it: reads,
 * writes in place, discards and flushes pass it, and so do suspensions. The space watch (pool/space_watch.ts) says when to
 * try again and when to fail. A bio that finds no space again keeps its place.
 *
 * Bios that are tried again are started in order, a bounded number at once. A round because a block became free ends when a
 * bio finds none. A round because a commit may have ended the sharing of some blocks goes over all.
 */
import { assert, present } from "../../storage/base/assert.ts";
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { parkedRetriesMax } from "../limits.ts";
import { queues } from "../queues.ts";
import {
  type ParkingVolume,
  type RetryParked,
  type SpaceNeed,
  spaceNeeds,
  type SpaceSeen,
  type SpaceStub,
} from "../pool/space_messages.ts";
import { type Admitted, type Bio, type BioWithoutSpace, needOf, type StatusWithoutSpace } from "./bio.ts";

interface Parked {
  status: StatusWithoutSpace;
  state: "waits" | "due" | "tried";
}

/** A bio that is to be tried again, and what is known of space. */
export interface Due {
  readonly bio: Bio;
  readonly seen: SpaceSeen;
}

/** The parked bios of one volume: parks, tries again, fails and drops them. See the head of this file. */
export class ParkedBios {
  readonly #kernel: Kernel;
  readonly #volume: Address<ParkingVolume>;
  readonly #watch: SpaceStub;
  /** A map keeps the order in which its keys came, also when their values change. */
  readonly #bios = new Map<Bio, Parked>();
  /** Bios of the round under way, in order; those before `#dueNext` have been started or have ended. */
  #due: Bio[] = [];
  #dueNext = 0;
  /** The round goes on behind a bio that finds no block. */
  #isForAll = false;
  #seen: SpaceSeen = { data: 0, metadata: 0, host: 0 };
  /** Bios that are being tried again. */
  #tried = 0;
  /** Bios that were taken, and of which the watch has not been told. */
  readonly #taken: { [need in SpaceNeed]: number } = { data: 0, metadata: 0, host: 0 };
  /** Whether the watch knows this volume, and so may send to it. */
  #watched: "no" | "yes" | "leaving" = "no";

  constructor(kernel: Kernel, volume: Address<ParkingVolume>, watch: SpaceStub) {
    this.#kernel = kernel;
    this.#volume = volume;
    this.#watch = watch;
  }

  /** Parked bios, those that are being tried again among them. */
  get size(): number {
    return this.#bios.size;
  }

  /** Parks a bio, or parks it again at its old place. */
  park({ bio, status, seen }: BioWithoutSpace): void {
    const before = this.#bios.get(bio);
    const need = needOf(status);
    this.#watched = "yes";
    this.#kernel.tell(this.#watch.address, { type: "bioParked", volume: this.#volume, need, seen });
    const admitted = present(bio.admitted, "a bio of no request was parked");
    admitted.biosParked += 1;
    assert(admitted.biosParked <= admitted.biosStarted, "more bios of a request are parked than started");
    if (before === undefined) {
      assert(this.#bios.size < queues.parkedBios, "more bios are parked than requests have");
      this.#bios.set(bio, { status, state: "waits" });
      return;
    }
    assert(before.state === "tried", "a bio was parked twice");
    assert(this.#tried > 0, "more bios were parked again than were tried");
    this.#unparked(needOf(before.status), 1, false);
    before.status = status;
    before.state = "waits";
    this.#tried -= 1;
    // Bios that check for a large range may fail where one block is left.
    if (need === "data" && bio.kind !== "checkSpace" && !this.#isForAll) this.#endRound("data");
  }

  /** A bio has ended. If it was parked, it is no more. */
  ended(bio: Bio, isServed: boolean): void {
    const parked = this.#bios.get(bio);
    if (parked === undefined) return;
    assert(parked.state === "tried", "a parked bio ended that was not tried again");
    assert(this.#tried > 0, "more parked bios ended than were tried again");
    this.#tried -= 1;
    this.#bios.delete(bio);
    this.#unparked(needOf(parked.status), 1, isServed);
  }

  /** From the watch: begins a round. Bios of an earlier round that have not been started are in this one too. */
  retry({ need, seen, isForAll }: RetryParked): void {
    const isOver = this.#dueNext >= this.#due.length;
    this.#isForAll = isForAll || (this.#isForAll && !isOver);
    this.#seen = seen;
    this.#due = [];
    this.#dueNext = 0;
    for (const [bio, parked] of this.#bios) {
      if (parked.state === "waits" && needOf(parked.status) === need) parked.state = "due";
      if (parked.state === "due") this.#due.push(bio);
    }
  }

  /** The next bio to try again, counted as tried; undefined if there is none, or many are being tried. */
  next(): Due | undefined {
    if (this.#tried === parkedRetriesMax) return undefined;
    for (; this.#dueNext < this.#due.length; this.#dueNext += 1) {
      const bio = this.#due[this.#dueNext]!;
      const parked = this.#bios.get(bio);
      if (parked?.state !== "due") continue;
      parked.state = "tried";
      this.#tried += 1;
      assert(this.#tried <= parkedRetriesMax, "more bios are tried again at once than may be");
      notParked(bio);
      this.#dueNext += 1;
      return { bio, seen: this.#seen };
    }
    return undefined;
  }

  /**
   * Takes the first bio that is parked and not being tried again, of those that match. It is not parked any more;
   * {@linkcode tellTaken} must follow in the same turn.
   */
  take(
    matches: (bio: Bio) => boolean,
  ): { readonly bio: Bio; readonly status: StatusWithoutSpace } | undefined {
    for (const [bio, { state, status }] of this.#bios) {
      if (state === "tried" || !matches(bio)) continue;
      this.#bios.delete(bio);
      notParked(bio);
      this.#taken[needOf(status)] += 1;
      return { bio, status };
    }
    return undefined;
  }

  /** Tells the watch of the bios that were taken: one message for many, of which there may be thousands. */
  tellTaken(): void {
    for (const need of spaceNeeds) {
      const bios = this.#taken[need];
      this.#taken[need] = 0;
      if (bios > 0) this.#unparked(need, bios, false);
    }
  }

  /** Takes all bios of a request that are parked and not being tried again. Returns how many. */
  takeRequest(admitted: Admitted): number {
    let bios = 0;
    while (this.take((bio) => bio.admitted === admitted) !== undefined) bios += 1;
    this.tellTaken();
    return bios;
  }

  /** The volume has another size: takes the bios of requests past its end and of those that are planned again. Returns these. */
  takeMisfits(sizeBytes: number): Admitted[] {
    const requests = new Set<Admitted>();
    for (const { admitted } of this.#bios.keys()) if (admitted !== undefined) requests.add(admitted);
    const misfits = [...requests].filter(({ request, planned }) =>
      request.offsetBytes + request.lengthBytes > sizeBytes || planned !== undefined
    );
    for (const admitted of misfits) this.takeRequest(admitted);
    return misfits;
  }

  /** The volume closes: true if the watch sends nothing to it any more. If not, `parkingLeft` comes. */
  leave(): boolean {
    assert(this.#bios.size === 0 && this.#tried === 0, "a volume with parked bios closes");
    assert(
      spaceNeeds.every((need) => this.#taken[need] === 0),
      "the watch was not told of bios that were taken",
    );
    if (this.#watched !== "yes") return this.#watched === "no";
    this.#watched = "leaving";
    this.#kernel.tell(this.#watch.address, { type: "leaveParking", volume: this.#volume });
    return false;
  }

  /** The watch has forgotten the volume. */
  left(): void {
    assert(this.#watched === "leaving", "the watch forgot a volume that did not ask for it");
    this.#watched = "no";
  }

  #endRound(need: SpaceNeed): void {
    for (let at = this.#dueNext; at < this.#due.length; at += 1) {
      const parked = this.#bios.get(this.#due[at]!);
      if (parked?.state === "due" && needOf(parked.status) === need) parked.state = "waits";
    }
  }

  #unparked(need: SpaceNeed, bios: number, isServed: boolean): void {
    this.#kernel.tell(this.#watch.address, {
      type: "bioUnparked",
      volume: this.#volume,
      need,
      bios,
      isServed,
    });
  }
}

/** The bio is being tried again, or is taken. */
function notParked(bio: Bio): void {
  const admitted = present(bio.admitted, "a parked bio of no request");
  assert(admitted.biosParked > 0, "more bios of a request are tried again than were parked");
  admitted.biosParked -= 1;
}
