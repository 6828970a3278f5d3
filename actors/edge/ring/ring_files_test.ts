/** A file whose calls go through the ring: what file_device_test.ts says holds here too. */
import fs from "node:fs";
import { assert, assertEquals } from "@std/assert";
import { ioOk, type IoResult, readInto } from "../../../storage/device/port.ts";
import { ignoreRing, runningLoop } from "../../../tests/support/running_ring.ts";
import {
  allocatedBytes,
  bytesAt,
  filled,
  libc,
  mib,
  resultOf,
  scratchFile,
} from "../../../tests/support/scratch_file.ts";
import { defaultKnobs } from "../../knobs.ts";
import { DiskCalm } from "../disk_calm.ts";
import { FileDevice } from "../file_device.ts";
import { RingFiles } from "./ring_files.ts";
import type { RingLoop } from "./ring_loop.ts";

/** A disk so busy that every write goes to the ring. */
class BusyDisk extends DiskCalm {
  override isCalm(): boolean {
    return false;
  }
}

/** A test on a ring, which may have nothing under way at its end. */
function ringTest(name: string, run: (loop: RingLoop) => Promise<void>): void {
  Deno.test({
    name,
    ignore: ignoreRing,
    fn: async () => {
      const { loop, end } = runningLoop();
      await run(loop);
      await end();
    },
  });
}

function opened(loop: RingLoop, path: string): FileDevice {
  return FileDevice.open(path, {
    libc,
    calls: new RingFiles(loop),
    calm: new BusyDisk(),
    readsColdBeside: true,
    writesBeside: true,
  });
}

const write = (device: FileDevice, bytes: Uint8Array, offsetBytes: number) =>
  resultOf((done) => device.write(bytes, offsetBytes, done));

ringTest("writes that overlap take effect in the order in which they were asked for", async (loop) => {
  using scratch = scratchFile(4 * mib);
  const device = opened(loop, scratch.path);
  const results: Promise<IoResult>[] = [];
  for (let value = 1; value <= 20; value += 1) results.push(write(device, filled(mib, value), value * 512));
  assertEquals(await Promise.all(results), new Array(20).fill(ioOk));
  for (let value = 1; value <= 20; value += 1) assertEquals(bytesAt(device, value * 512, 1)[0], value);
  assert(bytesAt(device, 20 * 512, mib).every((byte) => byte === 20));
  device.close();
});

ringTest(
  "a discard frees space of the host, zeroes of any length read as such, and flushes answer",
  async (loop) => {
    using scratch = scratchFile(8 * mib);
    const device = opened(loop, scratch.path);
    assertEquals(await write(device, filled(6 * mib, 7), 0), ioOk);
    assertEquals(await resultOf((done) => device.flush(done)), ioOk);
    const before = allocatedBytes(scratch.path);
    assertEquals(await resultOf((done) => device.discard(mib, 2 * mib, done)), ioOk);
    assertEquals(before - allocatedBytes(scratch.path), 2 * mib);
    assertEquals(await resultOf((done) => device.zero(4 * mib, 2 * mib - 512, done)), ioOk);
    assert(bytesAt(device, mib, 2 * mib).every((byte) => byte === 0));
    assertEquals([...bytesAt(device, 6 * mib - 513, 2)], [0, 7]);
    device.close();
  },
);

ringTest("a read past the end of a file that was cut is an error, and the rest is read", async (loop) => {
  using scratch = scratchFile(mib);
  const device = opened(loop, scratch.path);
  assertEquals(await write(device, filled(mib, 7), 0), ioOk);
  Deno.truncateSync(scratch.path, mib / 2);
  const buffer = new Uint8Array(4096);
  const cut = await resultOf((done) => readInto(device, buffer, mib / 2 - 2048, done));
  assertEquals(cut.kind, "ioError");
  assertEquals(await resultOf((done) => readInto(device, buffer, mib / 4, done)), ioOk);
  assertEquals(buffer, filled(4096, 7));
  device.close();
});

ringTest(
  "a device that is closed with operations under way closes its files when they have ended",
  async (loop) => {
    using scratch = scratchFile(8 * mib);
    const device = opened(loop, scratch.path);
    const descriptors = () => [...Deno.readDirSync("/proc/self/fd")].length;
    const open = descriptors();
    const results = [
      write(device, filled(4 * mib, 9), 0),
      resultOf((done) => device.flush(done)),
      resultOf((done) => device.discard(6 * mib, mib, done)),
    ];
    device.close();
    assertEquals(descriptors(), open);
    assertEquals(await Promise.all(results), [ioOk, ioOk, ioOk]);
    await device.idle();
    assertEquals(descriptors(), open - 1 - defaultKnobs.flushesMax);
    assertEquals(Deno.readFileSync(scratch.path)[4 * mib - 1], 9);
  },
);

ringTest("a device grows while writes are under way", async (loop) => {
  using scratch = scratchFile(mib);
  const device = opened(loop, scratch.path);
  const written = write(device, filled(mib, 3), 0);
  assertEquals(await resultOf((done) => device.grow(4 * mib, true, done)), ioOk);
  assertEquals([await written, device.sizeBytes], [ioOk, 4 * mib]);
  assertEquals(await write(device, filled(512, 4), 4 * mib - 512), ioOk);
  assertEquals(fs.statSync(scratch.path).size, 4 * mib);
  device.close();
});

Deno.test({
  name: "a host that is full amidst a write is noSpace, and what was there stays (needs root)",
  ignore: ignoreRing || Deno.uid() !== 0,
  fn: async () => {
    using scratch = scratchFile(mib);
    const folder = `${scratch.directory}/full`;
    Deno.mkdirSync(folder);
    const args = ["-t", "tmpfs", "-o", "size=1m", "gossamer-test", folder];
    if (!new Deno.Command("mount", { args, stderr: "null" }).outputSync().success) return;
    const { loop, end } = runningLoop();
    try {
      Deno.writeFileSync(`${folder}/data.img`, new Uint8Array(0));
      Deno.truncateSync(`${folder}/data.img`, 8 * mib);
      const device = opened(loop, `${folder}/data.img`);
      assertEquals(await write(device, filled(4096, 7), 0), ioOk);
      // A call of 64 KiB ends in the midst of the last free page.
      assertEquals(await write(device, filled(2 * mib, 8), mib + 512), { kind: "noSpace" });
      assertEquals(await write(device, filled(512, 9), 0), ioOk);
      assertEquals([...bytesAt(device, 511, 2)], [9, 7]);
      device.close();
    } finally {
      await end();
      new Deno.Command("umount", { args: ["--lazy", folder] }).outputSync();
    }
  },
});
