/** The messages of the space watch and the stubs that send them; the actor itself is in space_watch.ts. */
import type { Address, Message, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { ask, type Steps } from "../kernel/task.ts";

/** What a bio found none of: free data blocks, free metadata blocks, room of the host for the data device. */
export type SpaceNeed = "data" | "metadata" | "host";

/** All of them, the worst last. */
export const spaceNeeds: readonly SpaceNeed[] = ["data", "host", "metadata"];

/** What becomes of a write without space: it waits for so many milliseconds (0: for ever), or fails at once. */
export type NoSpacePolicy =
  | { readonly kind: "queue"; readonly timeoutMs: number }
  | { readonly kind: "error" };

/** Pool modes that depend on space alone. */
export type SpaceMode = "write" | "out-of-data-space" | "out-of-metadata-space";

/** How often space of each kind had come when a bio was last about to be tried. */
export type SpaceSeen = { readonly [need in SpaceNeed]: number };

/** The answer to {@linkcode Look}. */
export type SpaceLook = SpaceSeen & {
  /** Whether the bio is to be parked if it finds no space again; if not, it fails. */
  readonly parks: boolean;
};

/** From a bio that found no space, before it tries once more. */
export interface Look extends Request<SpaceLook> {
  readonly type: "look";
}

/** From a bio that fails, or from metadata of a command: there was no space for it. */
export interface SpaceRefused extends Message {
  readonly type: "spaceRefused";
  readonly need: SpaceNeed;
}

/** From a volume: a bio is parked, or parked again. For the latter, `bioUnparked` follows. */
export interface BioParked extends Message {
  readonly type: "bioParked";
  readonly volume: Address<ParkingVolume>;
  readonly need: SpaceNeed;
  readonly seen: SpaceSeen;
}

/** From a volume: bios that were parked are parked for this need no more. */
export interface BioUnparked extends Message {
  readonly type: "bioUnparked";
  readonly volume: Address<ParkingVolume>;
  readonly need: SpaceNeed;
  readonly bios: number;
  /** A bio was tried again and had its space. If not, they were dropped, or they failed, or are parked again. */
  readonly isServed: boolean;
}

/** From a volume that closes and has no parked bio: send nothing to it any more. Answered by `parkingLeft`, the last message. */
export interface LeaveParking extends Message {
  readonly type: "leaveParking";
  readonly volume: Address<ParkingVolume>;
}

/** Some space of this kind has come, or may have. */
export interface SpaceCame extends Message {
  readonly type: "spaceCame";
  readonly need: SpaceNeed;
}

/** From the allocator, which has no free block: a commit is durable. It may have left blocks to one volume that others shared. */
export interface MaybeUnshared extends Message {
  readonly type: "maybeUnshared";
}

/** From a task that removes mappings and gives their blocks back: it begins, it has ended and all its blocks are back. */
export interface RemovalBegan extends Message {
  readonly type: "removalBegan";
}
/** See {@linkcode RemovalBegan}. */
export interface RemovalEnded extends Message {
  readonly type: "removalEnded";
}

/** From its own timer: bios have waited for the whole timeout. */
export interface NoSpaceTimeout extends Message {
  readonly type: "noSpaceTimeout";
  /** The number of the timer: one that was cancelled may have sent its message already. */
  readonly timer: number;
}

/** From its own timer: ask the host. */
export interface HostTick extends Message {
  readonly type: "hostTick";
}

/** What `status` tells of space. */
export interface SpaceFacts {
  readonly kind: "spaceFacts";
  /** Bios that wait for space. */
  readonly parked: number;
  readonly short: readonly SpaceNeed[];
  /** What it is short of although no space has come since a try found none: not what is being tried again. */
  readonly lacking: readonly SpaceNeed[];
}

/** How short of space is the pool? */
export interface AskSpaceFacts extends Request<SpaceFacts> {
  readonly type: "spaceFacts";
}

/** To the space gauge, from its own timer, from the space watch when something is lacking, and from a growth: measure now. */
export interface MeasureNow extends Message {
  readonly type: "measureNow";
  /** It is the timer's. */
  readonly isTick: boolean;
}

/** From the assembly, once. */
export interface ConnectSpace extends Message {
  readonly type: "connectSpace";
  /** Told of each change of the mode. */
  readonly pool: Address<SpaceModeNotice>;
  /** Told when something has become short. */
  readonly gauge: Address<MeasureNow>;
}

/** To the pool: the mode as far as it depends on space. */
export interface SpaceModeNotice extends Message {
  readonly type: "spaceMode";
  readonly mode: SpaceMode;
  /** What is missing, as words; null if nothing is. */
  readonly reason: string | null;
}

/** Every message that the watch takes. */
export type SpaceWatchMessage =
  | Look
  | SpaceRefused
  | BioParked
  | BioUnparked
  | LeaveParking
  | SpaceCame
  | MaybeUnshared
  | RemovalBegan
  | RemovalEnded
  | NoSpaceTimeout
  | HostTick
  | AskSpaceFacts
  | ConnectSpace;

/** To a volume: try the bios again that are parked for this need, in order. */
export interface RetryParked extends Message {
  readonly type: "retryParked";
  readonly need: SpaceNeed;
  readonly seen: SpaceSeen;
  /** Also those behind one that finds no block: their block may be their own now, and then they need none. */
  readonly isForAll: boolean;
}

/** To a volume: all its parked bios fail. */
export interface FailParked extends Message {
  readonly type: "failParked";
}

/** To a volume: the answer to `leaveParking`. */
export interface ParkingLeft extends Message {
  readonly type: "parkingLeft";
}

/** What a volume is told about its parked bios. */
export type ParkingVolume = RetryParked | FailParked | ParkingLeft;

/** The stubs of the space watch. */
export class SpaceStub {
  constructor(readonly kernel: Kernel, readonly address: Address<SpaceWatchMessage>) {}

  look(): Steps<SpaceLook> {
    const request: Look = { type: "look", replyTo: unasked };
    return ask(this.address, request);
  }

  facts(): Steps<SpaceFacts> {
    const request: AskSpaceFacts = { type: "spaceFacts", replyTo: unasked };
    return ask(this.address, request);
  }

  /** A removal begins; it ends when the result is disposed of. */
  removal(): Disposable {
    const { kernel, address } = this;
    kernel.tell(address, { type: "removalBegan" });
    return { [Symbol.dispose]: () => kernel.tell(address, { type: "removalEnded" }) };
  }
}
