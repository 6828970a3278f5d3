/**
 * Where lines of the log go: a descriptor that may be slow, full, broken or stuck. None of that reaches the caller, since
 * what only watches must not fail or delay the service.
 *
 * Lines wait in a bounded queue, and one write is under way at a time. Deno does that write on another thread, for which
 * `Deno.exit` does not wait (held by a test with a pipe that is never read). The descriptor is never made non-blocking: it
 * is shared with the processes that gave it to us, such as a terminal's shell.
 */
import { assert } from "../../storage/base/assert.ts";
import { logAgainMs, logBytesMax, logLinesMax } from "../limits.ts";
import { atMost, pause } from "./turns.ts";

/** What takes the bytes: `Deno.stderr`, for instance. Resolves with how many it took, or rejects. */
export interface LogWriter {
  /** Writes some of the bytes. */
  write(bytes: Uint8Array): Promise<number>;
}

/** A line of the log as data. */
export interface LogRecord {
  /** A sentence, or a few. */
  readonly text: string;
}

/** Takes a sentence of the log. */
export type Log = (sentence: string) => void;

const encoder = new TextEncoder();
const newline = 10;

/** What is said where lines are missing. */
function droppedSentence(lines: number): string {
  return lines === 1 ? "1 line of the log was dropped." : `${lines} lines of the log were dropped.`;
}

/** A line that waits. */
interface QueuedLine {
  readonly bytes: Uint8Array;
  /** Lines between this one and the one before it for which there was no room. */
  readonly droppedBefore: number;
}

/** A queue of lines before one writer. */
export class LogSink {
  readonly #writer: LogWriter;
  readonly #saysDropped: boolean;
  readonly #queue: QueuedLine[] = [];
  #queuedBytes = 0;
  /** Lines that were dropped and not told yet; and those of them that came after the last that is queued. */
  #dropped = 0;
  #droppedLast = 0;
  #isWriting = false;
  /** Only a part of the last line was written. */
  #isMidLine = false;
  #idle = Promise.withResolvers<void>();

  /**
   * A sink with an empty queue.
   *
   * @param writer takes the bytes, one write at a time
   * @param saysDropped whether a line tells how many were dropped, when one can be written again; by default, yes */
  constructor(writer: LogWriter, { saysDropped = true }: { readonly saysDropped?: boolean } = {}) {
    this.#writer = writer;
    this.#saysDropped = saysDropped;
  }

  /** Lines that were dropped and not told yet. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Takes one line, or drops it. Never throws and never waits. */
  line(text: string): void {
    const bytes = encoder.encode(`${text}\n`);
    if (this.#queue.length >= logLinesMax || this.#queuedBytes + bytes.length > logBytesMax) {
      this.#dropped += 1;
      this.#droppedLast += 1;
      return;
    }
    this.#queue.push({ bytes, droppedBefore: this.#droppedLast });
    this.#droppedLast = 0;
    this.#queuedBytes += bytes.length;
    if (!this.#isWriting) void this.#writeAll();
  }

  /** Resolves when nothing is left to write, and after `timeoutMs` in any case. Never rejects. */
  async drained(timeoutMs: number): Promise<void> {
    if (this.#isWriting) await atMost(timeoutMs, this.#idle.promise);
  }

  async #writeAll(): Promise<void> {
    assert(!this.#isWriting && this.#queue.length > 0, "lines are written by one write at a time");
    this.#isWriting = true;
    let untold = 0;
    do {
      for (let line = this.#queue.shift(); line !== undefined; line = this.#queue.shift()) {
        // A gap is reported at its place, between the lines around it.
        untold = await this.#tell(untold + line.droppedBefore);
        if (!(await this.#wrote(line.bytes))) {
          this.#dropped += 1;
          untold += 1;
        }
        this.#queuedBytes -= line.bytes.length;
        assert(this.#queuedBytes >= 0, "more bytes of lines were written than queued");
      }
      const droppedLast = this.#droppedLast;
      this.#droppedLast = 0;
      if (droppedLast > 0) untold = await this.#tell(untold + droppedLast);
    } while (this.#queue.length > 0);
    assert(this.#queuedBytes === 0, "bytes are queued and no line is");
    // A count that could not be written is written before the next line.
    this.#droppedLast += untold;
    this.#isWriting = false;
    this.#idle.resolve();
    this.#idle = Promise.withResolvers<void>();
  }

  /** Tells of so many dropped lines; answers how many of them are still untold. */
  async #tell(dropped: number): Promise<number> {
    if (dropped === 0 || !this.#saysDropped) return dropped;
    if (!(await this.#wrote(encoder.encode(`${droppedSentence(dropped)}\n`)))) return dropped;
    assert(this.#dropped >= dropped, "more lines are told of as dropped than were");
    this.#dropped -= dropped;
    return 0;
  }

  /**
   * Writes a line whole; false if that failed. A full pipe that another process has made non-blocking is waited for, while
   * the lines behind wait in the queue or are dropped.
   */
  async #wrote(line: Uint8Array): Promise<boolean> {
    const bytes = this.#isMidLine ? Uint8Array.of(newline, ...line) : line;
    for (let at = 0; at < bytes.length;) {
      try {
        const count = await this.#writer.write(bytes.subarray(at));
        if (count === 0) return false;
        at += count;
        this.#isMidLine = at < bytes.length;
      } catch (error) {
        // A full disk, a reader that is gone, a terminal that hung up: the log has no other place to say it.
        if (!isWorthWaiting(error)) return false;
        await pause(logAgainMs);
      }
    }
    return true;
  }
}

/** Whether writing to a descriptor failed for now only: a full pipe that another process has made non-blocking. */
export function isWorthWaiting(error: unknown): boolean {
  return error instanceof Deno.errors.WouldBlock || error instanceof Deno.errors.Interrupted;
}

/**
 * A log that was given to us by a program, as one that never throws. What it throws or rejects is dropped, counted, and told
 * to it with the next sentence that it takes. A promise that it returns is not waited for.
 */
export function guardedLog(log: (sentence: string) => unknown): Log {
  let dropped = 0;
  const gave = (sentence: string): boolean => {
    try {
      const returned = log(sentence);
      // Its failure is its own, and is counted.
      if (returned instanceof Promise) returned.catch(() => dropped += 1);
      return true;
    } catch {
      // Its failure is its own: nothing that only watches can end the service.
      return false;
    }
  };
  return (sentence) => {
    const told = dropped;
    if (told > 0 && gave(droppedSentence(told))) dropped -= told;
    if (!gave(sentence)) dropped += 1;
  };
}
