/** The messages of the space gauge and the stubs that send them; the actor itself is in space_gauge.ts. */
import type { Address, Message, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { ask, type Steps } from "../kernel/task.ts";
import type { Facts } from "./metadata_messages.ts";
import type { MeasureNow, SpaceFacts, SpaceNeed } from "./space_messages.ts";

/** Room of the host's file system for the data device, in bytes that this user may use. */
export interface HostSpace {
  readonly freeBytes: number;
  /** In use or free. */
  readonly totalBytes: number;
}

/** How much of one kind of space there is, and how much of it is used. */
export interface Fill {
  readonly usedBytes: number;
  readonly totalBytes: number;
}

/** How full everything is. */
export interface SpaceMeasure {
  /** Bytes of the data blocks that are mapped. */
  readonly data: Fill;
  /** What is kept for removals and for the next commit counts as used, so that metadata without space is 100 % full. */
  readonly metadata: Fill;
  /** Undefined if it is not known. */
  readonly host: Fill | undefined;
  readonly space: SpaceFacts;
}

/** From `status`, and from the gauge's own task: what metadata and the space watch say. */
export interface Gauge extends Request<SpaceLevels> {
  readonly type: "gauge";
  readonly facts: Facts;
  readonly space: SpaceFacts;
}

/** The answer to {@linkcode Gauge}. */
export interface SpaceLevels {
  readonly measure: SpaceMeasure;
  /** What has crossed a threshold, and has not fallen well below the lowest one since. */
  readonly low: readonly SpaceNeed[];
}

/** From its own task: it has ended. */
export interface MeasureEnded extends Message {
  readonly type: "measureEnded";
}

/** Every message that the gauge takes. */
export type SpaceGaugeMessage = Gauge | MeasureNow | MeasureEnded;

/** To the actor that hears each measure (control/auto_grow.ts). */
export interface SpaceMeasured extends Message {
  readonly type: "spaceMeasured";
  readonly measure: SpaceMeasure;
}

/** The stubs of the gauge. */
export class GaugeStub {
  constructor(readonly kernel: Kernel, readonly address: Address<SpaceGaugeMessage>) {}

  gauge(facts: Facts, space: SpaceFacts): Steps<SpaceLevels> {
    const request: Gauge = { type: "gauge", facts, space, replyTo: unasked };
    return ask(this.address, request);
  }

  /** Measure soon: something has changed. */
  measureNow(): void {
    this.kernel.tell(this.address, { type: "measureNow", isTick: false });
  }
}
