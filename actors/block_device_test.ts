import { assertEquals } from "@std/assert";
import { MemoryDevice } from "../storage/device/memory_device.ts";
import { type DevicePort, type IoDone, ioOk, type IoResult } from "../storage/device/port.ts";
import { World } from "../tests/testing_world.ts";
import { BlockDevice, type BlockDeviceMessage, DeviceStub } from "./block_device.ts";
import { join, type Steps } from "./kernel/task.ts";
import { writeBytesMax } from "./limits.ts";

const failed: IoResult = { kind: "ioError", reason: "told to" };

/** A device that tells its writes and flushes, as "write 0+8" in bytes, and fails or puts off some of them. */
class TellingDevice implements DevicePort {
  readonly canDiscard = false;
  readonly asked: string[] = [];
  failsAtBytes = -1;
  answersLater = false;
  readonly later: (() => void)[] = [];
  readonly #memory: MemoryDevice;

  constructor(readonly sizeBytes: number) {
    this.#memory = new MemoryDevice(sizeBytes);
  }

  write(buffer: Uint8Array, offsetBytes: number, done: IoDone): IoResult | "pending" {
    this.asked.push(`write ${offsetBytes}+${buffer.length}`);
    if (offsetBytes === this.failsAtBytes) return failed;
    const result = this.#memory.write(buffer, offsetBytes);
    if (!this.answersLater) return result;
    this.later.push(() => done(result));
    return "pending";
  }

  read(buffer: Uint8Array, offsetBytes: number): IoResult {
    return this.#memory.read(buffer, offsetBytes);
  }

  flush(): IoResult {
    this.asked.push("flush");
    return ioOk;
  }

  zero(offsetBytes: number, lengthBytes: number): IoResult {
    return this.#memory.zero(offsetBytes, lengthBytes);
  }

  copy(fromBytes: number, toBytes: number, lengthBytes: number): IoResult {
    return this.#memory.copy(fromBytes, toBytes, lengthBytes);
  }

  discard(): IoResult {
    return failed;
  }

  isHole(): boolean {
    return false;
  }
}

/** The actor on such a device. */
function newDevice(sizeBytes = 100) {
  const world = new World();
  const port = new TellingDevice(sizeBytes);
  const address = world.kernel.spawn<BlockDeviceMessage>(
    "data",
    1000,
    (self) => new BlockDevice(world.kernel, self, port),
  );
  return { world, port, stub: new DeviceStub(address, sizeBytes, false) };
}

const bytes = Uint8Array.from({ length: 16 }, (_, index) => index + 1);

/** The quarters of `bytes`, to be written at these places. */
function quarters(stub: DeviceStub, ...offsets: number[]): Steps<IoResult>[] {
  return offsets.map((at, index) => stub.write(bytes.subarray(4 * index, 4 * index + 4), at, true));
}

Deno.test("parts of a write that follow each other on the device are written with one call", () => {
  const { world, port, stub } = newDevice();
  assertEquals(world.runAll(quarters(stub, 8, 12, 16, 20)), [ioOk, ioOk, ioOk, ioOk]);
  assertEquals(port.asked, ["write 8+16"]);
  const written = new Uint8Array(16);
  port.read(written, 8);
  assertEquals(written, bytes);
});

Deno.test("parts that lie apart on the device are written each by itself, in the order they came", () => {
  const { world, port, stub } = newDevice();
  assertEquals(world.runAll(quarters(stub, 8, 12, 40, 4)), [ioOk, ioOk, ioOk, ioOk]);
  assertEquals(port.asked, ["write 8+8", "write 40+4", "write 4+4"]);
});

Deno.test("writes that follow each other on the device and not in memory are not joined", () => {
  const { world, port, stub } = newDevice();
  const parts = [
    stub.write(bytes.subarray(0, 4), 0, true),
    stub.write(bytes.subarray(8, 12), 4, true),
    stub.write(bytes.slice(12, 16), 8, true),
  ];
  assertEquals(world.runAll(parts), [ioOk, ioOk, ioOk]);
  assertEquals(port.asked, ["write 0+4", "write 4+4", "write 8+4"]);
});

Deno.test("a write that fails fails all of its parts, and no others", () => {
  const { world, port, stub } = newDevice();
  port.failsAtBytes = 40;
  assertEquals(world.runAll(quarters(stub, 8, 40, 44, 80)), [ioOk, failed, failed, ioOk]);
});

Deno.test("what is asked after a part finds it written", () => {
  const { world, port, stub } = newDevice();
  const read = new Uint8Array(4);
  world.runAll([...quarters(stub, 8), stub.flush(), ...quarters(stub, 12), stub.read(read, 12)]);
  assertEquals(port.asked, ["write 8+4", "flush", "write 12+4"]);
  assertEquals(read, bytes.subarray(0, 4));
});

Deno.test("parts are answered when the device has written them", () => {
  const { world, port, stub } = newDevice();
  port.answersLater = true;
  let ended: readonly IoResult[] = [];
  world.kernel.start(
    "parts",
    (function* () {
      ended = yield* join("part", quarters(stub, 0, 4));
    })(),
  );
  world.settle();
  assertEquals(ended, []);
  for (const answer of port.later) answer();
  world.settle();
  assertEquals([ended, port.asked], [[ioOk, ioOk], ["write 0+8"]]);
});

Deno.test("no more is written with one call than may be", () => {
  const { world, port, stub } = newDevice(4 * writeBytesMax);
  const large = new Uint8Array(3 * writeBytesMax / 2);
  const half = writeBytesMax / 2;
  const parts = [0, half, 2 * half].map((at) => stub.write(large.subarray(at, at + half), at, true));
  world.runAll(parts);
  assertEquals(port.asked, [`write 0+${writeBytesMax}`, `write ${writeBytesMax}+${half}`]);
});
