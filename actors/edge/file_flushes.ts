/**
 * The flushes of one file: which of them run at the same time, and on which thread.
 *
 * Each uses a descriptor of its own. The host reports a lost write once to each open file: if flushes shared one, only one of
 * them would fail, and all may have lost data. (Calls on one descriptor would also queue.)
 */
import fs from "node:fs";
import { assert } from "../../storage/base/assert.ts";
import { type IoDone, ioOk, type IoResult } from "../../storage/device/port.ts";
import { threadWaitMsMax } from "../limits.ts";
import { queues } from "../queues.ts";
import { BoundedCalls } from "./bounded_calls.ts";
import type { DiskCalm } from "./disk_calm.ts";
import type { FileCalls } from "./file_calls.ts";
import { failureOfErrno } from "./file_errors.ts";
import type { Flush, ShortFlushes } from "./short_flushes.ts";
import { syncLater } from "./sync_later.ts";

export class FileFlushes {
  readonly #handles: number;
  /** Descriptors that no flush uses. */
  readonly #free: number[];
  /** Flushes that were asked for while all descriptors were in use. */
  #waiting: IoDone[] = [];
  readonly #short: ShortFlushes;
  readonly #calm: DiskCalm;
  /** By descriptor. Empty without the C library: then this thread waits for no flush. */
  readonly #bounded = new Map<number, BoundedCalls>();
  /** Whether any flush failed: then the host may show bytes that the disk does not have. */
  hasFailed = false;

  readonly #ring: FileCalls | undefined;

  /**
   * @param handles of the file, for nothing else
   * @param ring makes the flushes; undefined: threads
   */
  constructor(handles: readonly number[], short: ShortFlushes, calm: DiskCalm, ring?: FileCalls) {
    this.#ring = ring;
    this.#handles = handles.length;
    this.#free = [...handles];
    this.#short = short;
    this.#calm = calm;
    for (const fd of handles) {
      const calls = ring === undefined ? BoundedCalls.of(fd) : undefined;
      if (calls !== undefined) this.#bounded.set(fd, calls);
    }
  }

  /** See DevicePort.flush. */
  flush(done: IoDone, isAlone: boolean): IoResult | "pending" {
    const fd = this.#free.pop();
    if (fd === undefined) {
      assert(this.#waiting.length < queues.deviceOperations, "more flushes of a file wait than operations");
      this.#waiting.push(done);
      return "pending";
    }
    assert(this.#waiting.length === 0, "flushes wait though a descriptor is free");
    const flush = this.#short.begin(performance.now(), isAlone);
    const calls = this.#bounded.get(fd);
    if (flush.isAtOnce && calls !== undefined) return this.#flushSoon(flush, fd, calls, done);
    this.#flushLater(flush, fd, [done]);
    return "pending";
  }

  /** No flush may be under way. */
  close(): void {
    assert(this.#free.length === this.#handles, "no handle is closed while it is used");
    for (const fd of this.#free) fs.closeSync(fd);
  }

  /** On another thread, for which this one waits up to `threadWaitMsMax`: all clients wait meanwhile. */
  #flushSoon(flush: Flush, fd: number, calls: BoundedCalls, done: IoDone): IoResult | "pending" {
    const end = this.#begin();
    const finish = (status: number) => {
      end();
      return this.#ended(flush, fd, status === 0 ? ioOk : failureOfErrno(-status, "flush"));
    };
    const status = calls.flush(threadWaitMsMax, (status) => done(finish(status)));
    return status === "pending" ? status : finish(status);
  }

  #flushLater(flush: Flush, fd: number, waiting: readonly IoDone[]): void {
    const end = this.#begin();
    const ended = (result: IoResult) => {
      end();
      this.#ended(flush, fd, result);
      for (const done of waiting) done(result);
    };
    if (this.#ring === undefined) return syncLater(fd, "flush", ended);
    this.#ring.of(fd).flush(0, (status) => ended(status === 0 ? ioOk : failureOfErrno(-status, "flush")));
  }

  #begin(): () => void {
    return this.#calm.flushBegins(performance.now());
  }

  #ended(flush: Flush, fd: number, result: IoResult): IoResult {
    this.#short.ended(flush, performance.now());
    this.hasFailed ||= result.kind !== "ok";
    this.#goOn(fd);
    return result;
  }

  /** All that wait share the next flush. */
  #goOn(fd: number): void {
    assert(this.#free.length < this.#handles, "more descriptors were given back than taken");
    const waiting = this.#waiting;
    this.#waiting = [];
    if (waiting.length === 0) this.#free.push(fd);
    else this.#flushLater(this.#short.begin(performance.now(), false), fd, waiting);
  }
}
