/**
 * The reads of one file: from the page cache as a mapped segment or at once, otherwise on another thread.
 *
 * Without the C library everything is read on this thread, however long it takes.
 */
import fs from "node:fs";
import { ioOk, type IoResult, type MappedSegment } from "../../storage/device/port.ts";
import type { CachedReads } from "./cached_reads.ts";
import { type FileEnd, shrunk } from "./file_end.ts";
import { codeOf, failureOf, failureOfErrno } from "./file_errors.ts";
import { HeldSegments } from "./held_segments.ts";
import { errno } from "./libc.ts";
import { PageWindow } from "./page_window.ts";

/** What reads of one file share with the device. */
export interface ReadParts {
  readonly fd: number;
  readonly fileEnd: FileEnd;
  /** Undefined if every read is made on this thread. */
  readonly cachedReads: CachedReads | undefined;
  /** Undefined if it gives no segments. */
  readonly window: PageWindow | undefined;
}

/** See the head of this file. The ranges lie inside the file. */
export class FileReads {
  readonly #parts: ReadParts;
  /** Segments that are sent later. */
  readonly held: HeldSegments = new HeldSegments();
  #window: PageWindow | undefined;

  constructor(parts: ReadParts) {
    this.#parts = parts;
    this.#window = parts.window;
  }

  /** The file has become larger. No segment may be used any more. */
  grown(sizeBytes: number): void {
    if (this.#window === undefined) return;
    this.held.beforeUnmapping();
    this.#window.close();
    this.#window = PageWindow.map(this.#parts.fd, sizeBytes);
  }

  /** The bytes where they lie in the page cache; undefined if they have to be read. */
  segment(offsetBytes: number, lengthBytes: number): MappedSegment | undefined {
    const address = this.#window?.addressOf(offsetBytes, lengthBytes);
    return address === undefined ? undefined : new FileSegment(this, offsetBytes, lengthBytes, address);
  }

  /**
   * Reads now if that waits for no disk, or if every read is made on this thread. Otherwise undefined, and the buffer is not filled,
   * or only in part.
   */
  readCached(buffer: Uint8Array, offsetBytes: number): IoResult | undefined {
    const { cachedReads } = this.#parts;
    if (cachedReads === undefined) return this.readNow(buffer, offsetBytes);
    return cachedReads.readNow(buffer, offsetBytes) ? ioOk : undefined;
  }

  /** Reads on another thread, after {@linkcode readCached} has answered undefined. `done` is called later. */
  readLater(buffer: Uint8Array, offsetBytes: number, done: (result: IoResult) => void): void {
    const { cachedReads, fileEnd } = this.#parts;
    cachedReads!.readLater(buffer, offsetBytes, (end) => {
      if (end === "past end") fileEnd.check();
      done(end === "filled" ? ioOk : end === "past end" ? shrunk : failureOfErrno(errno.io, "read"));
    });
  }

  /** Reads on this thread, and waits for the disk if it must. */
  readNow(buffer: Uint8Array, offsetBytes: number): IoResult {
    const { fd, fileEnd } = this.#parts;
    let doneBytes = 0;
    while (doneBytes < buffer.length) {
      let count: number;
      try {
        count = fs.readSync(fd, buffer, doneBytes, buffer.length - doneBytes, offsetBytes + doneBytes);
      } catch (error) {
        if (codeOf(error) === "EINTR") continue;
        return failureOf(error, "read");
      }
      // The range lies inside the device, so another program has made the file shorter since.
      if (count === 0) {
        fileEnd.check();
        return shrunk;
      }
      doneBytes += count;
    }
    return ioOk;
  }

  /** Nothing may be under way, and no segment may be used any more. */
  close(): void {
    this.held.beforeUnmapping();
    this.#window?.close();
  }
}

/** A range of a file that is in the host's page cache. */
class FileSegment implements MappedSegment {
  readonly kind = "mapped";
  drain = 0;

  constructor(
    readonly reads: FileReads,
    readonly offsetBytes: number,
    readonly lengthBytes: number,
    readonly address: number,
  ) {}

  copyTo(buffer: Uint8Array, beginBytes: number): IoResult {
    return this.reads.readNow(buffer, this.offsetBytes + beginBytes);
  }

  hold(copyNow: () => void): (() => void) | undefined {
    const { offsetBytes, lengthBytes, reads: { held } } = this;
    const range = { offsetBytes, lengthBytes, copyNow };
    return held.add(range) ? () => held.remove(range) : undefined;
  }
}
