import { assertEquals } from "@std/assert";
import { MemoryDevice } from "../../storage/device/memory_device.ts";
import { type DevicePort, type IoDone, ioOk, type IoResult } from "../../storage/device/port.ts";
import { RecordingDevice, replay, replayPowerCut } from "./recording_device.ts";

const ignore: IoDone = () => {};
const sectorOf = (value: number) => new Uint8Array(512).fill(value);

function recorded(): RecordingDevice {
  const device = new RecordingDevice(new MemoryDevice(2048));
  device.write(sectorOf(1), 0, ignore);
  device.flush(ignore);
  device.write(sectorOf(2), 512, ignore);
  device.copy(0, 1024, 1024, ignore);
  device.mark("done");
  return device;
}

Deno.test("replaying every record gives the device's own bytes", () => {
  const memory = new MemoryDevice(4096);
  const device = new RecordingDevice(memory);
  for (let i = 0; i < 4; i += 1) device.write(sectorOf(i + 1), i * 512, ignore);
  device.copy(0, 2048, 1024, ignore);
  device.zero(100, 700, ignore);
  device.discard(2100, 100, ignore);
  assertEquals(replay(new Uint8Array(4096), device.records, device.records.length), memory.bytes);
});

Deno.test("a power cut keeps what was flushed and loses the rest", () => {
  const device = recorded();
  const image = replayPowerCut(new Uint8Array(2048), device.records, device.records.length, () => false);
  assertEquals([image[0], image[512], image[1024], image[1536]], [1, 0, 0, 0]);
});

Deno.test("a power cut keeps single sectors of an unflushed record, with the bytes that memory held", () => {
  const device = recorded();
  const keepsLastSector = (_record: number, sector: number) => sector === 3;
  const image = replayPowerCut(new Uint8Array(2048), device.records, device.records.length, keepsLastSector);
  assertEquals([image[0], image[512], image[1024], image[1536]], [1, 0, 0, 2]);
});

Deno.test("a write that was unanswered when the flush was asked is not durable by it", () => {
  const slow = new SlowWrites(2048);
  const device = new RecordingDevice(slow);
  device.write(sectorOf(1), 0, ignore);
  device.zero(512, 512, ignore);
  device.flush(ignore);
  slow.answerAll();
  const lossy = replayPowerCut(new Uint8Array(2048).fill(9), device.records, 3, () => false);
  assertEquals([lossy[0], lossy[512]], [9, 0]);
  device.flush(ignore);
  const whole = replayPowerCut(new Uint8Array(2048).fill(9), device.records, 4, () => false);
  assertEquals([whole[0], whole[512]], [1, 0]);
});

/** Answers writes only when told to. */
class SlowWrites extends MemoryDevice implements DevicePort {
  readonly #waiting: IoDone[] = [];

  override write(buffer: Uint8Array, offsetBytes: number, done?: IoDone): IoResult {
    super.write(buffer, offsetBytes);
    this.#waiting.push(done ?? ignore);
    // The base class answers at once; the port allows this too.
    return "pending" as unknown as IoResult;
  }

  answerAll(): void {
    for (const done of this.#waiting.splice(0)) done(ioOk);
  }
}
