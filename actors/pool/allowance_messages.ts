/** Messages of metadata about the allowances of single thin devices (storage/device_allowances.ts), and the stubs that send them. */
import type { ThinId } from "../../storage/base/ids.ts";
import type { DeviceAllowance, DeviceRoom, OwnBlocks } from "../../storage/device_allowances.ts";
import type { Address, Message, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { ask, type Steps } from "../kernel/task.ts";

/** From the start of a pool: the allowances that the catalogue has. Those of a change come with it. */
export interface SetAllowances extends Message {
  readonly type: "setAllowances";
  readonly allowances: readonly DeviceAllowance[];
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
export interface DropUnused extends Message {
  readonly type: "dropUnused";
  readonly thins: readonly ThinId[];
}

/** How many blocks may this device take? */
export interface AskRoom extends Request<DeviceRoom> {
  readonly type: "askRoom";
  readonly thin: ThinId;
}

/** Every message about allowances that metadata takes. */
export type AllowanceMessage = SetAllowances | BeginCount | EndCount | CancelCount | DropUnused | AskRoom;

/** The stubs of metadata for allowances. */
export class AllowanceStub {
  constructor(readonly kernel: Kernel, readonly address: Address<AllowanceMessage>) {}

  set(allowances: readonly DeviceAllowance[]): void {
    if (allowances.length > 0) this.kernel.tell(this.address, { type: "setAllowances", allowances });
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

  dropUnused(thins: readonly ThinId[]): void {
    this.kernel.tell(this.address, { type: "dropUnused", thins });
  }

  room(thin: ThinId): Steps<DeviceRoom> {
    const request: AskRoom = { type: "askRoom", thin, replyTo: unasked };
    return ask(this.address, request);
  }
}
