/** For tests: devices that fail, or take their time. */
import type {
  DevicePort,
  IoDone,
  IoResult,
  LocalStorage,
  ReadDone,
  ReadResult,
  ReadTarget,
} from "../../storage/device/port.ts";

const failed: IoResult = { kind: "ioError", reason: "a fault of the test" };

/** A device that fails its reads, writes or flushes from when it is told to. */
export class FailingDevice implements DevicePort {
  failsReads = false;
  failsWrites = false;
  failsFlushes = false;
  constructor(readonly device: DevicePort) {}

  get sizeBytes(): number {
    return this.device.sizeBytes;
  }
  get local(): LocalStorage | undefined {
    return this.device.local;
  }
  read(target: ReadTarget, offsetBytes: number, done: ReadDone): ReadResult | "pending" {
    return this.failsReads ? failed : this.device.read(target, offsetBytes, done);
  }
  write(buffer: Uint8Array, offsetBytes: number, done: IoDone): IoResult | "pending" {
    return this.failsWrites ? failed : this.device.write(buffer, offsetBytes, done);
  }
  zero(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    return this.device.zero(offsetBytes, lengthBytes, done);
  }
  copy(fromBytes: number, toBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    return this.device.copy(fromBytes, toBytes, lengthBytes, done);
  }
  flush(done: IoDone): IoResult | "pending" {
    return this.failsFlushes ? failed : this.device.flush(done);
  }
}

/** A device whose reads and flushes end when they are told to. */
export class SlowDevice extends FailingDevice {
  slows: "read" | "flush" | undefined;
  readonly #pending: (() => void)[] = [];

  override read(target: ReadTarget, offsetBytes: number, done: ReadDone): ReadResult | "pending" {
    const result = super.read(target, offsetBytes, done);
    if (result === "pending" || result.kind === "mapped" || this.slows !== "read") return result;
    return this.#later(result, (later) => done(later, target));
  }
  override flush(done: IoDone): IoResult | "pending" {
    const result = super.flush(done);
    return this.slows === "flush" ? this.#later(result, done) : result;
  }
  #later(result: IoResult | "pending", done: IoDone): IoResult | "pending" {
    if (result === "pending") return result;
    this.#pending.push(() => done(result));
    return "pending";
  }
  /** Operations that have not ended. */
  get pendingCount(): number {
    return this.#pending.length;
  }
  /** Ends the youngest of them. */
  finishLast(): void {
    this.#pending.pop()?.();
  }
  /** Ends so many of them, the oldest first. */
  finish(count = Infinity): void {
    for (const end of this.#pending.splice(0, count)) end();
  }
}
