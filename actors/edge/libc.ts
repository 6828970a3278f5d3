/**
 * Calls of Linux's C library that Deno does not offer, through its foreign function interface. All are optional: without the
 * permission, or not on Linux, the pool works, but gives no space back to the host.
 *
 * Reading, writing and copying stay with node:fs. Measured on page-cached files (Deno 2.9.6): fs.readSync and fs.writeSync are
 * within 0.5 us of pread and pwrite. copy_file_range against a read and a write, us for one copy from random places into
 * holes, the least of three rounds or four (Linux 6.18; xfs and btrfs on loop devices):
 *
 *                              tmpfs     ext4      xfs       btrfs
 *     64 KiB                   33 : 40   24 : 25   16 : 16   20 : 73
 *     64 KiB, just written       -       21 : 24   72 : 17   34 : 68
 *     1 MiB                   454 : 627 285 : 243  15 : 148  10 : 1111
 *     1 MiB, just written        -      265 : 482 192 : 158 328 : 1069
 *
 * On file systems that share extents (xfs, btrfs) it writes the source back first, on this thread; and a copied block needs new
 * space of the host when it is overwritten, long after the pool counted it as written. It gains much for blocks of 1 MiB, and
 * little for the usual 64 KiB, so it is not used.
 * The interface types 64-bit arguments as BigInt; the two conversions are small beside the 0.7 us of the system call.
 */

import { callOutside } from "./outside.ts";
import { errnoAt, fromLibc, libraryName } from "./libc_symbols.ts";

/** Offsets and lengths are bytes; `fd` must stay open until the call, or its `done`, has come back. */
export interface Libc {
  /** Punches a hole into a file, keeping its size. Answers 0 or the errno. */
  punchHole(fd: number, offsetBytes: number, lengthBytes: number): number;
  /** The same on another thread. `done` gets 0 later, or errno.io for any failure: the errno stays with that thread. */
  punchHoleLater(fd: number, offsetBytes: number, lengthBytes: number, done: (errno: number) => void): void;
  /** Has the file system set blocks aside for the range, growing the file if needed. Answers 0 or the errno. */
  allocate(fd: number, offsetBytes: number, lengthBytes: number): number;
  /** The same on another thread. `done` gets 0 or the errno later. */
  allocateLater(fd: number, offsetBytes: number, lengthBytes: number, done: (errno: number) => void): void;
  /**
   * Has the file system overwrite the file's bytes in their place, for an empty file: btrfs copies what is overwritten, and
   * needs free space for that. Answers 0, or the errno where that is not known; most file systems do so anyway.
   */
  overwriteInPlace(fd: number): number;
  /** Has the host begin to write a range of its page cache to the disk. Makes nothing durable, and reports no failure. */
  startWriteBack(fd: number, offsetBytes: number, lengthBytes: number): void;
  /**
   * Where the first stored byte at or after `offsetBytes` is; -1 if only a hole follows. A file system that cannot
   * tell answers `offsetBytes` itself. The file position moves, which positional reads and writes do not notice.
   */
  seekData(fd: number, offsetBytes: number): number;
  /**
   * Claims a block device: Linux refuses (errno.busy) while it is mounted or mapped, and refuses to mount it until
   * {@linkcode release}. Answers a handle for that, or the errno negated.
   */
  claim(path: string): number;
  /** Gives a claim back. */
  release(claimed: number): void;
  /** Where a Unix socket is bound; undefined if it has no name in the file system. */
  socketPath(fd: number): string | undefined;
}

/** The errno values that callers tell apart (the same on all Linux architectures that Deno runs on). */
export const errno = {
  interrupted: 4,
  io: 5,
  noSuchAddress: 6,
  busy: 16,
  tooManyFiles: 24,
  tooLarge: 27,
  noSpace: 28,
  notSupported: 95,
  inProgress: 115,
  overQuota: 122,
} as const;

// From linux/falloc.h, unistd.h and fcntl.h (the same on x86-64 and arm64).
/** The mode of fallocate(2) that punches a hole and keeps the size. */
export const punchesHole = 0x01 | 0x02;
const seekDataWhence = 3;
const syncFileRangeWrite = 2;
const unixFamily = 1;
// From linux/fs.h: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS (for 64-bit machines) and FS_NOCOW_FL.
const getFlags = 0x80086601n;
const setFlags = 0x40086602n;
const noCopyOnWrite = 0x800000;
const openExclusiveCloseOnExec = 0o200 | 0o2000000;

let opened: Libc | undefined;

