/** The messages of a volume and the stubs that send them; the actor itself is in thin_volume.ts. */
import type { ThinId } from "../../storage/base/ids.ts";
import type { Address, Message, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { ask, type Steps } from "../kernel/task.ts";
import type { ParkingVolume } from "../pool/space_messages.ts";
import type { BatchDone, BioDone, BioStatus, BioWithoutSpace, RequestsDone, VolumeRequest } from "./bio.ts";
import type { AskStatus, StatusEnded } from "./block_status.ts";

/** From a client: serve these requests and tell the `client` of each when it is done. They lie inside the volume. */
export interface Submit extends Message {
  readonly type: "submit";
  readonly requests: readonly VolumeRequest[];
}

/** Start no more bios, and answer when none is in flight. */
export interface Suspend extends Request<"suspended"> {
  readonly type: "suspend";
}

/** Start bios again, with this thin id and size. */
export interface Resume extends Message {
  readonly type: "resume";
  readonly thinId: ThinId;
  readonly sizeBytes: number;
}

/** End once nothing is in flight. No request may be submitted after it. Answered just before the actor ends. */
export interface Close extends Request<"closed"> {
  readonly type: "close";
}

/** From the pool: refuse all writes or reads with this status from now on. undefined: serve them. */
export interface Refuse extends Message {
  readonly type: "refuse";
  readonly writes: BioStatus | undefined;
  readonly reads: BioStatus | undefined;
}

/** From a client that is gone or going: its requests that wait for space end as "dropped", and are never done. */
export interface DropParked extends Message {
  readonly type: "dropParked";
  readonly client: Address<RequestsDone>;
}

/** From a client: this request of it ends, if it waits for space, as it would after the time for that. */
export interface FailParkedRequest extends Message {
  readonly type: "failParkedRequest";
  readonly request: VolumeRequest;
}

export type ThinVolumeMessage =
  | Submit
  | BioDone
  | BatchDone
  | BioWithoutSpace
  | DropParked
  | FailParkedRequest
  | ParkingVolume
  | AskStatus
  | StatusEnded
  | Suspend
  | Resume
  | Close
  | Refuse;

/** The stubs of one volume. */
export class VolumeStub {
  constructor(readonly kernel: Kernel, readonly address: Address<ThinVolumeMessage>) {}

  submit(requests: readonly VolumeRequest[]): void {
    this.kernel.tell(this.address, { type: "submit", requests });
  }

  suspend(): Steps<"suspended"> {
    const request: Suspend = { type: "suspend", replyTo: unasked };
    return ask(this.address, request);
  }

  resume(thinId: ThinId, sizeBytes: number): void {
    this.kernel.tell(this.address, { type: "resume", thinId, sizeBytes });
  }

  close(): Steps<"closed"> {
    const request: Close = { type: "close", replyTo: unasked };
    return ask(this.address, request);
  }

  refuse(writes: BioStatus | undefined, reads: BioStatus | undefined): void {
    this.kernel.tell(this.address, { type: "refuse", writes, reads });
  }
}
