/** A flush of one file on another thread. */
import fs from "node:fs";
import { type IoDone, ioOk, type IoResult } from "../../storage/device/port.ts";
import { failureOf } from "./file_errors.ts";

/** What was written to the file becomes durable; `done` hears of it once, later, also where the call itself fails. */
export function syncLater(fd: number, doing: string, done: IoDone): void {
  const ended = (error: unknown) =>
    done(error === null || error === undefined ? ioOk : failureOf(error, doing));
  try {
    fs.fdatasync(fd, ended);
  } catch (error) {
    // Nothing was begun, so nothing else answers.
    setTimeout(() => ended(error), 0);
  }
}

/** The same for a file or directory, as a promise. */
export function flushed(fd: number, doing: string): Promise<IoResult> {
  return new Promise((resolve) => syncLater(fd, doing, resolve));
}
