/** What a file reads and writes at once, and what it leaves to be asked for again. */
import { assertEquals } from "@std/assert";
import { into, ioOk } from "../../storage/device/port.ts";
import { fileWritePieceBytes } from "../limits.ts";
import { FileDevice } from "./file_device.ts";
import {
  bytesAt,
  filled,
  ignoreLibc,
  libc,
  mib,
  resultOf,
  scratchFile,
} from "../../tests/support/scratch_file.ts";

Deno.test("what was written at once is read at once, and nothing around it has changed", () => {
  using scratch = scratchFile(mib);
  const device = FileDevice.open(scratch.path, { libc });
  assertEquals(device.writeAtOnce(filled(5000, 7), 4001), ioOk);
  const buffer = filled(5002, 1);
  assertEquals(device.readAtOnce(into(buffer), 4000), ioOk);
  assertEquals(buffer, new Uint8Array([0, ...filled(5000, 7), 0]));
  device.close();
});

Deno.test("past the end, and more than a piece, nothing is read or written at once", () => {
  using scratch = scratchFile(mib);
  const device = FileDevice.open(scratch.path, { libc });
  assertEquals(device.writeAtOnce(filled(512, 7), mib - 511), undefined);
  assertEquals(device.readAtOnce(into(filled(512, 7)), mib - 511), undefined);
  assertEquals(device.writeAtOnce(filled(fileWritePieceBytes + 1, 7), 0), undefined);
  assertEquals(bytesAt(device, 0, 512), filled(512, 0));
  device.close();
});

Deno.test({
  name: "a range that was written at once is a hole no more",
  ignore: ignoreLibc,
  fn: async () => {
    using scratch = scratchFile(mib);
    const device = FileDevice.open(scratch.path, { libc });
    await resultOf((done) => device.discard(0, mib, done));
    assertEquals(device.isHole(0, 8192), true);
    device.writeAtOnce(filled(4096, 7), 4096);
    assertEquals([device.isHole(0, 4096), device.isHole(4096, 4096)], [true, false]);
    device.close();
  },
});
