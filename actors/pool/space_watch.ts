/**
 * SpaceWatch: whether the pool is short of space, and what becomes of the bios that wait for some.
 *
 * A bio that finds no space releases its locks, and its volume parks it (volume/parked_bios.ts). This actor has those
 * bios tried again when space may have come, and has them fail when they have waited for too long.
 *
 * Owns: what the pool is short of (free data blocks, free metadata blocks, room on the host) and hence the two modes
 * between "write" and "read-only"; how many bios each volume has parked for what; the timeout; the removals under way.
 *
 * The modes, as in dm-thin:
 *
 *  - A mode is entered when the first bio finds no space. Then the timeout begins. It begins anew whenever a parked bio
 *    was served: space is coming, and the others wait for theirs.
 *  - When the timeout ends, all parked bios fail, and from then on bios fail at once. The mode stays.
 *  - The mode is left when the last parked bio was served, or when space has come and no bio is parked. From then on bios
 *    wait again.
 *  - While a removal is under way no bio fails, whatever the policy: it gives blocks back.
 *
 * No wake-up is lost: a bio reads the counts of space that came (`look`) before its last try, and is parked with them. If
 * more came since, it is tried again at once. Space that came before the look is seen by that try. What may be space counts too.
 *
 * Failure policy: none. No actor waits for this one, except a bio without space for its look.
 */
import { assert, unreachable } from "../../storage/base/assert.ts";
import type { Actor, Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Timer } from "../kernel/timers.ts";
import { hostSpaceAskMs } from "../limits.ts";
import { queues } from "../queues.ts";
import type { RefusalsMessage } from "./refusals.ts";
import {
  type BioParked,
  type BioUnparked,
  type MeasureNow,
  type NoSpacePolicy,
  type ParkingVolume,
  type SpaceFacts,
  type SpaceMode,
  type SpaceModeNotice,
  type SpaceNeed,
  spaceNeeds,
  type SpaceWatchMessage,
} from "./space_messages.ts";

/** What the watch asks of the world. */
export interface SpaceWatchOptions {
  readonly policy: NoSpacePolicy;
  readonly refusals: Address<RefusalsMessage>;
  /** Bytes that the host has free for the data device; undefined if that is not known. */
  hostFreeBytes(): number | undefined;
  /** The least that must be free on the host before bios that wait for it are tried again: a data block. */
  readonly hostBytesMin: number;
}

type NeedCounts = { -readonly [need in SpaceNeed]: number };

