/** What tests of the boundary ask of devices. */
import { assertEquals } from "@std/assert";
import { BlockDevice } from "../../actors/pool/block_device.ts";
import { type BlockDeviceMessage, DeviceStub } from "../../actors/pool/device_messages.ts";
import { CounterSums } from "../../actors/counters.ts";
import { Kernel } from "../../actors/kernel/kernel.ts";
import { type DevicePort, filled, into, type IoResult } from "../../storage/device/port.ts";
import { ManualClock } from "../support/world.ts";

/** A kernel whose defects are kept. */
export function kernelOf(
  clock = new ManualClock(),
  counters = new CounterSums(),
): { kernel: Kernel; defects: unknown[] } {
  const defects: unknown[] = [];
  return { kernel: new Kernel({ clock, counters, onDefect: (defect) => defects.push(defect) }), defects };
}

/** Asks everything of a device, and gives the answers. */
export async function useDevice(port: DevicePort): Promise<readonly IoResult[]> {
  const { kernel, defects } = kernelOf();
  const address = kernel.spawn<BlockDeviceMessage>(
    "device",
    64,
    (self) => new BlockDevice(kernel, self, port),
  );
  const stub = new DeviceStub(address, true);
  const answers: IoResult[] = [];
  const ended = Promise.withResolvers<void>();
  kernel.start(
    "use",
    (function* () {
      const buffer = new Uint8Array(4096);
      answers.push(yield* stub.write(buffer, 0));
      answers.push(filled(yield* stub.read(into(buffer), 0)));
      answers.push(yield* stub.zero(0, 8192));
      answers.push(yield* stub.copy(0, 65536, 4096));
      answers.push(yield* stub.discard(0, 65536));
      answers.push(yield* stub.flush());
      answers.push(yield* stub.flush(true));
      ended.resolve();
    })(),
  );
  kernel.run();
  const late = Promise.withResolvers<void>();
  const timer = setTimeout(late.resolve, 2000);
  await Promise.race([ended.promise, late.promise]);
  clearTimeout(timer);
  assertEquals(defects, []);
  return answers;
}
