import fs from "node:fs";
import { assert, assertEquals } from "@std/assert";
import { present } from "../../storage/base/assert.ts";
import { openLibc } from "./libc.ts";
import { fromLibc, libraryName } from "./libc_symbols.ts";
import { PageWindow } from "./page_window.ts";

const MiB = 1 << 20;
const blockBytes = 64 << 10;
const slice = 2 * MiB;
const ignore = openLibc() === undefined;

/** What reads the process's memory as sendmsg does: a page that is not there is an error. */
const calls = fromLibc(() =>
  Deno.dlopen(libraryName, {
    pwrite: { parameters: ["i32", "u64", "usize", "i64"], result: "i64" },
    posix_fadvise: { parameters: ["i32", "i64", "i64", "i32"], result: "i32" },
  }).symbols
);
const adviceRandom = 1;
const adviceDontNeed = 4;

/** A file and what is mapped of it. */
class Mapped implements Disposable {
  readonly #path = Deno.makeTempFileSync({ prefix: "gossamer-window-" });
  readonly fd = fs.openSync(this.#path, "r+");
  readonly #probePath = Deno.makeTempFileSync({ prefix: "gossamer-window-" });
  readonly #probe = fs.openSync(this.#probePath, "r+");
  readonly window: PageWindow;

  constructor(readonly sizeBytes: number, residentMax?: number) {
    fs.ftruncateSync(this.fd, sizeBytes);
    this.window = present(PageWindow.map(this.fd, sizeBytes, residentMax), "it cannot be mapped");
  }

  write(offsetBytes: number, lengthBytes: number, value: number): void {
    assertEquals(
      fs.writeSync(this.fd, new Uint8Array(lengthBytes).fill(value), 0, lengthBytes, offsetBytes),
      lengthBytes,
    );
  }

  /** The address at the second time of asking, when the slice is in use. */
  addressOf(offsetBytes: number, lengthBytes = blockBytes): number | undefined {
    this.window.addressOf(offsetBytes, lengthBytes);
    return this.window.addressOf(offsetBytes, lengthBytes);
  }

  /** What a system call finds at the address; undefined if it finds none of it. */
  bytesAt(address: number, lengthBytes: number): Uint8Array | undefined {
    const count = Number(calls!.pwrite(this.#probe, BigInt(address), BigInt(lengthBytes), 0n));
    if (count < 0) return undefined;
    const bytes = new Uint8Array(count);
    fs.readSync(this.#probe, bytes, 0, count, 0);
    return bytes;
  }

  /** The one value that all bytes have there. */
  valueAt(address: number | undefined, lengthBytes = blockBytes): number {
    const bytes = present(
      this.bytesAt(present(address, "it is not in memory"), lengthBytes),
      "nothing is there",
    );
    assertEquals(bytes.length, lengthBytes);
    assert(bytes.every((byte) => byte === bytes[0]), "there are several values");
    return bytes[0]!;
  }

  /** Has the host read the range, and nothing ahead. */
  read(offsetBytes: number, lengthBytes: number): void {
    calls!.posix_fadvise(this.fd, 0n, 0n, adviceRandom);
    fs.readSync(this.fd, new Uint8Array(lengthBytes), 0, lengthBytes, offsetBytes);
  }

  /** Has the host forget the range, as it does when it needs its memory. */
  forget(offsetBytes: number, lengthBytes: number): void {
    fs.fdatasyncSync(this.fd);
    calls!.posix_fadvise(this.fd, BigInt(offsetBytes), BigInt(lengthBytes), adviceDontNeed);
  }

  truncate(sizeBytes: number): void {
    fs.ftruncateSync(this.fd, sizeBytes);
  }

  [Symbol.dispose](): void {
    this.window.close();
    for (const fd of [this.fd, this.#probe]) fs.closeSync(fd);
    for (const path of [this.#path, this.#probePath]) Deno.removeSync(path);
  }
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

function windowTest(name: string, run: () => void | Promise<void>): void {
  Deno.test({ name, ignore, fn: run });
}

/** Bytes of files that count as the process's memory. */
function residentFileBytes(): number {
  const line = /^RssFile:\s+(\d+) kB$/m.exec(Deno.readTextFileSync("/proc/self/status"));
  return Number(line![1]) * 1024;
}

windowTest(
  "what is in memory has an address when its slice is asked for again, and shows what was written last",
  () => {
    using mapped = new Mapped(8 * MiB);
    mapped.write(3 * MiB, blockBytes, 1);
    mapped.write(3 * MiB + blockBytes, blockBytes, 3);
    assertEquals(mapped.window.addressOf(3 * MiB, blockBytes), undefined);
    const address = mapped.window.addressOf(3 * MiB, blockBytes);
    assertEquals(mapped.valueAt(address), 1);
    mapped.write(3 * MiB, blockBytes, 2);
    assertEquals(mapped.valueAt(address), 2);
    // Other blocks of the slice need not be asked for twice.
    assertEquals(mapped.valueAt(mapped.window.addressOf(3 * MiB + blockBytes, blockBytes)), 3);
  },
);

windowTest("any bytes may be asked for, also across slices and to the end of a file of odd size", () => {
  const sizeBytes = 4 * MiB + 777;
  using mapped = new Mapped(sizeBytes);
  mapped.write(0, sizeBytes, 5);
  mapped.write(slice - 100, 200, 6);
  for (let times = 0; times < 3; times += 1) mapped.window.addressOf(slice - 100, 200);
  assertEquals(mapped.valueAt(mapped.window.addressOf(slice - 100, 200), 200), 6);
  assertEquals(mapped.valueAt(mapped.addressOf(sizeBytes - 776, 776), 776), 5);
});

windowTest("a page that was never read, or that the host has forgotten, has no address", async () => {
  using mapped = new Mapped(8 * MiB);
  assertEquals(mapped.addressOf(0), undefined);
  mapped.write(4 * MiB, 4 * blockBytes, 7);
  // What the host says is believed for a while, so it is not asked before.
  mapped.window.addressOf(4 * MiB, blockBytes);
  mapped.forget(4 * MiB, 4 * blockBytes);
  assertEquals(mapped.window.addressOf(4 * MiB, 4 * blockBytes), undefined);
  // One page that is missing is enough.
  mapped.read(4 * MiB, 4 * blockBytes - 4096);
  await pause(60);
  assertEquals(mapped.window.addressOf(4 * MiB, 4 * blockBytes), undefined);
  mapped.read(4 * MiB + 4 * blockBytes - 4096, 4096);
  await pause(60);
  assertEquals(mapped.valueAt(mapped.window.addressOf(4 * MiB, 4 * blockBytes), 4 * blockBytes), 7);
});

windowTest("what has come into memory is seen though the clock was set back", () => {
  using mapped = new Mapped(8 * MiB);
  assertEquals(mapped.addressOf(0), undefined);
  mapped.write(0, blockBytes, 8);
  const { now } = Date;
  try {
    Date.now = () => now() - 3_600_000;
    assertEquals(mapped.valueAt(mapped.window.addressOf(0, blockBytes)), 8);
  } finally {
    Date.now = now;
  }
});

windowTest("a file that was cut off under its mapping is an error of the call, and no signal", () => {
  using mapped = new Mapped(4 * MiB);
  mapped.write(0, 4 * MiB, 8);
  const address = mapped.addressOf(3 * MiB);
  assertEquals(mapped.valueAt(address), 8);
  mapped.truncate(MiB);
  assertEquals(mapped.bytesAt(address!, blockBytes), undefined);
});

windowTest("who was taken in first is let go first, and what others ask for meanwhile is forgotten", () => {
  using mapped = new Mapped(16 * MiB, 2 * slice);
  mapped.write(0, 16 * MiB, 9);
  const isInUse = (at: number) => mapped.window.addressOf(at * slice, blockBytes) !== undefined;
  for (const at of [0, 0, 1, 1]) isInUse(at);
  assertEquals([isInUse(0), isInUse(1)], [true, true]);
  // Asked for once, with two others before it is asked for again: it is as if it had not been.
  assertEquals([isInUse(2), isInUse(3), isInUse(4), isInUse(2)], [false, false, false, false]);
  assertEquals([isInUse(2), isInUse(1), isInUse(0)], [true, true, false]);
});

windowTest("where more is used by turns than there is room for, few replace others", () => {
  using mapped = new Mapped(33 * slice, 32 * slice);
  const isInUse = (at: number) => {
    mapped.write(at * slice, blockBytes, 11);
    return mapped.window.addressOf(at * slice, blockBytes) !== undefined;
  };
  for (let at = 0; at < 32; at += 1) assertEquals([isInUse(at), isInUse(at)], [false, true]);
  assertEquals([isInUse(32), isInUse(32), isInUse(32), isInUse(32)], [false, false, true, true]);
  assertEquals([isInUse(0), isInUse(1)], [false, true]);
});

windowTest("no more counts as the process's memory than the bound says, whatever is read", () => {
  using mapped = new Mapped(64 * MiB, 4 * slice);
  mapped.write(0, 64 * MiB, 10);
  const before = residentFileBytes();
  let most = 0;
  const readAll = (offsets: readonly number[]) => {
    for (const offset of offsets) {
      const address = mapped.addressOf(offset);
      if (address === undefined) continue;
      mapped.bytesAt(address, blockBytes);
      most = Math.max(most, residentFileBytes() - before);
    }
  };
  const offsets = Array.from({ length: 64 * MiB / blockBytes }, (_, at) => at * blockBytes);
  readAll(offsets);
  // The ends of slices, from the last to the first: what the host maps around them must go too.
  for (let round = 0; round < 3; round += 1) {
    readAll(
      offsets.filter((offset) => offset % slice === 0 || offset % slice === slice - blockBytes).reverse(),
    );
  }
  assert(most > 2 * slice, "nothing was mapped");
  assert(most <= 4 * slice + MiB, `${most / MiB} MiB`);
});

Deno.test("without leave for foreign functions there is no window, and every read is right", async () => {
  const module = (name: string) => JSON.stringify(new URL(name, import.meta.url).href);
  const program = `
    import { FileDevice } from ${module("./file_device.ts")};
    import { readInto } from ${module("../../storage/device/port.ts")};
    import { DirectSocket, KnownSockets } from ${module("./direct_socket.ts")};
    const path = Deno.makeTempFileSync();
    Deno.truncateSync(path, 1 << 20);
    const device = FileDevice.open(path, { givesSegments: true });
    device.write(new Uint8Array(4096).fill(7), 4096);
    const target = { lengthBytes: 4096, takesMapped: true, memory: () => new Uint8Array(4096) };
    const kinds = [0, 1, 2].map(() => device.read(target, 4096, () => {}).kind);
    const bytes = new Uint8Array(8192);
    const result = readInto(device, bytes, 0, () => {});
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    using client = await Deno.connect({ port: listener.addr.port });
    using conn = await listener.accept();
    console.log(JSON.stringify([kinds, result.kind, bytes[4095], bytes[4096], DirectSocket.of(conn, new KnownSockets()) ?? "none"]));
    device.close();
    Deno.removeSync(path);
  `;
  const file = Deno.makeTempFileSync({ suffix: ".ts" });
  Deno.writeTextFileSync(file, program);
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--allow-read", "--allow-write", "--allow-net", file],
  }).output();
  Deno.removeSync(file);
  const said = new TextDecoder().decode(stderr);
  assertEquals(new TextDecoder().decode(stdout), '[["ok","ok","ok"],"ok",0,7,"none"]\n', said);
});