/** The library; undefined without the permission or the library. Never prompts. */
export function openLibc(): Libc | undefined {
  // One for as long as the process runs: the calls stay valid for as long as the library is loaded.
  opened ??= fromLibc(() => {
    const symbols = dlopenLibc();
    return new GlibcCalls(symbols, errnoAt(symbols.__errno_location()));
  });
  return opened;
}

function dlopenLibc() {
  return Deno.dlopen(libraryName, {
    __errno_location: { parameters: [], result: "pointer" },
    fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
    fallocate_later: {
      name: "fallocate",
      parameters: ["i32", "i32", "i64", "i64"],
      result: "i32",
      nonblocking: true,
    },
    open: { parameters: ["buffer", "i32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
    ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
    getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
    sync_file_range: { parameters: ["i32", "i64", "i64", "u32"], result: "i32" },
    lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  }).symbols;
}

type Symbols = ReturnType<typeof dlopenLibc>;

class GlibcCalls implements Libc {
  readonly #symbols: Symbols;
  readonly #errno: Int32Array;

  constructor(symbols: Symbols, errnoOfThread: Int32Array) {
    this.#symbols = symbols;
    this.#errno = errnoOfThread;
  }

  punchHole(fd: number, offsetBytes: number, lengthBytes: number): number {
    return this.#fallocate(fd, punchesHole, offsetBytes, lengthBytes);
  }

  punchHoleLater(fd: number, offsetBytes: number, lengthBytes: number, done: (errno: number) => void): void {
    const [offset, length] = [BigInt(offsetBytes), BigInt(lengthBytes)];
    // The call is not repeated on this thread to get its errno: a punch may wait for the disk.
    const failed = () => done(errno.io);
    callOutside(
      () => this.#symbols.fallocate_later(fd, punchesHole, offset, length),
      (status) => status === 0 ? done(0) : failed(),
      failed,
    );
  }

  allocate(fd: number, offsetBytes: number, lengthBytes: number): number {
    return this.#fallocate(fd, 0, offsetBytes, lengthBytes);
  }

  allocateLater(fd: number, offsetBytes: number, lengthBytes: number, done: (errno: number) => void): void {
    // A call that fails is made again on this thread, to get its errno.
    callOutside(
      () => this.#symbols.fallocate_later(fd, 0, BigInt(offsetBytes), BigInt(lengthBytes)),
      (status) => done(status === 0 ? 0 : this.allocate(fd, offsetBytes, lengthBytes)),
      () => done(errno.io),
    );
  }

  overwriteInPlace(fd: number): number {
    // The calls are named for a long, and read and write an int.
    const flags = new Int32Array(2);
    const bytes = new Uint8Array(flags.buffer);
    if (this.#symbols.ioctl(fd, getFlags, bytes) !== 0) return this.#errno[0] ?? 0;
    flags[0] = (flags[0] ?? 0) | noCopyOnWrite;
    return this.#symbols.ioctl(fd, setFlags, bytes) === 0 ? 0 : this.#errno[0] ?? 0;
  }

  seekData(fd: number, offsetBytes: number): number {
    const found = Number(this.#symbols.lseek(fd, BigInt(offsetBytes), seekDataWhence));
    if (found >= 0) return found;
    return this.#errno[0] === errno.noSuchAddress ? -1 : offsetBytes;
  }

  startWriteBack(fd: number, offsetBytes: number, lengthBytes: number): void {
    this.#symbols.sync_file_range(fd, BigInt(offsetBytes), BigInt(lengthBytes), syncFileRangeWrite);
  }

  claim(path: string): number {
    const claimed = this.#symbols.open(new TextEncoder().encode(`${path}\0`), openExclusiveCloseOnExec);
    return claimed >= 0 ? claimed : -(this.#errno[0] ?? 0);
  }

  release(claimed: number): void {
    this.#symbols.close(claimed);
  }

  socketPath(fd: number): string | undefined {
    // sockaddr_un: two bytes of family, then the path, ended by a NUL where there is room for one.
    const address = new Uint8Array(128);
    const lengthBytes = Uint32Array.of(address.length);
    if (this.#symbols.getsockname(fd, address, lengthBytes) !== 0) return undefined;
    if (new Uint16Array(address.buffer)[0] !== unixFamily || address[2] === 0) return undefined;
    const path = address.subarray(2, lengthBytes[0]);
    const end = path.indexOf(0);
    return new TextDecoder().decode(end < 0 ? path : path.subarray(0, end));
  }

  #fallocate(fd: number, mode: number, offsetBytes: number, lengthBytes: number): number {
    while (this.#symbols.fallocate(fd, mode, BigInt(offsetBytes), BigInt(lengthBytes)) !== 0) {
      const failure = this.#errno[0] ?? 0;
      if (failure !== errno.interrupted) return failure;
    }
    return 0;
  }
}
