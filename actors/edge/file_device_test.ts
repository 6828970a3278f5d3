import fs from "node:fs";
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { Defect } from "../../storage/base/assert.ts";
import { UserError } from "../../storage/base/errors.ts";
import { ioOk, type IoResult, readInto } from "../../storage/device/port.ts";
import { defaultKnobs } from "../knobs.ts";
import { fileSizeCheckMs } from "../limits.ts";
import { FileDevice } from "./file_device.ts";
import { failureOf } from "./file_errors.ts";
import { errno, type Libc } from "./libc.ts";
import {
  allocatedBytes,
  bytesAt,
  filled,
  ignoreLibc,
  libc,
  mib,
  resultOf,
  scratchFile,
} from "../../tests/support/scratch_file.ts";

Deno.test("what was written at an odd offset reads back, and nothing around it changed", () => {
  using scratch = scratchFile(mib);
  const device = FileDevice.open(scratch.path, { libc });
  assertEquals(device.write(filled(5000, 7), 4001), ioOk);
  assertEquals(bytesAt(device, 4000, 5002), new Uint8Array([0, ...filled(5000, 7), 0]));
  device.close();
});

Deno.test("an access past the end is an error and changes nothing", async () => {
  using scratch = scratchFile(mib);
  const device = FileDevice.open(scratch.path, { libc });
  const past = { kind: "ioError", reason: "access past the end of the device" };
  assertEquals(device.write(filled(512, 7), mib - 511), past);
  assertEquals(readInto(device, filled(512, 7), mib - 511, () => {}), past);
  assertEquals(device.copy(0, mib - 511, 512, () => {}), past);
  assertEquals(await resultOf((done) => device.zero(mib - 511, 512, done)), past);
  assertEquals(await resultOf((done) => device.discard(mib - 511, 512, done)), past);
  assertEquals(Deno.statSync(scratch.path).size, mib);
  device.close();
});

Deno.test("a hole before data is read at once as zeroes, and the hole that a cut file ends in is an error", async () => {
  using scratch = scratchFile(4 * mib);
  const device = FileDevice.open(scratch.path, { libc, readsColdBeside: true });
  device.write(filled(4096, 7), 2 * mib);
  assertEquals(bytesAt(device, mib, 4096), filled(4096, 0));
  Deno.truncateSync(scratch.path, mib);
  const cut = await resultOf((done) => readInto(device, filled(4096, 1), mib + mib / 2, done));
  assertEquals(cut.kind, "ioError");
  device.close();
});

Deno.test("a file that became shorter than the device is an error, not zeroes", () => {
  using scratch = scratchFile(mib);
  const device = FileDevice.open(scratch.path);
  Deno.truncateSync(scratch.path, 4096);
  assertEquals(readInto(device, filled(512, 7), 4096, () => {}), shorter);
  device.close();
});

const shorter: IoResult = {
  kind: "ioError",
  reason:
    "another program has made the file shorter; stop, bring back what was beyond its end, and start again",
};

Deno.test("beyond the end of a file that was cut nothing is written, though it was made as long again since", async () => {
  using scratch = scratchFile(mib);
  const device = FileDevice.open(scratch.path, { libc });
  device.write(filled(mib, 5), 0);
  Deno.truncateSync(scratch.path, mib / 2);
  await new Promise((resolve) => setTimeout(resolve, 2 * fileSizeCheckMs));
  assertEquals(device.write(filled(512, 7), mib - 512), shorter);
  assertEquals(Deno.statSync(scratch.path).size, mib / 2, "a write made the file longer");
  assertEquals(device.isHole(mib / 2, 4096), false);
  assertEquals(device.zero(mib / 2, 4096, () => {}), shorter);
  assertEquals(device.copy(mib / 2, 0, 4096, () => {}), { ...shorter, isOfSource: true });
  Deno.truncateSync(scratch.path, mib);
  assertEquals(readInto(device, filled(512, 7), mib - 512, () => {}), shorter);
  assertEquals(bytesAt(device, mib / 2 - 512, 512), filled(512, 5));
  device.close();
});

