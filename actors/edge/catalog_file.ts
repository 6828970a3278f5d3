/**
 * The file of the catalogue's journal (storage/catalog_journal.ts): read once at start, written anew as one line, then
 * appended to, one line at a time.
 */
import fs from "node:fs";
import { dirname } from "node:path";
import { assert } from "../../storage/assert.ts";
import { type IoDone, ioOk, type IoResult } from "../../storage/device/port.ts";
import { UserError } from "../../storage/errors.ts";
import type { JournalPort } from "../catalogue_journal.ts";
import { codeOf, failureOf } from "./file_errors.ts";
import type { Libc } from "./libc.ts";

/** Set aside past the end, so that volumes can be removed when the host is full: some 500 changes until the next start. */
const reservedBytes = 128 << 10;

/** See the head of this file. */
export class CatalogueFile implements JournalPort {
  readonly #path: string;
  readonly #libc: Libc | undefined;
  #fd: number;
  #lengthBytes: number;
  #lastLineBytes = 0;
  #isBusy = false;
  #isClosed = false;
  /** Set when the disk did not take what it was told to keep: what it holds is not known, and nothing more is written. */
  #failure: IoResult | undefined;

  /** Opens the journal for appending. */
  constructor(path: string, libc: Libc | undefined) {
    this.#path = path;
    this.#libc = libc;
    this.#fd = fs.openSync(path, "r+");
    this.#lengthBytes = fs.fstatSync(this.#fd).size;
  }

  /**
   * Removes the last line, whole or torn, which never held. If we stop before the truncation is durable, the line is
   * found again and dropped again.
   */
  dropLastLine(): void {
    const bytes = fs.readFileSync(this.#path);
    // The newline that ends the line, if it is there, is the last byte; the one before ends the line that stays.
    const keptBytes = bytes.lastIndexOf("\n".charCodeAt(0), bytes.length - 2) + 1;
    fs.ftruncateSync(this.#fd, keptBytes);
    fs.fdatasyncSync(this.#fd);
    this.#lengthBytes = keptBytes;
  }

  /**
   * Makes the journal one line. If we stop before the rename, the old journal holds; after it, the new one, which says
   * the same. A full host is no reason not to start: the old journal then stays, and the answer is false.
   */
  compact(line: string): boolean {
    try {
      writeDurably(this.#path, line);
    } catch (error) {
      if (failureOf(error, "write").kind === "noSpace") return false;
      throw error;
    }
    fs.closeSync(this.#fd);
    this.#fd = fs.openSync(this.#path, "r+");
    this.#lengthBytes = fs.fstatSync(this.#fd).size;
    return true;
  }

  /** Sets space aside for the lines to come, if the host can; not having it changes nothing but what fits on a full host. */
  reserve(): void {
    this.#libc?.reserve(this.#fd, this.#lengthBytes, reservedBytes);
  }

  append(line: string, done: IoDone): void {
    if (this.#failure !== undefined) return answerLater(done, this.#failure);
    this.#begin();
    const bytes = new TextEncoder().encode(line);
    const written = this.#writeAtEnd(bytes);
    if (written.kind !== "ok") {
      this.#isBusy = false;
      return answerLater(done, written);
    }
    this.#lengthBytes += bytes.length;
    this.#lastLineBytes = bytes.length;
    this.#sync(done);
  }

  retract(done: IoDone): void {
    if (this.#failure !== undefined) return answerLater(done, this.#failure);
    this.#begin();
    assert(this.#lastLineBytes > 0, "there is a line to take back");
    const problem = this.#truncate(this.#lengthBytes - this.#lastLineBytes);
    if (problem !== undefined) {
      this.#isBusy = false;
      return answerLater(done, problem);
    }
    this.#lengthBytes -= this.#lastLineBytes;
    this.#lastLineBytes = 0;
    this.#sync(done);
  }

  /** Closes the file once what is pending has answered. */
  close(): void {
    this.#isClosed = true;
    if (!this.#isBusy) fs.closeSync(this.#fd);
  }

  #begin(): void {
    assert(!this.#isBusy, "one change of the catalogue at a time");
    assert(!this.#isClosed, "a closed catalogue is not changed");
    this.#isBusy = true;
  }

  #writeAtEnd(bytes: Uint8Array): IoResult {
    let doneBytes = 0;
    while (doneBytes < bytes.length) {
      try {
        const at = this.#lengthBytes + doneBytes;
        doneBytes += fs.writeSync(this.#fd, bytes, doneBytes, bytes.length - doneBytes, at);
      } catch (error) {
        // A refusal of the host is an answer; an interrupted call is made again.
        if (codeOf(error) === "EINTR") continue;
        const failed = failureOf(error, "write of the catalogue");
        // The next line may not follow half of this one.
        return this.#truncate(this.#lengthBytes) ?? failed;
      }
    }
    return ioOk;
  }

  #truncate(lengthBytes: number): IoResult | undefined {
    try {
      fs.ftruncateSync(this.#fd, lengthBytes);
      return undefined;
    } catch (error) {
      // Remembered: every later append is refused with it.
      this.#failure = failureOf(error, "truncation of the catalogue");
      return this.#failure;
    }
  }

  #sync(done: IoDone): void {
    fs.fdatasync(this.#fd, (error) => {
      this.#isBusy = false;
      if (this.#isClosed) fs.closeSync(this.#fd);
      if (error === null || error === undefined) return done(ioOk);
      this.#failure = failureOf(error, "flush of the catalogue");
      done(this.#failure);
    });
  }
}

/** Replaces a file by one with this text, so that after a crash it is the old or the new one, never a part. */
export function writeDurably(path: string, text: string): void {
  const newPath = `${path}.new`;
  const fd = fs.openSync(newPath, "w", 0o600);
  try {
    fs.writeFileSync(fd, text);
    // Before the rename, or the name could come to stand for an empty file.
    fs.fsyncSync(fd);
  } catch (error) {
    fs.unlinkSync(newPath);
    throw error;
  } finally {
    fs.closeSync(fd);
  }
  fs.renameSync(newPath, path);
  syncDirectoryOf(path);
}

/** Makes the names in the directory of `path` durable. */
export function syncDirectoryOf(path: string): void {
  syncDirectory(dirname(path));
}

/** Makes the names in a directory durable. */
export function syncDirectory(path: string): void {
  using directory = Deno.openSync(path);
  directory.syncSync();
}

/** The journal's text. Throws {@linkcode UserError}. */
export function readCatalogueText(path: string): string {
  try {
    return fs.readFileSync(path, "utf8");
  } catch (error) {
    throw new UserError(
      `Cannot read the catalogue "${path}": ${
        error instanceof Error ? error.message : ""
      }. Check the file and the disk.`,
    );
  }
}

function answerLater(done: IoDone, result: IoResult): void {
  setTimeout(() => done(result), 0);
}
