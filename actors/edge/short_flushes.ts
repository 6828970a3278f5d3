/**
 * Whether this thread waits for a flush, for a millisecond at most, or gets its end in a later turn; and whether write-back may
 * begin before the flush is asked for.
 *
 * A client that flushes after each write, or after a few, waits only for the disk. On a disk that takes 0.1 ms, the event loop
 * costs more than the flush (measured: 125 us for a write and a waited flush, 180 to 225 us through the event loop, with twice
 * the CPU time). On a disk that takes 10 ms, or while other clients have work for this thread, waiting would delay all. The flush
 * itself always runs on another thread (bounded_calls.ts), so a wrong guess costs a millisecond, not the whole flush. This
 * thread waits only if
 *
 * - one client alone waits for the flush; with several, the others write and flush meanwhile;
 * - few bytes were written since the last flush, and the device was asked for nothing else: no other client is busy;
 * - the last small flushes were all short;
 * - if other clients were busy a moment ago: long flushes that were waited for have used at most a fiftieth of the time.
 *   (On a busy disk one of a hundred flushes took 2 ms or more, the others 0.2.)
 */
import {
  flushDisturbedMs,
  flushPauseFactor,
  shortFlushBytesMax,
  shortFlushesWanted,
  shortFlushMs,
  shortFlushWritesMax,
  singleWritesWanted,
} from "../knobs.ts";

/** What a device was asked since its last flush, and how long small flushes took. */
export class ShortFlushes {
  #writes = 0;
  #bytes = 0;
  readonly #isOn: boolean;
  #shortWanted = shortFlushesWanted;
  #pauseEndMs = -Infinity;
  /** When a flush last found that the device was asked for more than a small flush is. */
  #othersMs = -Infinity;
  #singles = 0;

  /** @param isOn if false, no flush is waited for */
  constructor(isOn: boolean) {
    this.#isOn = isOn;
  }

  /** Bytes were written. */
  wrote(bytes: number): void {
    this.#writes += 1;
    this.#bytes += bytes;
  }

  /**
   * Whether a flush is expected next, because the client flushes after each write. Then the disk may begin while the client
   * gets the write's reply and sends the flush (measured: the flush takes 65 us instead of 118, and throughput grows by a
   * seventh). This changes nothing about what is durable: the host may write dirty pages at any time.
   */
  get isFlushNear(): boolean {
    return this.#isOn && this.#singles === singleWritesWanted && this.#writes === 1 &&
      this.#bytes <= shortFlushBytesMax;
  }

  /** The device was asked for something else. */
  disturbed(): void {
    this.#writes = shortFlushWritesMax + 1;
  }

  /** A flush begins, and counting starts again. `isAlone`: one request waits for it, and none for another flush. */
  begin(nowMs: number, isAlone: boolean): Flush {
    const isSmall = this.#writes <= shortFlushWritesMax && this.#bytes <= shortFlushBytesMax;
    if (!isSmall) this.#othersMs = nowMs;
    if (this.#writes !== 1) this.#singles = 0;
    else if (this.#singles < singleWritesWanted) this.#singles += 1;
    this.#writes = 0;
    this.#bytes = 0;
    const isAtOnce = this.#isOn && isAlone && isSmall && this.#shortWanted === 0 && nowMs >= this.#pauseEndMs;
    return { beginMs: nowMs, isSmall, isAtOnce };
  }

  /** The flush has ended or failed. */
  ended(flush: Flush, nowMs: number): void {
    const ms = nowMs - flush.beginMs;
    if (ms <= shortFlushMs) {
      if (flush.isSmall && this.#shortWanted > 0) this.#shortWanted -= 1;
      return;
    }
    this.#shortWanted = shortFlushesWanted;
    if (flush.isAtOnce && nowMs < this.#othersMs + flushDisturbedMs) {
      this.#pauseEndMs = nowMs + flushPauseFactor * ms;
    }
  }
}

/** A flush that has begun. */
export interface Flush {
  readonly beginMs: number;
  readonly isSmall: boolean;
  readonly isAtOnce: boolean;
}
