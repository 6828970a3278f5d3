/**
 * BlockDevice: the data device or the metadata device.
 *
 * Owns: the device port and the operations that are not completed. If the port answers at once (a page-cached file), the
 * request is answered in the same turn; otherwise when the port posts the completion.
 *
 * Failure policy: an I/O error is an answer, never a defect, and so is what the port throws. After one failed flush, every
 * later flush fails: the host may have dropped dirty pages, and reports that once only.
 */
import { assert, present, unreachable } from "../../storage/base/assert.ts";
import {
  type DevicePort,
  type IoDone,
  ioOk,
  type IoResult,
  type ReadDone,
  type ReadResult,
  reasonOfIo,
} from "../../storage/device/port.ts";
import type { Actor, Address } from "../kernel/address.ts";
import { reasonOutside } from "../kernel/boundary.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { queues } from "../queues.ts";
import type {
  BlockDeviceMessage,
  DeviceCompleted,
  DeviceFlush,
  DeviceGrow,
  DeviceRead,
  DeviceRequest,
  Transfer,
  TransferAtOnce,
} from "./device_messages.ts";
import { type IntentJournal, losesWrites } from "./intent_journal.ts";
import type { Refusal, RefusalsMessage } from "./refusals.ts";

export class BlockDevice implements Actor<BlockDeviceMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<BlockDeviceMessage>;
  readonly #port: DevicePort;
  readonly #pending = new Map<DeviceCompleted["operation"], DeviceRequest>();
  /** One function for all reads: most are answered at once, and need none. */
  readonly #readDone: ReadDone;
  #operationLast = 0;
  /** The result of the first flush that failed. */
  #lost: IoResult | undefined;
  readonly #refusals: Address<RefusalsMessage> | undefined;
  readonly #intents: Pick<IntentJournal, "fail"> | undefined;
  /** The kinds of operation that failed when they were last tried. */
  readonly #failing = new Set<Refusal>();
  /** Bytes that the pool uses, from the begin of the device. */
  #usedBytes = 0;
  #growth: DeviceGrow | undefined;

  /**
   * @param refusals is told of I/O errors and of their end; undefined for the metadata device, whose errors the pool reports
   * @param intents is void once something that was written may be lost
   */
  constructor(
    kernel: Kernel,
    self: Address<BlockDeviceMessage>,
    port: DevicePort,
    refusals?: Address<RefusalsMessage>,
    intents?: Pick<IntentJournal, "fail">,
  ) {
    this.#kernel = kernel;
    this.#self = self;
    this.#port = port;
    this.#refusals = refusals;
    this.#intents = intents;
    this.#readDone = (result, target) => kernel.post(self, { type: "completed", operation: target, result });
  }

  receive(message: BlockDeviceMessage): void {
    if (message.type === "completed") {
      const request = present(this.#pending.get(message.operation), "an operation was completed twice");
      this.#pending.delete(message.operation);
      return this.#answer(request, message.result);
    }
    if (message.type === "read") return this.#read(message);
    if (message.type === "transferAtOnce") return this.#transferAtOnce(message);
    if (message.type === "deviceGeometry") return this.#use(message.usedBytes);
    if (message.type === "grow") return this.#grow(message);
    if (message.type === "growthEnded") return this.#growthEnded(message.result);
    this.#operationLast += 1;
    const operation = this.#operationLast;
    const result = this.#start(message, (result) => {
      this.#kernel.post(this.#self, { type: "completed", operation, result });
    });
    if (result === "pending") this.#isPending(operation, message);
    else this.#answer(message, result);
  }

  #read(request: DeviceRead): void {
    const result = this.#tryRead(request);
    if (result === "pending") {
      assert(!this.#pending.has(request.target), "a target has one read at a time");
      this.#isPending(request.target, request);
    } else if (result.kind === "mapped") {
      assert(request.target.takesMapped, "a segment was mapped for a reader that takes none");
      result.drain = this.#kernel.drains;
      if (this.#failing.size > 0) this.#note(request, ioOk);
      this.#kernel.reply(request, result);
    } else this.#answer(request, result);
  }

  #transferAtOnce(request: TransferAtOnce): void {
    // While something fails, every operation is asked for alone, so that the first success is told.
    const transfers = this.#failing.size > 0 ? [] : request.transfers;
    for (const transfer of transfers) {
      const result = this.#tryAtOnce(transfer);
      if (result === undefined || (result.kind !== "ok" && result.kind !== "mapped")) continue;
      if (result.kind === "mapped") result.drain = this.#kernel.drains;
      transfer.result = result;
    }
    this.#kernel.reply(request, "answered");
  }

  #tryAtOnce(transfer: Transfer): ReadResult | undefined {
    const { target, atBytes } = transfer;
    const port = this.#port;
    try {
      if (target !== undefined) return port.readAtOnce?.(target, atBytes);
      return port.writeAtOnce?.(transfer.memory(), atBytes);
    } catch {
      // Asked for alone, its failure is told.
      return undefined;
    }
  }

  /** The port answers later. */
  #isPending(operation: DeviceCompleted["operation"], request: DeviceRequest): void {
    assert(
      this.#pending.size < queues.deviceOperations,
      "more operations of a device are under way than tasks",
    );
    this.#pending.set(operation, request);
  }

  #answer(request: DeviceRequest, result: IoResult): void {
    if (result.kind !== "ok" && losesWrites(request, result)) {
      this.#intents?.fail(`a ${request.type} of a device failed: ${reasonOfIo(result)}`);
    }
    if (request.type !== "flush") {
      if (result.kind !== "ok" || this.#failing.size > 0) this.#note(request, result);
      return this.#kernel.reply(request, result);
    }
    if (result.kind !== "ok") this.#lost ??= result;
    this.#kernel.reply(request, this.#lost ?? result);
  }

  /** Tells refusals of a failure, and of the first success after one. A failed flush fails the pool, which reports it. */
  #note(request: Exclude<DeviceRequest, DeviceFlush>, result: IoResult): void {
    if (this.#refusals === undefined) return;
    const isRead = request.type === "read" || result.kind === "ioError" && result.isOfSource === true;
    if (result.kind === "ok") {
      for (const what of isRead ? readRefusals : writeRefusals) {
        if (this.#failing.delete(what)) this.#kernel.tell(this.#refusals, { type: "served", what });
      }
      return;
    }
    // The space watch tells of a full host.
    if (result.kind === "noSpace") return;
    const what = isRead ? "dataRead" : "dataWrite";
    this.#failing.add(what);
    const detail = `${actionOf(request, isRead)}: ${result.reason}`;
    this.#kernel.tell(this.#refusals, { type: "refused", what, detail });
  }

  /**
   * The size of the device is the port's, which may grow too: what is read or written is checked there. Here it is compared
   * with what the pool counts on. Both are our own: opening and growing refuse a device that is too small with a sentence.
   */
  #use(usedBytes: number): void {
    assert(usedBytes >= this.#usedBytes, "a pool uses less of its device than before");
    assert(usedBytes <= this.#port.sizeBytes, "a pool counts on more than its device has");
    this.#usedBytes = usedBytes;
  }

  #tryRead(request: DeviceRead): ReadResult | "pending" {
    try {
      return this.#port.read(request.target, request.offsetBytes, this.#readDone);
    } catch (error) {
      return deviceFailure(request, error);
    }
  }

  #grow(request: DeviceGrow): void {
    assert(this.#growth === undefined, "a device grows one step at a time");
    this.#growth = request;
    const result = this.#tryToGrow(request);
    if (result !== "pending") this.#growthEnded(result);
  }

  #tryToGrow({ sizeBytes, isStored }: DeviceGrow): IoResult | "pending" {
    const port = this.#port;
    if (port.grow === undefined) return port.sizeBytes >= sizeBytes ? ioOk : notLargeEnough;
    try {
      return port.grow(sizeBytes, isStored, (result) => {
        this.#kernel.post(this.#self, { type: "growthEnded", result });
      });
    } catch (error) {
      return { kind: "ioError", reason: `grow: ${reasonOutside(error)}` };
    }
  }

  /** A refusal is the answer to the command alone: no client has lost anything. */
  #growthEnded(result: IoResult): void {
    const request = present(this.#growth, "a growth ended that had not begun");
    this.#growth = undefined;
    this.#kernel.reply(request, { result, sizeBytes: this.#port.sizeBytes });
  }

  #start(request: OtherRequest, done: IoDone): IoResult | "pending" {
    try {
      return this.#call(request, done);
    } catch (error) {
      return deviceFailure(request, error);
    }
  }

  #call(request: OtherRequest, done: IoDone): IoResult | "pending" {
    switch (request.type) {
      case "write":
        return this.#port.write(request.buffer, request.offsetBytes, done);
      case "zero":
        if (this.#port.local?.isHole(request.offsetBytes, request.lengthBytes)) return ioOk;
        return this.#port.zero(request.offsetBytes, request.lengthBytes, done);
      case "copy":
        return this.#port.copy(request.fromBytes, request.toBytes, request.lengthBytes, done);
      case "discard":
        return present(this.#port.local, "a device without holes was asked to discard")
          .discard(request.offsetBytes, request.lengthBytes, done);
      case "flush":
        this.#kernel.count("deviceFlushes");
        return this.#port.flush(done, request.isAlone);
      default:
        return unreachable(request);
    }
  }
}

/** A request that is numbered: a read is known by its target. */
type OtherRequest = Exclude<DeviceRequest, DeviceRead>;

/** What the port has thrown, as the failure of an operation. */
function deviceFailure(request: DeviceRequest, error: unknown): IoResult {
  return { kind: "ioError", reason: `${request.type}: ${reasonOutside(error)}` };
}

const notLargeEnough: IoResult = {
  kind: "ioError",
  reason: "it is not so large, and cannot be made larger here",
};

const readRefusals: readonly Refusal[] = ["dataRead"];
const writeRefusals: readonly Refusal[] = ["dataWrite"];

/** What was tried, and where. */
function actionOf(request: Exclude<DeviceRequest, DeviceFlush>, isRead: boolean): string {
  switch (request.type) {
    case "read":
      return `reading at byte ${request.offsetBytes}`;
    case "copy":
      return isRead
        ? `reading at byte ${request.fromBytes}`
        : `copying from byte ${request.fromBytes} to byte ${request.toBytes}`;
    case "discard":
      return `discarding at byte ${request.offsetBytes}`;
    case "write":
    case "zero":
      return `writing at byte ${request.offsetBytes}`;
    default:
      return unreachable(request);
  }
}