Deno.test("a device is idle when all that it was asked has been answered", async () => {
  using scratch = scratchFile(mib);
  const device = FileDevice.open(scratch.path, { libc });
  let answers = 0;
  for (let count = 0; count < defaultKnobs.flushesMax + 1; count += 1) device.flush(() => answers += 1);
  await device.idle();
  assertEquals(answers, defaultKnobs.flushesMax + 1);
  await device.idle();
  device.close();
});

Deno.test("a copy of more than one piece arrives whole", () => {
  using scratch = scratchFile(8 * mib);
  const device = FileDevice.open(scratch.path);
  const source = Uint8Array.from({ length: 2 * mib + 4096 }, (_, i) => (i >> 12) ^ i);
  device.write(source, 512);
  assertEquals(device.copy(512, 4 * mib, source.length, () => {}), ioOk);
  assert(bytesAt(device, 4 * mib, source.length).every((byte, i) => byte === source[i]));
  assertEquals(bytesAt(device, 4 * mib + source.length, 1)[0], 0);
  device.close();
});

Deno.test({
  name: "a discard gives the host its blocks back and reads as zeroes",
  ignore: ignoreLibc,
  fn: async () => {
    using scratch = scratchFile(8 * mib);
    const device = FileDevice.open(scratch.path, { libc });
    assert(device.canDiscard);
    device.write(filled(4 * mib, 7), 0);
    await resultOf((done) => device.flush(done));
    const before = allocatedBytes(scratch.path);
    assertEquals(await resultOf((done) => device.discard(mib, 2 * mib, done)), ioOk);
    assertEquals(before - allocatedBytes(scratch.path), 2 * mib);
    assert(bytesAt(device, mib, 2 * mib).every((byte) => byte === 0));
    assertEquals([bytesAt(device, mib - 1, 1)[0], bytesAt(device, 3 * mib, 1)[0]], [7, 7]);
    device.close();
  },
});

Deno.test("without the C library zeroes are written and nothing is promised", async () => {
  using scratch = scratchFile(4 * mib);
  const device = FileDevice.open(scratch.path);
  assert(!device.canDiscard);
  assert(!device.isHole(0, 4096));
  device.write(filled(4 * mib, 7), 0);
  assertEquals(await resultOf((done) => device.zero(100, 3 * mib, done)), ioOk);
  assertEquals(bytesAt(device, 99, 2), new Uint8Array([7, 0]));
  assertEquals(bytesAt(device, 3 * mib + 99, 2), new Uint8Array([0, 7]));
  device.close();
});

Deno.test({
  name: "a range is a hole until a byte in it is written, and again once punched",
  ignore: ignoreLibc,
  fn: async () => {
    using scratch = scratchFile(4 * mib);
    const device = FileDevice.open(scratch.path, { libc });
    assert(device.isHole(mib, mib));
    device.write(filled(1, 7), 2 * mib - 1);
    assert(!device.isHole(mib, mib), "a byte that is only in the page cache counts");
    assert(device.isHole(mib, mib / 2));
    assert(device.isHole(2 * mib, 2 * mib));
    assertEquals(await resultOf((done) => device.discard(mib, mib, done)), ioOk);
    assert(device.isHole(mib, mib));
    device.close();
  },
});

Deno.test({
  name:
    "a hole that is filled from its beginning is asked for once, and what was written is never called a hole",
  ignore: ignoreLibc,
  fn: () => {
    using scratch = scratchFile(4 * mib);
    let questions = 0;
    const counting = {
      punchHole: () => 0,
      seekData: (fd: number, offsetBytes: number) => {
        questions += 1;
        return libc!.seekData(fd, offsetBytes);
      },
    };
    const device = FileDevice.open(scratch.path, { libc: counting as unknown as Libc });
    device.write(filled(1, 7), 2 * mib);
    for (let at = mib; at < 2 * mib; at += mib / 8) {
      assert(device.isHole(at, mib / 8));
      device.write(filled(512, 7), at + 512);
    }
    assertEquals(questions, 1);
    assert(device.isHole(0, 4096));
    device.write(filled(1, 7), mib / 2);
    device.write(filled(1, 7), 8192);
    for (let at = 0; at < 3 * mib; at += 512) {
      const isWritten = bytesAt(device, at, 512).some((byte) => byte !== 0);
      assert(!(isWritten && device.isHole(at, 512)), `the bytes at ${at} are no hole`);
    }
    device.close();
  },
});

