/**
 * Whether a flush is waited for on this thread, or on another one.
 *
 * A client that flushes after each write or few waits for the disk, and for nothing else. On a disk that takes 0.1 ms the
 * way to another thread and back costs more than the flush itself (measured: 125 us for a write and a flush at once,
 * 180 to 225 by a thread, at half the CPU time). On one that takes 10 ms, or while others have work for this thread,
 * it would hold everybody up. So a flush is done at once only if
 *
 * - few bytes were written since the last one, and nothing else was asked of the device: nobody else is busy;
 * - the last small flushes were all short. After one that was not, many have to be, by the other thread, before one is
 *   tried here again. So a disk that is slow once a second holds the others up for one flush in some hundreds.
 */

/** Operations and bytes since the last flush up to which a flush is small. */
const writesMax = 16;
const bytesMax = 128 * 1024;
/** Milliseconds up to which a flush is short, with the way to another thread if it took that. */
const shortMs = 0.6;
/** Small flushes that have to be short, at first and after one that was long. */
const shortAtFirst = 8;
const shortAfterLong = 256;

/** What a device was asked since its last flush, and how long small flushes took. */
export class ShortFlushes {
  #writes = 0;
  #bytes = 0;
  #shortWanted: number;

  /** @param isOn if not, no flush is done at once */
  constructor(isOn: boolean) {
    this.#shortWanted = isOn ? shortAtFirst : Infinity;
  }

  /** So many bytes were written. */
  wrote(bytes: number): void {
    this.#writes += 1;
    this.#bytes += bytes;
  }

  /** Something else was asked. */
  disturbed(): void {
    this.#writes = writesMax + 1;
  }

  /** A flush begins, with which counting begins anew. */
  begin(): Flush {
    const isSmall = this.#writes <= writesMax && this.#bytes <= bytesMax;
    this.#writes = 0;
    this.#bytes = 0;
    return { isSmall, isAtOnce: isSmall && this.#shortWanted === 0 };
  }

  /** It has taken so long, or failed after that. */
  ended(flush: Flush, ms: number): void {
    if (ms > shortMs) this.#shortWanted = Math.max(this.#shortWanted, shortAfterLong);
    else if (flush.isSmall && this.#shortWanted > 0) this.#shortWanted -= 1;
  }
}

/** A flush that has begun. */
export interface Flush {
  readonly isSmall: boolean;
  readonly isAtOnce: boolean;
}
