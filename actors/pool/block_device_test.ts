/** What the actor of a device makes of its port's answers. */
import { assertEquals, assertInstanceOf } from "@std/assert";
import { Defect } from "../../storage/base/assert.ts";
import {
  filled,
  into,
  ioOk,
  type IoResult,
  type MappedSegment,
  type ReadDone,
  type ReadTarget,
} from "../../storage/device/port.ts";
import { MemoryDevice } from "../../tests/support/memory_device.ts";
import { World } from "../../tests/support/world.ts";
import { Kernel } from "../kernel/kernel.ts";
import { ManualClock } from "../../tests/support/world.ts";
import type { Steps } from "../kernel/task.ts";
import { BlockDevice } from "./block_device.ts";
import { DeviceStub } from "./device_messages.ts";

const blockBytes = 4096;

/** Answers reads when it is told to, each block with bytes of its own number. */
class LateReads extends MemoryDevice {
  readonly reads: { readonly target: ReadTarget; readonly offsetBytes: number; readonly done: ReadDone }[] =
    [];

  override read(target: ReadTarget, offsetBytes: number, done?: ReadDone): IoResult {
    this.reads.push({ target, offsetBytes, done: done! });
    // The base class answers at once; the port allows this too.
    return "pending" as unknown as IoResult;
  }

  answer(at: number): void {
    const [read] = this.reads.splice(at, 1);
    read!.target.memory().fill(read!.offsetBytes / blockBytes);
    read!.done(ioOk, read!.target);
  }
}

function* readBlock(device: DeviceStub, block: number, found: Uint8Array[]): Steps<void> {
  const bytes = new Uint8Array(blockBytes);
  if (filled(yield* device.read(into(bytes), block * blockBytes)).kind === "ok") found.push(bytes);
}

Deno.test("reads that end in another order than they began are each answered with their own bytes", () => {
  const { kernel } = new World();
  const port = new LateReads(8 * blockBytes);
  const address = kernel.spawn("device", 64, (self) => new BlockDevice(kernel, self, port));
  const device = new DeviceStub(address, false);
  const found: Uint8Array[] = [];
  for (const block of [1, 2, 3]) kernel.start("read", readBlock(device, block, found));
  kernel.run();
  assertEquals([port.reads.length, found.length], [3, 0]);
  for (const at of [1, 1, 0]) {
    port.answer(at);
    kernel.run();
  }
  assertEquals(found.map((bytes) => bytes[0]), [2, 3, 1]);
});

Deno.test("a segment for a reader that takes none is a broken invariant, and stops the pool", () => {
  const defects: unknown[] = [];
  const kernel = new Kernel({ clock: new ManualClock(), onDefect: (defect) => defects.push(defect) });
  const segment: MappedSegment = {
    kind: "mapped",
    lengthBytes: blockBytes,
    drain: 0,
    address: 0,
    copyTo: () => ioOk,
  };
  const port = new MemoryDevice(blockBytes);
  const mapping = Object.assign(Object.create(port), { read: () => segment });
  const address = kernel.spawn("device", 64, (self) => new BlockDevice(kernel, self, mapping));
  kernel.start("read", readBlock(new DeviceStub(address, false), 0, []));
  kernel.run();
  assertEquals(defects.length, 1);
  assertInstanceOf(defects[0], Defect);
});