export class SpaceWatch implements Actor<SpaceWatchMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<SpaceWatchMessage>;
  readonly #options: SpaceWatchOptions;
  #pool: Address<SpaceModeNotice> | undefined;
  #gauge: Address<MeasureNow> | undefined;
  /** How often space of each kind came. */
  readonly #came: NeedCounts = { data: 0, metadata: 0, host: 0 };
  /** What bios have found none of, and none is known to have come of since. */
  readonly #short = new Set<SpaceNeed>();
  /** How often space of each kind had come when a try last found none of it. */
  readonly #lackedAt: NeedCounts = { data: -1, metadata: -1, host: -1 };
  /** Parked bios by volume; those that are being tried again count as parked. */
  readonly #parked = new Map<Address<ParkingVolume>, NeedCounts>();
  #mode: SpaceMode = "write";
  /** The timeout has passed in this mode: bios fail. */
  #isExpired = false;
  #timer: Timer | undefined;
  #timerLast = 0;
  #removals = 0;
  #isAskingHost = false;

  constructor(kernel: Kernel, self: Address<SpaceWatchMessage>, options: SpaceWatchOptions) {
    this.#kernel = kernel;
    this.#self = self;
    this.#options = options;
  }

  receive(message: SpaceWatchMessage): void {
    switch (message.type) {
      case "look":
        return this.#kernel.reply(message, { ...this.#came, parks: !this.#fails });
      case "spaceRefused":
        this.#lacks(message.need);
        return this.#confirmLack(message.need);
      case "bioParked":
        return this.#bioParked(message);
      case "bioUnparked":
        return this.#bioUnparked(message);
      case "leaveParking":
        return this.#leaveParking(message.volume);
      case "spaceCame":
        return this.#cameOf(message.need, false);
      case "maybeUnshared":
        return this.#mayHaveCome("data");
      case "removalBegan":
        this.#removals += 1;
        return;
      case "removalEnded":
        return this.#removalEnded();
      case "noSpaceTimeout":
        return this.#expire(message.timer);
      case "hostTick":
        return this.#hostTick();
      case "spaceFacts":
        return this.#kernel.reply(message, this.#facts());
      case "connectSpace":
        this.#pool = message.pool;
        this.#gauge = message.gauge;
        return;
      default:
        return unreachable(message);
    }
  }

  /** True if a bio that finds no space now fails. */
  get #fails(): boolean {
    if (this.#removals > 0) return false;
    return this.#options.policy.kind === "error" || this.#isExpired;
  }

  #bioParked({ volume, need, seen }: BioParked): void {
    const counts = this.#parked.get(volume) ?? { data: 0, metadata: 0, host: 0 };
    this.#parked.set(volume, counts);
    assert(this.#parked.size <= queues.parkingVolumes, "more volumes have parked bios than can be open");
    counts[need] += 1;
    this.#lacks(need);
    if (this.#came[need] > seen[need]) return this.#retry(volume, need, true);
    this.#confirmLack(need);
    if (this.#fails) this.#kernel.tell(volume, { type: "failParked" });
  }

  #bioUnparked({ volume, need, bios, isServed }: BioUnparked): void {
    const counts = this.#parked.get(volume);
    assert(bios > 0, "the end of parking is told for no bio");
    assert(counts !== undefined && counts[need] >= bios, "a bio is parked no more that was not parked");
    assert(this.#short.has(need), "bios were parked for what the pool is not short of");
    counts[need] -= bios;
    if (!isServed) return;
    if (this.#parkedFor(need) === 0) this.#lacksNoMore(need);
    else this.#armTimer();
  }

  #leaveParking(volume: Address<ParkingVolume>): void {
    const counts = this.#parked.get(volume);
    assert(
      counts === undefined || spaceNeeds.every((need) => counts[need] === 0),
      "a volume leaves its parked bios",
    );
    this.#parked.delete(volume);
    this.#kernel.tell(volume, { type: "parkingLeft" });
  }

  #lacks(need: SpaceNeed): void {
    if (this.#short.has(need)) return;
    this.#short.add(need);
    if (need === "host") this.#armHostTick();
    this.#modeMayChange();
    this.#kernel.tell(this.#options.refusals, {
      type: "refused",
      what: refusalOf[need],
      detail: consequenceOf(this.#options.policy),
    });
  }

  /** A try that knew of all the space that came found none. Told once for each time that space came. */
  #confirmLack(need: SpaceNeed): void {
    if (this.#lackedAt[need] === this.#came[need]) return;
    this.#lackedAt[need] = this.#came[need];
    if (this.#gauge !== undefined) this.#kernel.tell(this.#gauge, { type: "measureNow", isTick: false });
  }

  #lacksNoMore(need: SpaceNeed): void {
    if (!this.#short.delete(need)) return;
    this.#modeMayChange();
    this.#kernel.tell(this.#options.refusals, { type: "served", what: refusalOf[need] });
  }

  #modeMayChange(): void {
    const mode = this.#short.has("metadata")
      ? "out-of-metadata-space"
      : this.#short.size > 0
      ? "out-of-data-space"
      : "write";
    if (mode === this.#mode) return;
    const isEntered = this.#mode === "write";
    this.#mode = mode;
    if (mode === "write") {
      this.#isExpired = false;
      this.#cancelTimer();
    } else if (isEntered) this.#armTimer();
    if (this.#pool === undefined) return;
    this.#kernel.tell(this.#pool, { type: "spaceMode", mode, reason: reasonOf(this.#short) });
  }

  /** Begins the timeout, or begins it anew. */
  #armTimer(): void {
    const { policy } = this.#options;
    if (policy.kind === "error" || policy.timeoutMs === 0 || this.#isExpired) return;
    this.#cancelTimer();
    this.#timerLast += 1;
    const message = { type: "noSpaceTimeout", timer: this.#timerLast } as const;
    this.#timer = this.#kernel.tellLater(policy.timeoutMs, this.#self, message);
  }

  #cancelTimer(): void {
    if (this.#timer !== undefined) this.#kernel.cancelTimer(this.#timer);
    this.#timer = undefined;
  }

  #expire(timer: number): void {
    if (this.#timer === undefined || timer !== this.#timerLast) return;
    this.#timer = undefined;
    this.#isExpired = true;
    this.#failAll();
  }

  #failAll(): void {
    if (!this.#fails) return;
    for (const volume of this.#parked.keys()) this.#kernel.tell(volume, { type: "failParked" });
  }

  #cameOf(need: SpaceNeed, isForAll: boolean): void {
    this.#came[need] += 1;
    if (this.#parkedFor(need) === 0) return this.#lacksNoMore(need);
    for (const [volume, counts] of this.#parked) if (counts[need] > 0) this.#retry(volume, need, isForAll);
  }

  /**
   * A try could find space that found none before. This counts also while no bio is parked: one that has looked, and found none,
   * may be on its way, and nothing else would tell of what came meanwhile. It ends no mode, because it may be nothing.
   */
  #mayHaveCome(need: SpaceNeed): void {
    if (this.#parkedFor(need) > 0) return this.#cameOf(need, true);
    const isLackKnown = this.#lackedAt[need] === this.#came[need];
    this.#came[need] += 1;
    if (isLackKnown) this.#lackedAt[need] = this.#came[need];
  }

  #retry(volume: Address<ParkingVolume>, need: SpaceNeed, isForAll: boolean): void {
    this.#kernel.tell(volume, { type: "retryParked", need, seen: { ...this.#came }, isForAll });
  }

  /** Bios that waited for the removal alone have what it gave back, or fail. */
  #removalEnded(): void {
    assert(this.#removals > 0, "a removal ended that had not begun");
    this.#removals -= 1;
    for (const need of spaceNeeds) this.#mayHaveCome(need);
  }

  /** Nothing tells of room on the host, so it is asked for while it is short. */
  #armHostTick(): void {
    if (this.#isAskingHost) return;
    this.#isAskingHost = true;
    this.#kernel.tellLater(hostSpaceAskMs, this.#self, { type: "hostTick" });
  }

  #hostTick(): void {
    this.#isAskingHost = false;
    if (!this.#short.has("host")) return;
    const { hostBytesMin } = this.#options;
    if ((this.#options.hostFreeBytes() ?? Infinity) >= hostBytesMin) this.#cameOf("host", true);
    if (this.#short.has("host")) this.#armHostTick();
  }

  #parkedFor(need: SpaceNeed): number {
    let bios = 0;
    for (const counts of this.#parked.values()) bios += counts[need];
    return bios;
  }

  #facts(): SpaceFacts {
    return {
      kind: "spaceFacts",
      parked: spaceNeeds.reduce((bios, need) => bios + this.#parkedFor(need), 0),
      short: spaceNeeds.filter((need) => this.#short.has(need)),
      lacking: spaceNeeds.filter((need) =>
        this.#short.has(need) && this.#lackedAt[need] === this.#came[need]
      ),
    };
  }
}

const refusalOf = { data: "dataFull", metadata: "metadataFull", host: "hostFull" } as const;

const lackOf: Readonly<Record<SpaceNeed, string>> = {
  data: "no data block is free",
  metadata: "no metadata block is free but those kept for removals",
  host: "the host has no room for the data device",
};

function reasonOf(short: ReadonlySet<SpaceNeed>): string | null {
  return short.size === 0
    ? null
    : spaceNeeds.filter((need) => short.has(need)).map((need) => lackOf[need]).join(", and ");
}

/** What becomes of writes without space, as the end of a sentence of the log. */
function consequenceOf(policy: NoSpacePolicy): string {
  if (policy.kind === "error") return "fail";
  return policy.timeoutMs === 0 ? "wait" : `wait, and fail after ${policy.timeoutMs / 1000} s`;
}
