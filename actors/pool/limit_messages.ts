/** Messages of metadata about the limits of single thin devices (storage/device_limits.ts), and the stubs that send them. */
import type { ThinId } from "../../storage/base/ids.ts";
import type { DeviceLimit, DeviceRoom, OwnBlocks } from "../../storage/device_limits.ts";
import type { Address, Message, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { ask, type Steps } from "../kernel/task.ts";

/** From the start of a pool: the limits that the catalogue has. Those of a change come with it. */
export interface SetLimits extends Message {
  readonly type: "setLimits";
  readonly limits: readonly DeviceLimit[];
}

/** From a command: a walk is about to count the blocks that these devices alone map. The walk's commit comes after this. */
export interface BeginCount extends Message {
  readonly type: "beginCount";
  readonly thins: readonly ThinId[];
}

/** From the same: what it has counted. */
export interface EndCount extends Message {
  readonly type: "endCount";
  /** Of each device that it began with. */
  readonly counted: readonly OwnBlocks[];
}

/** From the same, instead: the walk ended early. */
export interface CancelCount extends Message {
  readonly type: "cancelCount";
  readonly thins: readonly ThinId[];
}

/** From a command that counted before it set a reserve: if the reserve was refused, the count is of no use. */
export interface DropUnlimited extends Message {
  readonly type: "dropUnlimited";
  readonly thins: readonly ThinId[];
}

/** How many blocks may this device take? */
export interface AskRoom extends Request<DeviceRoom> {
  readonly type: "askRoom";
  readonly thin: ThinId;
}

/** Every message about limits that metadata takes. */
export type LimitMessage = SetLimits | BeginCount | EndCount | CancelCount | DropUnlimited | AskRoom;

/** The stubs of metadata for limits. */
export class LimitStub {
  constructor(readonly kernel: Kernel, readonly address: Address<LimitMessage>) {}

  set(limits: readonly DeviceLimit[]): void {
    if (limits.length > 0) this.kernel.tell(this.address, { type: "setLimits", limits });
  }

  beginCount(thins: readonly ThinId[]): void {
    this.kernel.tell(this.address, { type: "beginCount", thins });
  }

  endCount(counted: readonly OwnBlocks[]): void {
    this.kernel.tell(this.address, { type: "endCount", counted });
  }

  cancelCount(thins: readonly ThinId[]): void {
    this.kernel.tell(this.address, { type: "cancelCount", thins });
  }

  dropUnlimited(thins: readonly ThinId[]): void {
    this.kernel.tell(this.address, { type: "dropUnlimited", thins });
  }

  room(thin: ThinId): Steps<DeviceRoom> {
    const request: AskRoom = { type: "askRoom", thin, replyTo: unasked };
    return ask(this.address, request);
  }
}
