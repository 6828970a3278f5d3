/**
 * Whether this thread waits for a flush, for a millisecond at most, or hears of it in a later turn; and whether the disk may
 * begin before it is asked for.
 *
 * A client that flushes after each write or few waits for the disk, and for nothing else. On a disk that takes 0.1 ms the
 * way to another thread and back costs more than the flush itself (measured: 125 us for a write and a flush at once,
 * 180 to 225 by a thread, at half the CPU time). On one that takes 10 ms, or while others have work for this thread,
 * it would hold everybody up. The flush itself is always made on another thread (bounded_calls.ts: 27 us more than here, and
 * not 50 to 100), so that one that was guessed wrong holds others up for a millisecond and not for as long as it takes. It is
 * waited for only if
 *
 * - one client waits for it alone: else others write, and flush, while this one goes on;
 * - few bytes were written since the last one, and nothing else was asked of the device: nobody else is busy;
 * - the last small flushes were all short;
 * - where others were here a moment ago, those that were not short, and were waited for here, have held this thread up for
 *   a fiftieth of the time at most. (On a busy disk one of a hundred took 2 ms and more where the others took 0.2.)
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

  /** @param isOn if not, no flush is done at once */
  constructor(isOn: boolean) {
    this.#isOn = isOn;
  }

  /** So many bytes were written. */
  wrote(bytes: number): void {
    this.#writes += 1;
    this.#bytes += bytes;
  }

  /**
   * Whether a flush is to be expected after what was just written, by a client that flushes after each write. Then the disk
   * may as well begin while the client is told of the write and asks for the flush (measured: the flush takes 65 us then and
   * not 118, and a client gets a seventh more of both). It changes nothing about what is durable: the host may write dirty
   * pages at any time.
   */
  get isFlushNear(): boolean {
    return this.#isOn && this.#singles === singleWritesWanted && this.#writes === 1 &&
      this.#bytes <= shortFlushBytesMax;
  }

  /** Something else was asked. */
  disturbed(): void {
    this.#writes = shortFlushWritesMax + 1;
  }

  /** A flush begins, with which counting begins anew. `isAlone`: nobody else waits for it, or for another one. */
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

  /** It has ended, or failed. */
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
