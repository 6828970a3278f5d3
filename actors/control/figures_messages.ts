/** The messages of the figures actor, and the stub that sends them; the actor itself is in usage_figures.ts. */
import type { ThinId } from "../../storage/base/ids.ts";
import type { FamilyKey } from "../../storage/families.ts";
import type { MetadataDamaged } from "../../storage/metadata_scan.ts";
import type { DeviceUsage } from "../../storage/usage.ts";
import type { Address, Message, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import { ask, type Steps } from "../kernel/task.ts";

/** What the devices of one family map and own alone, as of one commit. */
export interface FamilyFigures {
  /** The number of that commit, as in {@linkcode DeviceState}. */
  readonly transaction: number;
  /** When it was counted: milliseconds of the kernel's clock. */
  readonly countedMs: number;
  /** The devices that were asked for. One that is not in `devices` was gone by then. */
  readonly members: ReadonlySet<ThinId>;
  readonly devices: ReadonlyMap<ThinId, DeviceUsage>;
}

/** The last figures of each family that was counted. */
export type Figures = ReadonlyMap<FamilyKey, FamilyFigures>;

/** A family as it is now. */
export interface FamilyNow {
  readonly key: FamilyKey;
  /** Its devices, without those that are being deleted: these count as gone. */
  readonly thins: readonly ThinId[];
  /** The latest transaction in which one of them changed. */
  readonly changedIn: number;
}

/** Ask for the last figures, whatever they are of. */
export interface AskFigures extends Request<Figures> {
  readonly type: "figures";
}

/** Have families counted as they are now or later. Answered with the figures of all families once that is done. */
export interface CountFamilies
  extends Request<{ readonly kind: "counted" | "notYet"; readonly figures: Figures } | MetadataDamaged> {
  readonly type: "countFamilies";
  readonly families: readonly FamilyNow[];
  /** Some device of the pool is being deleted, so reference counts do not tell what is exclusive. */
  readonly isDeleting: boolean;
  /** After so long the answer is `notYet`, and counting goes on; undefined: it is waited for. */
  readonly waitMs: number | undefined;
}

/** The time of a {@linkcode CountFamilies} has passed. */
export interface WaitEnded extends Message {
  readonly type: "waitEnded";
  readonly asker: number;
}

/** From the walk, every now and then: whether to go on. */
export interface AskGoOn extends Request<boolean> {
  readonly type: "goOn";
}

/** From the walk: what it has counted, the damage that it met, or nothing if it was told to break off. */
export interface WalkEnded extends Message {
  readonly type: "walkEnded";
  readonly counted: Figures | MetadataDamaged | undefined;
}

/** From the stop of the pool: break off. Answered when no walk is under way; none begins from then on. */
export interface StopFigures extends Request<"stopped"> {
  readonly type: "stopFigures";
}

export type FiguresMessage = AskFigures | CountFamilies | WaitEnded | AskGoOn | WalkEnded | StopFigures;

/** The stub of the figures actor. */
export class FiguresStub {
  constructor(readonly address: Address<FiguresMessage>) {}

  last(): Steps<Figures> {
    const request: AskFigures = { type: "figures", replyTo: unasked };
    return ask(this.address, request);
  }

  counted(
    question: Pick<CountFamilies, "families" | "isDeleting" | "waitMs">,
  ): Steps<NonNullable<CountFamilies["reply"]>> {
    const request: CountFamilies = { type: "countFamilies", replyTo: unasked, ...question };
    return ask(this.address, request);
  }

  goOn(): Steps<boolean> {
    const request: AskGoOn = { type: "goOn", replyTo: unasked };
    return ask(this.address, request);
  }

  stop(): Steps<"stopped"> {
    const request: StopFigures = { type: "stopFigures", replyTo: unasked };
    return ask(this.address, request);
  }
}

/** Whether figures are those of the family as it is now: no device has come or gone, and none has changed since. */
export function isOfNow(figures: FamilyFigures | undefined, { thins, changedIn }: FamilyNow): boolean {
  return figures !== undefined && figures.transaction >= changedIn && figures.members.size === thins.length &&
    thins.every((thin) => figures.members.has(thin));
}
