/**
 * Whether a write on this thread, which serves all clients, is only a copy into the page cache.
 *
 * The copy takes some microseconds; the way to another thread and back takes 15 or more. Overwrites of 64 KiB on other threads
 * reached two thirds of the throughput (tests/bench/README.md). But a write may also wait for the disk, for seconds: the host
 * throttles writers if it has too many dirty pages; and if the disk has stopped, the journal of the file system or a page under
 * write-back waits for it. So writes go to another thread if
 *
 * - a flush has been under way for longer than usual: the disk is busy, or has stopped;
 * - the host has more dirty pages than its background threshold, and so may soon throttle writers;
 * - the last write on this thread was long, until `shortWritesWanted` writes in a row were short on another thread;
 * - (file_writes.ts) the file system may wait for a server, a page has to be read first, or writes are under way there.
 *
 * Not covered: a disk that stops without a sign, at a write that needs it. That one write waits on this thread; the next ones do
 * not. None of this is asked for file systems with writes that do not wait (RWF_NOWAIT: xfs, btrfs).
 */
import fs from "node:fs";
import { assert } from "../../storage/base/assert.ts";
import { longFlushMs, shortWritesWanted, threadWaitMsMax } from "../limits.ts";
import { fromLibc, libraryName } from "./libc_symbols.ts";
import { dirtyPagesMs, threadPauseFactor, threadWayMs } from "../knobs.ts";

/** What is known of the disks. All files of a pool share one, as they may lie on one disk. */
export class DiskCalm {
  readonly #flushes = new Map<number, number>();
  #flushLast = 0;
  #shortWanted = 0;
  #pauseEndMs = -Infinity;
  #askedMs = -Infinity;
  #hasManyDirtyPages = false;
  readonly #dirtyPages: () => boolean;

  /** @param hasManyDirtyPages asks the host */
  constructor(hasManyDirtyPages: () => boolean = askDirtyPages) {
    this.#dirtyPages = hasManyDirtyPages;
  }

  /** A flush begins. The caller calls the answer when the flush has ended. */
  flushBegins(nowMs: number): () => void {
    this.#flushLast += 1;
    const flush = this.#flushLast;
    this.#flushes.set(flush, nowMs);
    return () => {
      const wasUnderWay = this.#flushes.delete(flush);
      assert(wasUnderWay, "a flush ended twice");
    };
  }

  /** A write took `ms`, on any thread. */
  wrote(ms: number): void {
    if (ms > threadWaitMsMax) this.#shortWanted = shortWritesWanted;
    else if (this.#shortWanted > 0) this.#shortWanted -= 1;
  }

  /** This thread has waited `ms` for another one, whether that was done or not. */
  waited(ms: number, nowMs: number): void {
    if (ms > threadWayMs) this.#pauseEndMs = nowMs + threadPauseFactor * ms;
  }

  /** Whether a write may be made on this thread. */
  isCalm(nowMs: number): boolean {
    if (this.#shortWanted > 0 || this.#isFlushLong(nowMs)) return false;
    if (nowMs >= this.#askedMs + dirtyPagesMs) {
      this.#askedMs = nowMs;
      this.#hasManyDirtyPages = this.#dirtyPages();
    }
    return !this.#hasManyDirtyPages;
  }

  /** Milliseconds for which this thread may wait for a write on another one. */
  waitMs(nowMs: number): number {
    return this.#shortWanted > 0 || nowMs < this.#pauseEndMs || this.#isFlushLong(nowMs)
      ? 0
      : threadWaitMsMax;
  }

  #isFlushLong(nowMs: number): boolean {
    // A Map keeps the order: the oldest flush comes first.
    for (const begunMs of this.#flushes.values()) return nowMs >= begunMs + longFlushMs;
    return false;
  }
}

const calls = fromLibc(() =>
  Deno.dlopen(libraryName, {
    open: { parameters: ["buffer", "i32"], result: "i32" },
    pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "i64" },
    fstatfs: { parameters: ["i32", "buffer"], result: "i32" },
  }).symbols
);

/** Of this thread: the text of /proc/vmstat as it was read last, and the descriptor of that file, opened once. */
const vmstat = new Uint8Array(16384);
let vmstatFd: number | undefined;

/**
 * Whether the host has more dirty pages than its background threshold. (balance_dirty_pages, mm/page-writeback.c, throttles
 * writers from the middle between that and the limit.) Read by the C library: Deno has a special permission for /proc.
 */
function askDirtyPages(): boolean {
  if (calls === undefined) return false;
  vmstatFd ??= calls.open(new TextEncoder().encode("/proc/vmstat\0"), fs.constants.O_RDONLY | 0o2000000);
  const length = vmstatFd < 0 ? 0 : Number(calls.pread(vmstatFd, vmstat, BigInt(vmstat.length), 0n));
  return length > 0 && hasManyDirtyPages(new TextDecoder().decode(vmstat.subarray(0, length)));
}

/** The same, from the text of /proc/vmstat. */
export function hasManyDirtyPages(text: string): boolean {
  const pages = (name: string) => Number(new RegExp(`^${name} (\\d+)$`, "m").exec(text)?.[1] ?? NaN);
  return pages("nr_dirty") + pages("nr_writeback") > pages("nr_dirty_background_threshold");
}

/**
 * File systems whose writes go to the page cache and to the disk later, by their types in linux/magic.h: ext4, xfs, btrfs,
 * f2fs, tmpfs, overlayfs on one of them. A network file system or FUSE may ask a server at each write.
 */
const localTypes: ReadonlySet<number> = new Set([
  0xef53,
  0x5846_5342,
  0x9123_683e,
  0xf2f5_2010,
  0x0102_1994,
  0x794c_7630,
]);

/** Whether a file lies on one of these file systems. */
export function isOnLocalFiles(fd: number): boolean {
  const found = new DataView(new ArrayBuffer(256));
  if (calls === undefined || calls.fstatfs(fd, new Uint8Array(found.buffer)) !== 0) return false;
  return localTypes.has(found.getUint32(0, true));
}
