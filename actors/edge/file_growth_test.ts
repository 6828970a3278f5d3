import { assert, assertEquals } from "@std/assert";
import { ioOk } from "../../storage/device/port.ts";
import { growFile, type GrowingFile } from "./file_growth.ts";
import fs from "node:fs";
import { errno, type Libc, openLibc } from "./libc.ts";

const mib = 1024 * 1024;
const libc = openLibc();

class OpenFile implements GrowingFile, Disposable {
  readonly path = Deno.makeTempFileSync({ prefix: "gossamer-growth-" });
  readonly fd = fs.openSync(this.path, "r+");
  readonly isBlockDevice = false;

  constructor(readonly libc: Libc | undefined, sizeBytes: number) {
    fs.writeSync(this.fd, new Uint8Array(sizeBytes).fill(7));
  }

  get stored(): number {
    return fs.fstatSync(this.fd).blocks * 512;
  }
  get sizeBytes(): number {
    return fs.fstatSync(this.fd).size;
  }
  [Symbol.dispose](): void {
    fs.closeSync(this.fd);
    Deno.removeSync(this.path);
  }
}

Deno.test("a file grows without storing anything, and keeps what it holds", async () => {
  using file = new OpenFile(libc, mib);
  assertEquals(await growFile(file, 64 * mib, false), { result: ioOk, sizeBytes: 64 * mib });
  assertEquals([file.sizeBytes, Deno.readFileSync(file.path)[mib - 1]], [64 * mib, 7]);
  assert(file.stored < 2 * mib);
});

for (const calls of [libc, undefined]) {
  Deno.test({
    name: `a file that is to be stored is, ${calls === undefined ? "without" : "with"} the C library`,
    ignore: libc === undefined,
    fn: async () => {
      using file = new OpenFile(calls, mib);
      assertEquals(await growFile(file, 4 * mib, true), { result: ioOk, sizeBytes: 4 * mib });
      assert(file.sizeBytes === 4 * mib && file.stored >= 4 * mib);
      const bytes = Deno.readFileSync(file.path);
      assertEquals([bytes[mib - 1], bytes[mib], bytes[4 * mib - 1]], [7, 0, 0]);
    },
  });
}

Deno.test("a file that is larger already stays so, and its size is the answer", async () => {
  using file = new OpenFile(libc, 3 * mib);
  assertEquals(await growFile(file, mib, false), { result: ioOk, sizeBytes: 3 * mib });
});

Deno.test("a growth that the host refuses is cut back", async () => {
  const full = {
    // As a file system does that runs full in the middle.
    allocateLater: (fd: number, _offset: number, lengthBytes: number, done: (errno: number) => void) => {
      fs.ftruncateSync(fd, lengthBytes / 2);
      done(errno.noSpace);
    },
  } as unknown as Libc;
  using file = new OpenFile(full, mib);
  assertEquals(await growFile(file, 64 * mib, true), { result: { kind: "noSpace" }, sizeBytes: mib });
  assertEquals(file.sizeBytes, mib);
});

Deno.test("a size that no file system has is an answer", async () => {
  using file = new OpenFile(libc, mib);
  const { result, sizeBytes } = await growFile(file, Number.MAX_SAFE_INTEGER, false);
  assertEquals([result.kind, sizeBytes, file.sizeBytes], ["ioError", mib, mib]);
});

Deno.test("a block device is measured anew, and refused if it is smaller than was wanted", async () => {
  using file = new OpenFile(libc, 3 * mib);
  const disk = { path: file.path, fd: file.fd, isBlockDevice: true, libc };
  assertEquals(await growFile(disk, 2 * mib, true), { result: ioOk, sizeBytes: 3 * mib });
  const { result, sizeBytes } = await growFile(disk, 4 * mib, true);
  assert(
    result.kind === "ioError" && result.reason.includes(`has ${3 * mib} bytes, and ${4 * mib} were wanted`),
  );
  assertEquals([sizeBytes, file.sizeBytes], [3 * mib, 3 * mib]);
});