Deno.test({
  name: "a host that refuses to punch gets zeroes written, and one that cannot is not asked again",
  ignore: ignoreLibc,
  fn: async () => {
    using scratch = scratchFile(4 * mib);
    let failure: number = 0;
    const refusing: Libc = {
      punchHole: () => failure,
      punchHoleLater: (_fd, _offset, _length, done) => setTimeout(() => done(failure), 0),
      allocate: () => 0,
      allocateLater: (_fd, _offset, _length, done) => setTimeout(() => done(0), 0),
      seekData: (_fd, offsetBytes) => offsetBytes,
      overwriteInPlace: () => 95,
      startWriteBack: () => {},
      claim: () => -1,
      socketPath: () => undefined,
      release: () => {},
    };
    const device = FileDevice.open(scratch.path, { libc: refusing });
    device.write(filled(4 * mib, 7), 0);
    failure = errno.noSpace;
    assertEquals(await resultOf((done) => device.discard(0, 4096, done)), ioOk);
    assert(device.canDiscard);
    failure = errno.notSupported;
    assertEquals(await resultOf((done) => device.zero(4096, 2 * mib, done)), ioOk);
    assert(!device.canDiscard);
    assert(bytesAt(device, 0, 2 * mib + 4096).every((byte) => byte === 0));
    assertEquals(bytesAt(device, 2 * mib + 4096, 1)[0], 7);
    device.close();
  },
});

Deno.test("a large write is made of calls of 64 KiB, so that the host keeps it in small folios", () => {
  using scratch = scratchFile(mib);
  const device = FileDevice.open(scratch.path, { libc });
  const { writeSync } = fs;
  const lengths: number[] = [];
  fs.writeSync = ((fd: number, buffer: Uint8Array, at: number, length: number, position: number) => {
    lengths.push(length);
    return writeSync(fd, buffer, at, length, position);
  }) as typeof writeSync;
  try {
    assertEquals(device.write(filled(mib / 2 + 512, 7), 4096), ioOk);
  } finally {
    fs.writeSync = writeSync;
  }
  assertEquals(lengths, [...new Array(8).fill(65536), 512]);
  assertEquals(bytesAt(device, 4096, mib / 2 + 512), filled(mib / 2 + 512, 7));
  device.close();
});

Deno.test("a device opened read-only refuses to write", () => {
  using scratch = scratchFile(mib);
  const device = FileDevice.open(scratch.path, { readOnly: true, libc });
  assert(!device.canDiscard);
  const refused = device.write(filled(512, 7), 0);
  assert(refused !== "pending" && refused.kind === "ioError");
  assertEquals(bytesAt(device, 0, 512), filled(512, 0));
  device.close();
});

Deno.test("a full host is noSpace, and what was there stays readable", async (t) => {
  using scratch = scratchFile(mib);
  const mountPoint = `${scratch.directory}/full`;
  Deno.mkdirSync(mountPoint);
  const isMounted = Deno.uid() === 0 && mount(mountPoint);
  await t.step({
    name: "on a tmpfs of 1 MiB (needs root)",
    ignore: !isMounted,
    fn: () => {
      const path = `${mountPoint}/data.img`;
      Deno.writeFileSync(path, new Uint8Array(0));
      Deno.truncateSync(path, 8 * mib);
      const device = FileDevice.open(path, { libc });
      assertEquals(device.write(filled(4096, 7), 0), ioOk);
      assertEquals(device.write(filled(2 * mib, 8), mib), { kind: "noSpace" });
      assertEquals(device.copy(0, 4 * mib, 2 * mib, () => {}), { kind: "noSpace" });
      assertEquals(bytesAt(device, 0, 4096), filled(4096, 7));
      device.close();
    },
  });
  if (isMounted) new Deno.Command("umount", { args: ["--lazy", mountPoint] }).outputSync();
});

