/**
 * Whether a write that is made on this thread, the one that serves everybody, is a copy into the page cache and nothing else.
 *
 * The copy takes some microseconds, the way to another thread and back 15 and more: overwrites of 64 KiB by threads made two
 * thirds of the throughput (tests/bench/README.md). But a write may also wait for the disk, and then for seconds: where the
 * host has too many dirty pages, and so makes those wait that add to them; where the disk has stopped, and the journal of the
 * file system or a page under write-back waits for it. Where that may be, writes go to another thread:
 *
 * - a flush has been under way for longer than usual: the disk is busy, or has stopped;
 * - the host has more dirty pages than it begins to write back at, and so may soon make writers wait;
 * - the last write here was long, until some in a row were short on another thread;
 * - (file_writes.ts) the file system may wait for a server, or a page has to be read first, or others are under way there.
 *
 * What is left is a disk that stops without any sign before, at a write that needs it although nothing was to be written back.
 * One write meets it, and those after it do not. Where the file system takes writes that do not wait (RWF_NOWAIT: xfs, btrfs),
 * it tells us in place of waiting, and nothing of this is asked.
 */
import fs from "node:fs";
import { heldUpMsMax, longFlushMs, shortWritesWanted } from "../limits.ts";
import { fromLibc, libraryName } from "./libc_symbols.ts";
import { dirtyPagesMs, threadPauseFactor, threadWayMs } from "../knobs.ts";

/** What is known of the disks of this process; all of its files share one, as they may share a disk. */
export class DiskCalm {
  readonly #flushes = new Map<number, number>();
  #flushLast = 0;
  #shortWanted = 0;
  #pauseEndMs = -Infinity;
  #askedMs = -Infinity;
  #hasManyDirtyPages = false;
  readonly #dirtyPages: () => boolean;

  /** @param hasManyDirtyPages what the host says of itself */
  constructor(hasManyDirtyPages: () => boolean = askDirtyPages) {
    this.#dirtyPages = hasManyDirtyPages;
  }

  /** A flush begins; call what is returned when it has ended. */
  flushBegins(nowMs: number): () => void {
    this.#flushLast += 1;
    const flush = this.#flushLast;
    this.#flushes.set(flush, nowMs);
    return () => void this.#flushes.delete(flush);
  }

  /** So long did a write take, here or on another thread. */
  wrote(ms: number): void {
    if (ms > heldUpMsMax) this.#shortWanted = shortWritesWanted;
    else if (this.#shortWanted > 0) this.#shortWanted -= 1;
  }

  /** So long has this thread waited for another, in vain or not. */
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

  /** Milliseconds for which this thread may wait for one that was made on another. */
  waitMs(nowMs: number): number {
    return this.#shortWanted > 0 || nowMs < this.#pauseEndMs || this.#isFlushLong(nowMs) ? 0 : heldUpMsMax;
  }

  #isFlushLong(nowMs: number): boolean {
    // The oldest comes first.
    for (const begunMs of this.#flushes.values()) return nowMs >= begunMs + longFlushMs;
    return false;
  }
}

/** The one of all files. */
export const diskCalm = new DiskCalm();

const calls = fromLibc(() =>
  Deno.dlopen(libraryName, {
    open: { parameters: ["buffer", "i32"], result: "i32" },
    pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "i64" },
    fstatfs: { parameters: ["i32", "buffer"], result: "i32" },
  }).symbols
);

const vmstat = new Uint8Array(16384);
let vmstatFd: number | undefined;

/** Whether the host has more dirty pages than it begins to write back at (balance_dirty_pages: writers wait from midway to
 * the limit on). By the C library, as Deno wants a permission of its own for /proc. */
function askDirtyPages(): boolean {
  if (calls === undefined) return false;
  vmstatFd ??= calls.open(new TextEncoder().encode("/proc/vmstat\0"), fs.constants.O_RDONLY | 0o2000000);
  const length = vmstatFd < 0 ? 0 : Number(calls.pread(vmstatFd, vmstat, BigInt(vmstat.length), 0n));
  return length > 0 && hasManyDirtyPages(new TextDecoder().decode(vmstat.subarray(0, length)));
}

/** The same of the text of /proc/vmstat. */
export function hasManyDirtyPages(text: string): boolean {
  const pages = (name: string) => Number(new RegExp(`^${name} (\\d+)$`, "m").exec(text)?.[1] ?? NaN);
  return pages("nr_dirty") + pages("nr_writeback") > pages("nr_dirty_background_threshold");
}

/**
 * File systems whose writes go to the page cache and to the disk later, by their types in linux/magic.h: ext4, xfs, btrfs,
 * f2fs, tmpfs, overlayfs on one of them. A network's or FUSE's may ask a server at each.
 */
const localTypes = new Set([0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994, 0x794c_7630]);

/** Whether a file lies on one of these. */
export function isOnLocalFiles(fd: number): boolean {
  const found = new DataView(new ArrayBuffer(256));
  if (calls === undefined || calls.fstatfs(fd, new Uint8Array(found.buffer)) !== 0) return false;
  return localTypes.has(found.getUint32(0, true));
}
