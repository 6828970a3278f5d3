/**
 * Dropping the pages of a file from the host's page cache, and reading past it.
 *
 * After a failed flush the page cache may hold bytes that the disk does not have. Linux marks the pages that it could not write
 * as clean (Documentation/filesystems/vfs.rst, "Handling errors during writeback"), still shows them, and reports the error once
 * to each open file. A process that opens the file later gets no error, and reads bytes that a power cut would lose. Once the
 * pages are dropped, reads show what the disk has.
 */
import fs from "node:fs";
import { codeOf } from "./file_errors.ts";
import { fromLibc, libraryName } from "./libc_symbols.ts";
import { mincoreBytesMax, mincoreFileBytesMax } from "../limits.ts";

interface CacheCalls {
  posix_fadvise(fd: number, offset: bigint, length: bigint, advice: number): Promise<number>;
  cachestat(number: bigint, fd: number, range: BigUint64Array, found: BigUint64Array, flags: number): bigint;
  mmap(at: bigint, length: bigint, protect: number, flags: number, fd: number, offset: bigint): bigint;
  munmap(at: bigint, length: bigint): number;
  mincore(at: bigint, length: bigint, pages: Uint8Array): number;
  pread(fd: number, buffer: Uint8Array, length: bigint, offset: bigint): bigint;
  fsetxattr(fd: number, name: Uint8Array, value: Uint8Array, length: bigint, flags: number): number;
  fgetxattr(fd: number, name: Uint8Array, value: Uint8Array, length: bigint): bigint;
}

// From linux/fadvise.h, linux/mman.h and asm-generic/unistd.h (the same on x86-64 and arm64).
const adviceDontNeed = 4;
const protectRead = 1;
const mapShared = 1;
const cachestatNumber = 451n;

const calls = fromLibc<CacheCalls>(() =>
  Deno.dlopen(libraryName, {
    // On another thread: for a large file this takes seconds.
    posix_fadvise: { parameters: ["i32", "i64", "i64", "i32"], result: "i32", nonblocking: true },
    // glibc has no function of that name.
    cachestat: { name: "syscall", parameters: ["i64", "i32", "buffer", "buffer", "u32"], result: "i64" },
    mmap: { parameters: ["usize", "usize", "i32", "i32", "i32", "i64"], result: "i64" },
    munmap: { parameters: ["usize", "usize"], result: "i32" },
    mincore: { parameters: ["u64", "u64", "buffer"], result: "i32" },
    pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "i64" },
    fsetxattr: { parameters: ["i32", "buffer", "buffer", "usize", "i32"], result: "i32" },
    fgetxattr: { parameters: ["i32", "buffer", "buffer", "usize"], result: "i64" },
  }).symbols as unknown as CacheCalls
);

const pageBytes = 4096;

/** Whether the host can be asked to drop pages: not without the C library. */
export function canLetGo(): boolean {
  return calls !== undefined;
}

/**
 * Has the host drop the clean pages of a whole file. Dirty pages stay: flush before. Answers how many pages stay (another
 * program may have mapped or locked them), undefined if that is not known.
 */
export async function letGo(fd: number, sizeBytes: number): Promise<number | undefined> {
  if (calls === undefined) return undefined;
  if (await calls.posix_fadvise(fd, 0n, 0n, adviceDontNeed) !== 0) return undefined;
  return cachedPages(fd, sizeBytes);
}

/** Pages of a file that the host has in memory; undefined if it does not tell. */
export function cachedPages(fd: number, sizeBytes: number): number | undefined {
  if (calls === undefined || sizeBytes === 0) return undefined;
  // struct cachestat: cached, dirty, under write-back, evicted, evicted lately.
  const found = new BigUint64Array(5);
  const range = BigUint64Array.of(0n, BigInt(sizeBytes));
  if (calls.cachestat(cachestatNumber, fd, range, found, 0) === 0n) return Number(found[0]);
  return cachedPagesByMapping(fd, sizeBytes);
}

/** The same for hosts without cachestat. Exported for its test. */
export function cachedPagesByMapping(fd: number, sizeBytes: number): number | undefined {
  if (calls === undefined || sizeBytes > mincoreFileBytesMax) return undefined;
  const base = calls.mmap(0n, BigInt(sizeBytes), protectRead, mapShared, fd, 0n);
  if (base <= 0n) return undefined;
  let count = 0;
  let isKnown = true;
  const pages = new Uint8Array(Math.ceil(Math.min(mincoreBytesMax, sizeBytes) / pageBytes));
  for (let at = 0; at < sizeBytes && isKnown; at += mincoreBytesMax) {
    const lengthBytes = Math.min(mincoreBytesMax, sizeBytes - at);
    isKnown = calls.mincore(base + BigInt(at), BigInt(lengthBytes), pages) === 0;
    const slice = pages.subarray(0, Math.ceil(lengthBytes / pageBytes));
    for (const page of slice) count += page & 1;
  }
  calls.munmap(base, BigInt(sizeBytes));
  return isKnown ? count : undefined;
}

/**
 * The first bytes of a file or block device as its disk has them, past the page cache. Undefined without O_DIRECT or the C
 * library, or if the disk fails the read. `lengthBytes` is a multiple of 4096.
 */
export function readPastCache(path: string, lengthBytes: number): Uint8Array | undefined {
  if (calls === undefined) return undefined;
  let fd: number;
  try {
    fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_DIRECT);
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    return undefined;
  }
  try {
    // O_DIRECT needs an address at the begin of a page.
    const room = new Uint8Array(lengthBytes + pageBytes);
    const address = Deno.UnsafePointer.value(Deno.UnsafePointer.of(room));
    const buffer = room.subarray((pageBytes - Number(BigInt(address) % BigInt(pageBytes))) % pageBytes)
      .subarray(0, lengthBytes);
    return Number(calls.pread(fd, buffer, BigInt(lengthBytes), 0n)) === lengthBytes ? buffer : undefined;
  } finally {
    fs.closeSync(fd);
  }
}

const flushedName = new TextEncoder().encode("user.gossamer.flushed\0");

/**
 * Notes in an extended attribute of a file that all of it has been flushed, and no flush has failed: until its time of change
 * differs, the disk has what the page cache shows. Changes no byte of the file. If it cannot be noted (a full host, a file
 * system without attributes, a block device), the next start has a cold page cache.
 */
export function noteFlushed(fd: number): void {
  const value = changeOf(fd);
  if (value !== undefined) calls?.fsetxattr(fd, flushedName, value, BigInt(value.length), 0);
}

/** Whether the file is as it was when that was noted: no program has written it since. */
export function isNotedFlushed(fd: number): boolean {
  const value = changeOf(fd);
  if (calls === undefined || value === undefined) return false;
  const found = new Uint8Array(value.length + 1);
  const lengthBytes = Number(calls.fgetxattr(fd, flushedName, found, BigInt(found.length)));
  return lengthBytes === value.length && value.every((byte, at) => byte === found[at]);
}

/** Inode, time of change and size. Undefined for a block device: its time of change does not tell. */
function changeOf(fd: number): Uint8Array | undefined {
  const { ino, mtimeMs, size } = fs.fstatSync(fd);
  return size === 0 ? undefined : new TextEncoder().encode(`${ino} ${mtimeMs} ${size}`);
}
