import { assertEquals } from "@std/assert";
import { DiscardingDevice, MemoryDevice } from "../support/memory_device.ts";
import { type DevicePort, type IoDone, ioOk, type IoResult } from "../../storage/device/port.ts";
import { MemoryJournal } from "../support/pool.ts";
import { DeviceReplay, JournalReplay } from "./power_cut.ts";
import { RecordingDevice, RecordingJournal, RunLog } from "./recording_device.ts";

const ignore: IoDone = () => {};
const sectorOf = (value: number) => new Uint8Array(512).fill(value);

function recorded(): RunLog {
  const log = new RunLog();
  const device = new RecordingDevice(new MemoryDevice(2048), log, "data");
  device.write(sectorOf(1), 0, ignore);
  device.flush(ignore);
  device.write(sectorOf(2), 512, ignore);
  device.copy(0, 1024, 1024, ignore);
  return log;
}

/** The first byte of each sector after a power cut at the end of the log. */
function sectorsAfterCut(
  log: RunLog,
  before: Uint8Array,
  keeps: (record: number, sector: number) => boolean,
) {
  const replay = new DeviceReplay("data", before);
  replay.advance(log, log.records.length);
  const image = replay.cut(new Uint8Array(before.length), keeps);
  return Array.from({ length: image.length / 512 }, (_, sector) => image[sector * 512]);
}

Deno.test("replaying every record gives the device's own bytes", () => {
  const memory = new DiscardingDevice(4096);
  const log = new RunLog();
  const device = new RecordingDevice(memory, log, "data");
  for (let i = 0; i < 4; i += 1) device.write(sectorOf(i + 1), i * 512, ignore);
  device.copy(0, 2048, 1024, ignore);
  device.zero(100, 700, ignore);
  device.discard(2100, 100, ignore);
  const replay = new DeviceReplay("data", new Uint8Array(4096));
  replay.advance(log, log.records.length);
  assertEquals(replay.memory, memory.bytes);
  assertEquals(replay.cut(new Uint8Array(4096), () => true), memory.bytes);
});

Deno.test("a power cut keeps what was flushed and may lose the rest", () => {
  assertEquals(sectorsAfterCut(recorded(), new Uint8Array(2048), () => false), [1, 0, 0, 0]);
});

Deno.test("a power cut keeps single sectors of an unflushed record, with the bytes that memory held", () => {
  const keepsLast = (_record: number, sector: number) => sector === 3;
  assertEquals(sectorsAfterCut(recorded(), new Uint8Array(2048), keepsLast), [1, 0, 0, 2]);
});

Deno.test("a write that was unanswered when the flush was asked is not durable by it", () => {
  const slow = new SlowWrites(1024);
  const log = new RunLog();
  const device = new RecordingDevice(slow, log, "data");
  device.write(sectorOf(1), 0, ignore);
  device.zero(512, 512, ignore);
  device.flush(ignore);
  slow.answerAll();
  assertEquals(sectorsAfterCut(log, new Uint8Array(1024).fill(9), () => false), [9, 0]);
  device.flush(ignore);
  assertEquals(sectorsAfterCut(log, new Uint8Array(1024).fill(9), () => false), [1, 0]);
});

Deno.test("what a failed flush was about is never durable, and what comes after it is by the next", () => {
  const log = new RunLog();
  const failing = new FailingFlush(1024);
  const device = new RecordingDevice(failing, log, "data");
  device.write(sectorOf(1), 0, ignore);
  device.flush(ignore);
  device.write(sectorOf(2), 512, ignore);
  device.flush(ignore);
  assertEquals(sectorsAfterCut(log, new Uint8Array(1024), () => false), [0, 2]);
});

Deno.test("a power cut tears an append that was not flushed at any byte, and keeps what was flushed", () => {
  const log = new RunLog();
  const inner = new MemoryJournal("first\n");
  const room = { contentBytes: 0, usesHeadroom: false };
  const journal = new RecordingJournal(inner, log, 6);
  journal.append("second\n", room, ignore);
  inner.pending.shift()!();
  journal.append("third\n", room, ignore);
  const replay = new JournalReplay(new TextEncoder().encode("first\n"));
  replay.advance(log, log.records.length);
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  assertEquals(text(replay.cut("lost")), "first\nsecond\n");
  assertEquals(text(replay.cut("kept")), "first\nsecond\nthird\n");
  const lengths = new Set<number>();
  for (let length = 0; length <= 6; length += 1) {
    // The second choice, 1, leaves every byte as it is; 0 would ask for each sector.
    const choices = [length, 1];
    lengths.add(replay.cut(() => choices.shift()!).length);
  }
  assertEquals([...lengths], [13, 14, 15, 16, 17, 18, 19]);
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

/** Its first flush fails. */
class FailingFlush extends MemoryDevice {
  #isFirst = true;

  override flush(): IoResult {
    const result: IoResult = this.#isFirst ? { kind: "ioError", reason: "the test's error" } : ioOk;
    this.#isFirst = false;
    return result;
  }
}
