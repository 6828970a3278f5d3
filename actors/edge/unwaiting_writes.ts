/** Writes into the page cache that fail where they would have to wait: xfs and btrfs take them, ext4 does not (Linux 6.18). */
import { errnoAt, fromLibc, libraryName } from "./libc_symbols.ts";

/** From linux/fs.h. */
const noWait = 0x08;

const calls = fromLibc(() => {
  const { symbols } = Deno.dlopen(libraryName, {
    __errno_location: { parameters: [], result: "pointer" },
    pwritev2: { parameters: ["i32", "buffer", "i32", "i64", "i32"], result: "i64" },
  });
  return { pwritev2: symbols.pwritev2, errno: errnoAt(symbols.__errno_location()) };
});

/** Writes one file. */
export class UnwaitingWrites {
  readonly #fd: number;
  /** One struct iovec: where from, and how many bytes. */
  readonly #vector = new BigUint64Array(2);
  readonly #vectorBytes = new Uint8Array(this.#vector.buffer);

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Undefined where the C library cannot be called. Whether the file system takes them, the first tells. */
  static of(fd: number): UnwaitingWrites | undefined {
    return calls === undefined ? undefined : new UnwaitingWrites(fd);
  }

  /** Answers the bytes written, some of them perhaps, or the errno negated: errno.notSupported if it never takes one. */
  write(buffer: Uint8Array, offsetBytes: number): number {
    this.#vector[0] = Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer as Uint8Array<ArrayBuffer>));
    this.#vector[1] = BigInt(buffer.length);
    const count = Number(calls!.pwritev2(this.#fd, this.#vectorBytes, 1, BigInt(offsetBytes), noWait));
    return count >= 0 ? count : -(calls!.errno[0] ?? 0);
  }
}