function mount(mountPoint: string): boolean {
  const args = ["-t", "tmpfs", "-o", "size=1m", "gossamer-test", mountPoint];
  return new Deno.Command("mount", { args, stderr: "null" }).outputSync().success;
}

Deno.test("an error of the system that Deno does not name is an answer, not a defect", () => {
  const unnamed = (number: number) => new Error(`Something (os error ${number})`);
  assertEquals(failureOf(unnamed(122), "write"), { kind: "noSpace" });
  assertEquals(failureOf(unnamed(121), "write").kind, "ioError");
  assertThrows(() => failureOf(new Defect("ours"), "write"), Defect);
});

Deno.test("a block device has its own size, discards, and is refused while mounted", async (t) => {
  using scratch = scratchFile(8 * mib);
  const loop = Deno.uid() === 0 ? output("losetup", "--find", "--show", scratch.path) : "";
  await t.step({
    name: "on a loop device (needs root)",
    ignore: loop === "" || ignoreLibc,
    fn: async () => {
      const device = FileDevice.open(loop, { libc });
      assertEquals([device.isBlockDevice, device.canDiscard, device.sizeBytes], [true, true, 8 * mib]);
      assertEquals(device.write(filled(2 * mib, 7), mib), ioOk);
      assertEquals(await resultOf((done) => device.flush(done)), ioOk);
      const before = allocatedBytes(scratch.path);
      assertEquals(await resultOf((done) => device.discard(mib, mib, done)), ioOk);
      assertEquals(before - allocatedBytes(scratch.path), mib);
      assertEquals([bytesAt(device, mib, 1)[0], bytesAt(device, 2 * mib, 1)[0]], [0, 7]);
      // Claimed once, it cannot be claimed again, by a mount or by us.
      const error = assertThrows(() => FileDevice.open(loop, { libc }), UserError);
      assertStringIncludes(error.message, "it is mounted, or mapped");
      device.close();
    },
  });
  if (loop !== "") output("losetup", "--detach", loop);
});

/** What a program prints, without the newline; nothing if it fails or is not there. */
function output(program: string, ...args: string[]): string {
  try {
    const { success, stdout } = new Deno.Command(program, { args, stderr: "null" }).outputSync();
    return success ? new TextDecoder().decode(stdout).trim() : "";
  } catch {
    return "";
  }
}

Deno.test("a path that is not there, or is a directory, is a sentence", () => {
  using scratch = scratchFile(mib);
  const missing = assertThrows(() => FileDevice.open(`${scratch.directory}/none`), UserError);
  assertStringIncludes(missing.message, `none": it does not exist.`);
  const directory = assertThrows(() => FileDevice.open(scratch.directory), UserError);
  assertStringIncludes(directory.message, "neither a file nor a block device");
});

Deno.test({
  name: "a read asks its target for memory only where no segment is mapped for it",
  ignore: ignoreLibc,
  // The C library stays open.
  sanitizeResources: false,
  fn: () => {
    using scratch = scratchFile(mib);
    const device = FileDevice.open(scratch.path, { givesSegments: true });
    device.write(filled(4096, 7), 8192);
    const kinds = [true, true, true, false].map((takesMapped) => {
      let memories = 0;
      const memory = () => filled(4096, memories += 1);
      const result = device.read({ lengthBytes: 4096, takesMapped, memory }, 8192, () => {});
      return [result === "pending" ? result : result.kind, memories];
    });
    // A slice is mapped when it is read again.
    assertEquals(kinds, [["ok", 1], ["mapped", 0], ["mapped", 0], ["ok", 1]]);
    device.close();
  },
});
