/**
 * Locks on the files of a pool (flock), so that one process owns it. They end with the process, and hold between two opens of
 * one process too. They do not stop a program that does not lock.
 */
import { UserError } from "../../storage/base/errors.ts";
import { blockDeviceLockPauseMs, blockDeviceLockTries, lockAgainMs } from "../limits.ts";
import { openFailure } from "./file_errors.ts";
import { pause } from "./turns.ts";

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
 * Opens and locks a file, directory or block device; closing the handle unlocks it. Throws {@linkcode UserError}:
 * {@linkcode LockedElsewhere}, with `inUse` as its message, if there is a lock that excludes this one.
 */
export function openLocked(path: string, isExclusive: boolean, inUse: string): Deno.FsFile {
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(path);
  } catch (error) {
    throw openFailure(path, error);
  }
  if (tryLock(file, isExclusive)) return file;
  file.close();
  throw new LockedElsewhere(inUse);
}

function tryLock(file: Deno.FsFile, isExclusive: boolean): boolean {
  if (file.tryLockSync(isExclusive)) return true;
  if (!file.statSync().isBlockDevice) return false;
  // udev locks a block device for some milliseconds after each writer has closed it.
  for (let count = 1; count < blockDeviceLockTries; count += 1) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, blockDeviceLockPauseMs);
    if (file.tryLockSync(isExclusive)) return true;
  }
  return false;
}
