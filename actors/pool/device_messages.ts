/** The messages of a block device and the stubs that send them; the actor itself is in block_device.ts. */
import { ioOk, type IoResult, type ReadResult, type ReadTarget } from "../../storage/device/port.ts";
import type { Address, Message, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import { ask, type Steps } from "../kernel/task.ts";
import { defaultKnobs, type Knobs } from "../knobs.ts";
import type { DeviceGeometry } from "./geometry_messages.ts";

/** Read what the target asks for. The target is the device's until the answer. */
export interface DeviceRead extends Request<ReadResult> {
  readonly type: "read";
  readonly offsetBytes: number;
  /** That of the target. */
  readonly lengthBytes: number;
  readonly target: ReadTarget;
}

/** Write the buffer. Not durable before a flush. */
export interface DeviceWrite extends Request<IoResult> {
  readonly type: "write";
  readonly offsetBytes: number;
  readonly buffer: Uint8Array;
}

/** One read or write of a batch. Its target and memory are the device's until the answer. */
export interface Transfer {
  /** Where on the device. */
  readonly atBytes: number;
  readonly lengthBytes: number;
  /** A read is its own target; undefined for a write. */
  readonly target: ReadTarget | undefined;
  /** What a write writes. */
  memory(): Uint8Array;
  /** What came of it. Set by the device; undefined if it would have had to wait, or failed. */
  result: ReadResult | undefined;
}

/** Do those of the reads and writes that need not wait. */
export interface TransferAtOnce extends Request<"answered"> {
  readonly type: "transferAtOnce";
  readonly transfers: readonly Transfer[];
}

/** Make the range read as zeroes. Nothing is done where the host stores nothing already. */
export interface DeviceZero extends Request<IoResult> {
  readonly type: "zero";
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** Copy a range inside the device. */
export interface DeviceCopy extends Request<IoResult> {
  readonly type: "copy";
  readonly fromBytes: number;
  readonly toBytes: number;
  readonly lengthBytes: number;
}

/** Give the range back to the host. */
export interface DeviceDiscard extends Request<IoResult> {
  readonly type: "discard";
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** Make every write that was answered before this request durable. */
export interface DeviceFlush extends Request<IoResult> {
  readonly type: "flush";
  /** See {@linkcode DevicePort.flush}. */
  readonly isAlone: boolean;
}

/** Make the device at least so large, durably, stored whole by the host or not. Answers with the size that it has then. */
export interface DeviceGrow extends Request<DeviceGrown> {
  readonly type: "grow";
  readonly sizeBytes: number;
  readonly isStored: boolean;
}

/** How a growth has ended. */
export interface DeviceGrown {
  readonly result: IoResult;
  readonly sizeBytes: number;
}

/** From the device port: a pending operation has ended. */
export interface DeviceCompleted extends Message {
  readonly type: "completed";
  /** The target of a read; the number of any other operation. */
  readonly operation: number | ReadTarget;
  readonly result: IoResult;
}

/** A request that the port carries out and that many tasks make at the same time. */
export type DeviceRequest = DeviceRead | DeviceWrite | DeviceZero | DeviceCopy | DeviceDiscard | DeviceFlush;

/** From the device port: the growth has ended. */
export interface GrowthEnded extends Message {
  readonly type: "growthEnded";
  readonly result: IoResult;
}

/** What a block device takes. */
export type BlockDeviceMessage =
  | DeviceRequest
  | TransferAtOnce
  | DeviceCompleted
  | DeviceGeometry
  | DeviceGrow
  | GrowthEnded;

/** The stubs of one device. Offsets and lengths are bytes on the device. */
export class DeviceStub {
  constructor(
    readonly address: Address<BlockDeviceMessage>,
    /** True if discarded ranges give space back and read as zeroes. */
    readonly canDiscard: boolean,
    /** The sizes of pieces. */
    readonly knobs: Knobs = defaultKnobs,
  ) {}

  /** The answer may be a {@linkcode MappedSegment}, which names its drain. */
  read(target: ReadTarget, offsetBytes: number): Steps<ReadResult> {
    const { lengthBytes } = target;
    const request: DeviceRead = { type: "read", replyTo: unasked, offsetBytes, lengthBytes, target };
    return ask(this.address, request);
  }

  write(buffer: Uint8Array, offsetBytes: number): Steps<IoResult> {
    const request: DeviceWrite = { type: "write", replyTo: unasked, offsetBytes, buffer };
    return ask(this.address, request);
  }

  /** Sets the result of each that need not wait. A mapped segment names its drain. */
  transferAtOnce(transfers: readonly Transfer[]): Steps<"answered"> {
    const request: TransferAtOnce = { type: "transferAtOnce", replyTo: unasked, transfers };
    return ask(this.address, request);
  }

  /** Zeroes any length, in pieces. */
  *zero(offsetBytes: number, lengthBytes: number): Steps<IoResult> {
    const { zeroBytesMax } = this.knobs;
    for (let at = 0; at < lengthBytes; at += zeroBytesMax) {
      const length = Math.min(zeroBytesMax, lengthBytes - at);
      const request: DeviceZero = {
        type: "zero",
        replyTo: unasked,
        offsetBytes: offsetBytes + at,
        lengthBytes: length,
      };
      const result = yield* ask(this.address, request);
      if (result.kind !== "ok") return result;
    }
    return ioOk;
  }

  /** Copies any length, in pieces. */
  *copy(fromBytes: number, toBytes: number, lengthBytes: number): Steps<IoResult> {
    const { copyBytesMax } = this.knobs;
    for (let at = 0; at < lengthBytes; at += copyBytesMax) {
      const request: DeviceCopy = {
        type: "copy",
        replyTo: unasked,
        fromBytes: fromBytes + at,
        toBytes: toBytes + at,
        lengthBytes: Math.min(copyBytesMax, lengthBytes - at),
      };
      const result = yield* ask(this.address, request);
      if (result.kind !== "ok") return result;
    }
    return ioOk;
  }

  /** Discards any length, in pieces. */
  *discard(offsetBytes: number, lengthBytes: number): Steps<IoResult> {
    const { discardBytesMax } = this.knobs;
    for (let at = 0; at < lengthBytes; at += discardBytesMax) {
      const request: DeviceDiscard = {
        type: "discard",
        replyTo: unasked,
        offsetBytes: offsetBytes + at,
        lengthBytes: Math.min(discardBytesMax, lengthBytes - at),
      };
      const result = yield* ask(this.address, request);
      if (result.kind !== "ok") return result;
    }
    return ioOk;
  }

  /** One growth at a time. */
  grow(sizeBytes: number, isStored: boolean): Steps<DeviceGrown> {
    const request: DeviceGrow = { type: "grow", replyTo: unasked, sizeBytes, isStored };
    return ask(this.address, request);
  }

  flush(isAlone = false): Steps<IoResult> {
    const request: DeviceFlush = { type: "flush", replyTo: unasked, isAlone };
    return ask(this.address, request);
  }
}
