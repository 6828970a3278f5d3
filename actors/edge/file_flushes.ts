/**
 * The flushes of one file: which of them run beside each other, and on which thread.
 *
 * Each has a handle of its own. The host tells each handle once that it could not write something: with one for several,
 * only one of them would hear of what all may have lost. (Calls on one handle queue behind each other besides.)
 */
import fs from "node:fs";
import { assert } from "../../storage/assert.ts";
import { type IoDone, ioOk, type IoResult } from "../../storage/device/port.ts";
import { failureOf } from "./file_errors.ts";
import type { Flush, ShortFlushes } from "./short_flushes.ts";
import { syncLater } from "./sync_later.ts";

export class FileFlushes {
  readonly #handles: number;
  /** Those that no flush uses. */
  readonly #free: number[];
  /** Who came while all were in use. */
  #waiting: IoDone[] = [];
  readonly #short: ShortFlushes;
  /** Whether any of them failed: the host may then show what the disk does not have. */
  hasFailed = false;

  /** @param handles of the file, for nothing else */
  constructor(handles: readonly number[], short: ShortFlushes) {
    this.#handles = handles.length;
    this.#free = [...handles];
    this.#short = short;
  }

  /** See DevicePort.flush. */
  flush(done: IoDone, isAlone: boolean): IoResult | "pending" {
    const fd = this.#free.pop();
    if (fd === undefined) {
      this.#waiting.push(done);
      return "pending";
    }
    const flush = this.#short.begin(performance.now(), isAlone);
    if (flush.isAtOnce) return this.#flushNow(flush, fd);
    this.#flushLater(flush, fd, [done]);
    return "pending";
  }

  /** Not while any is under way. */
  close(): void {
    assert(this.#free.length === this.#handles, "no handle is closed while it is used");
    for (const fd of this.#free) fs.closeSync(fd);
  }

  #flushNow(flush: Flush, fd: number): IoResult {
    try {
      fs.fdatasyncSync(fd);
      return ioOk;
    } catch (error) {
      this.hasFailed = true;
      return failureOf(error, "flush");
    } finally {
      this.#free.push(fd);
      this.#short.ended(flush, performance.now());
    }
  }

  #flushLater(flush: Flush, fd: number, waiting: readonly IoDone[]): void {
    syncLater(fd, "flush", (result) => {
      this.#short.ended(flush, performance.now());
      this.hasFailed ||= result.kind !== "ok";
      this.#goOn(fd);
      for (const done of waiting) done(result);
    });
  }

  /** Whoever waits shares the next flush. */
  #goOn(fd: number): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    if (waiting.length === 0) this.#free.push(fd);
    else this.#flushLater(this.#short.begin(performance.now(), false), fd, waiting);
  }
}
