/** For tests of one actor: stand-ins for its peers, which keep what they are sent and answer what the test says. */
import type { Actor, Address, Message } from "../../actors/kernel/address.ts";
import type { Kernel } from "../../actors/kernel/kernel.ts";
import type { Steps } from "../../actors/kernel/task.ts";
import {
  type BlockDeviceMessage,
  type DeviceRequest,
  DeviceStub,
} from "../../actors/pool/device_messages.ts";
import { assert } from "../../storage/base/assert.ts";
import { ioOk, type IoResult } from "../../storage/device/port.ts";

/** An actor that keeps what it is sent, and answers nothing by itself. */
export class Recorder<M extends Message> implements Actor<M> {
  readonly address: Address<M>;
  /** What was sent and not taken, the oldest first. */
  received: M[] = [];

  constructor(kernel: Kernel, name: string) {
    this.address = kernel.spawn<M>(name, 10_000, () => this);
  }

  receive(message: M): void {
    this.received.push(message);
  }

  /** The types of what was sent and not taken. */
  get types(): string[] {
    return this.received.map(({ type }) => type);
  }

  /** Takes what was sent so far. */
  take(): M[] {
    return this.received.splice(0);
  }
}

/** What a stand-in device is told to do with its next operations. */
export type DeviceOperation = Exclude<DeviceRequest["type"], "zero" | "copy">;

/** The failure of a stand-in device. */
export const deviceFault: IoResult = { kind: "ioError", reason: "a fault of the test" };

/**
 * A device that notes each operation when it begins, as `name operation offset`. Operations in `holds` end at `finish`;
 * those in `fails` end with {@linkcode deviceFault} and do nothing.
 */
export class StandInDevice implements Actor<BlockDeviceMessage> {
  readonly stub: DeviceStub;
  readonly holds = new Set<DeviceOperation>();
  readonly fails = new Set<DeviceOperation>();
  readonly #kernel: Kernel;
  readonly #name: string;
  readonly bytes: Uint8Array;
  readonly #log: string[];
  readonly #held: (() => void)[] = [];

  constructor(
    kernel: Kernel,
    name: string,
    bytes: Uint8Array,
    options: { readonly log?: string[]; readonly canDiscard?: boolean } = {},
  ) {
    this.#kernel = kernel;
    this.#name = name;
    this.bytes = bytes;
    this.#log = options.log ?? [];
    const address = kernel.spawn<BlockDeviceMessage>(name, 10_000, () => this);
    this.stub = new DeviceStub(address, options.canDiscard ?? true);
  }

  /** Operations that have begun and not ended. */
  get heldCount(): number {
    return this.#held.length;
  }

  /** Ends so many operations that are held, the oldest first. */
  finish(count = Infinity): void {
    for (const end of this.#held.splice(0, count)) end();
  }

  receive(message: BlockDeviceMessage): void {
    const { type } = message;
    assert(
      type === "read" || type === "write" || type === "discard" || type === "flush",
      "a stand-in device was asked for what it does not do",
    );
    this.#log.push(type === "flush" ? `${this.#name} flush` : `${this.#name} ${type} ${message.offsetBytes}`);
    const result = this.fails.has(type) ? deviceFault : this.#perform(message as DeviceRequest);
    const end = () => this.#kernel.reply(message as DeviceRequest, result);
    if (this.holds.has(type)) this.#held.push(end);
    else end();
  }

  #perform(request: DeviceRequest): IoResult {
    if (request.type === "read") {
      const { offsetBytes, lengthBytes, target } = request;
      target.memory().set(this.bytes.subarray(offsetBytes, offsetBytes + lengthBytes));
    } else if (request.type === "write") this.bytes.set(request.buffer, request.offsetBytes);
    return ioOk;
  }
}

/** Runs the steps beside the test; `answers` gets what they end with. */
export function startCollecting<T>(kernel: Kernel, steps: Steps<T>, answers: T[]): void {
  kernel.start("test", collect(steps, answers));
}

function* collect<T>(steps: Steps<T>, answers: T[]): Steps<void> {
  answers.push(yield* steps);
}
