/** A file whose bytes are stored by the host before they are needed, so that writing in it meets no full host. */
import fs from "node:fs";
import { assert } from "../../storage/base/assert.ts";
import { ioOk, type IoResult } from "../../storage/device/port.ts";
import { cataloguePieceBytes, catalogueZeroBytesMax } from "../limits.ts";
import { openWithSpare } from "./descriptors.ts";
import { codeOf, failureOf } from "./file_errors.ts";
import { openLibc } from "./libc.ts";
import { flushed } from "./sync_later.ts";

/** See the head of this file. Results are those of the host; a result that is not ok leaves what is in a range open. */
export class StoredFile {
  readonly fd: number;
  /** Bytes that are stored; zeroes where nothing else was written. */
  #sizeBytes: number;
  #isClosed = false;

  private constructor(fd: number, sizeBytes: number) {
    this.fd = fd;
    this.#sizeBytes = sizeBytes;
  }

  /** Opens an existing file. Throws what the system says. */
  static open(path: string): StoredFile {
    const fd = openWithSpare(() => fs.openSync(path, "r+"));
    return new StoredFile(fd, fs.fstatSync(fd).size);
  }

  /** Makes an empty file, for its owner only. Throws what the system says. */
  static create(path: string): StoredFile {
    const fd = openWithSpare(() => fs.openSync(path, "w+", 0o600));
    openLibc()?.overwriteInPlace(fd);
    return new StoredFile(fd, 0);
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** False if the host stores less than the size says: a copy with holes, or a file system that compresses. */
  isWhole(): boolean {
    return fs.fstatSync(this.fd).blocks * 512 >= this.#sizeBytes;
  }

  /** True if both are names of the same file. */
  isSameAs(other: StoredFile): boolean {
    const [mine, its] = [fs.fstatSync(this.fd), fs.fstatSync(other.fd)];
    return mine.dev === its.dev && mine.ino === its.ino;
  }

  /** So many bytes from an offset; zeroes behind the end of the file. Throws what the system says. */
  read(offsetBytes: number, lengthBytes: number): Uint8Array {
    const bytes = new Uint8Array(lengthBytes);
    for (let doneBytes = 0; doneBytes < lengthBytes;) {
      const readBytes = fs.readSync(
        this.fd,
        bytes,
        doneBytes,
        lengthBytes - doneBytes,
        offsetBytes + doneBytes,
      );
      if (readBytes === 0) break;
      doneBytes += readBytes;
    }
    return bytes;
  }

  /** Writes all of it. */
  write(bytes: Uint8Array, offsetBytes: number): IoResult {
    this.#requireOpen();
    for (let doneBytes = 0; doneBytes < bytes.length;) {
      try {
        doneBytes += fs.writeSync(
          this.fd,
          bytes,
          doneBytes,
          bytes.length - doneBytes,
          offsetBytes + doneBytes,
        );
        this.#sizeBytes = Math.max(this.#sizeBytes, offsetBytes + doneBytes);
      } catch (error) {
        // A refusal of the host is an answer; an interrupted call is made again.
        if (codeOf(error) !== "EINTR") return failureOf(error, "write of the catalogue");
      }
    }
    return ioOk;
  }

  /** Writes all of it, a piece at each step, which others may come between. */
  *writePieces(bytes: Uint8Array, offsetBytes: number): Generator<void, IoResult> {
    for (let at = 0; at < bytes.length; at += cataloguePieceBytes) {
      if (at > 0) yield;
      const written = this.write(bytes.subarray(at, at + cataloguePieceBytes), offsetBytes + at);
      if (written.kind !== "ok") return written;
    }
    return ioOk;
  }

  /** Writes zeroes, a piece at each step, which others may come between; the file grows if it must. */
  *zero(beginBytes: number, endBytes: number): Generator<void, IoResult> {
    for (let at = beginBytes; at < endBytes; at += zeroes.length) {
      const written = this.write(zeroes.subarray(0, Math.min(zeroes.length, endBytes - at)), at);
      if (written.kind !== "ok") return written;
      yield;
    }
    return ioOk;
  }

  /** Cuts the file off. */
  truncate(sizeBytes: number): IoResult {
    this.#requireOpen();
    try {
      fs.ftruncateSync(this.fd, sizeBytes);
      this.#sizeBytes = Math.min(this.#sizeBytes, sizeBytes);
      return ioOk;
    } catch (error) {
      return failureOf(error, "truncation of the catalogue");
    }
  }

  /** Has the host make all of it durable, on another thread. */
  flush(): Promise<IoResult> {
    this.#requireOpen();
    return flushed(this.fd, "flush of the catalogue");
  }

  close(): void {
    this.#requireOpen();
    this.#isClosed = true;
    fs.closeSync(this.fd);
  }

  /** After the close, the number of the descriptor may be another file's. */
  #requireOpen(): void {
    assert(!this.#isClosed, "a file of the catalogue is used after its close");
  }
}

const zeroes = new Uint8Array(catalogueZeroBytesMax);
