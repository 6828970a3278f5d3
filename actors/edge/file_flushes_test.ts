/** Flushes of a file device: when they answer, how many run at once, and when the disk begins. */
import { assertEquals } from "@std/assert";
import { ioOk } from "../../storage/device/port.ts";
import { defaultKnobs } from "../knobs.ts";
import { FileDevice } from "./file_device.ts";
import type { Libc } from "./libc.ts";
import { filled, libc, mib, resultOf, scratchFile } from "../../tests/support/scratch_file.ts";

Deno.test("a flush answers later, and a device closed meanwhile closes after it", async () => {
  using scratch = scratchFile(mib);
  const device = FileDevice.open(scratch.path, { libc });
  device.write(filled(4096, 7), 0);
  const flushed = resultOf((done) => device.flush(done));
  device.close();
  assertEquals(await flushed, ioOk);
});

Deno.test("more flushes at once than there are handles are all answered, and the handles are free again", async () => {
  using scratch = scratchFile(mib);
  const device = FileDevice.open(scratch.path, { libc });
  for (let round = 0; round < 3; round += 1) {
    assertEquals(device.write(filled(4096, round), 0), ioOk);
    const flushes = Array.from(
      { length: defaultKnobs.flushesMax + 3 },
      () => resultOf((done) => device.flush(done)),
    );
    assertEquals(await Promise.all(flushes), flushes.map(() => ioOk));
  }
  device.close();
});

Deno.test("the disk begins with a write before its flush is asked for, if a flush came after each one lately", async () => {
  using scratch = scratchFile(mib);
  const begun: number[] = [];
  const told = {
    punchHole: () => 0,
    startWriteBack: (_fd: number, offsetBytes: number) => begun.push(offsetBytes),
  };
  const options = { libc: told as unknown as Libc, waitsForShortFlushes: true };
  const device = FileDevice.open(scratch.path, options);
  for (let at = 0; at < 9; at += 1) {
    device.write(filled(512, 7), at * 512);
    assertEquals(begun.length, at === 8 ? 1 : 0);
    assertEquals(await resultOf((done) => device.flush(done)), ioOk);
    if (at === 8) assertEquals(begun, [8 * 512]);
  }
  device.close();
});
