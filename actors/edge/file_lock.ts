/**
 * Locks on the files of a pool (flock), so that one process owns it. They end with the process, and hold between two opens of
 * one process too. They do not stop a program that does not lock.
 */
import fs from "node:fs";
import { UserError } from "../../storage/base/errors.ts";
import { blockDeviceLockPauseMs, blockDeviceLockTries, lockAgainMs } from "../limits.ts";
import { openFailure } from "./file_errors.ts";
import { fromLibc, libraryName } from "./libc_symbols.ts";
import type { HeldLock } from "./open_device.ts";
import { pause } from "./turns.ts";

// From sys/file.h.
const lockShared = 1;
const lockExclusive = 2;
const lockAtOnce = 4;
const unlocks = 8;

const library = fromLibc(() =>
  Deno.dlopen(libraryName, { flock: { parameters: ["i32", "i32"], result: "i32" } }).symbols
);

const lockedElsewhere = "locked elsewhere";

/** Another process has a lock that excludes ours. Known by its code, which crosses the border (border.ts) with it. */
class LockedElsewhere extends UserError {
  readonly code = lockedElsewhere;
}

function isLockedElsewhere(error: unknown): error is UserError {
  return error instanceof UserError && "code" in error && error.code === lockedElsewhere;
}

/**
 * Carries out `attempt`, and again for up to `waitMs` while it throws {@linkcode LockedElsewhere}: commands that are given
 * at once take turns. Attempts come at random times, so that none waits much longer than the others.
 */
export async function whenUnlocked<T>(waitMs: number, attempt: () => T | Promise<T>): Promise<T> {
  const endMs = performance.now() + waitMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!isLockedElsewhere(error) || waitMs === 0) throw error;
      if (performance.now() >= endMs) {
        throw new LockedElsewhere(`${error.message} This command waited ${waitMs / 1000} s (--lock-wait).`);
      }
    }
    await pause(lockAgainMs * (0.5 + Math.random()));
  }
}

/**
 * Opens and locks a file, directory or block device; disposing of the lock unlocks it. Throws {@linkcode UserError}:
 * {@linkcode LockedElsewhere}, with `inUse` as its message, if there is a lock that excludes this one.
 */
export function openLocked(path: string, isExclusive: boolean, inUse: string): HeldLock {
  let lock: OpenLock;
  try {
    lock = library === undefined ? new DenoLock(path) : new DescriptorLock(path, library);
  } catch (error) {
    throw openFailure(path, error);
  }
  if (tryLock(lock, isExclusive)) return lock;
  lock[Symbol.dispose]();
  throw new LockedElsewhere(inUse);
}

/** An open file that can be locked. */
interface OpenLock extends HeldLock {
  readonly isBlockDevice: boolean;
  /** Whether it is locked now. */
  tryLock(isExclusive: boolean): boolean;
}

class DescriptorLock implements OpenLock {
  readonly fd: number;
  readonly #calls: NonNullable<typeof library>;

  constructor(path: string, calls: NonNullable<typeof library>) {
    this.#calls = calls;
    this.fd = fs.openSync(path, fs.constants.O_RDONLY);
  }

  get isBlockDevice(): boolean {
    return fs.fstatSync(this.fd).isBlockDevice();
  }

  tryLock(isExclusive: boolean): boolean {
    return this.#calls.flock(this.fd, (isExclusive ? lockExclusive : lockShared) | lockAtOnce) === 0;
  }

  [Symbol.dispose](): void {
    // The lock belongs to the open file, which something else may keep open for a moment.
    this.#calls.flock(this.fd, unlocks);
    fs.closeSync(this.fd);
  }
}

/** Without the C library: Deno does not tell the descriptor. */
class DenoLock implements OpenLock {
  readonly fd = undefined;
  readonly #file: Deno.FsFile;

  constructor(path: string) {
    this.#file = Deno.openSync(path);
  }

  get isBlockDevice(): boolean {
    return this.#file.statSync().isBlockDevice === true;
  }

  tryLock(isExclusive: boolean): boolean {
    return this.#file.tryLockSync(isExclusive);
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

function tryLock(lock: OpenLock, isExclusive: boolean): boolean {
  if (lock.tryLock(isExclusive)) return true;
  if (!lock.isBlockDevice) return false;
  // udev locks a block device for some milliseconds after each writer has closed it.
  for (let count = 1; count < blockDeviceLockTries; count += 1) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, blockDeviceLockPauseMs);
    if (lock.tryLock(isExclusive)) return true;
  }
  return false;
}
